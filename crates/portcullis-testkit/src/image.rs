//! Images of any number and size of layers, the same for the same seed: in memory, as an OCI image layout directory, and
//! as the tar that `docker import` takes.
//!
//! Layers are real, uncompressed tar archives (engines unpack them) around bytes that do not compress. Knows digests
//! from `portcullis-oci` and nothing else of ours: the JSON is written here a second time on purpose.
//!
//! ```
//! use portcullis_testkit::image::Image;
//!
//! let image = Image::new(7, &[1000, 20]);
//! assert_eq!(image.layers.len(), 2);
//! assert_eq!(image.manifest.digest, Image::new(7, &[1000, 20]).manifest.digest);
//! assert_ne!(image.manifest.digest, Image::new(8, &[1000, 20]).manifest.digest);
//! ```

use std::fs;
use std::path::Path;

use portcullis_oci::{Algorithm, Digest};
use serde_json::{Value, json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The media types of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// OCI image specification 1.0.
    Oci,
    /// Docker image manifest version 2, schema 2.
    Docker,
}

impl Flavor {
    fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.layer.v1.tar",
            Self::Docker => "application/vnd.docker.image.rootfs.diff.tar",
        }
    }
}

/// Bytes with their digest and type.
#[derive(Clone, Debug)]
pub struct Blob {
    /// As a descriptor says it.
    pub media_type: String,
    /// SHA-256 of `bytes`.
    pub digest: Digest,
    /// The content.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// A blob of this type.
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { media_type: media_type.to_owned(), digest: Digest::of(Algorithm::Sha256, &bytes), bytes }
    }

    /// The descriptor that a manifest or an index has for it.
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest.to_string(), "size": self.bytes.len()})
    }
}

/// An image for linux/amd64: manifest, config and layers, bottom layer first.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest; its bytes are what is pushed.
    pub manifest: Blob,
    /// The configuration with the layers' diff ids.
    pub config: Blob,
    /// Bottom first.
    pub layers: Vec<Blob>,
}

impl Image {
    /// An OCI image with one layer for each size. A layer is a tar with one file of that many random bytes.
    pub fn new(seed: u64, layer_sizes: &[usize]) -> Self {
        Self::with_flavor(Flavor::Oci, seed, layer_sizes)
    }

    /// As [`Image::new`], in these media types.
    pub fn with_flavor(flavor: Flavor, seed: u64, layer_sizes: &[usize]) -> Self {
        let layer = |(number, &size): (usize, &usize)| {
            let tar = tar_with_file(&format!("layer-{number}.bin"), &random_bytes(mix(seed, number), size));
            Blob::new(flavor.layer(), tar)
        };
        let layers: Vec<Blob> = layer_sizes.iter().enumerate().map(layer).collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.digest.to_string()).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Cmd": ["/layer-0.bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": vec![json!({"created": "2026-01-01T00:00:00Z", "created_by": "portcullis-testkit"}); layers.len()],
        });
        let config = Blob::new(flavor.config(), serde_json::to_vec(&config).unwrap());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": flavor.manifest(),
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob::new(flavor.manifest(), serde_json::to_vec(&manifest).unwrap());
        Self { manifest, config, layers }
    }

    /// Config and layers: everything the manifest names.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// An artifact of this type that has the image for its subject: a signature, with an empty config and one layer.
    #[must_use]
    pub fn referrer(&self, artifact_type: &str, content: &[u8]) -> Self {
        let config = Blob::new("application/vnd.oci.empty.v1+json", b"{}".to_vec());
        let layer = Blob::new("application/octet-stream", content.to_vec());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": Flavor::Oci.manifest(),
            "artifactType": artifact_type,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
            "subject": self.manifest.descriptor(),
        });
        let manifest = Blob::new(Flavor::Oci.manifest(), serde_json::to_vec(&manifest).unwrap());
        Self { manifest, config, layers: vec![layer] }
    }

    /// Adds the image under this reference name to the OCI image layout in `dir`, which is made if it is missing.
    pub fn write_layout(&self, dir: &Path, reference_name: &str) {
        let mut descriptor = self.manifest.descriptor();
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": reference_name});
        self.list_in_layout(dir, descriptor);
    }

    /// The same without a name, as referrers are listed.
    pub fn add_to_layout(&self, dir: &Path) {
        self.list_in_layout(dir, self.manifest.descriptor());
    }

    fn list_in_layout(&self, dir: &Path, descriptor: Value) {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for blob in self.blobs().chain([&self.manifest]) {
            fs::write(blobs.join(blob.digest.hex()), &blob.bytes).unwrap();
        }
        fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let mut index = read_index(dir);
        index["manifests"].as_array_mut().expect("an index has manifests").push(descriptor);
        fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    }
}

/// An index of images, each for linux on its architecture.
pub fn index_of<'a>(images: impl IntoIterator<Item = (&'a Image, &'a str)>) -> Blob {
    let child = |(image, architecture): (&Image, &str)| {
        let mut child = image.manifest.descriptor();
        child["platform"] = json!({"os": "linux", "architecture": architecture});
        child
    };
    let children: Vec<Value> = images.into_iter().map(child).collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
    Blob::new(INDEX, serde_json::to_vec(&index).unwrap())
}

/// The index of a layout directory; an empty one where there is none yet.
pub fn read_index(dir: &Path) -> Value {
    let empty = || json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    fs::read(dir.join("index.json")).map_or_else(|_| empty(), |bytes| serde_json::from_slice(&bytes).unwrap())
}

/// A root filesystem for `docker import`: a tar with one file of `size` random bytes.
pub fn rootfs_tar(seed: u64, size: usize) -> Vec<u8> {
    tar_with_file("data.bin", &random_bytes(seed, size))
}

/// That many bytes that do not compress, the same for the same seed (xorshift64*, Vigna 2016).
pub fn random_bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut state = mix(seed, 0) | 1;
    let mut bytes = vec![0; size];
    for chunk in bytes.chunks_mut(8) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    bytes
}

/// Neighbouring seeds and layer numbers must not give neighbouring states (splitmix64's finalizer).
fn mix(seed: u64, number: usize) -> u64 {
    let mut z = seed.wrapping_add((number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A ustar archive (POSIX.1-1988) with one executable file, owner root, dated 1970.
fn tar_with_file(name: &str, content: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let padding = content.len().next_multiple_of(BLOCK) - content.len();
    let mut tar = Vec::with_capacity(BLOCK + content.len() + padding + 2 * BLOCK);
    tar.extend(ustar_header(name, content.len()));
    tar.extend(content);
    tar.resize(tar.len() + padding + 2 * BLOCK, 0);
    tar
}

fn ustar_header(name: &str, size: usize) -> [u8; 512] {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_what_we_write() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.tar"), rootfs_tar(1, 1000)).unwrap();
        let status = Command::new("tar").args(["-xf", "a.tar"]).current_dir(dir.path()).status().unwrap();
        assert!(status.success());
        assert_eq!(fs::read(dir.path().join("data.bin")).unwrap(), random_bytes(1, 1000));
    }

    #[test]
    fn layers_of_one_image_differ() {
        let image = Image::new(3, &[64; 60]);
        let digests: std::collections::BTreeSet<String> =
            image.layers.iter().map(|layer| layer.digest.to_string()).collect();
        assert_eq!(digests.len(), 60);
    }

    #[test]
    fn a_layout_holds_two_images() {
        let dir = tempfile::tempdir().unwrap();
        Image::new(1, &[10]).write_layout(dir.path(), "one");
        let two = Image::with_flavor(Flavor::Docker, 2, &[10, 20]);
        two.write_layout(dir.path(), "two");
        let index = read_index(dir.path());
        assert_eq!(index["manifests"][1]["digest"], two.manifest.digest.to_string());
        assert_eq!(fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 3 + 4);
    }
}
