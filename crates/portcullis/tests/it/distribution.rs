//! A data directory goes from CNCF Distribution to Portcullis and back, and each serves what the other has made of it.
//!
//! `Volume` remembers what must be there and what must not, as it is told to push and delete through either registry,
//! and compares all of it with what a registry answers: bytes, digests, tags, catalog.

mod api;
mod unfit;
pub(crate) mod volume;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::Stdio;

use portcullis_oci::{Algorithm, Digest};
use portcullis_testkit::image::{Blob, Flavor, Image, index_of, random_bytes};
use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use rustix::process::Signal;
use serde_json::{Value, json};

use self::api::{Api, Request};
use self::volume::{Volume, link};
use crate::docker_registry::{DOCKER_REGISTRY, DockerRegistry, collect};
use crate::netns::{ADDRESS, HOST, IP, Machine, NSENTER};
use crate::peers::{CURL, curl_identity, files_below};
use crate::process::{DEADLINE, Running, eventually, read_lossy};
use crate::registry::{PORTCULLIS, Registry};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// `portcullis up --data DIR` on a directory that another registry has made, then the registry as every test has it: the
/// first run has written where the data is into its configuration.
fn adopt<'m>(machine: &'m Machine, data: &Path) -> Registry<'m> {
    let mut command = machine.command(PORTCULLIS);
    command.arg("up").arg("--data").arg(data).arg("--home").arg(machine.dir().join("registry"));
    command.args(["--listen", &format!("{ADDRESS}:5443"), "--name", HOST]).stdin(Stdio::null());
    let mut first = Running::start(command, &machine.logs());
    let made = eventually(DEADLINE, || first.has_ended() || !read_lossy(&first.stdout).is_empty());
    assert!(made && !first.has_ended(), "{}", first.said());
    first.signal(Signal::TERM);
    first.wait(DEADLINE).ok();
    Registry::up(machine)
}

pub(crate) fn docker_api(machine: &Machine) -> Api<'_> {
    Api::new(machine, &DockerRegistry::base(), &[])
}

/// The administrator, who alone may delete.
pub(crate) fn portcullis_api<'m>(machine: &'m Machine, registry: &Registry<'_>) -> Api<'m> {
    let admin = PairFiles::named(&registry.home().join("pki/clients/admin"), "client");
    Api::new(machine, &registry.url(""), &curl_identity(registry, Some(&admin)))
}

fn manifest(media_type: &str, bytes: &Value) -> Blob {
    Blob::new(media_type, serde_json::to_vec(bytes).unwrap())
}

/// An OCI image manifest of blobs that were pushed already.
fn image_of(config: &Blob, layers: &[Value], more: &Value) -> Blob {
    let mut body = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.descriptor(), "layers": layers,
    });
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    manifest(OCI_MANIFEST, &body)
}

fn artifact(subject: &Blob, artifact_type: &str) -> Blob {
    let empty = Blob::new("application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let more = json!({"artifactType": artifact_type, "subject": subject.descriptor()});
    image_of(&empty, &[empty.descriptor()], &more)
}

fn layer_descriptor(digest: &Digest, size: usize) -> Value {
    json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest.to_string(), "size": size})
}

/// Two images of the same base layer.
fn with_base_of(image: &Image, seed: u64) -> Image {
    let mut derived = Image::new(seed, &[300]);
    derived.layers.insert(0, image.layers[0].clone());
    let layers: Vec<Value> = derived.layers.iter().map(Blob::descriptor).collect();
    derived.manifest = image_of(&derived.config, &layers, &json!({}));
    derived
}

/// What `docker-registry` puts into the directory at first, and what later steps need of it.
struct Made {
    first: Image,
    second: Image,
    doomed: Image,
    alias: Digest,
    sbom: Blob,
}

fn fill(volume: &mut Volume, docker: &Api<'_>) -> Made {
    let first = Image::new(21, &[70_000, 10]);
    let second = with_base_of(&first, 22);
    volume.push_image(docker, "team/app", &first, &["1", "latest"]);
    volume.push_image(docker, "team/app", &second, &["2", "latest"]);
    let pictures = Image::with_flavor(Flavor::Docker, 23, &[100, 0]);
    volume.push_image(docker, "library/base", &pictures, &["docker"]);

    let platforms = [Image::new(24, &[500]), Image::new(25, &[500])];
    for image in &platforms {
        volume.push_image(docker, "library/base", image, &[]);
    }
    let index = index_of(platforms.iter().zip(["amd64", "arm64"]));
    volume.push_manifest(docker, "library/base", &index, &["multi"]);

    let mut untyped: Value = serde_json::from_slice(&second.manifest.bytes).unwrap();
    untyped.as_object_mut().unwrap().remove("mediaType");
    volume.push_manifest(docker, "team/app", &manifest(OCI_MANIFEST, &untyped), &["untyped"]);

    // The data lies under its sha256, with a second link that leads there. Its collector knows it by that name only and
    // would take it from a manifest that says sha512: hence the manifest that says sha256.
    let content = random_bytes(26, 5_000);
    let alias = volume.push_blob(docker, "team/app", Algorithm::Sha512, &content);
    let canonical = Digest::of(Algorithm::Sha256, &content);
    let by_alias = image_of(&first.config, &[layer_descriptor(&alias, content.len())], &json!({}));
    volume.push_manifest(docker, "team/app", &by_alias, &["alias"]);
    let by_sha256 = image_of(&first.config, &[layer_descriptor(&canonical, content.len())], &json!({}));
    volume.push_manifest(docker, "team/app", &by_sha256, &["canonical"]);

    volume.mount(docker, "team/app", "mounted/copy", &first.layers[0]);
    volume.mount(docker, "team/app", "mounted/copy", &first.config);
    let copy = image_of(&first.config, &[first.layers[0].descriptor()], &json!({}));
    volume.push_manifest(docker, "mounted/copy", &copy, &["1"]);
    volume.mount(docker, "team/app", "mounted/nothing-else", &first.layers[1]);

    volume.push_blob(docker, "team/app", Algorithm::Sha256, b"{}");
    let sbom = artifact(&first.manifest, "application/vnd.example.sbom");
    volume.push_manifest(docker, "team/app", &sbom, &[]);

    let deleted = Image::new(27, &[50]);
    volume.push_image(docker, "team/app", &deleted, &["old", "older"]);
    volume.delete_manifest(docker, "team/app", &deleted.manifest);
    let doomed = Image::new(28, &[50]);
    volume.push_image(docker, "team/app", &doomed, &["doomed", "doomed-too"]);
    volume.push_image(docker, "emptied", &doomed, &["only"]);
    Made { first, second, doomed, alias, sbom }
}

/// The types of what refers to a manifest, as the referrers API lists them.
fn referrers(api: &Api<'_>, repository: &str, subject: &Blob) -> Vec<(String, String)> {
    let answer = api.get(&format!("/v2/{repository}/referrers/{}", subject.digest)).expect(200);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let listed = body["manifests"].as_array().unwrap().iter();
    listed.map(|found| (text(&found["digest"]), text(&found["artifactType"]))).collect()
}

fn named(artifact: &Blob, artifact_type: &str) -> (String, String) {
    (artifact.digest.to_string(), artifact_type.to_owned())
}

#[test]
fn a_volume_goes_to_portcullis_and_back_and_over_again() {
    skip_unless!(IP, NSENTER, CURL, DOCKER_REGISTRY, Need::Namespaces);
    let machine = Machine::new();
    let data = machine.dir().join("volume");
    let mut volume = Volume::default();

    let docker = docker_api(&machine);
    let server = DockerRegistry::start(&machine, &data);
    let made = fill(&mut volume, &docker);
    volume.check(&docker);
    let alias_link = link(&data, "team/app/_layers", &made.alias);
    assert!(fs::read_to_string(&alias_link).unwrap().starts_with("sha256:"), "the volume has an alias link");
    server.stop();

    let mut registry = adopt(&machine, &data);
    let portcullis = portcullis_api(&machine, &registry);
    volume.check(&portcullis);
    assert_eq!(
        referrers(&portcullis, "team/app", &made.first.manifest),
        [named(&made.sbom, "application/vnd.example.sbom")]
    );
    let added = change_with_portcullis(&machine, &registry, &mut volume, &portcullis, &made);
    volume.check(&portcullis);
    assert_eq!(registry.stop().code(), Some(0));
    assert!(!registry.log().contains("treated as absent"), "nothing of it is damaged");

    let server = DockerRegistry::start(&machine, &data);
    volume.check(&docker);
    server.stop();
    collect(&machine, &data);
    assert!(!volume::data(&data, &made.doomed.manifest.digest).exists(), "its collector has worked");
    let server = DockerRegistry::start(&machine, &data);
    volume.check(&docker);

    let signature = change_with_docker(&mut volume, &docker, &made, &added);
    volume.check(&docker);
    server.stop();
    make_old(&machine, &data);
    registry.start_again();
    volume.check(&portcullis);
    let signed = [named(&signature, "application/vnd.example.signature")];
    assert_eq!(referrers(&portcullis, "team/app", &made.first.manifest), signed);
    registry.portcullis(&["gc"]).ok();
    let unused = &added.layers[1].digest;
    assert!(!volume::data(&data, unused).exists(), "the collector has worked: no manifest names {unused} any more");
    volume.check(&portcullis);
    assert_eq!(referrers(&portcullis, "team/app", &made.first.manifest), signed);
    registry.portcullis(&["fsck"]).ok();
}

/// As if nothing had been touched for days: nothing is young enough to be spared for that alone.
#[track_caller]
fn make_old(machine: &Machine, data: &Path) {
    machine.run("find", &[&data.display().to_string(), "-exec", "touch", "-d", "2 days ago", "{}", "+"]).ok();
}

/// Adds, retags, deletes tags and manifests. Returns the image that was pushed with our own client.
fn change_with_portcullis(
    machine: &Machine,
    registry: &Registry<'_>,
    volume: &mut Volume,
    portcullis: &Api<'_>,
    made: &Made,
) -> Image {
    registry.fill_certs(&machine.docker_certs(&registry.host()), &registry.new_client("ci-7"));
    let added = with_base_of(&made.first, 31);
    added.write_layout(&machine.dir().join("layout"), "v1");
    for (repository, tag) in [("team/app", "3"), ("added/by/portcullis", "1")] {
        let reference = registry.reference(&format!("{repository}:{tag}"));
        machine.run(PORTCULLIS, &["push", "oci:layout:v1", &reference]).ok();
        volume.expect_image(repository, &added, &[tag]);
    }
    let content = random_bytes(32, 3_000);
    let digest = volume.push_blob(portcullis, "team/app", Algorithm::Sha512, &content);
    let native = image_of(&made.first.config, &[layer_descriptor(&digest, content.len())], &json!({}));
    volume.push_manifest(portcullis, "team/app", &native, &["native-sha512"]);
    volume.mount(portcullis, "team/app", "mounted/copy", &made.second.layers[1]);

    volume.push_manifest(portcullis, "team/app", &made.first.manifest, &["latest"]);
    volume.delete_tag(portcullis, "library/base", "docker");
    volume.delete_tag(portcullis, "team/app", "2");
    volume.delete_manifest(portcullis, "team/app", &made.doomed.manifest);
    volume.delete_manifest(portcullis, "emptied", &made.doomed.manifest);
    added
}

/// The same the other way round, with what each has made. Returns the artifact that replaces the first one.
fn change_with_docker(volume: &mut Volume, docker: &Api<'_>, made: &Made, added: &Image) -> Blob {
    let newest = with_base_of(added, 41);
    volume.push_image(docker, "team/app", &newest, &["latest", "2"]);
    volume.push_image(docker, "added/by/portcullis", &newest, &["2"]);
    volume.push_manifest(docker, "team/app", &made.second.manifest, &["3"]);
    volume.delete_manifest(docker, "team/app", &added.manifest);
    volume.delete_manifest(docker, "added/by/portcullis", &added.manifest);
    // Deleted by Portcullis, pushed again.
    volume.push_image(docker, "emptied", &made.doomed, &["again"]);
    volume.delete_manifest(docker, "team/app", &made.sbom);
    let signature = artifact(&made.first.manifest, "application/vnd.example.signature");
    volume.push_manifest(docker, "team/app", &signature, &["signature"]);
    signature
}

/// Schema 1 as releases up to 2.8 stored it, without its signatures; 2.1.0 linked it among the layers.
#[test]
fn schema_1_is_served_from_wherever_a_release_has_linked_it() {
    skip_unless!(IP, NSENTER, CURL, DOCKER_REGISTRY, Need::Namespaces);
    let machine = Machine::new();
    let data = machine.dir().join("volume");
    let layer = Blob::new("", random_bytes(51, 100));
    let old = |name: &str| {
        let history = [json!({"v1Compatibility": "{\"id\":\"a\"}"})];
        let layers = [json!({"blobSum": layer.digest.to_string()})];
        let body = json!({
            "schemaVersion": 1, "name": name, "tag": "1", "architecture": "amd64", "fsLayers": layers, "history": history,
        });
        manifest(SCHEMA1, &body)
    };
    for (repository, place) in [("old/app", "_manifests/revisions"), ("oldest/app", "_layers")] {
        let old = old(repository);
        volume::write(&volume::data(&data, &layer.digest), &layer.bytes);
        volume::write(&volume::data(&data, &old.digest), &old.bytes);
        let written = old.digest.to_string();
        volume::write(&link(&data, &format!("{repository}/_layers"), &layer.digest), layer.digest.to_string());
        volume::write(&link(&data, &format!("{repository}/{place}"), &old.digest), &written);
        volume::write(&data.join(volume::tag_link(repository, "1")), &written);
    }
    let paths = ["old/app", "oldest/app"].map(|repository| (repository, old(repository)));

    let server = DockerRegistry::start(&machine, &data);
    for (repository, old) in &paths {
        // It signs them anew each time: only the digest header tells that it is this one.
        let answer = docker_api(&machine).get(&format!("/v2/{repository}/manifests/1")).expect(200);
        assert_eq!(answer.header("docker-content-digest"), Some(old.digest.to_string()), "{repository}");
    }
    server.stop();
    let registry = adopt(&machine, &data);
    let api = portcullis_api(&machine, &registry);
    for (repository, old) in &paths {
        for reference in ["1".to_owned(), old.digest.to_string()] {
            let answer = api.get(&format!("/v2/{repository}/manifests/{reference}")).expect(200);
            assert_eq!(answer.header("docker-content-digest"), Some(old.digest.to_string()), "{repository}");
            assert_eq!(answer.body, old.bytes);
        }
        api.delete(&format!("/v2/{repository}/blobs/{}", layer.digest)).expect(405);
        api.delete(&format!("/v2/{repository}/manifests/{}", old.digest)).expect(202);
        api.get(&format!("/v2/{repository}/manifests/{}", old.digest)).expect(404);
    }
}

/// Links that are empty or lead nowhere, data that was never written: 404 for each, never a 500, and a push repairs it.
#[test]
fn a_damaged_volume_is_served_as_far_as_it_is_whole() {
    skip_unless!(IP, NSENTER, CURL, DOCKER_REGISTRY, Need::Namespaces);
    let machine = Machine::new();
    let data = machine.dir().join("volume");
    let mut volume = Volume::default();
    let docker = docker_api(&machine);
    let server = DockerRegistry::start(&machine, &data);
    let images: Vec<Image> = (61..66).map(|seed| Image::new(seed, &[2_000])).collect();
    for (number, image) in images.iter().enumerate() {
        volume.push_image(&docker, "team/app", image, &[&format!("{number}")]);
    }
    server.stop();
    let layer = |number: usize| &images[number].layers[0];
    let truncate = |path: &Path, len: u64| fs::File::options().write(true).open(path).unwrap().set_len(len).unwrap();
    truncate(&link(&data, "team/app/_layers", &layer(0).digest), 0);
    truncate(&volume::data(&data, &layer(1).digest), 0);
    truncate(&volume::data(&data, &layer(3).digest), 100);
    fs::remove_file(volume::data(&data, &layer(2).digest)).unwrap();
    truncate(&volume::data(&data, &images[0].manifest.digest), 100);
    truncate(&volume::data(&data, &images[1].manifest.digest), 0);
    truncate(&link(&data, "team/app/_manifests/revisions", &images[2].manifest.digest), 0);
    truncate(&data.join(volume::tag_link("team/app", "3")), 0);
    fs::remove_dir_all(data.join(volume::tag_link("team/app", "4")).parent().unwrap()).unwrap();
    let nothing = Digest::of(Algorithm::Sha256, b"never pushed").to_string();
    volume::write(&data.join(volume::tag_link("team/app", "dangling")), &nothing);
    volume::write(&data.join(volume::tag_link("team/app", "garbled")), "sha256:");

    let registry = adopt(&machine, &data);
    let api = portcullis_api(&machine, &registry);
    let mut absent: Vec<String> = ["0", "1", "2", "3", "4", "dangling", "garbled"].map(str::to_owned).into();
    absent.extend(images[..3].iter().map(|image| image.manifest.digest.to_string()));
    let mut paths: Vec<String> = absent.iter().map(|reference| format!("/v2/team/app/manifests/{reference}")).collect();
    paths.extend((0..3).map(|number| format!("/v2/team/app/blobs/{}", layer(number).digest)));
    for path in &paths {
        let answers = api.send(&[Request::get(path), Request::head(path)]);
        assert_eq!([answers[0].status, answers[1].status], [404, 404], "{path}");
    }
    for (number, image) in images[..3].iter().enumerate() {
        // An upload begins instead: 202, not 201.
        let mount = format!("/v2/mounted/blobs/uploads/?mount={}&from=team/app", layer(number).digest);
        api.one(Request::post(&mount)).expect(202);
        let refused = api.one(Request::put_manifest("team/app", "new", &image.manifest)).expect(404);
        assert_eq!(refused.error_code(), "MANIFEST_BLOB_UNKNOWN");
    }
    // That a blob is cut short only its digest tells, to whoever reads it.
    let cut = api.get(&format!("/v2/team/app/blobs/{}", layer(3).digest)).expect(200);
    assert_eq!(cut.body, layer(3).bytes[..100]);
    let tags: Value = serde_json::from_slice(&api.get("/v2/team/app/tags/list").expect(200).body).unwrap();
    assert!(!tags["tags"].as_array().unwrap().contains(&json!("4")), "a tag without current/ is none: {tags}");
    for what in ["it holds no digest", "it points to nothing", "it points to an empty file", "it points to no revision"]
    {
        registry.log_line(&["treated as absent", what]);
    }
    assert!(!registry.log().contains("status=500"), "{}", registry.log());
    let report = registry.portcullis(&["fsck", "--json"]).exits(4);
    for kind in ["link-empty", "link-garbled", "blob-corrupt", "tag-without-link", "tag-dangling"] {
        let report = report.stdout.matches(&format!("\"kind\": \"{kind}\"")).count();
        assert!(report > 0, "{kind}");
    }

    for (number, image) in images.iter().enumerate() {
        volume.push_image(&api, "team/app", image, &[&format!("{number}")]);
    }
    for tag in ["dangling", "garbled"] {
        api.delete(&format!("/v2/team/app/manifests/{tag}")).expect(202);
    }
    volume.check(&api);
    registry.portcullis(&["fsck"]).ok();
}

/// Both run as the owner of the tree, Portcullis because its home is his too: what one has made the other can change.
#[test]
fn what_is_added_has_the_modes_and_the_owner_of_the_tree() {
    const SOMEBODY: u32 = 4711;
    skip_unless!(IP, NSENTER, CURL, DOCKER_REGISTRY, Need::Program("setpriv"), Need::Namespaces);
    let machine = Machine::new();
    let (data, home) = (machine.subdir("volume"), machine.subdir("registry"));
    for dir in [&data, &home] {
        chown(dir, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    }
    let mut volume = Volume::default();
    let docker = docker_api(&machine);
    let server = DockerRegistry::start_as(&machine, SOMEBODY, &data);
    volume.push_image(&docker, "team/app", &Image::new(71, &[100]), &["1"]);
    server.stop();

    let mut registry = adopt(&machine, &data);
    let portcullis = portcullis_api(&machine, &registry);
    let added = Image::new(72, &[100]);
    volume.push_image(&portcullis, "team/app", &added, &["2", "latest"]);
    volume.push_image(&portcullis, "added", &added, &["1"]);
    registry.stop();
    let tree = data.join("docker");
    for file in files_below(&tree).iter().map(|file| tree.join(file)) {
        let of =
            |path: &Path| fs::metadata(path).map(|found| (found.mode() & 0o7777, found.uid(), found.gid())).unwrap();
        assert_eq!(of(&file), (0o644, SOMEBODY, SOMEBODY), "{}", file.display());
        for dir in file.ancestors().skip(1).take_while(|dir| dir.starts_with(&tree)) {
            assert_eq!(of(dir), (0o755, SOMEBODY, SOMEBODY), "{}", dir.display());
        }
    }

    let server = DockerRegistry::start_as(&machine, SOMEBODY, &data);
    volume.check(&docker);
    volume.push_image(&docker, "added", &Image::new(73, &[100]), &["1", "2"]);
    volume.push_manifest(&docker, "team/app", &added.manifest, &["1"]);
    volume.delete_manifest(&docker, "added", &added.manifest);
    volume.check(&docker);
    server.stop();
}
