//! A registry that is asked to stop finishes what it has begun.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use portcullis_oci::{Algorithm, Digest};
use portcullis_testkit::image::random_bytes;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{CURL, curl, curl_identity};
use crate::process::{DEADLINE, Running, eventually};
use crate::registry::{PORTCULLIS, Registry};

#[test]
fn a_download_is_finished_after_sigterm() {
    const SIZE: usize = 30_000_000;
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let blob = random_bytes(15, SIZE);
    let digest = Digest::of(Algorithm::Sha256, &blob);
    fs::write(machine.dir().join("blob"), &blob).unwrap();
    let post = ["--header", "Content-Type: application/octet-stream", "--data-binary", "@blob"];
    let pushed = curl(&machine, &registry, &pair, &post, &format!("/v2/demo/app/blobs/uploads/?digest={digest}"));
    assert_eq!(pushed.status, 201, "{pushed:?}");

    // Slow enough to be under way when the signal comes: what is not read yet does not fit into the sockets' buffers.
    let mut command = machine.command("curl");
    command.args(["--silent", "--show-error", "--fail", "--limit-rate", "10M", "--output", "got"]);
    command.args(curl_identity(&registry, Some(&pair))).stdin(Stdio::null());
    command.arg(registry.url(&format!("/v2/demo/app/blobs/{digest}")));
    let mut download = Running::start(command, &machine.logs());
    let got = machine.dir().join("got");
    let begun = eventually(DEADLINE, || download.has_ended() || got.metadata().is_ok_and(|file| file.len() > 0));
    assert!(begun && !download.has_ended(), "{}", download.said());
    assert_eq!(registry.stop().code(), Some(0), "{}", registry.log());
    download.wait(DEADLINE).ok();
    assert!(fs::read(got).unwrap() == blob);
}

/// Until it has the data nobody can so much as connect, and then it serves.
#[test]
fn who_waits_for_the_data_does_not_listen_yet() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut first = Registry::up(&machine);
    let mut command = machine.command(PORTCULLIS);
    command.args(["up", "--listen", "127.0.0.1:5500", "--home"]).arg(first.home()).stdin(Stdio::null());
    let second = Running::start(command, &machine.logs());
    assert!(!eventually(Duration::from_secs(3), || machine.listens_on(5500)), "{}", second.said());
    assert_eq!(first.stop().code(), Some(0));
    assert!(eventually(DEADLINE, || machine.listens_on(5500)), "{}", second.said());
}
