//! References, repository names and tags.

use portcullis_oci::{Reference, RepositoryName, Tag};

/// `bytes`: a text that may be any of them.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = text.parse::<RepositoryName>() {
        assert_eq!(name.as_str(), text);
        // A name becomes a path.
        assert!(name.components().all(|component| !component.is_empty() && !component.starts_with(['.', '_', '-'])));
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
        assert!(!text.contains('/') && !text.starts_with('.'));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        let written = reference.to_string();
        assert_eq!(written.parse().as_ref(), Ok(&reference), "{written}");
    }
}
