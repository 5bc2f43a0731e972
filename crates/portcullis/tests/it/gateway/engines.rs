//! What the gateway is for: dockerd, for which loopback registries never use certs.d, skopeo and curl.

use portcullis_testkit::image::{Image, rootfs_tar};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use rustix::process::Signal;

use super::{AUTHORITY, Gateway, PORT, with_certs};
use crate::dockerd::{DOCKER, DOCKERD, Dockerd, digest_in};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{CURL, SKOPEO, files_below};
use crate::process::{DEADLINE, eventually};
use crate::registry::PORTCULLIS;

#[test]
fn docker_pushes_and_pulls() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    let gateway = Gateway::start(&machine, &registry.host(), &["--push"]);
    let docker = Dockerd::start(&machine);
    let reference = format!("{AUTHORITY}/team/app:1");
    docker.import(&rootfs_tar(1, 100_000), &reference);
    let pushed = digest_in(&docker.docker(&["push", &reference]).ok());
    docker.docker(&["rmi", &reference]).ok();
    assert_eq!(digest_in(&docker.docker(&["pull", &reference]).ok()), pushed);
    // A second repository: its layer is mounted.
    let second = format!("{AUTHORITY}/team/second:1");
    docker.docker(&["tag", &reference, &second]).ok();
    docker.docker(&["push", &second]).ok().says("Mounted from team/app");
    // The registry has seen the certificate's owner.
    registry.log_line(&["ci-7", "method=PUT", "/manifests/1"]);
    gateway.log_line(&["request", "uid=0", "method=PUT", "/manifests/1", "status=201"]);
}

#[test]
fn docker_is_told_why_it_may_not_push() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    let _gateway = Gateway::start(&machine, &registry.host(), &["--repo", "team/*"]);
    let docker = Dockerd::start(&machine);
    let [inside, outside] = ["team/app", "other/app"].map(|name| format!("{AUTHORITY}/{name}:1"));
    docker.import(&rootfs_tar(1, 1000), &inside);
    docker.docker(&["tag", &inside, &outside]).ok();
    docker.docker(&["push", &inside]).fails().says("the gateway is read-only: start it with --push");
    docker.docker(&["pull", &outside]).fails().says("the gateway is not for repository other/app");
}

#[test]
fn skopeo_pushes_and_pulls_and_nothing_is_held() {
    skip_unless!(IP, NSENTER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    let mut gateway = Gateway::start(&machine, &registry.host(), &["--push"]);
    let image = Image::new(300, &[150_000_000, 1000]);
    image.write_layout(&machine.dir().join("layout"), "v1");
    let reference = format!("docker://{AUTHORITY}/large/app:1");
    machine.run("skopeo", &["copy", "--preserve-digests", "--dest-tls-verify=false", "oci:layout:v1", &reference]).ok();
    machine.run("skopeo", &["copy", "--preserve-digests", "--src-tls-verify=false", &reference, "oci:back:v1"]).ok();
    let blobs = |layout: &str| files_below(&machine.dir().join(layout).join("blobs"));
    assert_eq!(blobs("back"), blobs("layout"));
    let listed = machine.run("skopeo", &["list-tags", "--tls-verify=false", &reference[..reference.len() - 2]]).ok();
    listed.says("\"1\"");
    assert!(gateway.peak_memory() < 64 * 1024, "the gateway needed {} KiB", gateway.peak_memory());

    gateway.program.signal(Signal::TERM);
    assert!(eventually(DEADLINE, || gateway.program.has_ended()));
    assert!(gateway.program.ended().unwrap().success() && gateway.log().contains("stopped"));
    assert!(!machine.listens_on(PORT));
}

#[test]
fn what_it_prints_can_be_pasted() {
    skip_unless!(IP, NSENTER, SKOPEO, CURL, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    Image::new(1, &[1000]).write_layout(&machine.dir().join("layout"), "v1");
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", &registry.reference("team/app:1")]).ok();

    let gateway = Gateway::start(&machine, &registry.host(), &["--repo", "*/x", "--repo", "team/app"]);
    let printed = gateway.printed();
    let first = printed.lines().next().unwrap();
    for words in [&registry.host(), AUTHORITY, "read-only", "client.cert", "docker pull 127.0.0.1:5000/team/app:1"] {
        assert!(first.contains(words), "{words}: {first}");
    }
    let pasted: Vec<&str> = printed.lines().skip(1).collect();
    assert_eq!(pasted.len(), 2, "{printed}");
    for line in pasted {
        machine.run("sh", &["-c", line]).ok();
    }
    drop(gateway);

    let socket = Gateway::start(&machine, &registry.host(), &["--listen", "unix:my gateway.sock"]);
    let printed = socket.printed();
    let (_, command) = printed.trim().rsplit_once(": ").unwrap();
    assert_eq!(machine.run("sh", &["-c", command]).ok().stdout, "{}");
}
