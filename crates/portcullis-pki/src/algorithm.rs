//! The kinds of key we make. What we accept from others is wider and is `portcullis-tls`'s to say.

use std::fmt;
use std::str::FromStr;

use crate::PkiError;

/// A kind of key, as typed after `--alg`.
///
/// P-256 is the default: every engine takes it, and it signs some twenty times faster than RSA. P-521 is not offered,
/// for TLS stacks on *ring* cannot use it, and RSA below 4096 bits has nothing over P-256.
///
/// ```
/// use portcullis_pki::KeyAlgorithm;
///
/// assert_eq!("ed25519".parse::<KeyAlgorithm>()?, KeyAlgorithm::Ed25519);
/// assert_eq!(KeyAlgorithm::default().to_string(), "p256");
/// assert!("P521".parse::<KeyAlgorithm>().is_err());
/// # Ok::<(), portcullis_pki::PkiError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    #[default]
    P256,
    /// ECDSA on P-384 with SHA-384.
    P384,
    /// RSA of 4096 bits, PKCS#1 v1.5 with SHA-256 in certificates. Takes seconds to make.
    Rsa4096,
    /// Ed25519. Browsers and some old engines do not take it.
    Ed25519,
}

impl KeyAlgorithm {
    /// All of them, the default first.
    pub const ALL: [Self; 4] = [Self::P256, Self::P384, Self::Rsa4096, Self::Ed25519];

    /// The word a person types.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Rsa4096 => "rsa4096",
            Self::Ed25519 => "ed25519",
        }
    }
}

impl FromStr for KeyAlgorithm {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or_else(|| PkiError::UnknownAlgorithm { text: text.chars().take(60).collect() })
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_and_no_other_does() {
        for algorithm in KeyAlgorithm::ALL {
            assert_eq!(algorithm.as_str().parse::<KeyAlgorithm>().unwrap(), algorithm);
        }
        for text in ["", "P256", "p521", "rsa2048", "rsa", " p256"] {
            let error = text.parse::<KeyAlgorithm>().unwrap_err().to_string();
            assert!(error.contains("p256, p384, rsa4096 or ed25519"), "{error}");
        }
    }
}
