//! `manifest.json` of `docker save` (moby `image/tarexport`): configs and layers by the names of their files. Such an
//! archive has no manifest of its own, so one is made, of Docker's schema 2, as skopeo and crane do: the same archive
//! always gives the same digest.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use portcullis_oci::{Algorithm, Descriptor, Digest, Hasher, manifest, media};
use serde::Deserialize;
use serde_json::json;

use super::entries::Span;
use super::fault::ArchiveFault;
use super::{Inner, SAVED, SpanReader, compressor};

const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// The most images of one archive.
const MAX_IMAGES: usize = 4096;

/// An image of `manifest.json`.
#[derive(PartialEq, Eq)]
pub(super) struct Saved {
    config: String,
    layers: Vec<String>,
}

/// What was made for one.
pub(super) struct Made {
    pub(super) descriptor: Descriptor,
    pub(super) manifest: Bytes,
    pub(super) blobs: HashMap<Digest, Span>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<Digest>>,
}

/// The images, each with its names.
pub(super) fn saved(bytes: &[u8]) -> Result<Vec<(Vec<String>, Saved)>, ArchiveFault> {
    let rows: Vec<Row> = serde_json::from_slice(bytes).map_err(|error| unreadable(SAVED, &error))?;
    if rows.len() > MAX_IMAGES {
        return Err(ArchiveFault::Unreadable {
            name: SAVED.to_owned(),
            reason: format!("more than {MAX_IMAGES} images"),
        });
    }
    Ok(rows
        .into_iter()
        .map(|row| {
            let saved = Saved { config: row.config, layers: row.layers.unwrap_or_default() };
            (row.repo_tags.unwrap_or_default(), saved)
        })
        .collect())
}

impl Saved {
    /// Makes the manifest. A layer that is not compressed has the digest that the config states, which is verified when
    /// it is read; one that is compressed is read for its digest.
    pub(super) fn make(&self, archive: &Inner) -> Result<Made, ArchiveFault> {
        let config = archive.json(&self.config, manifest::MAX_BYTES as u64)?;
        let parsed: Config = serde_json::from_slice(&config).map_err(|error| unreadable(&self.config, &error))?;
        let diff_ids = parsed.rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() != self.layers.len() {
            let (diff_ids, layers) = (diff_ids.len(), self.layers.len());
            return Err(ArchiveFault::Layers { config: self.config.clone(), diff_ids, layers });
        }
        let config_digest = Digest::of(Algorithm::Sha256, &config);
        let mut blobs = HashMap::new();
        let mut layers = Vec::new();
        for (name, diff_id) in self.layers.iter().zip(&diff_ids) {
            let span = archive.span(name)?;
            let (media_type, digest) = layer(archive, span, diff_id).map_err(|source| ArchiveFault::Io { source })?;
            layers.push(json!({"mediaType": media_type, "size": span.size, "digest": digest}));
            blobs.insert(digest, span);
        }
        blobs.insert(config_digest, archive.span(&self.config)?);
        let config = json!({"mediaType": media::DOCKER_IMAGE_CONFIG, "size": config.len(), "digest": config_digest});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media::DOCKER_MANIFEST, "config": config, "layers": layers,
        });
        let manifest = Bytes::from(manifest.to_string());
        let digest = Digest::of(Algorithm::Sha256, &manifest);
        let descriptor = json!({"mediaType": media::DOCKER_MANIFEST, "size": manifest.len(), "digest": digest});
        let descriptor = serde_json::from_value(descriptor).map_err(|error| unreadable(SAVED, &error))?;
        Ok(Made { descriptor, manifest, blobs })
    }
}

impl Inner {
    fn span(&self, name: &str) -> Result<Span, ArchiveFault> {
        // As in the names of the entries: some tools write `./`.
        let plain = name.strip_prefix("./").unwrap_or(name);
        self.entries.file(plain).ok_or_else(|| ArchiveFault::Missing { name: name.to_owned() })
    }
}

fn layer(archive: &Inner, span: Span, diff_id: &Digest) -> io::Result<(&'static str, Digest)> {
    let mut magic = [0; 6];
    let there = usize::try_from(span.size).unwrap_or(usize::MAX).min(magic.len());
    archive.file.read_exact_at(&mut magic[..there], span.offset)?;
    let media_type = match compressor(&magic[..there]) {
        Some("gzip") => LAYER_GZIP,
        Some("zstd") => LAYER_ZSTD,
        _ => return Ok((LAYER, *diff_id)),
    };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut piece = vec![0; 256 * 1024];
    let mut reader = SpanReader::new(Arc::clone(&archive.file), span);
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok((media_type, hasher.finish())),
            count => hasher.update(&piece[..count]),
        }
    }
}

fn unreadable(name: &str, error: &serde_json::Error) -> ArchiveFault {
    ArchiveFault::Unreadable { name: name.to_owned(), reason: error.to_string() }
}
