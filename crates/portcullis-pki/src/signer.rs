//! The bridge from our keys to `x509-cert`'s builder: `finalize` gives the bytes, the key signs them, `assemble` puts
//! them together. The builder's own `build` wants a key type that knows the `signature` traits, and none of aws-lc-rs
//! does; the split would fit a key in an HSM as well.

use portcullis_certs::Certificate;
use rustls_pki_types::CertificateDer;
use signature::Keypair;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder, CrlBuilder};
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::{Any, BitString};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::{rfc5912, rfc8410};
use x509_cert::der::{Document, Encode as _};
use x509_cert::spki::{self, AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey};

use crate::key::SignatureScheme;
use crate::{KeyPair, PkiError};

/// Signs the certificate that the builder describes.
pub(crate) fn sign<P: BuilderProfile>(builder: CertificateBuilder<P>, key: &KeyPair) -> Result<Certificate, PkiError> {
    let der = signed(builder, key)?.to_der()?;
    Ok(Certificate::from_der(CertificateDer::from(der))?)
}

/// Signs the revocation list that the builder describes.
pub(crate) fn sign_list(builder: CrlBuilder, key: &KeyPair) -> Result<CertificateList, PkiError> {
    signed(builder, key)
}

fn signed<B: Builder>(mut builder: B, key: &KeyPair) -> Result<B::Output, PkiError> {
    let signer = Signer(key);
    let to_be_signed = builder.finalize(&signer)?;
    let signature = BitString::from_bytes(&key.sign(&to_be_signed)?)?;
    Ok(builder.assemble(signature, &signer)?)
}

struct Signer<'a>(&'a KeyPair);

#[derive(Clone)]
struct PublicKey(Vec<u8>);

impl Keypair for Signer<'_> {
    type VerifyingKey = PublicKey;

    fn verifying_key(&self) -> PublicKey {
        PublicKey(self.0.spki_der().to_vec())
    }
}

impl EncodePublicKey for PublicKey {
    fn to_public_key_der(&self) -> spki::Result<Document> {
        Ok(Document::try_from(self.0.as_slice())?)
    }
}

impl DynSignatureAlgorithmIdentifier for Signer<'_> {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        let (oid, parameters) = algorithm(self.0.scheme());
        Ok(AlgorithmIdentifierOwned { oid, parameters })
    }
}

/// RFC 4055 §5 wants a NULL for RSA; RFC 5758 §3.2 and RFC 8410 §3 want the parameters absent.
fn algorithm(scheme: SignatureScheme) -> (ObjectIdentifier, Option<Any>) {
    match scheme {
        SignatureScheme::EcdsaSha256 => (rfc5912::ECDSA_WITH_SHA_256, None),
        SignatureScheme::EcdsaSha384 => (rfc5912::ECDSA_WITH_SHA_384, None),
        SignatureScheme::RsaPkcs1Sha256 => (rfc5912::SHA_256_WITH_RSA_ENCRYPTION, Some(Any::null())),
        SignatureScheme::Ed25519 => (rfc8410::ID_ED_25519, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenSSL and webpki take both forms, others do not.
    #[test]
    fn only_rsa_has_parameters() {
        assert_eq!(algorithm(SignatureScheme::RsaPkcs1Sha256).1, Some(Any::null()));
        for scheme in [SignatureScheme::EcdsaSha256, SignatureScheme::EcdsaSha384, SignatureScheme::Ed25519] {
            assert_eq!(algorithm(scheme).1, None, "{scheme:?}");
        }
    }
}
