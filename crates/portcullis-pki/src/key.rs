//! Private keys: making, loading, signing with them. The key itself leaves this module only as PEM for a file that
//! `files` writes with mode 0600; it is never in a `Debug` text or an error.

use std::fmt;
use std::path::Path;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use pem_rfc7468::LineEnding;
use portcullis_certs::PrivateKey;
use rustls_pki_types::PrivateKeyDer;

use crate::{KeyAlgorithm, PkiError, files};

/// A private key that can sign, with its public half.
pub struct KeyPair {
    kind: Kind,
    spki_der: Vec<u8>,
}

enum Kind {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
    Ed25519(Ed25519KeyPair),
}

/// How a key signs: what the signer puts into the certificate's signatureAlgorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignatureScheme {
    EcdsaSha256,
    EcdsaSha384,
    RsaPkcs1Sha256,
    Ed25519,
}

impl KeyPair {
    /// Makes a key from the system's randomness.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, PkiError> {
        Kind::generate(algorithm)
            .and_then(Self::of_kind)
            .map_err(|Unspecified| PkiError::Crypto { doing: "make a key" })
    }

    /// Loads one of our own keys: PKCS#8, SEC1 or PKCS#1 in PEM, unencrypted.
    ///
    /// # Errors
    /// [`PkiError::Files`] with the `chmod` to type when others than its owner can read it; the findings of
    /// `portcullis-certs` when it is no key; [`PkiError::UnsupportedKey`] for a kind we do not issue for.
    pub fn load(path: &Path) -> Result<Self, PkiError> {
        files::refuse_if_others_can_read(path)?;
        let key = portcullis_certs::pem::read_private_key(path).map_err(|findings| PkiError::Files { findings })?;
        Self::from_private_key(&key).ok_or_else(|| PkiError::UnsupportedKey { path: path.to_owned() })
    }

    /// `None` for a kind of key that we do not issue for: RSA below 2048 bits, P-521, and what is rarer still.
    fn from_private_key(key: &PrivateKey) -> Option<Self> {
        Kind::parse(key.der()).and_then(|kind| Self::of_kind(kind).ok())
    }

    fn of_kind(kind: Kind) -> Result<Self, Unspecified> {
        let spki_der = kind.public_key_der()?.as_ref().to_vec();
        Ok(Self { kind, spki_der })
    }

    /// The public key as SubjectPublicKeyInfo (RFC 5280 §4.1), DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// The key as PKCS#8 v1 PEM: version 1 because OpenSSL before 3.0 and Go refuse version 2.
    pub(crate) fn to_pem(&self) -> Result<String, PkiError> {
        let failed = |_| PkiError::Crypto { doing: "encode a key" };
        let encode = |der: &[u8]| pem_rfc7468::encode_string("PRIVATE KEY", LineEnding::LF, der);
        match &self.kind {
            Kind::P256(key) | Kind::P384(key) => encode(key.to_pkcs8v1().map_err(failed)?.as_ref()),
            Kind::Ed25519(key) => encode(key.to_pkcs8v1().map_err(failed)?.as_ref()),
            Kind::Rsa(key) => encode(AsDer::<Pkcs8V1Der<'_>>::as_der(key).map_err(failed)?.as_ref()),
        }
        .map_err(|_| PkiError::Crypto { doing: "encode a key" })
    }

    pub(crate) fn scheme(&self) -> SignatureScheme {
        match self.kind {
            Kind::P256(_) => SignatureScheme::EcdsaSha256,
            Kind::P384(_) => SignatureScheme::EcdsaSha384,
            Kind::Rsa(_) => SignatureScheme::RsaPkcs1Sha256,
            Kind::Ed25519(_) => SignatureScheme::Ed25519,
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        self.kind.sign(message).map_err(|Unspecified| PkiError::Crypto { doing: "sign" })
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("scheme", &self.scheme()).finish_non_exhaustive()
    }
}

impl Kind {
    fn generate(algorithm: KeyAlgorithm) -> Result<Self, Unspecified> {
        Ok(match algorithm {
            KeyAlgorithm::P256 => Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?),
            KeyAlgorithm::P384 => Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING)?),
            KeyAlgorithm::Rsa4096 => Self::Rsa(rsa::KeyPair::generate(KeySize::Rsa4096)?),
            KeyAlgorithm::Ed25519 => Self::Ed25519(Ed25519KeyPair::generate()?),
        })
    }

    /// Each kind refuses the others' bytes, so the first that takes them is the right one.
    fn parse(der: &PrivateKeyDer<'_>) -> Option<Self> {
        let rsa = |result: Result<rsa::KeyPair, _>| result.ok().map(Self::Rsa);
        match der {
            PrivateKeyDer::Pkcs8(key) => {
                let der = key.secret_pkcs8_der();
                let ec = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der).ok();
                Self::ecdsa(ec)
                    .or_else(|| Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Self::Ed25519))
                    .or_else(|| rsa(rsa::KeyPair::from_pkcs8(der)))
            }
            PrivateKeyDer::Sec1(key) => {
                Self::ecdsa(|algorithm| EcdsaKeyPair::from_private_key_der(algorithm, key.secret_sec1_der()).ok())
            }
            PrivateKeyDer::Pkcs1(key) => rsa(rsa::KeyPair::from_der(key.secret_pkcs1_der())),
            _ => None,
        }
    }

    fn ecdsa(parse: impl Fn(&'static EcdsaSigningAlgorithm) -> Option<EcdsaKeyPair>) -> Option<Self> {
        let p256 = parse(&ECDSA_P256_SHA256_ASN1_SIGNING).map(Self::P256);
        p256.or_else(|| parse(&ECDSA_P384_SHA384_ASN1_SIGNING).map(Self::P384))
    }

    fn public_key_der(&self) -> Result<PublicKeyX509Der<'static>, Unspecified> {
        match self {
            Self::P256(key) | Self::P384(key) => key.public_key().as_der(),
            Self::Rsa(key) => key.public_key().as_der(),
            Self::Ed25519(key) => key.public_key().as_der(),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        match self {
            Self::P256(key) | Self::P384(key) => Ok(key.sign(&SystemRandom::new(), message)?.as_ref().to_vec()),
            Self::Ed25519(key) => Ok(key.try_sign(message)?.as_ref().to_vec()),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)?;
                Ok(signature)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_own_pem() {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
            let made = KeyPair::generate(algorithm).unwrap();
            let (_, der) = pem_rfc7468::decode_vec(made.to_pem().unwrap().as_bytes()).unwrap();
            let again = Kind::parse(&PrivateKeyDer::Pkcs8(der.into())).map(KeyPair::of_kind).unwrap().unwrap();
            assert_eq!(again.spki_der(), made.spki_der(), "{algorithm}");
            assert_eq!(again.scheme(), made.scheme());
        }
    }

    #[test]
    fn a_key_does_not_show_itself() {
        let key = KeyPair::generate(KeyAlgorithm::P256).unwrap();
        assert_eq!(format!("{key:?}"), "KeyPair { scheme: EcdsaSha256, .. }");
    }
}
