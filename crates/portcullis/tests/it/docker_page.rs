//! The Docker page "Verify repository client with certificates", word for word, with dockerd itself.

use portcullis_testkit::image::rootfs_tar;
use portcullis_testkit::pki::{Authority, PairFiles, openssl};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::dockerd::{DOCKER, DOCKERD, Dockerd, digest_in};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{OPENSSL, files_below};
use crate::registry::Registry;

#[test]
fn docker_page_word_for_word() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);

    // openssl genrsa -out client.key 4096
    // openssl req -new -x509 -text -key client.key -out client.cert
    let alice = openssl::docker_page_recipe(&machine.subdir("alice"), "/C=AU/ST=Some-State/O=Internet Widgits Pty Ltd");
    registry.portcullis(&["trust", "add", "alice/client.cert", "--as", "pin", "--name", "alice"]).ok();
    registry.fill_certs(&machine.docker_certs("registry.test:5443"), &alice);

    let docker = Dockerd::start(&machine);
    push_remove_and_pull(&docker, "registry.test:5443/demo/app:1");
    docker_refuses_a_child_of_alice(&machine, &registry, &docker, &alice);
}

/// A container's round trip gives the same image under the same digest.
fn push_remove_and_pull(docker: &Dockerd<'_>, reference: &str) {
    let image_id = || docker.docker(&["image", "inspect", "--format", "{{.Id}}", reference]).ok().stdout;
    docker.import(&rootfs_tar(1, 100_000), reference);
    let built = image_id();
    let pushed = digest_in(&docker.docker(&["push", reference]).ok());
    docker.docker(&["rmi", reference]).ok();
    let pulled = digest_in(&docker.docker(&["pull", reference]).ok());
    assert_eq!(pulled, pushed);
    assert_eq!(image_id(), built);
}

/// Whoever holds `client.key` can sign certificates with it: a pin signs for nobody.
fn docker_refuses_a_child_of_alice(
    machine: &Machine,
    registry: &Registry<'_>,
    docker: &Dockerd<'_>,
    alice: &PairFiles,
) {
    let child = openssl::child_of(&machine.subdir("mallory"), "client", "/CN=mallory", alice);
    registry.fill_certs(&machine.docker_certs("registry.test:5443"), &child);
    let refused = docker.docker(&["push", "registry.test:5443/demo/app:1"]).fails();
    refused.says("remote error: tls: unknown certificate authority");
    registry.log_line(&["WARN", "mallory", &openssl::fingerprint_of(&child.cert)]);
    // The pair itself goes on working.
    registry.fill_certs(&machine.docker_certs("registry.test:5443"), alice);
    docker.docker(&["pull", "registry.test:5443/demo/app:1"]).ok();
}

/// `trust add` without `--as` takes the recipe's certificate for the least it can be: a pin.
#[test]
fn trust_add_makes_a_pin_of_a_recipe_certificate() {
    skip_unless!(IP, NSENTER, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    openssl::docker_page_recipe(&machine.subdir("alice"), "/CN=alice");
    let pins = || files_below(&registry.home().join("trust/pins")).len();
    let before = pins();
    registry.portcullis(&["trust", "add", "alice/client.cert", "--name", "alice"]).ok().says("pin");
    assert_eq!(pins(), before + 1);
    registry.portcullis(&["trust", "list"]).ok().says("alice");
    registry.portcullis(&["trust", "remove", "alice"]).ok();
    assert_eq!(pins(), before);
}

/// A self-signed certificate that may sign could be meant either way: nothing is trusted, and both commands are shown.
#[test]
fn trust_add_does_not_guess_what_a_ca_is_for() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    Authority::new("somebody's CA").write_ca(&machine.subdir("somebody"));
    let trust = registry.home().join("trust");
    let before = files_below(&trust);
    let refused = registry.portcullis(&["trust", "add", "somebody/ca.crt"]).exits(1);
    refused.says("--as ca").says("--as pin");
    assert_eq!(files_below(&trust), before);
}
