//! A registry that is killed again and again while several clients push at the same time: everything it acknowledged is
//! there after each start, with the right bytes, and no temporary is.

use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;

use portcullis_oci::{Algorithm, Digest};
use portcullis_testkit::image::random_bytes;
use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{CURL, curl_identity, files_below};
use crate::process::{DEADLINE, Running, eventually};
use crate::registry::Registry;

const PUSHERS: u64 = 4;
/// Of each pusher in a round: more than it gets done before the kill.
const BLOBS: u64 = 150;
/// So often an image of the last blob is pushed.
const IMAGE_EVERY: u64 = 5;

/// Something pushed, and what a GET of it must give.
struct Content {
    path: String,
    bytes: Vec<u8>,
}

#[test]
fn concurrent_pushes_survive_kill9_again_and_again() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let rounds = if std::env::var_os("PORTCULLIS_TEST_LONG").is_some() { 200 } else { 20 };
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let (mut acknowledged, mut images) = (0, 0);
    for round in 0..rounds {
        let contents: Vec<Vec<Content>> =
            (0..PUSHERS).map(|pusher| write_push(&machine, &registry, &pair, round, pusher)).collect();
        let mut pushers: Vec<Running> = (0..PUSHERS)
            .map(|pusher| {
                let mut command = machine.command("curl");
                command.args(["--config", &format!("push-{pusher}.curl")]).stdin(Stdio::null());
                Running::start(command, &machine.logs())
            })
            .collect();
        // A different moment in each round.
        let wanted = 5 + usize::try_from(round * 37 % 200).unwrap();
        let enough = || pushers.iter().map(|pusher| numbers(&pusher.said(), "201").len()).sum::<usize>() >= wanted;
        assert!(eventually(DEADLINE, enough), "round {round}: the push does not get on:\n{}", registry.log());
        registry.kill9();
        let said: Vec<String> = pushers.drain(..).map(|pusher| pusher.wait(DEADLINE).stderr).collect();
        registry.start_again();

        let temporaries = files_below(&registry.home().join("data/portcullis/tmp"));
        assert!(temporaries.is_empty(), "round {round}: {temporaries:?}");
        for (contents, said) in contents.iter().zip(&said) {
            let done: Vec<&Content> = numbers(said, "201").into_iter().map(|number| &contents[number]).collect();
            assert!(done.len() < contents.len(), "round {round}: killed too late");
            acknowledged += done.len();
            images += done.iter().filter(|content| content.path.contains("/manifests/")).count();
            check(&machine, &registry, &pair, &done, round);
        }
    }
    eprintln!("{rounds} rounds of kill -9: {acknowledged} acknowledged, {images} of them images, none lost");
    assert!(images > 0);
}

/// Writes curl's configuration of one pusher: blobs and, now and then, an image, one request after the other over one
/// connection, each saying its number and status.
fn write_push(machine: &Machine, registry: &Registry<'_>, pair: &PairFiles, round: u64, pusher: u64) -> Vec<Content> {
    let mut contents = Vec::new();
    let mut transfers = Vec::new();
    for blob in 0..BLOBS {
        let bytes = random_bytes((round * PUSHERS + pusher) * BLOBS + blob, 4096 + usize::try_from(blob).unwrap() * 97);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        let size = bytes.len();
        let repository = format!("demo/app-{}", pusher % 2);
        let push = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        transfers.push(transfer(machine, registry, pair, pusher, contents.len(), &push, "POST", &bytes));
        contents.push(Content { path: format!("/v2/{repository}/blobs/{digest}"), bytes });
        if blob % IMAGE_EVERY == 0 {
            let config = format!(r#"{{"mediaType":"application/x","digest":"{digest}","size":{size}}}"#);
            let bytes = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#).into_bytes();
            let path = format!("/v2/{repository}/manifests/r{round}-p{pusher}-b{blob}");
            transfers.push(transfer(machine, registry, pair, pusher, contents.len(), &path, "PUT", &bytes));
            contents.push(Content { path, bytes });
        }
    }
    fs::write(machine.dir().join(format!("push-{pusher}.curl")), transfers.join("next\n")).unwrap();
    contents
}

#[expect(clippy::too_many_arguments, reason = "the parts of one request")]
fn transfer(
    machine: &Machine,
    registry: &Registry<'_>,
    pair: &PairFiles,
    pusher: u64,
    number: usize,
    path: &str,
    method: &str,
    bytes: &[u8],
) -> String {
    let file = machine.subdir("bodies").join(format!("{pusher}-{number}"));
    fs::write(&file, bytes).unwrap();
    // curl's own Content-Type would be a form's; an image without one says itself what it is.
    format!(
        "url = \"{}\"\nrequest = \"{method}\"\ndata-binary = \"@{}\"\nheader = \"Content-Type:\"\n{}",
        registry.url(path),
        file.display(),
        settings(registry, pair, number, "/dev/null")
    )
}

/// GETs everything over one connection.
fn check(machine: &Machine, registry: &Registry<'_>, pair: &PairFiles, done: &[&Content], round: u64) {
    if done.is_empty() {
        return;
    }
    let got = machine.subdir("got");
    let gets = done.iter().enumerate().map(|(number, content)| {
        let output = got.join(number.to_string()).display().to_string();
        format!("url = \"{}\"\n{}", registry.url(&content.path), settings(registry, pair, number, &output))
    });
    fs::write(machine.dir().join("get.curl"), gets.collect::<Vec<_>>().join("next\n")).unwrap();
    let said = machine.run("curl", &["--config", "get.curl"]).stderr;
    let found = numbers(&said, "200");
    for (number, content) in done.iter().enumerate() {
        assert!(found.contains(&number), "round {round}: {} was acknowledged and is lost: {said}", content.path);
        assert!(fs::read(got.join(number.to_string())).unwrap() == content.bytes, "round {round}: {}", content.path);
    }
}

/// What each transfer repeats: curl forgets it at `next`.
fn settings(registry: &Registry<'_>, pair: &PairFiles, number: usize, output: &str) -> String {
    let mut text = format!("output = \"{output}\"\nsilent\nwrite-out = \"%{{stderr}}{number} %{{http_code}}\\n\"\n");
    for word in curl_identity(registry, Some(pair)).chunks(2) {
        writeln!(text, "{} = \"{}\"", &word[0][2..], word[1]).unwrap();
    }
    text
}

/// The numbers of the transfers that got this status.
fn numbers(said: &str, status: &str) -> Vec<usize> {
    let lines = said.lines().filter_map(|line| line.strip_suffix(status)?.strip_suffix(' '));
    lines.map(|number| number.parse().unwrap()).collect()
}
