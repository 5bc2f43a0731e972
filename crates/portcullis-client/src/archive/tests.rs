use std::fs;

use portcullis_oci::{Algorithm, media};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::sink::ArchiveFile;

struct Files {
    dir: TempDir,
    builder: tar::Builder<Vec<u8>>,
}

impl Files {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), builder: tar::Builder::new(Vec::new()) }
    }

    fn file(mut self, name: &str, bytes: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        self.builder.append_data(&mut header, name, bytes).unwrap();
        self
    }

    fn json(self, name: &str, value: &Value) -> Self {
        self.file(name, value.to_string().as_bytes())
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("a.tar")
    }

    fn write(mut self) -> Self {
        self.builder.finish().unwrap();
        fs::write(self.path(), self.builder.get_ref()).unwrap();
        self
    }

    fn open(&self) -> Result<Archive, ClientError> {
        Archive::open(&self.path())
    }
}

fn read(image: &ArchivedImage, blob: &Descriptor) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.open_blob(blob).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Two images as Docker before version 25 saves them; one has a layer that is compressed.
fn saved() -> Files {
    let (layer, packed) = (b"a layer", [&[0x1f, 0x8b][..], b"packed"].concat());
    let one = json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [sha256(layer)]}});
    let two = json!({"rootfs": {"diff_ids": [sha256(layer), sha256(b"what is in packed")]}});
    Files::new()
        .json("one.json", &one)
        .json("two.json", &two)
        .file("1/layer.tar", layer)
        .file("2/layer.tar", &packed)
        .json(
            "manifest.json",
            &json!([
                {"Config": "one.json", "RepoTags": ["app:1", "registry.test:5443/app:1"], "Layers": ["1/layer.tar"]},
                {"Config": "two.json", "RepoTags": null, "Layers": ["./1/layer.tar", "2/layer.tar"]},
            ]),
        )
        .write()
}

#[test]
fn an_archive_of_old_gets_a_manifest_and_always_the_same() {
    let files = saved();
    let archive = files.open().unwrap();
    assert_eq!(archive.names(), ["app:1", "registry.test:5443/app:1"]);
    let image = archive.image(Some("docker.io/library/app:1")).unwrap();
    let bytes = image.manifest(&image.descriptor).unwrap();
    let manifest = portcullis_oci::Manifest::parse(&bytes, None).unwrap();
    assert_eq!(manifest.media_type, media::DOCKER_MANIFEST);
    let blobs: Vec<_> = manifest.required_descriptors().cloned().collect();
    assert_eq!(blobs[1].digest, sha256(b"a layer"));
    assert_eq!(read(&image, &blobs[1]), b"a layer");
    assert_eq!(sha256(&read(&image, &blobs[0])), blobs[0].digest);
    assert_eq!(files.open().unwrap().image(Some("app:1")).unwrap().descriptor, image.descriptor);
    let error = archive.image(None).unwrap_err().to_string();
    assert!(error.contains("2 images") && error.contains("there is app:1, registry.test:5443/app:1"), "{error}");
    let error = archive.image(Some("app:2")).unwrap_err().to_string();
    assert!(error.contains("no image named app:2"), "{error}");
}

#[test]
fn a_compressed_layer_is_read_for_its_digest() {
    let packed = [&[0x1f, 0x8b][..], b"packed"].concat();
    let config = json!({"rootfs": {"diff_ids": [sha256(b"x")]}});
    let files = Files::new()
        .json("c.json", &config)
        .file("l.tar.gz", &packed)
        .json("manifest.json", &json!([{"Config": "c.json", "Layers": ["l.tar.gz"]}]))
        .write();
    let image = files.open().unwrap().image(None).unwrap();
    let manifest = portcullis_oci::Manifest::parse(&image.manifest(&image.descriptor).unwrap(), None).unwrap();
    let layer = manifest.required_descriptors().nth(1).unwrap().clone();
    assert_eq!((layer.digest, layer.media_type.ends_with("tar.gzip")), (sha256(&packed), true));
    assert_eq!(read(&image, &layer), packed);
}

#[test]
fn what_docker_could_not_have_saved_is_refused() {
    let config = json!({"rootfs": {"diff_ids": [sha256(b"x")]}});
    let list = |layers: &[&str]| json!([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": layers}]);
    let good = || Files::new().json("c.json", &config).file("l", b"x");
    for (files, reason) in [
        (Files::new().file("readme", b"x"), "so it is no image archive"),
        (Files::new().file("manifest.json", b"{}"), "manifest.json cannot be understood"),
        (Files::new().file("manifest.json", &vec![b' '; 16 * 1024 * 1024 + 1]), "at most 16777216 are taken"),
        (good().json("manifest.json", &list(&[])), "lists 1 layers, manifest.json 0"),
        (good().json("manifest.json", &list(&["l", "l"])), "lists 1 layers, manifest.json 2"),
        (good().json("manifest.json", &list(&["../l"])), "../l is missing"),
        (Files::new().json("manifest.json", &list(&["l"])), "c.json is missing"),
        (Files::new().file("c.json", b"{}").file("l", b"x").json("manifest.json", &list(&["l"])), "c.json cannot be"),
        (Files::new().file("oci-layout", b"{}"), "oci-layout cannot be understood"),
        (Files::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#), "index.json is missing"),
    ] {
        let files = files.write();
        let error = files.open().and_then(|archive| archive.image(None)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn an_archive_with_both_is_read_as_a_layout() {
    let manifest = br#"{"schemaVersion":2,"manifests":[]}"#;
    let descriptor = json!({"mediaType": media::OCI_IMAGE_INDEX, "digest": sha256(manifest), "size": manifest.len(),
        "annotations": {"io.containerd.image.name": "docker.io/library/app:1", "org.opencontainers.image.ref.name": "1"}});
    let files = Files::new()
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .json("index.json", &json!({"schemaVersion": 2, "manifests": [descriptor, descriptor]}))
        .file(&format!("blobs/sha256/{}", sha256(manifest).hex()), manifest)
        .file("manifest.json", b"not looked at")
        .write();
    let archive = files.open().unwrap();
    for name in [None, Some("app:1"), Some("1"), Some("docker.io/library/app:1")] {
        let image = archive.image(name).unwrap();
        assert_eq!(image.manifest(&image.descriptor).unwrap(), &manifest[..]);
    }
    let lying = Descriptor { size: 5, ..archive.image(None).unwrap().descriptor };
    assert!(archive.image(None).unwrap().open_blob(&lying).is_err());
}

#[test]
fn only_a_plain_file_is_an_archive() {
    let dir = TempDir::new().unwrap();
    let fault = |path: &Path| Archive::open(path).unwrap_err().to_string();
    assert!(fault(dir.path()).contains("no regular file"));
    assert!(fault(&dir.path().join("none")).contains("cannot open"));
    let packed = dir.path().join("a.tar.gz");
    fs::write(&packed, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]).unwrap();
    assert!(fault(&packed).contains("unpack it first (gzip -d)"));
}

#[test]
fn what_is_written_is_read_again_and_is_a_tar() {
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("out.tar");
    let blob = |algorithm, bytes: &[u8]| -> Descriptor {
        let digest = Digest::of(algorithm, bytes);
        serde_json::from_value(json!({"mediaType": "application/x", "digest": digest, "size": bytes.len()})).unwrap()
    };
    let (small, large) = (vec![1; 5], vec![2; 70_000]);
    let blobs = [blob(Algorithm::Sha512, &small), blob(Algorithm::Sha256, &large), blob(Algorithm::Sha256, b"")];
    let manifest = br#"{"schemaVersion":2,"manifests":[]}"#;
    let image = blob(Algorithm::Sha256, manifest);
    let manifests = [(image.clone(), Bytes::from_static(manifest))];
    let contents = Contents { image: &image, referrers: &[], manifests: &manifests, blobs: &blobs };
    assert!(matches!(contents.docker(None), Err(ClientError::NotForDocker { .. })));
    let writer = Arc::new(
        ArchiveWriter::create(&ArchiveFile::Named(target.clone()), contents.oci(Some(&"v1".parse().unwrap()))).unwrap(),
    );
    let mut begun: Vec<PlacedBlob> = blobs.iter().map(|blob| writer.create_blob(blob).unwrap()).collect();
    // Side by side.
    begun[1].write(&large[..1000]).unwrap();
    begun[0].write(&small).unwrap();
    begun[1].write(&large[1000..]).unwrap();
    for blob in begun {
        blob.commit().unwrap();
    }
    let mut wrong = writer.create_blob(&blobs[0]).unwrap();
    wrong.write(b"other").unwrap();
    assert!(matches!(wrong.commit(), Err(ClientError::Digest(_))));
    let mut right = writer.create_blob(&blobs[0]).unwrap();
    assert!(right.write(b"longer").is_err());
    right = writer.create_blob(&blobs[0]).unwrap();
    right.write(&small).unwrap();
    right.commit().unwrap();
    assert!(!target.exists(), "it has no name before it is whole");
    writer.finish().unwrap();
    drop(writer);

    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let image = Archive::open(&target).unwrap().image(Some("v1")).unwrap();
    for (descriptor, bytes) in blobs.iter().zip([&small[..], &large, b""]) {
        assert!(read(&image, descriptor) == bytes);
    }
    assert_eq!(image.manifest(&image.descriptor).unwrap(), &manifest[..]);
    let listed = std::process::Command::new("tar").arg("-tf").arg(&target).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 6);
}

#[test]
fn an_archive_that_breaks_off_leaves_what_was_there() {
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("out.tar");
    fs::write(&target, "before").unwrap();
    drop(ArchiveWriter::create(&ArchiveFile::Named(target.clone()), ArchivePlan::default()).unwrap());
    assert_eq!(fs::read_to_string(&target).unwrap(), "before");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the line is dead"))
    }
}

#[test]
fn a_stream_is_taken_up_to_its_bound_and_read_as_a_file_is() {
    let files = saved();
    let bytes = fs::read(files.path()).unwrap();
    let length = bytes.len() as u64;
    let streamed = Archive::from_stream(&mut &bytes[..], length).unwrap();
    assert_eq!(streamed.names(), files.open().unwrap().names());
    for (stream, limit, said) in [
        (&bytes[..], length - 1, "more than"),
        (&bytes[..100], length, "ends at byte 0"),
        (b"", length, "nothing came"),
        (b"no archive at all", length, "in the middle of a header"),
        (b"\x1f\x8b packed", length, "gzip -d"),
    ] {
        let error = Archive::from_stream(&mut &*stream, limit).unwrap_err().to_string();
        assert!(error.starts_with("- is not taken as an image archive: ") && error.contains(said), "{error}");
    }
    let error = Archive::from_stream(&mut Broken, length).unwrap_err().to_string();
    assert_eq!(error, "cannot read -: the line is dead");
}

#[test]
fn an_archive_without_a_name_is_handed_on_whole() {
    let spool = Spool::create().unwrap();
    let mut plan = ArchivePlan::default();
    plan.add_file("oci-layout", b"{}".to_vec());
    ArchiveWriter::create(&ArchiveFile::Unnamed(spool.clone()), plan).unwrap().finish().unwrap();
    let mut streamed = Vec::new();
    spool.write_to(&mut streamed).unwrap();
    assert_eq!(streamed.len(), 4 * 512, "a header, a block and the end");
    assert!(streamed.starts_with(b"oci-layout\0"));
}
