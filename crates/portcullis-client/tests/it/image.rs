//! Images for the stub and for layouts.

use portcullis_client::LayoutDir;
use portcullis_oci::{Algorithm, Descriptor, Digest, media};
use serde_json::{Value, json};

use crate::stub::Stub;

/// An image manifest and its blobs.
pub(crate) struct Image {
    pub(crate) manifest: Vec<u8>,
    pub(crate) blobs: Vec<Vec<u8>>,
}

impl Image {
    pub(crate) fn new(layers: &[&[u8]]) -> Self {
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
        let layer = |bytes: &&[u8]| describe("application/vnd.oci.image.layer.v1.tar", bytes);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_IMAGE_MANIFEST,
            "config": describe(media::OCI_IMAGE_CONFIG, &config),
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        let blobs = std::iter::once(config).chain(layers.iter().map(|layer| layer.to_vec())).collect();
        Self { manifest: manifest.to_string().into_bytes(), blobs }
    }

    pub(crate) fn digest(&self) -> Digest {
        digest(&self.manifest)
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        serde_json::from_value(describe(media::OCI_IMAGE_MANIFEST, &self.manifest)).unwrap()
    }

    pub(crate) fn put(&self, stub: &Stub, repository: &str, tag: &str) {
        for blob in &self.blobs {
            stub.put_blob(repository, blob);
        }
        stub.put_manifest(repository, tag, &self.manifest);
    }

    /// Writes manifest and blobs; lists nothing.
    pub(crate) fn write(&self, layout: &LayoutDir) {
        for bytes in self.blobs.iter().chain([&self.manifest]) {
            write(layout, bytes);
        }
    }

    pub(crate) fn is_in(&self, layout: &LayoutDir) -> bool {
        self.blobs
            .iter()
            .chain([&self.manifest])
            .all(|bytes| std::fs::read(layout.blob_path(&digest(bytes))).is_ok_and(|there| there == *bytes))
    }
}

pub(crate) fn write(layout: &LayoutDir, bytes: &[u8]) {
    let descriptor = serde_json::from_value(describe("x/y", bytes)).unwrap();
    layout.put_blob(&descriptor, bytes).unwrap();
}

pub(crate) fn index(children: &[Value]) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": media::OCI_IMAGE_INDEX, "manifests": children}).to_string().into_bytes()
}

pub(crate) fn describe(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

pub(crate) fn descriptor(bytes: &[u8]) -> Descriptor {
    serde_json::from_value(describe("x/y", bytes)).unwrap()
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// Bytes that do not repeat, so that two of the same length differ.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
