//! A registry on port 443: the reference has no port, so the directory has none.

use std::fs;

use portcullis_testkit::image::rootfs_tar;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::dockerd::{DOCKER, DOCKERD, Dockerd, digest_in};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::SKOPEO;
use crate::registry::{PORTCULLIS, Registry};

#[test]
fn a_directory_without_port_serves_port_443() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up_on(&machine, 443);
    registry.new_client("ci-7");
    let from = registry.home().join("pki/clients/ci-7").display().to_string();
    machine.run(PORTCULLIS, &["install", "registry.test", "--from", &from, "--engine", "docker"]).ok();
    assert!(machine.docker_certs("registry.test").join("client.cert").exists());

    let docker = Dockerd::start(&machine);
    docker.import(&rootfs_tar(4, 1000), "registry.test/demo/app:1");
    let pushed = digest_in(&docker.docker(&["push", "registry.test/demo/app:1"]).ok());
    docker.docker(&["rmi", "registry.test/demo/app:1"]).ok();
    assert_eq!(digest_in(&docker.docker(&["pull", "registry.test/demo/app:1"]).ok()), pushed);
    machine.run("skopeo", &["inspect", "docker://registry.test/demo/app:1"]).ok().says(&pushed);

    machine.run(PORTCULLIS, &["pull", "registry.test/demo/app:1", "--to", "oci:out"]).ok();
    assert!(machine.dir().join("out/blobs").join(pushed.replace(':', "/")).exists());
    // `host` and `host:443` are two directories, and this one is not there.
    assert!(!machine.docker_certs("registry.test:443").exists());
    machine.run(PORTCULLIS, &["pull", "registry.test:443/demo/app:1", "--to", "oci:out"]).fails();
    fs::rename(machine.docker_certs("registry.test"), machine.docker_certs("registry.test:443")).unwrap();
    machine.run(PORTCULLIS, &["pull", "registry.test:443/demo/app:1", "--to", "oci:out"]).ok();
}
