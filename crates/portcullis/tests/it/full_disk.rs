//! A disk that is full: the push is refused with the reason, nothing of it stays, and everything else goes on.

use std::fs;

use portcullis_oci::{Algorithm, Digest};
use portcullis_testkit::image::random_bytes;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{CURL, curl};
use crate::registry::Registry;

const MOUNT: Need = Need::Program("mount");

#[test]
fn a_push_to_a_full_disk_is_507_and_leaves_nothing() {
    skip_unless!(IP, NSENTER, CURL, MOUNT, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    assert_eq!(registry.stop().code(), Some(0));
    let config = registry.home().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[storage]\n", "[storage]\nreserve = \"0\"\n")).unwrap();
    let data = registry.home().join("data").display().to_string();
    // In the machine's own mount namespace; it goes with it.
    machine.run("mount", &["-t", "tmpfs", "-o", "size=4m,mode=0755", "tmpfs", &data]).ok();
    registry.start_again();

    let post = |bytes: &[u8]| {
        fs::write(machine.dir().join("blob"), bytes).unwrap();
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let post = ["--header", "Content-Type: application/octet-stream", "--data-binary", "@blob"];
        curl(&machine, &registry, &pair, &post, &format!("/v2/demo/app/blobs/uploads/?digest={digest}"))
    };
    let files = || machine.run("find", &[&data, "-type", "f"]).ok().stdout;
    assert_eq!(post(&random_bytes(1, 1_000_000)).status, 201);
    let before = files();
    for round in 0..3 {
        let full = post(&random_bytes(2, 5_000_000));
        assert_eq!(full.status, 507, "{full:?}");
        let text = String::from_utf8_lossy(&full.body).into_owned();
        assert!(text.contains("no space left") && text.contains("the disk or its quota is full"), "{text}");
        assert_eq!(files(), before, "after attempt {round}");
    }
    assert_eq!(post(&random_bytes(3, 1_000_000)).status, 201, "what fits is taken");
    let kept = Digest::of(Algorithm::Sha256, &random_bytes(1, 1_000_000));
    let got = curl(&machine, &registry, &pair, &[], &format!("/v2/demo/app/blobs/{kept}"));
    assert!(got.status == 200 && got.body == random_bytes(1, 1_000_000));
}
