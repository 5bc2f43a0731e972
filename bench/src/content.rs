//! What is pulled and pushed: bytes that nothing can compress, and the smallest images around them.

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::wire::Pieces;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// What one piece of a large body has.
const PIECE: usize = 256 * 1024;

/// Bytes with their digest, `sha256:…`.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) bytes: Bytes,
    pub(crate) digest: String,
}

/// A manifest and what it names, the config first.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) blobs: Vec<Content>,
    pub(crate) manifest: Content,
}

/// Blobs of one size that differ in their last bytes: their common part is hashed once.
#[derive(Debug)]
pub(crate) struct Variants {
    common: Bytes,
    hashed: Sha256,
}

impl Content {
    pub(crate) fn of(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = digest(Sha256::digest(&bytes).as_slice());
        Self { bytes, digest }
    }

    pub(crate) fn body(&self) -> Pieces {
        Pieces::new(pieces(&self.bytes))
    }
}

impl Image {
    pub(crate) const MEDIA_TYPE: &str = IMAGE;

    /// With layers of these sizes; `seed` makes all its bytes its own.
    pub(crate) fn new(seed: u64, layers: &[usize]) -> Self {
        let config = Content::of(json!({ "architecture": "amd64", "os": "linux", "seed": seed }).to_string());
        let layers =
            layers.iter().zip(1..).map(|(size, n)| Content::of(random(seed.wrapping_mul(1000).wrapping_add(n), *size)));
        Self::with(config, layers.collect())
    }

    /// Of a config and layers that exist.
    pub(crate) fn with(config: Content, layers: Vec<Content>) -> Self {
        let descriptor = |media_type: &str, content: &Content| json!({ "mediaType": media_type, "digest": content.digest, "size": content.bytes.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": descriptor(CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
        });
        let manifest = Content::of(manifest.to_string());
        Self { blobs: std::iter::once(config).chain(layers).collect(), manifest }
    }
}

impl Variants {
    pub(crate) fn new(seed: u64, size: usize) -> Self {
        let common = random(seed, size - 8);
        let hashed = Sha256::new_with_prefix(&common);
        Self { common, hashed }
    }

    /// The body with this number, and its digest.
    pub(crate) fn body(&self, number: u64) -> (Pieces, String) {
        let end = number.to_be_bytes();
        let mut hashed = self.hashed.clone();
        hashed.update(end);
        let parts = pieces(&self.common).chain([Bytes::copy_from_slice(&end)]);
        (Pieces::new(parts), digest(hashed.finalize().as_slice()))
    }
}

/// Not secret, only incompressible (xorshift64*).
pub(crate) fn random(seed: u64, size: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

fn pieces(bytes: &Bytes) -> impl Iterator<Item = Bytes> {
    let bytes = bytes.clone();
    (0..bytes.len()).step_by(PIECE).map(move |at| bytes.slice(at..(at + PIECE).min(bytes.len())))
}

fn digest(hash: &[u8]) -> String {
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_has_the_digest_of_its_bytes() {
        let whole = [random(7, 99_992).as_ref(), &5u64.to_be_bytes()].concat();
        assert_eq!(Variants::new(7, 100_000).body(5).1, Content::of(whole).digest);
    }

    #[test]
    fn images_share_nothing() {
        let (one, two) = (Image::new(1, &[10, 10]), Image::new(2, &[10, 10]));
        let digests: std::collections::HashSet<_> =
            one.blobs.iter().chain(&two.blobs).map(|blob| blob.digest.clone()).collect();
        assert_eq!(digests.len(), 6);
        assert_ne!(one.manifest.digest, two.manifest.digest);
    }
}
