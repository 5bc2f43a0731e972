//! Archives: those that we write are loaded by dockerd, podman and skopeo, and those that they write are pushed by us.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Stdio;

use portcullis_testkit::image::{Flavor, Image};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use rustix::process::{Pid, Signal, kill_process};

use crate::dockerd::{DOCKER, DOCKERD, Dockerd};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{PODMAN, SKOPEO};
use crate::process::{DEADLINE, Ran, Running, eventually, read_lossy};
use crate::registry::{PORTCULLIS, Registry};

/// Gives a program a terminal.
const SCRIPT: Need = Need::Program("script");

/// A registry that the machine's clients are let into, with an image of either kind in `demo/oci:1` and `demo/docker:1`.
fn with_images(machine: &Machine) -> (Registry<'_>, [Image; 2]) {
    let registry = Registry::up(machine);
    registry.fill_certs(&machine.docker_certs("registry.test:5443"), &registry.new_client("ci-7"));
    let images = [Flavor::Oci, Flavor::Docker].map(|flavor| Image::with_flavor(flavor, 7, &[400_000, 5]));
    for (image, name) in images.iter().zip(["oci", "docker"]) {
        image.write_layout(&machine.dir().join(name), "v1");
        machine.run(PORTCULLIS, &["push", &format!("oci:{name}"), &registry.reference(&format!("demo/{name}:1"))]).ok();
    }
    (registry, images)
}

#[test]
fn docker_loads_what_we_pull_and_we_push_what_it_saves() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, images) = with_images(&machine);
    let dockerd = Dockerd::start(&machine);
    for (image, name) in images.iter().zip(["oci", "docker"]) {
        let (reference, file) = (registry.reference(&format!("demo/{name}:1")), format!("{name}.tar"));
        let pulled = machine.run(PORTCULLIS, &["pull", &reference, "--to", &format!("docker-archive:{file}")]).ok();
        assert_eq!(pulled.stdout.trim(), image.manifest.digest.to_string());
        dockerd.docker(&["load", "--input", &file]).ok().says(&reference);
        let id = dockerd.docker(&["image", "inspect", "--format", "{{.Id}}", &reference]).ok();
        assert_eq!(id.stdout.trim(), image.config.digest.to_string());

        // And back.
        let saved = format!("saved-{name}.tar");
        dockerd.docker(&["save", "--output", &saved, &reference]).ok();
        let (from, to) = (format!("docker-archive:{saved}"), registry.reference(&format!("back/{name}:1")));
        machine.run(PORTCULLIS, &["push", &from, &to]).ok();
        dockerd.docker(&["rmi", &reference]).ok();
        dockerd.docker(&["pull", &to]).ok();
        let id = dockerd.docker(&["image", "inspect", "--format", "{{.Id}}", &to]).ok();
        assert_eq!(id.stdout.trim(), image.config.digest.to_string());
        dockerd.docker(&["rmi", &to]).ok();
    }
    // Under a name of one's own.
    let named = ["pull", &registry.reference("demo/oci:1"), "--to", "docker-archive:named.tar:app:2"];
    machine.run(PORTCULLIS, &named).ok();
    dockerd.docker(&["load", "--input", "named.tar"]).ok().says("app:2");
}

#[test]
fn podman_loads_what_we_pull_and_we_push_what_it_saves() {
    skip_unless!(IP, NSENTER, PODMAN, Need::Namespaces);
    let machine = Machine::new();
    let (registry, images) = with_images(&machine);
    let reference = registry.reference("demo/oci:1");
    for place in ["docker-archive:a.tar", "oci-archive:b.tar"] {
        machine.run(PORTCULLIS, &["pull", &reference, "--to", place]).ok();
        let (_, file) = place.split_once(':').unwrap();
        let loaded = machine.run("podman", &["load", "--input", file]).ok();
        let name = loaded.stdout.trim().rsplit(' ').next().unwrap().to_owned();
        let id = machine.run("podman", &["image", "inspect", "--format", "{{.Id}}", &name]).ok();
        assert_eq!(id.stdout.trim(), images[0].config.digest.hex(), "{place}");
        for format in ["docker-archive", "oci-archive"] {
            let (saved, to) = (format!("{format}.tar"), registry.reference(&format!("back/{format}:1")));
            let _none_yet = fs::remove_file(machine.dir().join(&saved));
            machine.run("podman", &["save", "--format", format, "--output", &saved, &name]).ok();
            let pushed = machine.run(PORTCULLIS, &["push", &format!("{format}:{saved}"), &to]).ok();
            let manifest = machine.run(PORTCULLIS, &["manifest", &to]).ok();
            assert!(manifest.stdout.contains(&images[0].config.digest.to_string()), "{pushed}{manifest}");
        }
        machine.run("podman", &["rmi", "--force", &name]).ok();
    }
}

#[test]
fn skopeo_copies_what_we_pull_and_we_push_what_it_writes() {
    skip_unless!(IP, NSENTER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let (registry, images) = with_images(&machine);
    let reference = registry.reference("demo/oci:1");
    machine.run(PORTCULLIS, &["pull", &reference, "--to", "docker-archive:d.tar"]).ok();
    machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci-archive:o.tar:v1"]).ok();
    // To `dir:`, since to any other place skopeo compresses the layers.
    for from in ["docker-archive:d.tar", "oci-archive:o.tar:v1"] {
        machine.run("skopeo", &["copy", from, "dir:dir"]).ok();
        for blob in images[0].blobs() {
            let path = machine.dir().join("dir").join(blob.digest.hex());
            assert!(fs::read(&path).is_ok_and(|bytes| bytes == blob.bytes), "{from}: {}", path.display());
        }
    }
    let raw = machine.run("skopeo", &["inspect", "--raw", "oci-archive:o.tar:v1"]).ok();
    assert!(raw.stdout.as_bytes() == images[0].manifest.bytes, "{raw}");
    for (written, read) in [
        ("docker-archive:s1.tar:registry.test/app:2", "docker-archive:s1.tar:registry.test/app:2"),
        ("docker-archive:s2.tar", "docker-archive:s2.tar"),
        ("oci-archive:s3.tar:v7", "oci-archive:s3.tar:v7"),
    ] {
        machine.run("skopeo", &["copy", "oci:oci:v1", written]).ok();
        machine.run(PORTCULLIS, &["push", read, &registry.reference("back/app:1")]).ok();
        let manifest = machine.run(PORTCULLIS, &["manifest", &registry.reference("back/app:1")]).ok();
        assert!(manifest.stdout.contains(&images[0].config.digest.to_string()), "{written}: {manifest}");
    }
}

/// Runs a pipe as a shell does; it fails when any part of it fails.
fn pipe(machine: &Machine, environment: &str, line: &str) -> Ran {
    machine.run("env", &[environment, "bash", "-o", "pipefail", "-c", &format!("PATH=$PATH:{}; {line}", directory())])
}

fn directory() -> &'static str {
    PORTCULLIS.rsplit_once('/').unwrap().0
}

#[test]
fn archives_go_through_pipes() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, images) = with_images(&machine);
    let dockerd = Dockerd::start(&machine);
    let socket = format!("DOCKER_HOST=unix://{}", machine.dir().join("dockerd/sock").display());
    let (reference, back) = (registry.reference("demo/oci:1"), registry.reference("back/oci:1"));
    let digest = images[0].manifest.digest.to_string();
    let loaded =
        pipe(&machine, &socket, &format!("portcullis pull -q {reference} --to docker-archive:- | docker load"));
    assert_eq!(loaded.ok().says(&reference).stderr.trim(), digest, "the digest goes to standard error");
    pipe(&machine, &socket, &format!("docker save {reference} | portcullis push docker-archive:- {back}")).ok();
    dockerd.docker(&["rmi", &reference]).ok();
    dockerd.docker(&["pull", &back]).ok();
    let id = dockerd.docker(&["image", "inspect", "--format", "{{.Id}}", &back]).ok();
    assert_eq!(id.stdout.trim(), images[0].config.digest.to_string());

    // The same bytes as in a file, and back in again by its tag.
    machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci-archive:o.tar:v1"]).ok();
    pipe(&machine, &socket, &format!("portcullis pull {reference} --to oci-archive:-:v1 | cmp - o.tar")).ok();
    let push = format!("portcullis push -q oci-archive:-:v1 {} < o.tar", registry.reference("back/oci:2"));
    assert_eq!(pipe(&machine, &socket, &push).ok().stdout.trim(), digest);
    let left = fs::read_dir(machine.dir()).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() == "-");
    assert_eq!(left.count(), 0);
}

#[test]
fn a_pipe_that_breaks_is_told() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_images(&machine);
    let (reference, to) = (registry.reference("demo/oci:1"), registry.reference("back/app:1"));
    let run = |line: &str| pipe(&machine, "A=b", line);
    let push = format!("portcullis push docker-archive:- {to}");
    run(&format!("true | {push}")).exits(1).says("nothing came");
    run(&format!("head -c 100000 /dev/zero | tr '\\0' x | {push}")).exits(1).says("its checksum is wrong");
    machine.run(PORTCULLIS, &["pull", &reference, "--to", "docker-archive:d.tar"]).ok();
    run(&format!("head -c 200000 d.tar | {push}")).exits(1).says("the archive ends before");
    run(&format!("gzip -c d.tar | {push}")).exits(1).says("gzip -d");
    run(&format!("TMPDIR=/nowhere {push} < d.tar")).exits(1).says("in /nowhere").says("fix: ").says("TMPDIR=DIR");
    machine.run(PORTCULLIS, &["manifest", &to]).exits(1);

    let pull = format!("portcullis pull {reference} --to docker-archive:-");
    run(&format!("{pull} | true")).exits(1).says("cannot hand on the archive").says("Broken pipe");
    run(&format!("{pull} --json")).exits(2).says("leave out --json");
    let dry = run(&format!("{pull} --dry-run")).ok();
    assert_eq!(dry.stdout.lines().count(), 1, "{dry}");
    // A full disk.
    run("mkdir small && mount -t tmpfs -o size=100k tmpfs small").ok();
    let full =
        run(&format!("TMPDIR=small {pull}")).exits(1).says("cannot keep the archive in a temporary file in small");
    assert!(full.stdout.is_empty(), "nothing is handed on that is not whole");
    run(&format!("TMPDIR=small {push} < d.tar")).exits(1).says("No space left").says("TMPDIR=DIR");
}

/// While it waits for somebody else's bytes, and while nobody takes its own.
#[test]
fn a_signal_ends_what_waits_at_a_pipe() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_images(&machine);
    let (mut there, mut here) = std::io::pipe().unwrap();
    let mut command = machine.command(PORTCULLIS);
    command.args(["push", "docker-archive:-", &registry.reference("back/app:1")]).stdin(there.try_clone().unwrap());
    let push = Running::start(command, &machine.logs());
    // More than a pipe holds: when it is taken, it reads.
    here.write_all(&vec![0; 1 << 20]).unwrap();
    push.signal(Signal::INT);
    push.wait(DEADLINE).exits(130).says("interrupted: the tag is what it was");

    (there, here) = std::io::pipe().unwrap();
    let mut command = machine.command(PORTCULLIS);
    command.args(["pull", &registry.reference("demo/oci:1"), "--to", "docker-archive:-"]);
    let said = machine.dir().join("said");
    command.stdin(Stdio::null()).stdout(here).stderr(fs::File::create(&said).unwrap());
    let mut pull = command.spawn().unwrap();
    drop(command);
    // It has begun to write, and this is less than all.
    there.read_exact(&mut [0; 1000]).unwrap();
    kill_process(Pid::from_child(&pull), Signal::INT).unwrap();
    assert!(eventually(DEADLINE, || pull.try_wait().unwrap().is_some()), "{}", read_lossy(&said));
    assert_eq!(pull.wait().unwrap().code(), Some(130));
    assert!(read_lossy(&said).contains("interrupted: "), "{}", read_lossy(&said));
}

#[test]
fn a_terminal_is_no_place_for_an_archive() {
    skip_unless!(IP, NSENTER, SCRIPT, Need::Namespaces);
    let machine = Machine::new();
    for line in [
        format!("{PORTCULLIS} pull registry.test/app:1 --to docker-archive:-"),
        format!("{PORTCULLIS} push docker-archive:- registry.test/app:1"),
    ] {
        let told = machine.run("script", &["--quiet", "--return", "--command", &line, "/dev/null"]).exits(2);
        told.says("is a terminal").says("docker-archive:-").says(" | ");
    }
}

#[test]
fn what_is_wrong_is_said_before_anything_is_sent() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_images(&machine);
    let (reference, to) = (registry.reference("demo/oci:1"), registry.reference("back/app:1"));
    machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci-archive:o.tar:v1"]).ok();
    machine.run(PORTCULLIS, &["push", "oci-archive:o.tar:v2", &to]).exits(1).says("there is v1");
    machine.run(PORTCULLIS, &["push", "docker-archive:none.tar", &to]).exits(1).says("cannot open none.tar");
    machine.run(PORTCULLIS, &["push", "docker-archive:hosts", &to]).exits(1).says("not taken as an image archive");
    machine.run(PORTCULLIS, &["push", "o.tar", &to]).exits(2).says("oci-archive:FILE");
    machine.run(PORTCULLIS, &["pull", &reference, "--to", "docker-archive::x"]).exits(2).says("names no file");
    let all = ["pull", &reference, "--to", "docker-archive:d.tar", "--all-platforms"];
    machine.run(PORTCULLIS, &all).exits(2).says("oci-archive:FILE");
    let other = ["pull", &reference, "--to", "docker-archive:d.tar", "--platform", "linux/s390x"];
    machine.run(PORTCULLIS, &other).exits(1).says("no image for linux/s390x").says("linux/amd64");
    assert!(!machine.dir().join("d.tar").exists());

    // One byte of a layer is another one.
    let mut bytes = fs::read(machine.dir().join("o.tar")).unwrap();
    let place = bytes.len() - 5000;
    bytes[place] ^= 1;
    fs::write(machine.dir().join("o.tar"), bytes).unwrap();
    machine
        .run(PORTCULLIS, &["push", "oci-archive:o.tar", &registry.reference("new/app:1")])
        .exits(1)
        .says("is damaged");
    machine.run(PORTCULLIS, &["manifest", &registry.reference("new/app:1")]).exits(1);
}
