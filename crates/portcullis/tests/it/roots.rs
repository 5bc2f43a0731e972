//! Whom a client trusts: the directory's roots beside the system's, or alone.

use std::fs;

use portcullis_testkit::image::Image;
use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{IP, Machine, NSENTER};
use crate::peers::SKOPEO;
use crate::process::{DEADLINE, Ran, run};
use crate::registry::{PORTCULLIS, Registry};

/// Runs a program for which the system's roots are exactly the registry's CA.
fn with_system_roots(machine: &Machine, registry: &Registry<'_>, program: &str, args: &[&str]) -> Ran {
    let mut command = machine.command(program);
    command.env("SSL_CERT_FILE", registry.ca()).env("SSL_CERT_DIR", machine.subdir("no-roots")).args(args);
    run(command, &machine.logs(), DEADLINE)
}

/// The host's directory with a client pair and no root.
fn pair_only(machine: &Machine, pair: &PairFiles) {
    let dir = machine.docker_certs("registry.test:5443");
    fs::create_dir_all(&dir).unwrap();
    fs::copy(&pair.cert, dir.join("client.cert")).unwrap();
    fs::copy(&pair.key, dir.join("client.key")).unwrap();
}

#[test]
fn system_roots_count_beside_the_directory_and_not_with_roots_only() {
    skip_unless!(IP, NSENTER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    pair_only(&machine, &registry.new_client("ci-7"));
    let image = Image::new(6, &[1000]);
    image.write_layout(&machine.dir().join("layout"), "v1");
    let reference = registry.reference("demo/app:1");

    with_system_roots(&machine, &registry, PORTCULLIS, &["push", "oci:layout:v1", &reference]).ok();
    let pull = ["pull", &reference, "--to", "oci:out"];
    with_system_roots(&machine, &registry, PORTCULLIS, &pull).ok();
    with_system_roots(&machine, &registry, PORTCULLIS, &[&pull[..], &["--roots", "merge"]].concat()).ok();
    with_system_roots(&machine, &registry, PORTCULLIS, &[&pull[..], &["--roots", "fallback"]].concat()).ok();
    with_system_roots(&machine, &registry, "skopeo", &["inspect", &format!("docker://{reference}")]).ok();

    // The pair is never shown to a registry that could not prove who it is.
    let refused = with_system_roots(&machine, &registry, PORTCULLIS, &[&pull[..], &["--roots", "only"]].concat());
    refused.exits(1).says("registry.test:5443");
    machine.run(PORTCULLIS, &pull).exits(1);

    // With the root in the directory, `only` is enough and the system's are not needed.
    fs::copy(registry.ca(), machine.docker_certs("registry.test:5443").join("ca.crt")).unwrap();
    machine.run(PORTCULLIS, &[&pull[..], &["--roots", "only"]].concat()).ok();
}
