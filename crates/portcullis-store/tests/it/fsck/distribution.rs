//! What Distribution could not keep or serve is listed, and nothing else. That it really cannot is shown with the real
//! one, in the tests of the binary.

use portcullis_oci::{Algorithm, Digest};
use portcullis_store::fsck::{Fact, Purpose, Unfit};
use serde_json::json;

use super::{IMAGE, INDEX, descriptor, facts, fsck, image, index, only, push_image, put};
use crate::{Fixture, push, put_manifest, sha256, write};

const SHA384: &str =
    "sha384:000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000";

/// A link of Distribution's from another algorithm to where its data lies.
fn alias(fixture: &Fixture, repository: &str, name: &str, target: &Digest) {
    let (algorithm, hex) = name.split_once(':').unwrap();
    let path = format!("docker/registry/v2/repositories/{repository}/_layers/{algorithm}/{hex}/link");
    write(&fixture.path(&path), target.to_string());
}

#[test]
fn what_it_can_represent_is_not_listed() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (layer, first) = push_image(store, "team/app", b"a layer", &["1"]);
    put(store, "team/app", &index(&[first]), &["multi"]);
    for media_type in [
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ] {
        let mut manifest = if media_type.contains("list") { index(&[first]) } else { image(&[layer]) };
        manifest["mediaType"] = json!(media_type);
        put(store, "team/app", &manifest, &[]);
    }
    for mut untyped in [image(&[layer]), index(&[first])] {
        untyped.as_object_mut().unwrap().remove("mediaType");
        put(store, "team/app", &untyped, &[]);
    }
    let mut tagged = image(&[layer]);
    tagged["subject"] = descriptor(&first);
    put(store, "team/app", &tagged, &["signature"]);
    // sha512 under its own name: its collector marks it by that name.
    let native = Digest::of(Algorithm::Sha512, b"native");
    let mut upload = store.start_upload(&"team/app".parse().unwrap(), Algorithm::Sha512, "pin:alice").unwrap();
    upload.append(b"native").unwrap();
    upload.finish(&native).unwrap();
    put(store, "team/app", &image(&[native]), &["native"]);
    assert_eq!(fsck(store, Purpose::ForDistribution).findings(), []);
}

#[test]
fn types_and_values_that_it_cannot_read() {
    let fixture = Fixture::new();
    let store = fixture.store();
    push_image(store, "app", b"a layer", &["1"]);
    let mut custom = image(&[]);
    custom["mediaType"] = json!("application/vnd.example+json");
    let manifest = put(store, "app", &custom, &["custom"]);
    let run = fsck(store, Purpose::ForDistribution);
    let media_type = "application/vnd.example+json".to_owned();
    assert_eq!(only(&run).fact, Unfit::MediaType { manifest, media_type }.into());
    assert!(!run.is_clean());
    store.delete_manifest(&"app".parse().unwrap(), &manifest).unwrap();

    let mut huge = image(&[sha256(b"{}")]);
    huge["layers"][0]["size"] = json!(u64::MAX);
    let manifest = put(store, "app", &huge, &["huge"]);
    let run = fsck(store, Purpose::ForDistribution);
    assert_eq!(only(&run).fact, Unfit::Json { manifest, field: "layers[0].size".to_owned() }.into());
    store.delete_manifest(&"app".parse().unwrap(), &manifest).unwrap();

    let old = format!(r#"{{"schemaVersion":1,"fsLayers":[{{"blobSum":"{}"}}]}}"#, sha256(b"{}"));
    let manifest = put_manifest(store, "app", old.as_bytes(), &["old"]);
    let run = fsck(store, Purpose::ForDistribution);
    assert_eq!(only(&run).fact, Unfit::Schema1 { manifest }.into());
}

#[test]
fn untagged_referrers_and_only_those() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (_, first) = push_image(store, "app", b"a layer", &[]);
    let referrer = |seed: u64| {
        let mut manifest = image(&[]);
        manifest["subject"] = descriptor(&first);
        manifest["annotations"] = json!({"seed": seed.to_string()});
        manifest
    };
    let untagged = put(store, "app", &referrer(1), &[]);
    put(store, "app", &referrer(2), &["tagged"]);
    // The same manifest with a tag in another repository is none the less untagged here.
    push_image(store, "other", b"a layer", &[]);
    put(store, "other", &referrer(1), &["tagged"]);
    let run = fsck(store, Purpose::ForDistribution);
    assert_eq!(only(&run).fact, Unfit::UntaggedReferrer { manifest: untagged, subject: first.to_string() }.into());
    assert_eq!(only(&run).repository, Some("app".parse().unwrap()));
}

/// The collector marks what manifests name, literally: an alias is lost unless some manifest names its data.
#[test]
fn aliases_whose_data_no_manifest_names() {
    let fixture = Fixture::new();
    let store = fixture.store();
    push_image(store, "app", b"a layer", &[]);
    let (one, two) = (push(store, "app", b"one"), push(store, "app", b"two"));
    let name = Digest::of(Algorithm::Sha512, b"one").to_string();
    alias(&fixture, "app", &name, &one);
    alias(&fixture, "app", SHA384, &two);
    // An alias that no manifest names is no loss.
    alias(&fixture, "app", &Digest::of(Algorithm::Sha512, b"two").to_string(), &two);
    let mut by_alias = image(&[]);
    by_alias["layers"] = json!([descriptor(&name)]);
    let manifest = put(store, "app", &by_alias, &["512"]);
    let mut by_384 = image(&[]);
    by_384["layers"] = json!([descriptor(&SHA384)]);
    let other = put(store, "app", &by_384, &["384"]);

    let lost = |manifest, blob: &str, target| Fact::from(Unfit::Alias { manifest, blob: blob.to_owned(), target });
    let found = facts(&fsck(store, Purpose::ForDistribution));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found.contains(&lost(manifest, &name, one)) && found.contains(&lost(other, SHA384, two)), "{found:#?}");
    // Named by any manifest of any repository its data stays.
    push_image(store, "elsewhere", b"one", &["1"]);
    assert_eq!(facts(&fsck(store, Purpose::ForDistribution)), [lost(other, SHA384, two)]);
}

/// Its damage is another question: it is not read as something that Distribution could not represent.
#[test]
fn damage_is_not_listed() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let (layer, manifest) = push_image(store, "app", b"a layer", &["1"]);
    std::fs::remove_file(fixture.blob_data(&layer)).unwrap();
    std::fs::write(fixture.blob_data(&manifest), json!({"mediaType": IMAGE, "x": INDEX}).to_string()).unwrap();
    assert_eq!(fsck(store, Purpose::ForDistribution).findings(), []);
}
