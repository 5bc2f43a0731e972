//! A new certificate before it is written: tried as its reader will try it (`portcullis-tls`, the verifier that our own
//! server and client use), and with a proof that its key is the key in hand.

use portcullis_certs::Certificate;
use portcullis_tls::{gate, verify_issued_client, verify_issued_server};
use time::OffsetDateTime;
use webpki::EndEntityCert;

use crate::key::SignatureScheme;
use crate::{AuthorityKind, KeyPair, PkiError, ServerName};

/// Refuses an authority that our own server would not load, or that its own key did not sign.
pub(crate) fn authority(
    certificate: &Certificate,
    key: &KeyPair,
    kind: AuthorityKind,
    now: OffsetDateTime,
) -> Result<(), PkiError> {
    if let Some(fault) = gate(certificate, now).into_iter().next() {
        return Err(PkiError::Unverified { kind, source: fault.into() });
    }
    if !certificate.facts().self_signed {
        return Err(PkiError::NotItsKey);
    }
    belongs(certificate, key)
}

/// Refuses a client's certificate that a server which trusts `ca` would refuse.
pub(crate) fn client(certificate: &Certificate, ca: &Certificate, now: OffsetDateTime) -> Result<(), PkiError> {
    verify_issued_client(&[certificate.der().clone()], ca, now)
        .map_err(|source| PkiError::Unverified { kind: AuthorityKind::Client, source })
}

/// Refuses a server's certificate that a client which trusts `ca` would refuse for any of `names`.
pub(crate) fn server(
    certificate: &Certificate,
    ca: &Certificate,
    names: &[ServerName],
    now: OffsetDateTime,
) -> Result<(), PkiError> {
    let chain = [certificate.der().clone()];
    // A wildcard is tried through a name that it stands for.
    let hosts = names.iter().map(|name| name.to_string().replacen('*', "any-label", 1));
    hosts.into_iter().try_for_each(|host| {
        verify_issued_server(&chain, ca, &host, now)
            .map_err(|source| PkiError::Unverified { kind: AuthorityKind::Server, source })
    })
}

/// Signs a challenge with the key and verifies it with the public key that stands in the certificate.
pub(crate) fn belongs(certificate: &Certificate, key: &KeyPair) -> Result<(), PkiError> {
    const CHALLENGE: &[u8] = b"portcullis: this key belongs to this certificate";
    let signature = key.sign(CHALLENGE)?;
    let algorithm = match key.scheme() {
        SignatureScheme::EcdsaSha256 => webpki::aws_lc_rs::ECDSA_P256_SHA256,
        SignatureScheme::EcdsaSha384 => webpki::aws_lc_rs::ECDSA_P384_SHA384,
        SignatureScheme::RsaPkcs1Sha256 => webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA256,
        SignatureScheme::Ed25519 => webpki::aws_lc_rs::ED25519,
    };
    EndEntityCert::try_from(certificate.der())
        .and_then(|certificate| certificate.verify_signature(algorithm, CHALLENGE, &signature))
        .map_err(|_| PkiError::NotItsKey)
}
