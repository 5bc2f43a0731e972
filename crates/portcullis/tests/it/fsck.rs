//! `portcullis fsck`: through the running server, or with the data locked for itself, and never beside anybody.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use portcullis_testkit::image::{Blob, Image};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use serde_json::Value;

use crate::netns::{IP, Machine, NSENTER};
use crate::process::{DEADLINE, Ran, Running, eventually};
use crate::registry::{PORTCULLIS, Registry};

/// A registry with an image in `team/app:1`.
fn with_image<'m>(machine: &'m Machine, image: &Image) -> Registry<'m> {
    let registry = Registry::up(machine);
    registry.fill_certs(&machine.docker_certs(&registry.host()), &registry.new_client("ci-7"));
    push(machine, &registry, image);
    registry
}

#[track_caller]
fn push(machine: &Machine, registry: &Registry<'_>, image: &Image) {
    let layout = machine.dir().join("layout");
    if !layout.exists() {
        image.write_layout(&layout, "v1");
    }
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", &registry.reference("team/app:1")]).ok();
}

fn data_of(registry: &Registry<'_>, blob: &Blob) -> PathBuf {
    let hex = blob.digest.hex();
    registry.home().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(&hex).join("data")
}

/// The same size, other bytes: only a hash tells.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[7] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The report, and that the exit code says the same.
#[track_caller]
fn report(ran: &Ran) -> Value {
    let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error} in {ran}"));
    assert_eq!(ran.status.code(), Some(if report["clean"] == true { 0 } else { 4 }), "{ran}");
    report
}

fn kinds(report: &Value) -> BTreeSet<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["kind"].as_str().unwrap()).collect()
}

#[test]
fn damage_is_found_and_repaired_with_and_without_a_server() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let image = Image::new(81, &[50_000, 10]);
    let mut registry = with_image(&machine, &image);
    registry.portcullis(&["fsck"]).exits(0).says("all is well");
    let layer = &image.layers[0];
    flip(&data_of(&registry, layer));

    let with_server = registry.portcullis(&["fsck"]).exits(4);
    let with_server = with_server.says(&format!("the bytes of {} are not its own", layer.digest));
    let path = data_of(&registry, layer);
    let path = path.strip_prefix(registry.home().join("data")).unwrap().display().to_string();
    with_server.says(&path).says(&format!("team/app, manifest {}", image.manifest.digest)).says("fsck --repair");
    let through_server = report(&registry.portcullis(&["fsck", "--json"]));
    assert_eq!(kinds(&through_server), ["blob-corrupt"].into());
    assert_eq!(through_server["counts"]["blobs"], 4, "config, two layers, manifest");
    registry.stop();
    assert_eq!(report(&registry.portcullis(&["fsck", "--json"])), through_server, "without the server");
    registry.portcullis(&["fsck", "--repair"]).exits(4).says("moved aside to portcullis/damaged/");
    registry.start_again();
    let left = report(&registry.portcullis(&["fsck", "--json"]));
    assert_eq!(kinds(&left), ["blob-missing"].into());
    push(&machine, &registry, &image);
    registry.portcullis(&["fsck"]).exits(0);
    assert!(!registry.home().join("run/fsck.json").exists(), "nothing is left of a run that ended");
}

#[test]
fn never_beside_somebody_else() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = with_image(&machine, &Image::new(82, &[10]));
    registry.stop();
    let config = registry.home().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen("# admin_socket = \"run/admin.sock\"", "admin_socket = \"off\"", 1)).unwrap();
    registry.start_again();
    let lock = registry.home().join("data/portcullis/lock");
    let holder: Value = serde_json::from_slice(&fs::read(&lock).unwrap()).unwrap();
    let refused = registry.portcullis(&["fsck"]).exits(1).says(&lock.display().to_string());
    refused.says(&format!("process {}", holder["pid"]));
}

#[test]
fn a_directory_that_is_not_there_is_not_made() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    registry.stop();
    let data = registry.home().join("data");
    fs::rename(&data, registry.home().join("elsewhere")).unwrap();
    registry.portcullis(&["fsck"]).exits(1).says(&data.display().to_string());
    assert!(!data.exists());
}

/// The server is stopped while it is asked: the check says how to go on, and goes on without the server.
#[test]
fn an_interrupted_check_goes_on() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let image = Image::new(83, &[400_000, 300_000, 10]);
    let mut registry = with_image(&machine, &image);
    image.layers.iter().for_each(|layer| flip(&data_of(&registry, layer)));
    let kept = registry.home().join("run/fsck.json");
    let mut command = machine.command(PORTCULLIS);
    command.args(["fsck", "--rate", "20KiB/s", "--home"]).arg(registry.home()).stdin(Stdio::null());
    let mut slow = Running::start(command, &machine.logs());
    // It writes down how far it is every few seconds.
    let begun = eventually(DEADLINE, || slow.has_ended() || kept.exists());
    assert!(begun && !slow.has_ended(), "{}", slow.said());
    registry.stop();
    slow.wait(Duration::from_mins(1)).exits(1).says("to go on: ").says("fsck");
    let before: Value = serde_json::from_slice(&fs::read(&kept).unwrap()).unwrap();
    let read = before["run"]["counts"]["bytes"].as_u64().unwrap();
    assert!(read > 0 && read < 700_000, "{read}");

    let resumed = registry.portcullis(&["fsck", "--json"]).says("going on with the check that was interrupted");
    let whole = report(&registry.portcullis(&["fsck", "--json"]));
    let resumed = report(&resumed);
    assert_eq!(resumed["findings"], whole["findings"]);
    assert_eq!(whole["findings"].as_array().unwrap().len(), 3);
    assert_eq!(resumed["counts"]["blobs"], whole["counts"]["blobs"]);
}

#[test]
fn words_that_make_no_sense() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    for words in [
        ["fsck", "--rate", "fast"].as_slice(),
        &["fsck", "--for", "harbor"],
        &["fsck", "--repair", "--for", "distribution"],
    ] {
        machine.run(PORTCULLIS, words).exits(2);
    }
    machine.run(PORTCULLIS, &["fsck", "--home", "nowhere"]).exits(1).says("there is no home");
}

/// The bar is for who looks on: a terminal. A log or a pipe gets none of it.
#[test]
fn progress_is_drawn_on_a_terminal_only() {
    let script = Need::Program("script");
    skip_unless!(IP, NSENTER, script, Need::Namespaces);
    let machine = Machine::new();
    let registry = with_image(&machine, &Image::new(7, &[3_000_000]));
    let home = registry.home().display().to_string();
    let typed = format!("{PORTCULLIS} fsck --home {home}");
    let drawn = machine.run("script", &["--quiet", "--return", "--command", &typed, "/dev/null"]).ok();
    assert!(drawn.said().contains("blobs [") && drawn.said().contains("\u{1b}[K"), "{drawn}");
    assert!(drawn.said().contains("all is well"), "{drawn}");
    let piped = registry.portcullis(&["fsck"]).ok().says("all is well");
    assert!(!piped.said().contains("blobs [") && !piped.said().contains('\u{1b}'), "{piped}");
}
