//! Manifests: one body has one reading.

use portcullis_oci::{Content, Manifest};

/// `bytes`: a manifest.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes, None) else { return };
    match Manifest::parse(bytes, Some(&manifest.media_type)) {
        Ok(again) => assert_eq!(again, manifest),
        // A type with parameters is nobody's Content-Type.
        Err(_) => assert!(manifest.media_type.contains([';', ' ', '\t'])),
    }
    assert!(
        Manifest::parse(bytes, Some("application/vnd.example.other")).is_err() || manifest.media_type.contains("other")
    );
    let required = manifest.required_blobs().len();
    match &manifest.content {
        Content::Image { layers, .. } => assert!(manifest.children().is_empty() && required <= layers.len() + 1),
        Content::Index { manifests } => assert!(required == 0 && manifest.children().len() == manifests.len()),
        Content::Schema1 { layers } => assert!(manifest.children().is_empty() && required == layers.len()),
    }
}
