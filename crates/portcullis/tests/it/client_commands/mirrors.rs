//! What is asked in a registry's place, as containerd and Podman are told it.

use std::fs;

use portcullis_testkit::image::Image;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use super::{count, with_image};
use crate::netns::{ADDRESS, IP, Machine, NSENTER};
use crate::peers::SKOPEO;
use crate::process::{DEADLINE, eventually};
use crate::registry::{PORTCULLIS, Registry};

/// containerd's hosts.toml: the registry whose place the others take does not exist, and neither does the first mirror.
#[test]
fn mirrors_as_containerd_asks_them() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, pair, image) = with_image(&machine);
    let certs = machine.subdir("certs/up.test:9443");
    registry.fill_certs(&certs, &pair);
    let mirror = format!(
        "[host.\"https://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = \"ca.crt\"\nclient = [[\"client.cert\", \"client.key\"]]\n",
        registry.host()
    );
    let hosts = |text: &str| fs::write(certs.join("hosts.toml"), text).unwrap();
    hosts(&format!("[host.\"https://127.0.0.1:1\"]\ncapabilities = [\"resolve\"]\n{mirror}"));
    let run = |words: &[&str]| {
        machine.run(PORTCULLIS, &[words, &["--engine", "containerd", "--certs-dir", "certs"]].concat())
    };

    let pulled = run(&["pull", "up.test:9443/demo/app:1", "--to", "oci:out"]).ok();
    assert_eq!(pulled.stdout.trim(), image.manifest.digest.to_string());
    let pulled = pulled.says("warning: passed over 127.0.0.1:1: ").says(&format!("{}: using", registry.host()));
    assert!(!pulled.said().contains("up.test"), "{pulled}");
    assert_eq!(run(&["tags", "up.test:9443/demo/app"]).ok().stdout, "1\n2\n");
    let manifest = run(&["manifest", "up.test:9443/demo/app:2", "--quiet"]).ok().says("passed over 127.0.0.1:1");
    assert!(manifest.stdout.as_bytes() == image.manifest.bytes, "{manifest}");
    // What is not there is looked for at the registry itself, which is not there either: each is named.
    let missing = run(&["manifest", "up.test:9443/demo/app:9"]).exits(1);
    missing.says(&format!("passed over {}: ", registry.host())).says("manifests/9").says("portcullis: up.test:9443: ");
    // Nothing is pushed to a mirror that only gives, nor deleted there.
    run(&["push", "oci:out:1", "up.test:9443/demo/app:3"]).exits(1).says("portcullis: up.test:9443: ");
    run(&["delete", "up.test:9443/demo/app:1"]).exits(1).says("portcullis: up.test:9443: ");
    assert_eq!(count(&registry, &["DELETE"]), 0);

    hosts(&format!("{mirror}skip_verify = true\n"));
    run(&["tags", "up.test:9443/demo/app"]).exits(2).says("skip_verify").says("name its CA as `ca`");
    hosts("[host");
    run(&["tags", "up.test:9443/demo/app"]).exits(1).says("hosts.toml");
}

/// Podman's registries.conf: the registry whose place the others take does not exist, and the first mirror has nothing. What
/// skopeo asks, where and under which name, is what we ask.
#[test]
fn mirrors_as_podman_asks_them() {
    skip_unless!(IP, NSENTER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let empty = Registry::up_beside(&machine, "empty", 6443);
    let (registry, pair, image) = with_image(&machine);
    empty.fill_certs(&machine.podman_certs("registry.test:6443"), &empty.new_client("ci-7"));
    registry.fill_certs(&machine.podman_certs("registry.test:5443"), &pair);
    let mirrors = "[[registry.mirror]]\nlocation = \"registry.test:6443/lacking\"\n[[registry.mirror]]\nlocation = \"registry.test:5443/demo\"\n";
    let conf = |text: &str| fs::write(machine.dir().join("etc-containers/registries.conf"), text).unwrap();
    conf(&format!("[[registry]]\nprefix = \"*.up.test\"\nlocation = \"nobody.test/x\"\n{mirrors}"));
    let run = |words: &[&str]| machine.run(PORTCULLIS, &[words, &["--engine", "podman"]].concat());

    machine.run("skopeo", &["inspect", "--raw", "docker://a.up.test/app:1"]).ok();
    let seen = |times| [asked(&empty, times), asked(&registry, times)];
    let [first, second] = ["path=/v2/lacking/app/manifests/1", "path=/v2/demo/app/manifests/1"];
    assert_eq!(seen(1), [[first], [second]]);
    let shown = run(&["manifest", "a.up.test/app:1"]).ok().says("warning: passed over registry.test:6443: ");
    assert!(shown.stdout.as_bytes() == image.manifest.bytes, "{shown}");
    assert_eq!(seen(2), [[first; 2], [second; 2]]);

    let pulled = run(&["pull", "a.up.test/app:1", "--to", "oci:out"]).ok();
    assert_eq!(pulled.stdout.trim(), image.manifest.digest.to_string());
    let pulled = pulled.says("passed over registry.test:6443").says("registry.test:6443: using");
    assert!(!pulled.said().contains("nobody.test"), "{pulled}");
    // What is nowhere: each is named, the location last.
    let missing = run(&["manifest", "a.up.test/app:9"]).exits(1).says("passed over registry.test:6443: ");
    missing.says("passed over registry.test:5443: ").says("portcullis: nobody.test: ");
    // Nothing is written or listed in another place than was typed.
    run(&["push", "oci:out:1", "a.up.test/app:3"]).exits(1).says("portcullis: a.up.test: ");
    run(&["delete", "a.up.test/app:1"]).exits(1).says("portcullis: a.up.test: ");
    run(&["tags", "a.up.test/app"]).exits(1).says("portcullis: a.up.test: ");

    conf(&format!("[[registry]]\nlocation = \"a.up.test\"\ninsecure = true\n{mirrors}"));
    for words in [&["manifest", "a.up.test/app:1"][..], &["tags", "a.up.test/app"], &["catalog", "a.up.test"]] {
        run(words)
            .exits(2)
            .says("/etc/containers/registries.conf:1 calls it insecure")
            .says("take `insecure = true` out");
    }
    conf("");
    let drop_ins = machine.subdir("etc-containers/registries.conf.d");
    fs::write(drop_ins.join("1.conf"), "[[registry]]\nlocation = \"a.up.test/app\"\nblocked = true\n").unwrap();
    for words in [&["manifest", "a.up.test/app:1"][..], &["push", "oci:out:1", "a.up.test/app:1"]] {
        run(words)
            .exits(2)
            .says("/etc/containers/registries.conf.d/1.conf:1 blocks a.up.test/app: take `blocked = true` out");
    }
    fs::write(drop_ins.join("1.conf"), "[[registry").unwrap();
    run(&["manifest", "a.up.test/app:1"]).exits(1).says("registries.conf.d/1.conf:1: ").says("fix: ");
}

/// Docker Hub's images are called after one host and lie on another, to every engine; its directory is called as they are.
#[test]
fn docker_hub_is_asked_where_it_is() {
    skip_unless!(IP, NSENTER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let hosts = machine.dir().join("hosts");
    let before = fs::read_to_string(&hosts).unwrap();
    fs::write(&hosts, format!("{before}{ADDRESS} registry-1.docker.io\n")).unwrap();
    let registry = Registry::up_everywhere(&machine, "hub", 443, &["registry-1.docker.io"]);
    let pair = registry.new_client("ci-7");
    let directories =
        [machine.docker_certs("docker.io"), machine.podman_certs("docker.io"), machine.subdir("c/docker.io")];
    for directory in directories {
        registry.fill_certs(&directory, &pair);
    }
    let image = Image::new(7, &[5]);
    image.write_layout(&machine.dir().join("layout"), "v1");
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", "docker.io/alpine:1"]).ok();

    let shown = machine.run("skopeo", &["inspect", "--raw", "docker://docker.io/alpine:1"]).ok();
    assert!(shown.stdout.as_bytes() == image.manifest.bytes, "{shown}");
    for engine in ["docker-docs", "podman", "containerd"] {
        let certs: &[&str] = if engine == "containerd" { &["--certs-dir", "c"] } else { &[] };
        for name in ["docker.io/alpine:1", "index.docker.io/library/alpine:1"] {
            let shown = machine.run(PORTCULLIS, &[&["manifest", name, "--engine", engine], certs].concat()).ok();
            assert!(shown.stdout.as_bytes() == image.manifest.bytes, "{shown}");
        }
    }
    assert_eq!(asked(&registry, 7), ["path=/v2/library/alpine/manifests/1"; 7]);
}

/// The manifests that a registry was asked for, in order; so many at least.
fn asked(registry: &Registry<'_>, times: usize) -> Vec<String> {
    let found = || -> Vec<String> {
        let log = registry.log();
        let lines = log.lines().filter(|line| line.contains("method=GET") && line.contains("/manifests/"));
        lines.filter_map(|line| line.split(' ').find(|word| word.starts_with("path="))).map(str::to_owned).collect()
    };
    eventually(DEADLINE, || found().len() >= times);
    found()
}
