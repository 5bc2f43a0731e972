//! Digests: one has one spelling.

use portcullis_oci::{Algorithm, Digest, Hasher};

/// `bytes`: a digest's text; also what is hashed.
pub(crate) fn run(bytes: &[u8]) {
    for algorithm in Algorithm::ALL {
        let digest = Digest::of(algorithm, bytes);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        // What is no state of a hash is refused, and what is one goes on.
        if let Some(hasher) = Hasher::restore(algorithm, bytes) {
            assert_eq!(hasher.finish().algorithm(), algorithm);
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(digest) = text.parse::<Digest>() else { return };
    assert_eq!(digest.to_string(), text);
    assert_eq!(digest.hex().len(), digest.algorithm().hex_len());
}
