//! Certificates of our own CA, put where each engine reads them by `install`, and used by every engine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use portcullis_testkit::image::{Image, rootfs_tar};
use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::dockerd::{DOCKER, DOCKERD, Dockerd, digest_in};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{CURL, PODMAN, SKOPEO, curl};
use crate::registry::{PORTCULLIS, Registry};

const UPDATE_CA: Need = Need::Program("update-ca-certificates");

const HOST_PORT: &str = "registry.test:5443";

/// `install` without `--engine` fills the directories of all engines on this machine.
fn install(machine: &Machine, registry: &Registry<'_>) {
    let from = registry.home().join("pki/clients/ci-7").display().to_string();
    machine.run(PORTCULLIS, &["install", HOST_PORT, "--from", &from]).ok();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o7777
}

#[test]
fn docker_pushes_and_pulls_with_an_issued_certificate() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    registry.new_client("ci-7");
    install(&machine, &registry);
    let docker = Dockerd::start(&machine);
    let reference = registry.reference("demo/app:1");
    docker.import(&rootfs_tar(2, 50_000), &reference);
    let pushed = digest_in(&docker.docker(&["push", &reference]).ok());
    docker.docker(&["rmi", &reference]).ok();
    assert_eq!(digest_in(&docker.docker(&["pull", &reference]).ok()), pushed);
    // By digest, as deployments do.
    docker.docker(&["pull", &registry.reference(&format!("demo/app@{pushed}"))]).ok();
}

#[test]
fn skopeo_and_podman_use_what_install_wrote() {
    skip_unless!(IP, NSENTER, SKOPEO, PODMAN, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    registry.new_client("ci-7");
    install(&machine, &registry);
    let image = Image::new(3, &[10_000, 20]);
    image.write_layout(&machine.dir().join("layout"), "v1");
    let digest = image.manifest.digest.to_string();

    let reference = registry.reference("demo/app:1");
    machine.run("skopeo", &["copy", "--preserve-digests", "oci:layout:v1", &format!("docker://{reference}")]).ok();
    machine.run("skopeo", &["inspect", &format!("docker://{reference}")]).ok().says(&digest);
    machine.run("skopeo", &["copy", "--preserve-digests", &format!("docker://{reference}"), "oci:copied:v1"]).ok();
    let copied = fs::read(machine.dir().join("copied/blobs/sha256").join(image.manifest.digest.hex())).unwrap();
    assert_eq!(copied, image.manifest.bytes);

    machine.run("podman", &["pull", &reference]).ok();
    let second = registry.reference("demo/app:from-podman");
    machine.run("podman", &["push", &reference, &second]).ok();
    machine.run("podman", &["rmi", "--all"]).ok();
    machine.run("podman", &["pull", &second]).ok();
}

#[test]
fn curl_reaches_the_api_with_cert_and_key() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    for version in ["--http1.1", "--http2"] {
        let answer = curl(&machine, &registry, &pair, &[version], "/v2/");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn our_own_client_pushes_and_pulls_the_same_bytes() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    registry.fill_certs(&machine.docker_certs(HOST_PORT), &pair);
    let image = Image::new(5, &[300_000, 7, 0]);
    image.write_layout(&machine.dir().join("layout"), "v1");
    let reference = registry.reference("demo/deep/name:1");
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", &reference]).ok();
    machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci:out"]).ok();
    for blob in image.blobs().chain([&image.manifest]) {
        let pulled = fs::read(machine.dir().join("out/blobs/sha256").join(blob.digest.hex())).unwrap();
        assert_eq!(pulled, blob.bytes);
    }
    // Both verbs are safe to run twice.
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", &reference]).ok();
    machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci:out"]).ok();
}

/// Directories 0755, certificates 0644, keys 0600, whatever the umask says; running it twice changes nothing.
#[test]
fn install_sets_the_modes_engines_expect() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let from = registry.home().join("pki/clients/ci-7").display().to_string();
    let typed = format!("umask 077; exec {PORTCULLIS} install {HOST_PORT} --from {from} --engine all");
    machine.run("sh", &["-c", &typed]).ok();
    let directories = [machine.docker_certs(HOST_PORT), machine.podman_certs(HOST_PORT)];
    for dir in &directories {
        assert_eq!(mode(dir), 0o755, "{}", dir.display());
        assert_eq!(mode(&dir.join("ca.crt")), 0o644);
        assert_eq!(mode(&dir.join("client.cert")), 0o644);
        assert_eq!(mode(&dir.join("client.key")), 0o600);
        assert_eq!(fs::read(dir.join("client.key")).unwrap(), fs::read(&pair.key).unwrap());
    }
    let written = fs::metadata(directories[0].join("client.cert")).unwrap().modified().unwrap();
    machine.run("sh", &["-c", &typed]).ok();
    assert_eq!(fs::metadata(directories[0].join("client.cert")).unwrap().modified().unwrap(), written);
}

/// A file that somebody else put there is theirs: nothing is written, and both files are named.
#[test]
fn install_never_replaces_a_file_it_did_not_write() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    registry.new_client("ci-7");
    let dir = machine.docker_certs(HOST_PORT);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("client.cert"), "somebody's\n").unwrap();
    fs::write(dir.join("client.key"), "somebody's\n").unwrap();
    let from = registry.home().join("pki/clients/ci-7").display().to_string();
    let refused = machine.run(PORTCULLIS, &["install", HOST_PORT, "--from", &from, "--engine", "docker"]);
    refused.exits(1).says("client.key");
    assert_eq!(fs::read_to_string(dir.join("client.cert")).unwrap(), "somebody's\n");
    assert_eq!(fs::read_to_string(dir.join("client.key")).unwrap(), "somebody's\n");
}

/// The registry itself is asked at the end; one that is out of reach proves nothing and is no failure.
#[test]
fn install_ends_with_a_proof_and_goes_away_again() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    registry.new_client("ci-7");
    let from = registry.home().join("pki/clients/ci-7").display().to_string();
    let install = |host: &str, more: &[&str]| {
        let words = ["install", host, "--from", &from, "--engine", "docker"];
        machine.run(PORTCULLIS, &[&words[..], more].concat())
    };
    install(HOST_PORT, &[]).ok().says("registry.test:5443 lets client in");
    install("registry.test:5444", &[]).ok().says("was not reached");
    install(HOST_PORT, &["--no-proof"]).ok();
    registry.portcullis(&["cert", "revoke", "ci-7"]).ok();
    install(HOST_PORT, &[]).exits(3).says("revoked");

    let dir = machine.docker_certs(HOST_PORT);
    machine.run(PORTCULLIS, &["uninstall", HOST_PORT, "--dry-run"]).ok().says("would remove");
    assert!(dir.join("client.key").exists());
    machine.run(PORTCULLIS, &["uninstall", HOST_PORT]).ok().says("removed");
    assert!(!dir.exists());
    machine.run(PORTCULLIS, &["uninstall", HOST_PORT]).ok().says("nothing is recorded");
    machine.run(PORTCULLIS, &["uninstall", "registry.test:5444"]).ok();
}

/// The real store of Debian, in a copy of the machine's own: curl, which is told of no CA, believes the registry, and no more
/// once it is uninstalled.
#[test]
fn the_systems_store_gets_the_ca_and_loses_it_again() {
    skip_unless!(IP, NSENTER, CURL, UPDATE_CA, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let mounts = "set -e; mkdir anchors ssl; cp -a /etc/ssl/. ssl; mkdir -p /usr/local/share/ca-certificates; \
                  mount --bind anchors /usr/local/share/ca-certificates; mount --bind ssl /etc/ssl";
    machine.run("sh", &["-c", mounts]).ok();
    let from = registry.home().join("pki/clients/ci-7").display().to_string();
    let install = |more: &[&str]| {
        let words = ["install", HOST_PORT, "--from", &from, "--engine", "docker", "--system-trust"];
        machine.run(PORTCULLIS, &[&words[..], more].concat())
    };
    let (cert, key, url) = (pair.cert.display().to_string(), pair.key.display().to_string(), registry.url("/v2/"));
    let ask = || machine.run("curl", &["-sS", "--cert", &cert, "--key", &key, &url]);
    let ours = |dir: &str| {
        let names = fs::read_dir(machine.dir().join(dir)).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("portcullis-registry.test_5443-")).count()
    };

    // The CA that `up` makes may certify every name.
    install(&[]).exits(1).says("--unconstrained").says("vouch for every name");
    assert!(!machine.docker_certs(HOST_PORT).exists(), "all is looked at before anything is written");
    install(&["--unconstrained", "--dry-run"])
        .ok()
        .says("system: would write /usr/local/share/ca-certificates/portcullis-");
    assert_eq!((ours("anchors"), ours("ssl/certs")), (0, 0));
    ask().fails();

    install(&["--unconstrained"]).ok().says("update-ca-certificates has run").says("try-restart docker");
    assert_eq!((ours("anchors"), ours("ssl/certs")), (1, 1));
    ask().ok();
    install(&["--unconstrained"]).ok().says("system: already so");

    machine.run(PORTCULLIS, &["uninstall", HOST_PORT, "--engine", "docker"]).ok().says("docker: in force at once");
    assert_eq!(ours("anchors"), 1, "the system's store is no engine's");
    machine.run(PORTCULLIS, &["uninstall", HOST_PORT]).ok().says("--fresh has run");
    assert_eq!((ours("anchors"), ours("ssl/certs")), (0, 0));
    assert!(machine.dir().join("anchors").is_dir());
    ask().fails();
}

/// The change is shown whole, old and new, before the first file is written.
#[test]
fn install_shows_the_change_before_it_writes() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    registry.new_client("ci-7");
    let from = registry.home().join("pki/clients/ci-7").display().to_string();
    let install =
        || machine.run(PORTCULLIS, &["install", HOST_PORT, "--from", &from, "--engine", "docker", "--no-proof"]);
    let shown = install().ok().said();
    let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("no {text:?} in {shown}"));
    assert!(at("docker: will write /etc/docker/certs.d/registry.test:5443/client.cert (0644)") < at("docker: written"));
    assert!(at("+ CN=ci-7") < at("docker: written"));

    fs::remove_dir_all(&from).unwrap();
    registry.portcullis(&["cert", "revoke", "ci-7"]).ok();
    registry.new_client("ci-7");
    let shown = install().ok().said();
    let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("no {text:?} in {shown}"));
    assert!(at("will replace /etc/docker/certs.d/registry.test:5443/client.cert") < at("- CN=ci-7"));
    assert!(at("- CN=ci-7") < at("+ CN=ci-7") && at("+ CN=ci-7") < at("docker: written"));
}

/// What Docker has, Podman gets, and lets itself be asked for.
#[test]
fn convert_gives_one_engines_files_to_another() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let convert = |more: &[&str]| {
        let words = ["convert", HOST_PORT, "--from", "docker", "--to", "podman"];
        machine.run(PORTCULLIS, &[&words[..], more].concat())
    };
    convert(&[]).exits(1).says("docker has no files for this registry");
    registry.fill_certs(&machine.docker_certs(HOST_PORT), &pair);
    convert(&["--dry-run"]).ok().says("would write");
    assert!(!machine.podman_certs(HOST_PORT).exists());
    convert(&[]).ok().says("lets client in");
    let copied = machine.podman_certs(HOST_PORT);
    assert_eq!(fs::read(copied.join("client.cert")).unwrap(), fs::read(&pair.cert).unwrap());
    assert_eq!(mode(&copied.join("client.key")), 0o600);
    convert(&[]).ok().says("already so");
    fs::remove_file(machine.docker_certs(HOST_PORT).join("client.key")).unwrap();
    convert(&[]).exits(1).says("missing key client.key for client certificate client.cert");
}

/// A second `up` changes nothing and serves.
#[test]
fn up_twice_changes_nothing() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let content = |registry: &Registry<'_>| {
        let kept = ["pki", "trust", "config.toml", "policy.toml"].map(|name| registry.home().join(name));
        let files = |path: &Path| {
            if path.is_dir() {
                crate::peers::files_below(path).iter().map(|file| path.join(file)).collect()
            } else {
                vec![path.to_owned()]
            }
        };
        kept.iter().flat_map(|path| files(path)).map(|file| (fs::read(&file).unwrap(), file)).collect::<Vec<_>>()
    };
    let before = content(&registry);
    assert!(before.len() > 6, "{before:?}");
    registry.stop();
    registry.start_again();
    assert_eq!(content(&registry), before);
    assert_eq!(curl(&machine, &registry, &pair, &[], "/v2/").status, 200);
}

/// The config is what `up` writes last: without it, the next `up` completes the home and keeps every key.
#[test]
fn an_interrupted_first_run_is_completed_by_the_next() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    registry.stop();
    let key = |name: &str| fs::read(registry.home().join("pki").join(name)).unwrap();
    let keys = [key("server-ca/ca.key"), key("client-ca/ca.key"), key("server/server.key")];
    for made_late in ["config.toml", "policy.toml", "pki/clients/admin/client.cert", "pki/server/server.crt"] {
        fs::remove_file(registry.home().join(made_late)).unwrap();
    }
    registry.start_again();
    let key = |name: &str| fs::read(registry.home().join("pki").join(name)).unwrap();
    assert!(keys == [key("server-ca/ca.key"), key("client-ca/ca.key"), key("server/server.key")]);
    let admin = registry.home().join("pki/clients/admin");
    registry.fill_certs(&machine.docker_certs(HOST_PORT), &PairFiles::named(&admin, "client"));
    Image::new(14, &[10]).write_layout(&machine.dir().join("layout"), "v1");
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", &registry.reference("demo/app:1")]).ok();
}
