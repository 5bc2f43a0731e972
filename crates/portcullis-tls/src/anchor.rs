//! What webpki does not ask of the end of a path: a trust anchor is a name and a key to it (with name constraints), so
//! the path length and the extended key usage of the root's certificate are never looked at. Go and OpenSSL do look.

use portcullis_certs::Certificate;
use webpki::{Error, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage, RequiredEkuNotFoundContext};

/// What the leaf of a path is to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A TLS client's: clientAuth, where there is an extendedKeyUsage.
    Client,
    /// A registry's: serverAuth or anyExtendedKeyUsage, as in Go (`crypto/x509` verify.go `checkChainForKeyUsage`).
    Server,
}

/// 2.5.29.37.0
const ANY_EXTENDED_KEY_USAGE: KeyPurposeId<'static> = KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0x00]);
/// 1.3.6.1.5.5.7.3.1
const SERVER_AUTH: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]);

/// Whether `root` allows a path with so many intermediates, for this purpose.
pub(crate) fn check_root(root: &Certificate, intermediates: usize, purpose: Purpose) -> Result<(), Error> {
    let facts = root.facts();
    // Self-issued intermediates count, as in Go and webpki (RFC 5280 §6.1.4 would not count them).
    let is_too_long = |limit| usize::try_from(limit).is_ok_and(|limit| intermediates > limit);
    if facts.path_len.is_some_and(is_too_long) {
        return Err(Error::PathLenConstraintViolated);
    }
    let allows = facts.extended_key_usage.as_ref().is_none_or(|usage| {
        usage.any
            || match purpose {
                Purpose::Client => usage.client_auth,
                Purpose::Server => usage.server_auth,
            }
    });
    if allows { Ok(()) } else { Err(purpose.not_found()) }
}

impl Purpose {
    fn not_found(self) -> Error {
        let required = match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
        };
        Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required, present: Vec::new() })
    }
}

impl ExtendedKeyUsageValidator for Purpose {
    fn validate(&self, present: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        if *self == Self::Client {
            return KeyUsage::client_auth().validate(present);
        }
        let mut is_absent = true;
        for id in present {
            let id = id?;
            if id == SERVER_AUTH || id == ANY_EXTENDED_KEY_USAGE {
                return Ok(());
            }
            is_absent = false;
        }
        if is_absent { Ok(()) } else { Err(self.not_found()) }
    }
}
