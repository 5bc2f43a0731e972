//! The media types of manifests that were sent lately. What has a digest never changes, and nor does its type.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use http::HeaderValue;
use portcullis_oci::Digest;

/// How many are remembered; then they are all forgotten and parsed again.
const MOST: usize = 4096;

/// By digest.
#[derive(Debug, Default)]
pub(crate) struct MediaTypes(Mutex<HashMap<Digest, HeaderValue>>);

impl MediaTypes {
    pub(crate) fn get(&self, digest: &Digest) -> Option<HeaderValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// `media_type` is what the bytes with this digest say.
    pub(crate) fn note(&self, digest: &Digest, media_type: &HeaderValue) {
        let mut types = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if types.len() >= MOST {
            types.clear();
        }
        types.insert(*digest, media_type.clone());
    }
}

#[cfg(test)]
mod tests {
    use portcullis_oci::Algorithm;

    use super::*;

    #[test]
    fn past_the_bound_all_are_forgotten_but_the_last() {
        let (types, json) = (MediaTypes::default(), HeaderValue::from_static("application/json"));
        let digest = |n: usize| Digest::of(Algorithm::Sha256, &n.to_le_bytes());
        (0..MOST).for_each(|n| types.note(&digest(n), &json));
        assert_eq!(types.get(&digest(0)), Some(json.clone()));
        types.note(&digest(MOST), &json);
        assert_eq!((types.get(&digest(0)), types.get(&digest(MOST))), (None, Some(json)));
    }
}
