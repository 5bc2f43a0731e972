//! `tags`, `manifest`, `copy` and `delete` as they are typed: what they print, and what the registry saw of them.

mod mirrors;

use std::fs;
use std::path::Path;
use std::process::Command;

use portcullis_testkit::image::{Blob, Image, index_of};
use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::netns::{IP, Machine, NSENTER};
use crate::process::{self, DEADLINE, Ran, Running, eventually};
use crate::registry::{PORTCULLIS, Registry};

/// A registry, its client ci-7 where Docker looks for its certificate, and an image in demo/app with tags 1 and 2.
fn with_image(machine: &Machine) -> (Registry<'_>, PairFiles, Image) {
    let registry = Registry::up(machine);
    let pair = registry.new_client("ci-7");
    registry.fill_certs(&machine.docker_certs("registry.test:5443"), &pair);
    let image = Image::new(7, &[400_000, 5]);
    image.write_layout(&machine.dir().join("layout"), "v1");
    for tag in ["1", "2"] {
        machine.run(PORTCULLIS, &["push", "oci:layout:v1", &registry.reference(&format!("demo/app:{tag}"))]).ok();
    }
    (registry, pair, image)
}

fn tags(machine: &Machine, repository: &str) -> Ran {
    machine.run(PORTCULLIS, &["tags", repository])
}

/// How often a line with all of these words stands in the registry's log.
fn count(registry: &Registry<'_>, words: &[&str]) -> usize {
    registry.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[test]
fn what_there_is_and_what_is_in_it() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _, image) = with_image(&machine);
    let repository = registry.reference("demo/app");

    let listed = tags(&machine, &repository).ok();
    assert_eq!(listed.stdout, "1\n2\n");
    assert!(listed.stderr.contains("client.cert"), "{listed}");
    let json = machine.run(PORTCULLIS, &["tags", &repository, "--json", "--quiet"]).ok();
    assert_eq!(serde_json::from_str::<Vec<String>>(&json.stdout).unwrap(), ["1", "2"]);
    assert_eq!(json.stderr, "");

    let (digest, media_type) = (image.manifest.digest.to_string(), image.manifest.media_type.as_str());
    for reference in [format!("{repository}:1"), format!("{repository}@{digest}")] {
        let shown = machine.run(PORTCULLIS, &["manifest", &reference]).ok();
        assert!(shown.stdout.as_bytes() == image.manifest.bytes, "not the same bytes: {shown}");
        assert!(shown.stderr.contains(&format!("{digest} {media_type}")), "{shown}");
    }

    tags(&machine, &registry.reference("demo/none"))
        .exits(1)
        .says("NAME_UNKNOWN")
        .says("fix: portcullis catalog registry.test:5443\n");
    machine
        .run(PORTCULLIS, &["manifest", &format!("{repository}:9")])
        .exits(1)
        .says("manifests/9")
        .says(&format!("fix: portcullis tags {repository}\n"));
    tags(&machine, &format!("{repository}:1")).exits(2).says(&repository);
    tags(&machine, "demo/app").exits(2).says("does not name a registry");
}

/// No registry and no file is needed to see that a name is short.
#[test]
fn short_names_get_the_command_with_the_full_one() {
    let dir = tempfile::tempdir().unwrap();
    let digest = format!("sha256:{}", "0".repeat(64));
    let by_digest = format!("app@{digest}");
    let full_by_digest = format!("delete docker.io/library/app@{digest}");
    let typed: [(&[&str], &str); 11] = [
        (&["pull", "alpine", "--to", "oci:a b"], "pull docker.io/library/alpine:latest --to 'oci:a b'"),
        (&["pull", "user/app", "--to", "oci:x"], "pull docker.io/user/app:latest --to oci:x"),
        (&["push", "oci:x", "user/app:1"], "push oci:x docker.io/user/app:1"),
        (&["copy", "registry.test/a:1", "app:1"], "copy registry.test/a:1 docker.io/library/app:1"),
        (&["manifest", "alpine:3.20"], "manifest docker.io/library/alpine:3.20"),
        (&["referrers", "alpine"], "referrers docker.io/library/alpine:latest"),
        (&["diff", "alpine:1", "r.test/alpine:1"], "diff docker.io/library/alpine:1 r.test/alpine:1"),
        (&["tags", "alpine"], "tags docker.io/library/alpine"),
        (&["tags", "user/app:1"], "tags docker.io/user/app"),
        (&["delete", "user/app:1"], "delete docker.io/user/app:1"),
        (&["delete", &by_digest], &full_by_digest),
    ];
    for (words, full) in typed {
        let mut command = Command::new(PORTCULLIS);
        command.args(words);
        let ran = process::run(command, dir.path(), DEADLINE).exits(2).says("does not name a registry");
        ran.says(&format!("portcullis {full}\n"));
    }
    for (words, said) in [
        (["manifest", "registry.test:5443"], "write registry.test:5443/NAME"),
        (["tags", "localhost:5000"], "write localhost:5000/NAME"),
        (["manifest", "Alpine"], "write it in full, HOST[:PORT]/NAME[:TAG]"),
    ] {
        let mut command = Command::new(PORTCULLIS);
        command.args(words);
        let ran = process::run(command, dir.path(), DEADLINE).exits(2).says(said);
        assert!(!ran.said().contains("docker.io"), "{ran}");
    }
}

#[test]
fn a_copy_within_a_registry_moves_no_bytes() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _, image) = with_image(&machine);
    let (from, to) = (registry.reference("demo/app:1"), registry.reference("prod/app:2026"));

    let copied = machine.run(PORTCULLIS, &["copy", &from, &to]).ok();
    assert_eq!(copied.stdout.trim(), image.manifest.digest.to_string());
    let blobs = image.blobs().count();
    assert_eq!(copied.stderr.matches("is mounted").count(), blobs, "{copied}");
    // The last line of the copy, so that the others are there too.
    registry.log_line(&["PUT", "/v2/prod/app/manifests/2026", "status=201"]);
    assert_eq!(count(&registry, &["POST", "/v2/prod/app/blobs/uploads/", "status=201"]), blobs);
    assert_eq!(count(&registry, &["PUT", "/v2/prod/app/blobs/"]), 0);
    assert_eq!(count(&registry, &["GET", "/v2/demo/app/blobs/"]), 0);
    machine.run(PORTCULLIS, &["pull", &to, "--to", "oci:out"]).ok();

    let again = machine.run(PORTCULLIS, &["copy", &from, &to, "--quiet"]).ok();
    assert_eq!((again.stdout, again.stderr.as_str()), (copied.stdout, ""));
    let missing = registry.reference("demo/app:9");
    machine.run(PORTCULLIS, &["copy", &missing, &to]).exits(1).says("manifests/9");
}

#[test]
fn a_copy_to_another_registry_with_certificates_of_its_own() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mirror = Registry::up_beside(&machine, "mirror", 6443);
    let (registry, pair, image) = with_image(&machine);
    let (from, to) = (registry.reference("demo/app:1"), mirror.reference("mirror/app:1"));
    let mirrors = mirror.new_client("copier");

    // Each side is refused with the other's certificate, and the one that refuses is named.
    registry.fill_certs(&machine.subdir("wrong"), &mirrors);
    let wrong = ["copy", &from, &to, "--src-cert-dir", "wrong"];
    machine.run(PORTCULLIS, &wrong).exits(3).says("registry.test:5443 refused").says("unknown_ca");
    mirror.fill_certs(&machine.subdir("wrong"), &pair);
    let wrong = ["copy", &from, &to, "--dest-cert-dir", "wrong"];
    machine.run(PORTCULLIS, &wrong).exits(3).says("registry.test:6443 refused").says("unknown_ca");

    mirror.fill_certs(&machine.subdir("at-mirror"), &mirrors);
    let copied = machine.run(PORTCULLIS, &["copy", &from, &to, "--dest-cert-dir", "at-mirror"]).ok();
    assert_eq!(copied.stdout.trim(), image.manifest.digest.to_string());
    mirror.log_line(&["PUT", "/v2/mirror/app/manifests/1", "status=201"]);
    assert_eq!(count(&mirror, &["PUT", "/v2/mirror/app/blobs/uploads/", "status=201"]), image.blobs().count());
    let pull = ["pull", &to, "--to", "oci:out", "--cert-dir", "at-mirror"];
    machine.run(PORTCULLIS, &pull).ok();
    for blob in image.blobs().chain([&image.manifest]) {
        let path = machine.dir().join("out/blobs/sha256").join(blob.digest.hex());
        assert!(fs::read(&path).unwrap() == blob.bytes, "{}", path.display());
    }

    // One root with a directory for each of them.
    registry.fill_certs(&machine.subdir("certs/registry.test:5443"), &pair);
    mirror.fill_certs(&machine.subdir("certs/registry.test:6443"), &mirrors);
    let again = ["copy", &to, &registry.reference("back/app:1"), "--certs-dir", "certs"];
    machine.run(PORTCULLIS, &again).ok().says("registry.test:6443: using the client certificate");
}

#[test]
fn a_tag_is_deleted_alone_and_a_manifest_with_its_tags() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _, image) = with_image(&machine);
    let repository = registry.reference("demo/app");
    let by_digest = format!("{repository}@{}", image.manifest.digest);
    // The only one who may, and whose directory is one as it is.
    let admin = registry.home().join("pki/clients/admin").display().to_string();
    let delete = |what: &str| machine.run(PORTCULLIS, &["delete", what, "--cert-dir", &admin]);

    // Nothing is guessed where something is lost by it.
    delete(&repository).exits(2).says(&format!("{repository}:TAG"));
    delete(&format!("{repository}:1@{}", image.manifest.digest)).exits(2).says("names a tag and a digest");
    for what in [&format!("{repository}:1"), &by_digest] {
        machine.run(PORTCULLIS, &["delete", what]).exits(3).says("DENIED").says("CN=ci-7").says("fix: ");
    }
    assert_eq!(tags(&machine, &repository).ok().stdout, "1\n2\n");

    let deleted = delete(&format!("{repository}:1")).ok().says("its manifest stays");
    assert_eq!(deleted.stdout, format!("deleted {repository}:1\n"));
    assert_eq!(tags(&machine, &repository).ok().stdout, "2\n");
    machine.run(PORTCULLIS, &["manifest", &by_digest]).ok();
    machine.run(PORTCULLIS, &["manifest", &format!("{repository}:1")]).exits(1).says("404");
    delete(&format!("{repository}:1")).exits(1).says("404").says("fix: ");

    delete(&by_digest).ok().says("that pointed to it are deleted too");
    assert!(!tags(&machine, &repository).stdout.contains('2'));
    for reference in [&by_digest, &format!("{repository}:2")] {
        machine.run(PORTCULLIS, &["manifest", reference]).exits(1).says("404");
    }
    delete(&by_digest).exits(1).says("MANIFEST_UNKNOWN");
}

#[test]
fn what_two_images_differ_in() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _, image) = with_image(&machine);
    let [first, same, second] = ["app:1", "app:2", "app:3"].map(|name| registry.reference(&format!("demo/{name}")));
    let other = Image::new(7, &[400_000, 6, 70]);
    other.write_layout(&machine.dir().join("layout"), "v3");
    machine.run(PORTCULLIS, &["push", "oci:layout:v3", &second]).ok();

    machine.run(PORTCULLIS, &["diff", &first, &same]).ok().says("the same image");
    let told = machine.run(PORTCULLIS, &["diff", &first, &second]).exits(4);
    let [base, top] = [&image.layers[0], &image.layers[1]].map(|layer| layer.digest.to_string());
    for text in ["linux/amd64", "layers: 1 in common", &format!("- {top}"), &format!("+ {}", other.layers[2].digest)] {
        assert!(told.stdout.contains(text), "{text}: {told}");
    }
    assert!(!told.stdout.contains(&base), "what is in common is not told: {told}");
    let json = machine.run(PORTCULLIS, &["diff", &first, &second, "--json", "--platform", "amd64"]).exits(4);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["images"][0]["platform"], "linux/amd64");
    assert_eq!(json["images"][0]["layers"]["common"], 1);
    assert_eq!(json["first"]["digest"], image.manifest.digest.to_string());
    machine.run(PORTCULLIS, &["diff", &first, &second, "--platform", "arm64"]).exits(1).says("there is linux/amd64");
}

#[test]
fn repositories_and_what_refers_to_an_image() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _, image) = with_image(&machine);
    let listed = machine.run(PORTCULLIS, &["catalog", &registry.host()]).ok();
    assert_eq!(listed.stdout, "demo/app\n");
    let listed = machine.run(PORTCULLIS, &["catalog", &registry.host(), "--json", "--quiet"]).ok();
    assert_eq!(serde_json::from_str::<Vec<String>>(&listed.stdout).unwrap(), ["demo/app"]);

    let tag = registry.reference("demo/app:1");
    machine.run(PORTCULLIS, &["referrers", &tag]).ok().says("nothing refers to");
    // A signature, as a layout has it: listed beside the image, without a name.
    let signature = image.referrer("application/vnd.test.signature", b"signed");
    signature.add_to_layout(&machine.dir().join("layout"));
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", &tag]).ok();
    machine.run(PORTCULLIS, &["referrers", &tag]).ok().says("nothing refers to");
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", &tag, "--referrers"]).ok();
    let listed = machine.run(PORTCULLIS, &["referrers", &tag]).ok();
    let digest = signature.manifest.digest.to_string();
    assert!(listed.stdout.starts_with(&format!("{digest}  application/vnd.test.signature  ")), "{listed}");
    let none = ["referrers", &tag, "--artifact-type", "application/other", "--json"];
    assert_eq!(machine.run(PORTCULLIS, &none).ok().stdout.trim(), "[]");

    // It goes along with a copy, and into a layout.
    let copy = registry.reference("prod/app:1");
    machine.run(PORTCULLIS, &["copy", &tag, &copy, "--referrers"]).ok();
    machine.run(PORTCULLIS, &["referrers", &copy]).ok().says(&digest);
    machine.run(PORTCULLIS, &["pull", &copy, "--to", "oci:out", "--referrers"]).ok();
    machine.run(PORTCULLIS, &["push", "oci:out:1", &registry.reference("third/app:1"), "--referrers"]).ok();
    machine.run(PORTCULLIS, &["referrers", &registry.reference("third/app:1")]).ok().says(&digest);
    machine.run(PORTCULLIS, &["pull", &copy, "--to", "oci-archive:out.tar", "--referrers"]).ok();
    machine
        .run(PORTCULLIS, &["push", "oci-archive:out.tar:1", &registry.reference("fourth/app:1"), "--referrers"])
        .ok();
    machine.run(PORTCULLIS, &["referrers", &registry.reference("fourth/app:1")]).ok().says(&digest);
}

#[test]
fn a_dry_run_writes_nothing() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _, image) = with_image(&machine);
    let (from, to) = (registry.reference("demo/app:1"), registry.reference("new/app:1"));
    let digest = image.manifest.digest.to_string();
    for args in [
        vec!["push", "oci:layout:v1", &to, "--dry-run"],
        vec!["copy", &from, &to, "--dry-run"],
        vec!["pull", &from, "--to", "oci:out", "--dry-run"],
        vec!["pull", &from, "--to", "docker-archive:out.tar", "--dry-run"],
    ] {
        let told = machine.run(PORTCULLIS, &args).ok().says("would transfer 3 blobs").says("nothing was written");
        assert_eq!(told.stdout.trim(), digest, "{told}");
    }
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", &from, "--dry-run"]).ok().says("3 blobs (394.9 KiB) are there");
    machine.run(PORTCULLIS, &["delete", &format!("demo@{digest}"), "--dry-run"]).exits(2);
    let all = format!("{}@{digest}", registry.reference("demo/app"));
    let told = machine.run(PORTCULLIS, &["delete", &all, "--dry-run"]).ok();
    assert_eq!(told.stdout.lines().count(), 3, "{told}");
    assert_eq!(tags(&machine, &registry.reference("demo/app")).ok().stdout, "1\n2\n");
    machine.run(PORTCULLIS, &["manifest", &to]).exits(1);
    assert!(!machine.dir().join("out").exists() && !machine.dir().join("out.tar").exists());
    assert_eq!(count(&registry, &["POST", "/v2/new/app/"]), 0);
}

#[test]
fn one_platform_of_an_index_is_taken() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    registry.fill_certs(&machine.docker_certs("registry.test:5443"), &registry.new_client("ci-7"));
    let images = [Image::new(7, &[1_000]), for_arm64(Image::new(8, &[2_000]))];
    let index = write_index(&machine.dir().join("layout"), &images.each_ref(), &["amd64", "arm64"]);
    let reference = registry.reference("demo/multi:1");
    assert_eq!(machine.run(PORTCULLIS, &["push", "oci:layout:multi", &reference]).ok().stdout.trim(), index);

    let pull = |place: &str, platform: &str| {
        machine.run(PORTCULLIS, &["pull", &reference, "--to", place, "--platform", platform])
    };
    for (image, platform) in [(&images[0], "linux/amd64"), (&images[1], "linux/arm64"), (&images[1], "linux/aarch64")] {
        let dir = platform.replace('/', "-");
        let pulled = pull(&format!("oci:{dir}"), platform).ok();
        assert_eq!(pulled.stdout.trim(), image.manifest.digest.to_string(), "{platform}");
        let blobs = machine.dir().join(dir).join("blobs/sha256");
        assert_eq!(
            fs::read_dir(&blobs).unwrap().count(),
            3,
            "{platform}: manifest, config and layer, and nothing else"
        );
        assert!(fs::read(blobs.join(image.layers[0].digest.hex())).is_ok_and(|bytes| bytes == image.layers[0].bytes));
    }
    for place in ["oci:none", "oci-archive:none.tar", "docker-archive:none.tar"] {
        let missing = pull(place, "linux/s390x").exits(1);
        missing.says("there is no image for linux/s390x (there is linux/amd64, linux/arm64)");
        assert!(!machine.dir().join("none.tar").exists());
    }
    pull("oci:none", "linux/").exits(2);
    let whole = machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci:whole"]).ok();
    assert_eq!(whole.stdout.trim(), index);
}

/// The same image with another architecture in its config.
fn for_arm64(mut image: Image) -> Image {
    let mut config: Value = serde_json::from_slice(&image.config.bytes).unwrap();
    config["architecture"] = json!("arm64");
    image.config = Blob::new("application/vnd.oci.image.config.v1+json", serde_json::to_vec(&config).unwrap());
    let mut manifest: Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    manifest["config"] = image.config.descriptor();
    image.manifest = Blob::new("application/vnd.oci.image.manifest.v1+json", serde_json::to_vec(&manifest).unwrap());
    image
}

/// Writes the images and an index of them, tagged `multi`; says the index's digest.
fn write_index(layout: &Path, images: &[&Image], architectures: &[&str]) -> String {
    for image in images {
        image.add_to_layout(layout);
    }
    let index = index_of(images.iter().copied().zip(architectures.iter().copied()));
    fs::write(layout.join("blobs/sha256").join(index.digest.hex()), &index.bytes).unwrap();
    let mut listed = index.descriptor();
    listed["annotations"] = json!({"org.opencontainers.image.ref.name": "multi"});
    let listed = json!({"schemaVersion": 2, "mediaType": index.media_type, "manifests": [listed]});
    fs::write(layout.join("index.json"), serde_json::to_vec(&listed).unwrap()).unwrap();
    index.digest.to_string()
}

#[test]
fn what_happens_is_told_to_programs_as_json() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _, image) = with_image(&machine);
    let from = registry.reference("demo/app:1");
    let told = machine.run(PORTCULLIS, &["pull", &from, "--to", "oci:out", "--json"]).ok();
    let events: Vec<Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str, state: Option<&str>| {
        let is_one = |told: &&Value| told["event"] == event && state.is_none_or(|state| told["state"] == state);
        events.iter().filter(is_one).count()
    };
    assert_eq!(
        (of("planned", None), of("manifest", None), of("tagged", None), of("done", None)),
        (1, 1, 1, 1),
        "{told}"
    );
    assert_eq!((of("blob", Some("started")), of("blob", Some("done"))), (3, 3), "{told}");
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["fetched"]), (&"done".into(), &3.into()));
    assert_eq!(last["digest"], image.manifest.digest.to_string());
    let again = machine.run(PORTCULLIS, &["pull", &from, "--to", "oci:out", "--json"]).ok();
    assert_eq!(again.stdout.matches(r#""state":"there""#).count(), 3, "{again}");
}

#[test]
fn an_interrupted_pull_leaves_nothing_broken_and_says_how_to_go_on() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    registry.fill_certs(&machine.docker_certs("registry.test:5443"), &registry.new_client("ci-7"));
    // Large enough that it is under way when the signal comes.
    Image::new(7, &[600_000_000]).write_layout(&machine.dir().join("layout"), "v1");
    let reference = registry.reference("demo/app:1");
    machine.run(PORTCULLIS, &["push", "oci:layout", &reference]).ok();
    for (place, signal, code) in [("oci:out", Signal::INT, 130), ("docker-archive:out.tar", Signal::TERM, 143)] {
        let mut command = machine.command(PORTCULLIS);
        command.args(["pull", &reference, "--to", place, "--json"]);
        let mut pull = Running::start(command, &machine.logs());
        assert!(eventually(DEADLINE, || pull.has_ended() || pull.said().contains("started")), "{}", pull.said());
        pull.signal(signal);
        pull.wait(DEADLINE).exits(code).says("interrupted: ").says("the same command");
    }
    let left = || walk(machine.dir()).into_iter().filter(|name| name.contains(".portcullis-")).collect::<Vec<_>>();
    // What has come of a blob is what the next pull goes on with.
    assert!(left().iter().all(|name| name.contains("-partial-")), "{:?}", left());
    assert!(!machine.dir().join("out.tar").exists());
    machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci:out"]).ok();
    assert!(left().is_empty(), "{:?}", left());
}

/// The names of all files in the directory itself and in the layout `out`.
fn walk(dir: &Path) -> Vec<String> {
    let names = |dir: &Path| fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    names(dir).chain(names(&dir.join("out"))).map(|name| name.to_string_lossy().into_owned()).collect()
}
