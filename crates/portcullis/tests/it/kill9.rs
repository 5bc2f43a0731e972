//! A registry that dies in the middle of a push has kept everything it acknowledged.

use std::fs;
use std::process::Stdio;

use portcullis_oci::{Algorithm, Digest};
use portcullis_testkit::image::{Image, random_bytes, rootfs_tar};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::dockerd::{DOCKER, DOCKERD, Dockerd, digest_in};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{CURL, curl, curl_identity, files_below};
use crate::process::{DEADLINE, Running, eventually};
use crate::registry::{PORTCULLIS, Registry};

/// Blobs pushed one after another over one connection; what got its 201 before the kill is there after the start.
#[test]
fn every_acknowledged_blob_survives_kill9() {
    const BLOBS: u64 = 400;
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let blobs: Vec<Vec<u8>> = (0..BLOBS).map(|seed| random_bytes(seed, 64 * 1024)).collect();
    let digests: Vec<Digest> = blobs.iter().map(|blob| Digest::of(Algorithm::Sha256, blob)).collect();

    // curl's own configuration: one transfer for each blob, each saying its number and the status it got. Identity is a
    // setting of each transfer, so it is repeated after every `next`; standard error is not buffered.
    let identity = curl_identity(&registry, Some(&pair));
    let identity: Vec<String> = identity.chunks(2).map(|word| format!("{} = \"{}\"", &word[0][2..], word[1])).collect();
    let transfer = |(number, digest): (usize, &Digest)| {
        fs::write(machine.subdir("blobs").join(number.to_string()), &blobs[number]).unwrap();
        let url = registry.url(&format!("/v2/demo/app/blobs/uploads/?digest={digest}"));
        let body = format!("data-binary = \"@blobs/{number}\"\noutput = \"/dev/null\"\nsilent");
        let said = format!("write-out = \"%{{stderr}}{number} %{{http_code}}\\n\"");
        format!("url = \"{url}\"\n{}\n{body}\n{said}\n", identity.join("\n"))
    };
    let transfers: Vec<String> = digests.iter().enumerate().map(transfer).collect();
    fs::write(machine.dir().join("push.curl"), transfers.join("next\n")).unwrap();

    let mut command = machine.command("curl");
    command.args(["--config", "push.curl"]).stdin(Stdio::null());
    let mut pusher = Running::start(command, &machine.logs());
    let started = eventually(DEADLINE, || pusher.has_ended() || acknowledged(&pusher.said()).len() >= 20);
    assert!(started && !pusher.has_ended(), "killed too late or never: {}", pusher.said());
    registry.kill9();
    // The rest of the transfers find nobody.
    let said = pusher.wait(DEADLINE).stderr;

    registry.start_again();
    let acknowledged = acknowledged(&said);
    assert!(acknowledged.len() >= 20 && acknowledged.len() < blobs.len(), "{said}");
    for number in acknowledged {
        let got = curl(&machine, &registry, &pair, &[], &format!("/v2/demo/app/blobs/{}", digests[number]));
        assert_eq!(got.status, 200, "blob {number} was acknowledged");
        assert!(got.body == blobs[number], "blob {number} has other bytes");
    }
}

/// The numbers of the transfers that got a 201.
fn acknowledged(said: &str) -> Vec<usize> {
    let numbers = said.lines().filter_map(|line| line.strip_suffix(" 201"));
    numbers.map(|number| number.parse().unwrap()).collect()
}

/// What a 202 confirmed of an upload is there after the start, and the upload goes on from there.
#[test]
fn an_upload_goes_on_where_its_last_chunk_ended() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let blob = random_bytes(9, 3_000_000);
    let digest = Digest::of(Algorithm::Sha256, &blob);
    let (first, second) = blob.split_at(1_234_567);
    fs::write(machine.dir().join("first"), first).unwrap();
    fs::write(machine.dir().join("second"), second).unwrap();

    let opened = curl(&machine, &registry, &pair, &["--request", "POST"], "/v2/demo/app/blobs/uploads/");
    assert_eq!(opened.status, 202, "{opened:?}");
    let location = path_of(&registry, &opened.header("location").expect("a location"));
    let patch = ["--request", "PATCH", "--header", "Content-Type: application/octet-stream", "--data-binary"];
    let patched = curl(&machine, &registry, &pair, &[&patch[..], &["@first"]].concat(), &location);
    assert_eq!(patched.status, 202, "{patched:?}");
    let location = path_of(&registry, &patched.header("location").expect("a location"));

    registry.kill9();
    registry.start_again();

    let status = curl(&machine, &registry, &pair, &[], &location);
    assert_eq!((status.status, status.header("range").as_deref()), (204, Some("0-1234566")), "{status:?}");
    let finish = ["--request", "PUT", "--header", "Content-Type: application/octet-stream", "--data-binary", "@second"];
    let joint = if location.contains('?') { '&' } else { '?' };
    let done = curl(&machine, &registry, &pair, &finish, &format!("{location}{joint}digest={digest}"));
    assert_eq!(done.status, 201, "{done:?}");
    let got = curl(&machine, &registry, &pair, &[], &format!("/v2/demo/app/blobs/{digest}"));
    assert!(got.body == blob);
}

/// A location header is an absolute URL or a path.
fn path_of(registry: &Registry<'_>, location: &str) -> String {
    location.strip_prefix(&registry.url("")).unwrap_or(location).to_owned()
}

/// dockerd is pushing when the registry dies; after the start a push succeeds and a pull gives the same digest.
#[test]
fn docker_push_succeeds_after_kill9_in_the_middle() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    registry.fill_certs(&machine.docker_certs("registry.test:5443"), &pair);
    let docker = Dockerd::start(&machine);
    let reference = registry.reference("demo/app:1");
    docker.import(&rootfs_tar(10, 40_000_000), &reference);

    let data = registry.home().join("data");
    let mut push = docker.start_docker(&["push", &reference]);
    let some_data =
        || files_below(&data).iter().any(|file| data.join(file).metadata().is_ok_and(|m| m.len() > 1 << 20));
    let in_the_middle = eventually(DEADLINE, || push.has_ended() || some_data());
    assert!(in_the_middle && !push.has_ended(), "no push to interrupt: {}", push.said());
    registry.kill9();
    registry.start_again();
    // dockerd may try again by itself; whether that push survives is its business.
    push.wait(DEADLINE);

    let pushed = digest_in(&docker.docker(&["push", &reference]).ok());
    docker.docker(&["rmi", &reference]).ok();
    assert_eq!(digest_in(&docker.docker(&["pull", &reference]).ok()), pushed);
}

/// A tag that was acknowledged names a complete image after the kill.
#[test]
fn an_acknowledged_image_is_whole_after_kill9() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    registry.fill_certs(&machine.docker_certs("registry.test:5443"), &pair);
    let image = Image::new(11, &[2_000_000, 10, 500_000]);
    image.write_layout(&machine.dir().join("layout"), "v1");
    let reference = registry.reference("demo/app:1");
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", &reference]).ok();
    registry.kill9();
    registry.start_again();
    machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci:out"]).ok();
    for blob in image.blobs().chain([&image.manifest]) {
        let pulled = fs::read(machine.dir().join("out/blobs/sha256").join(blob.digest.hex())).unwrap();
        assert!(pulled == blob.bytes);
    }
}
