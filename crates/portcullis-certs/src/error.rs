//! What can be wrong with bytes or text handed to this crate directly.
//!
//! Faults of *files* are not errors but [`Finding`](crate::Finding)s: a reader returns what it could read and
//! the list of everything that is wrong.

use crate::key::UnusableKey;

/// Why bytes or text are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// The bytes are not a DER X.509 certificate (RFC 5280 §4.1).
    #[error("not an X.509 certificate: {reason}")]
    Certificate {
        /// What the parser stumbled over.
        reason: String,
    },
    /// The bytes are not a revocation list (RFC 5280 §5.1), or not a whole one.
    #[error("not a usable revocation list: {reason}")]
    RevocationList {
        /// What is wrong with it.
        reason: String,
    },
    /// The bytes are not a private key that TLS can use.
    #[error("not a usable private key")]
    Key(#[from] UnusableKey),
    /// The text is not a SHA-256 fingerprint.
    #[error("`{text}` is not a fingerprint: expected `sha256:` and 64 hexadecimal digits")]
    Fingerprint {
        /// The text, made visible.
        text: String,
    },
    /// The text is not a serial number.
    #[error("`{text}` is not a serial number: expected 1 to 64 octets in hexadecimal")]
    Serial {
        /// The text, made visible.
        text: String,
    },
    /// The text cannot be the name of a CA or a pin.
    #[error("`{name}` cannot be a name: 1 to 64 of A-Z a-z 0-9 . _ -, and no dot at the start")]
    Name {
        /// The text, made visible.
        name: String,
    },
    /// The text is not a deny rule.
    #[error("`{text}` is not a deny rule: {reason}")]
    DenyRule {
        /// The text, made visible.
        text: String,
        /// Which part is wrong.
        reason: String,
    },
}
