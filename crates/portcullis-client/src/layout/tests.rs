use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::temporary::WORTH_KEEPING;

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
fn a_part_is_left_where_it_is_worth_it() {
    let dir = TempDir::new().unwrap();
    let layout = LayoutDir::create(dir.path()).unwrap();
    let bytes = vec![7; usize::try_from(WORTH_KEEPING).unwrap() + 1];
    let (blob, length) = (descriptor(&bytes), bytes.len());
    let part = || names(dir.path()).into_iter().find(|name| name.starts_with(".portcullis"));
    let leave = |length: usize| {
        let mut begun = layout.resume_blob(&blob, || true).unwrap();
        let had = begun.offset();
        begun.write(&bytes[..length]).unwrap();
        had
    };
    assert_eq!((leave(length - 2), part()), (0, None), "less than a mebibyte");
    assert_eq!(leave(length - 1), 0);
    assert_eq!(part().unwrap(), format!(".portcullis-partial-sha256-{}", blob.digest.hex()));
    let mut begun = layout.resume_blob(&blob, || true).unwrap();
    assert_eq!(begun.offset(), WORTH_KEEPING);
    // Whoever comes while it is written to has a file of its own.
    let mut other = layout.resume_blob(&blob, || true).unwrap();
    assert_eq!(other.offset(), 0);
    other.write(&bytes[..length - 1]).unwrap();
    drop(other);
    assert_eq!(names(dir.path()).iter().filter(|name| name.starts_with(".portcullis")).count(), 1);
    begun.write(&bytes[length - 1..]).unwrap();
    begun.commit().unwrap();
    assert!(layout.has_blob(&blob) && part().is_none());
    layout.manifest(&blob).unwrap();
}

#[test]
fn of_what_is_wrong_no_part_is_left() {
    let dir = TempDir::new().unwrap();
    let layout = LayoutDir::create(dir.path()).unwrap();
    let bytes = vec![7; usize::try_from(WORTH_KEEPING).unwrap() + 1];
    let blob = descriptor(&bytes);
    let begin = || layout.resume_blob(&blob, || true).unwrap();
    let wrong = vec![8; bytes.len()];
    let mut begun = begin();
    begun.write(&wrong).unwrap();
    assert!(matches!(begun.commit(), Err(ClientError::Digest(_))));
    let mut begun = begin();
    begun.write(&bytes).unwrap();
    assert!(begun.write(b"x").is_err(), "too long");
    drop(begun);
    let mut begun = begin();
    begun.write(&bytes).unwrap();
    begun.discard();
    drop(begun);
    assert_eq!(names(dir.path()), ["blobs", "index.json", "oci-layout"]);
}

/// The layout may be where others can write.
#[test]
fn what_is_no_part_of_ours_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let layout = LayoutDir::create(&dir.path().join("layout")).unwrap();
    let bytes = vec![7; 2 * usize::try_from(WORTH_KEEPING).unwrap()];
    let blob = descriptor(&bytes);
    let part = layout.path().join(format!(".portcullis-partial-sha256-{}", blob.digest.hex()));
    let outside = dir.path().join("outside");
    fs::write(&outside, &bytes[1..]).unwrap();
    let places: [(&str, &dyn Fn()); 5] = [
        ("a link", &|| symlink(&outside, &part).unwrap()),
        ("a link to nothing", &|| symlink(dir.path().join("nothing"), &part).unwrap()),
        ("a second name", &|| fs::hard_link(&outside, &part).unwrap()),
        ("a directory", &|| fs::create_dir(&part).unwrap()),
        ("a pipe", &|| {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &part, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }),
    ];
    for (what, place) in places {
        place();
        let mut begun = layout.resume_blob(&blob, || true).unwrap();
        assert_eq!(begun.offset(), 0, "{what}");
        begun.write(&bytes).unwrap();
        begun.commit().unwrap();
        assert!(fs::symlink_metadata(&part).is_ok(), "{what}");
        fs::remove_file(&part).or_else(|_| fs::remove_dir(&part)).unwrap();
        fs::remove_file(layout.blob_path(&blob.digest)).unwrap();
    }
    assert!(fs::read(&outside).unwrap() == bytes[1..]);
    assert!(!dir.path().join("nothing").exists());
}

#[test]
fn a_blob_has_the_mode_of_a_new_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TempDir::new().unwrap();
    let layout = LayoutDir::create(dir.path()).unwrap();
    let (whole, begun) = (descriptor(b"whole"), descriptor(b"begun"));
    layout.put_blob(&whole, b"whole").unwrap();
    let part = dir.path().join(format!(".portcullis-partial-sha256-{}", begun.digest.hex()));
    for mode in [0o600, 0o666, 0o4755] {
        fs::write(&part, "be").unwrap();
        fs::set_permissions(&part, fs::Permissions::from_mode(mode)).unwrap();
        let mut blob = layout.resume_blob(&begun, || true).unwrap();
        assert_eq!(blob.offset(), 2);
        blob.write(b"gun").unwrap();
        blob.commit().unwrap();
        let mode_of = |blob: &Descriptor| fs::metadata(layout.blob_path(&blob.digest)).unwrap().permissions();
        assert_eq!(mode_of(&begun), mode_of(&whole), "{mode:o}");
    }
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
