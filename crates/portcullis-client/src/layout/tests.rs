use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

fn descriptor(bytes: &[u8]) -> Descriptor {
    let digest = Digest::of(Algorithm::Sha256, bytes);
    serde_json::from_value(json!({"mediaType": "application/x", "digest": digest, "size": bytes.len()})).unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_new_layout_is_one_and_stays_one() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("deep/er");
    LayoutDir::create(&root).unwrap();
    assert_eq!(names(&root), ["blobs", "index.json", "oci-layout"]);
    let layout = LayoutDir::create(&root).unwrap();
    assert_eq!(layout, LayoutDir::open(&root).unwrap());
    assert!(layout.images().unwrap().is_empty());
}

#[test]
fn other_directories_are_left_alone() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let fault = |result| match result {
        Err(ClientError::Layout { fault, .. }) => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(fault(LayoutDir::create(dir.path())), LayoutFault::NotEmpty);
    assert_eq!(fault(LayoutDir::open(dir.path())), LayoutFault::NoMarker);
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert_eq!(fault(LayoutDir::open(dir.path())), LayoutFault::Version { version: "2.0.0".into() });
    fs::write(dir.path().join("oci-layout"), "{").unwrap();
    assert!(matches!(fault(LayoutDir::create(dir.path())), LayoutFault::Unreadable { file: "oci-layout", .. }));
}

#[test]
fn a_blob_gets_its_name_only_when_it_is_right() {
    let dir = TempDir::new().unwrap();
    let layout = LayoutDir::create(dir.path()).unwrap();
    let good = descriptor(b"hello");
    layout.put_blob(&good, b"hello").unwrap();
    assert!(layout.has_blob(&good));

    let other = descriptor(b"other");
    assert!(layout.put_blob(&other, b"ohter").is_err(), "digest");
    assert!(layout.put_blob(&other, b"othe").is_err(), "short");
    assert!(layout.put_blob(&other, b"others").is_err(), "long");
    let mut begun = layout.create_blob(&other).unwrap();
    begun.write(b"oth").unwrap();
    drop(begun);
    assert!(!layout.has_blob(&other));
    assert_eq!(names(dir.path()), ["blobs", "index.json", "oci-layout"], "no temporary is left");
    assert_eq!(names(&dir.path().join("blobs/sha256")), [good.digest.hex()]);
}

#[test]
fn a_blob_of_another_size_does_not_count() {
    let dir = TempDir::new().unwrap();
    let layout = LayoutDir::create(dir.path()).unwrap();
    let blob = descriptor(b"hello");
    layout.put_blob(&blob, b"hello").unwrap();
    fs::write(layout.blob_path(&blob.digest), "hell").unwrap();
    assert!(!layout.has_blob(&blob));
    assert!(matches!(
        layout.open_blob(&blob),
        Err(ClientError::LayoutBlob { fault: BlobFault::Size { expected: 5, actual: 4 }, .. })
    ));
    fs::write(layout.blob_path(&blob.digest), "hellO").unwrap();
    assert!(matches!(layout.manifest(&blob), Err(ClientError::LayoutBlob { fault: BlobFault::Damaged, .. })));
    fs::remove_file(layout.blob_path(&blob.digest)).unwrap();
    assert!(matches!(layout.open_blob(&blob), Err(ClientError::LayoutBlob { fault: BlobFault::Missing, .. })));
    fs::create_dir(layout.blob_path(&blob.digest)).unwrap();
    assert!(!layout.has_blob(&blob), "a directory");
}

#[test]
fn writing_replaces_a_link_and_does_not_follow_it() {
    let dir = TempDir::new().unwrap();
    let layout = LayoutDir::create(&dir.path().join("layout")).unwrap();
    let outside = dir.path().join("outside");
    fs::write(&outside, "untouched").unwrap();
    let blob = descriptor(b"hello");
    fs::create_dir_all(layout.path().join("blobs/sha256")).unwrap();
    symlink(&outside, layout.blob_path(&blob.digest)).unwrap();
    layout.put_blob(&blob, b"hello").unwrap();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
}

#[test]
fn tags_move_and_strangers_stay() {
    let dir = TempDir::new().unwrap();
    let layout = LayoutDir::create(dir.path()).unwrap();
    let (one, two) = (descriptor(b"one"), descriptor(b"two"));
    for blob in [(&one, &b"one"[..]), (&two, b"two")] {
        layout.put_blob(blob.0, blob.1).unwrap();
    }
    let foreign = json!({"schemaVersion": 2, "annotations": {"keep": "me"}, "manifests": [
        {"mediaType": "application/y", "digest": two.digest, "size": 3, "unknown": true, "annotations": {REF_NAME: "old"}}]});
    fs::write(dir.path().join("index.json"), foreign.to_string()).unwrap();

    layout.set_image(&one, Some(&tag("latest"))).unwrap();
    layout.set_image(&two, Some(&tag("latest"))).unwrap();
    layout.set_image(&one, None).unwrap();
    layout.set_image(&one, None).unwrap();

    let index = layout.index().unwrap();
    assert_eq!(index["annotations"]["keep"], "me");
    assert_eq!(index["manifests"][0]["unknown"], true, "fields that we do not know are kept");
    let images: Vec<_> = layout.images().unwrap();
    let listed: Vec<_> = images.iter().map(|image| (image.digest, ref_name(image))).collect();
    assert_eq!(listed, [(two.digest, Some("old")), (two.digest, Some("latest")), (one.digest, None)]);
}

#[test]
fn one_image_needs_no_tag_and_several_do() {
    let dir = TempDir::new().unwrap();
    let layout = LayoutDir::create(dir.path()).unwrap();
    assert!(matches!(layout.image(None), Err(ClientError::Layout { fault: LayoutFault::Empty, .. })));
    let (one, two) = (descriptor(b"one"), descriptor(b"two"));
    layout.put_blob(&one, b"one").unwrap();
    layout.put_blob(&two, b"two").unwrap();
    layout.set_image(&one, Some(&tag("a"))).unwrap();
    assert_eq!(layout.image(None).unwrap().digest, one.digest);
    layout.set_image(&two, Some(&tag("b"))).unwrap();
    assert_eq!(layout.image(Some(&tag("b"))).unwrap().digest, two.digest);
    let error = layout.image(None).unwrap_err().to_string();
    assert!(error.contains("2 images") && error.contains("there is a, b"), "{error}");
    let error = layout.image(Some(&tag("c"))).unwrap_err().to_string();
    assert!(error.contains("no image tagged c") && error.contains("there is a, b"), "{error}");
}

#[test]
fn an_index_that_cannot_be_understood_is_an_error_and_stays() {
    let dir = TempDir::new().unwrap();
    let layout = LayoutDir::create(dir.path()).unwrap();
    let one = descriptor(b"one");
    layout.put_blob(&one, b"one").unwrap();
    for text in ["", "[]", "{\"manifests\":[{\"digest\":\"sha256:../../x\"}]}", "{\"manifests\":7}"] {
        fs::write(dir.path().join("index.json"), text).unwrap();
        assert!(layout.images().is_err(), "{text}");
    }
    fs::write(dir.path().join("index.json"), "[]").unwrap();
    assert!(layout.set_image(&one, None).is_err());
    assert_eq!(fs::read_to_string(dir.path().join("index.json")).unwrap(), "[]");
    fs::write(dir.path().join("index.json"), "{\"manifests\":7}").unwrap();
    assert!(layout.set_image(&one, None).is_err());
    fs::write(dir.path().join("index.json"), "{\"manifests\":null}").unwrap();
    assert!(layout.images().unwrap().is_empty(), "as Go writes an empty list");
}

#[test]
fn names_as_typed() {
    let parse = |text: &str| text.parse::<LayoutName>().map(|name| (name.directory, name.tag));
    assert_eq!(parse("dir").unwrap(), ("dir".into(), None));
    assert_eq!(parse("/a/b:1.2").unwrap(), ("/a/b".into(), Some(tag("1.2"))));
    assert_eq!(parse("a:b/").unwrap(), ("a:b/".into(), None));
    assert_eq!(parse("a:b/c:d").unwrap(), ("a:b/c".into(), Some(tag("d"))));
    for text in ["", ":tag", "dir:", "dir:..", "dir:a b"] {
        assert!(parse(text).is_err(), "{text:?}");
    }
}
