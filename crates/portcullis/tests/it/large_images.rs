//! What does not fit into memory goes through without being held in it.

use std::fs;
use std::path::Path;

use portcullis_testkit::image::Image;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::dockerd::{DOCKER, DOCKERD, Dockerd, digest_in};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::SKOPEO;
use crate::registry::{PORTCULLIS, Registry};

/// The most the server may ever have had in memory, in KiB.
const MEMORY: u64 = 64 * 1024;

/// Every blob of the image is in the layout, to the byte.
#[track_caller]
fn assert_layout_has(layout: &Path, image: &Image) {
    for blob in image.blobs().chain([&image.manifest]) {
        let path = layout.join("blobs/sha256").join(blob.digest.hex());
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(bytes == blob.bytes, "{} has other bytes", path.display());
    }
}

fn with_docker_certs(machine: &Machine) -> Registry<'_> {
    let registry = Registry::up(machine);
    let pair = registry.new_client("ci-7");
    registry.fill_certs(&machine.docker_certs("registry.test:5443"), &pair);
    registry
}

#[test]
fn a_300_mb_layer_goes_in_and_out_in_64_mb_of_memory() {
    skip_unless!(IP, NSENTER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let registry = with_docker_certs(&machine);
    let image = Image::new(300, &[300_000_000]);
    image.write_layout(&machine.dir().join("layout"), "v1");

    let ours = registry.reference("large/ours:1");
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", &ours]).ok();
    machine.run(PORTCULLIS, &["pull", &ours, "--to", "oci:ours"]).ok();
    assert_layout_has(&machine.dir().join("ours"), &image);

    // skopeo pushes in chunks of its own; another repository, so that nothing is mounted.
    let theirs = format!("docker://{}", registry.reference("large/theirs:1"));
    machine.run("skopeo", &["copy", "--preserve-digests", "oci:layout:v1", &theirs]).ok();
    machine.run("skopeo", &["copy", "--preserve-digests", &theirs, "oci:theirs"]).ok();
    assert_layout_has(&machine.dir().join("theirs"), &image);
    assert!(registry.peak_memory() < MEMORY, "the server needed {} KiB", registry.peak_memory());
}

#[test]
fn sixty_layers_go_in_and_out() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let registry = with_docker_certs(&machine);
    let sizes: Vec<usize> = (0..60).map(|number| 1000 + 4000 * number).collect();
    let image = Image::new(60, &sizes);
    image.write_layout(&machine.dir().join("layout"), "v1");
    let reference = registry.reference("large/sixty:1");
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", &reference]).ok();
    machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci:ours"]).ok();
    assert_layout_has(&machine.dir().join("ours"), &image);

    let docker = Dockerd::start(&machine);
    let pulled = docker.docker(&["pull", &reference]).ok();
    assert_eq!(digest_in(&pulled), image.manifest.digest.to_string());
    let id = docker.docker(&["image", "inspect", "--format", "{{.Id}}", &reference]).ok();
    assert_eq!(id.stdout.trim(), image.config.digest.to_string());

    // Sixty layers that the registry has under another name, and one push of them by dockerd.
    let second = registry.reference("large/again:1");
    docker.docker(&["tag", &reference, &second]).ok();
    let pushed = digest_in(&docker.docker(&["push", &second]).ok());
    docker.docker(&["rmi", &reference, &second]).ok();
    assert_eq!(digest_in(&docker.docker(&["pull", &second]).ok()), pushed);
    assert!(registry.peak_memory() < MEMORY, "the server needed {} KiB", registry.peak_memory());
}
