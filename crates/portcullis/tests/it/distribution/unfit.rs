//! What cannot go back to Distribution: `fsck --for distribution` lists one of each kind and nothing else, and
//! `docker-registry` does to each what the list says.

use std::collections::BTreeSet;
use std::path::Path;

use portcullis_oci::{Algorithm, Digest};
use portcullis_testkit::image::{Blob, Image, random_bytes};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use serde_json::{Value, json};

use super::api::{Api, Request};
use super::volume::{self, Volume, link};
use super::{adopt, artifact, docker_api, image_of, layer_descriptor, make_old, manifest, portcullis_api};
use crate::docker_registry::{DOCKER_REGISTRY, DockerRegistry, collect, collect_untagged, collector};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::CURL;
use crate::registry::Registry;

/// What Distribution has made of two layers that were pushed under other algorithms than its own.
struct Aliases {
    /// In a manifest that names it as sha512; the data lies under its sha256.
    lost: Digest,
    /// The same as sha384, which has no type here.
    sha384: String,
    sha384_data: Digest,
    sha384_manifest: Blob,
}

fn push_aliases(machine: &Machine, volume: &mut Volume, docker: &Api<'_>, base: &Image) -> Aliases {
    let content = random_bytes(101, 4_000);
    let sha512 = volume.push_blob(docker, "team/app", Algorithm::Sha512, &content);
    let by_alias = image_of(&base.config, &[layer_descriptor(&sha512, content.len())], &json!({}));
    volume.push_manifest(docker, "team/app", &by_alias, &["sha512"]);

    let other = random_bytes(102, 4_000);
    std::fs::write(machine.dir().join("other"), &other).unwrap();
    let sum = machine.run("sha384sum", &["other"]).ok();
    let sha384 = format!("sha384:{}", sum.stdout.split(' ').next().unwrap());
    let begun = docker.one(Request::post("/v2/team/app/blobs/uploads/")).expect(202);
    let location = format!("{}&digest={sha384}", begun.header("location").unwrap());
    docker.one(Request::put(&location, "application/octet-stream", &other)).expect(201);
    let layer = json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha384, "size": other.len()});
    let sha384_manifest = image_of(&base.config, &[layer], &json!({}));
    docker.one(Request::put_manifest("team/app", "sha384", &sha384_manifest)).expect(201);
    docker.get(&format!("/v2/team/app/blobs/{sha384}")).expect(200);
    volume.expect_unreadable("team/app", "sha384");
    let sha384_data = Digest::of(Algorithm::Sha256, &other);
    Aliases { lost: Digest::of(Algorithm::Sha256, &content), sha384, sha384_data, sha384_manifest }
}

/// `kind` and the digest of the manifest that is concerned.
#[track_caller]
fn listed(registry: &Registry<'_>) -> BTreeSet<(String, String)> {
    let ran = registry.portcullis(&["fsck", "--for", "distribution", "--json"]).exits(4);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    findings.map(|finding| (text(&finding["kind"]), text(&finding["manifest"]))).collect()
}

fn copy(machine: &Machine, from: &Path, to: &str) -> std::path::PathBuf {
    let to = machine.dir().join(to);
    machine.run("cp", &["-a", &from.display().to_string(), &to.display().to_string()]).ok();
    to
}

#[test]
fn one_of_each_kind_is_listed_and_nothing_else() {
    skip_unless!(IP, NSENTER, CURL, DOCKER_REGISTRY, Need::Namespaces);
    let machine = Machine::new();
    let data = machine.dir().join("volume");
    let mut volume = Volume::default();
    let docker = docker_api(&machine);
    let server = DockerRegistry::start(&machine, &data);
    let base = Image::new(103, &[500]);
    volume.push_image(&docker, "team/app", &base, &["1"]);
    volume.push_blob(&docker, "team/app", Algorithm::Sha256, b"{}");
    let aliases = push_aliases(&machine, &mut volume, &docker, &base);
    server.stop();

    let mut registry = adopt(&machine, &data);
    let portcullis = portcullis_api(&machine, &registry);
    volume.check(&portcullis);
    sha384_is_absent(&registry, &portcullis, &aliases);

    let untagged = artifact(&base.manifest, "application/vnd.example.sbom");
    volume.push_manifest(&portcullis, "team/app", &untagged, &[]);
    let tagged = artifact(&base.manifest, "application/vnd.example.signature");
    volume.push_manifest(&portcullis, "team/app", &tagged, &["signature"]);
    let mut custom: Value = serde_json::from_slice(&base.manifest.bytes).unwrap();
    custom["mediaType"] = json!("application/vnd.example.model.v1+json");
    let custom = manifest("application/vnd.example.model.v1+json", &custom);
    volume.push_manifest(&portcullis, "team/app", &custom, &["custom"]);

    let by_sha512 = volume.tagged("team/app", "sha512");
    let entry = |kind: &str, digest: &Digest| (kind.to_owned(), digest.to_string());
    let unfit = BTreeSet::from([
        entry("media-type", &custom.digest),
        entry("alias", &by_sha512),
        entry("alias", &aliases.sha384_manifest.digest),
        entry("untagged-referrer", &untagged.digest),
    ]);
    assert_eq!(listed(&registry), unfit);
    registry.stop();

    // What it does to the type that it does not know.
    let with_custom = copy(&machine, &data, "with-custom");
    let server = DockerRegistry::start(&machine, &with_custom);
    docker.get("/v2/team/app/manifests/custom").expect(500);
    docker.get(&format!("/v2/team/app/manifests/{}", custom.digest)).expect(500);
    docker.get("/v2/team/app/manifests/1").expect(200);
    server.stop();
    collector(&machine, &with_custom, &[]).fails().says("application/vnd.example.model.v1+json");

    // The rest, once that is away.
    make_old(&machine, &data);
    registry.start_again();
    volume.delete_manifest(&portcullis, "team/app", &custom);
    // What names it cannot be read, so nothing goes that it might name.
    registry.portcullis(&["gc"]).ok().says(&aliases.sha384_manifest.digest.to_string());
    assert!(volume::data(&data, &aliases.sha384_data).exists());
    let rest: BTreeSet<_> = unfit.into_iter().filter(|(kind, _)| kind != "media-type").collect();
    assert_eq!(listed(&registry), rest);
    registry.stop();
    collect(&machine, &data);
    for lost in [&aliases.lost, &aliases.sha384_data] {
        assert!(!volume::data(&data, lost).exists(), "{lost}");
    }
    let revision = |manifest: &Blob| link(&data, "team/app/_manifests/revisions", &manifest.digest);
    assert!(revision(&untagged).exists());
    collect_untagged(&machine, &data);
    assert!(!revision(&untagged).exists() && revision(&tagged).exists());

    let server = DockerRegistry::start(&machine, &data);
    volume.lose_blob("team/app", &Digest::of(Algorithm::Sha512, &random_bytes(101, 4_000)));
    volume.lose_manifest("team/app", &untagged);
    volume.check(&docker);
    server.stop();

    // And what it has lost is found.
    registry.start_again();
    let lost = registry.portcullis(&["fsck"]).exits(4);
    let named = Digest::of(Algorithm::Sha512, &random_bytes(101, 4_000));
    lost.says(&format!("names {named}, whose data is not there")).says("digest algorithm sha384");
    volume.check(&portcullis);
}

/// Its links and the manifest that names it are as if they were not there, and named by `fsck`.
#[track_caller]
fn sha384_is_absent(registry: &Registry<'_>, portcullis: &Api<'_>, aliases: &Aliases) {
    for reference in ["sha384".to_owned(), aliases.sha384_manifest.digest.to_string()] {
        portcullis.get(&format!("/v2/team/app/manifests/{reference}")).expect(404);
    }
    let refused = portcullis.get(&format!("/v2/team/app/blobs/{}", aliases.sha384)).expect(400);
    assert_eq!(refused.error_code(), "DIGEST_INVALID");
    let named = registry.portcullis(&["fsck"]).exits(4).says("names under the digest algorithm sha384");
    named.says(&format!("{} is no manifest that can be read", aliases.sha384_manifest.digest)).says("team/app:sha384");
}
