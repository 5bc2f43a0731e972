//! A certificate just issued, tried as the peer will try it, before it is written.

use portcullis_certs::Certificate;
use portcullis_certs::trust_dir::{CaFile, TrustFiles};
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{CertificateDer, ServerName};
use time::OffsetDateTime;

use crate::client::ServerVerifier;
use crate::clock::unix_time;
use crate::gate::gate;
use crate::roots::Anchors;
use crate::{Roots, TlsError, TrustStore};

/// Would our server take `chain` (leaf first) at `now`, if it trusted `ca`?
///
/// # Errors
/// [`TlsError::Ca`] when `ca` does not pass the gate, [`TlsError::IssuedClient`] with the refusal otherwise.
pub fn verify_issued_client(
    chain: &[CertificateDer<'_>],
    ca: &Certificate,
    now: OffsetDateTime,
) -> Result<(), TlsError> {
    if let Some(fault) = gate(ca, now).into_iter().next() {
        return Err(fault.into());
    }
    let cas = vec![CaFile { name: "issuer".to_owned(), path: "issuer".into(), certificates: vec![ca.clone()] }];
    let (trust, _) = TrustStore::build(&TrustFiles { cas, ..TrustFiles::default() }, now);
    trust.judge(chain, now)?;
    Ok(())
}

/// Would a client that trusts `ca` alone take `chain` (leaf first) at `now` for the registry `name`?
///
/// # Errors
/// [`TlsError::Name`] when `name` is no name, [`TlsError::IssuedServer`] with what the client would say otherwise.
pub fn verify_issued_server(
    chain: &[CertificateDer<'_>],
    ca: &Certificate,
    name: &str,
    now: OffsetDateTime,
) -> Result<(), TlsError> {
    verify_server_chain(chain, std::slice::from_ref(ca), name, now)
}

/// The verdict of [`client_config`](crate::client_config) with [`Roots::Only`](crate::Roots::Only) on a chain (leaf
/// first) at any moment, without a connection: what a doctor asks of each root apart.
///
/// # Errors
/// As [`verify_server`].
pub fn verify_server_chain(
    chain: &[CertificateDer<'_>],
    roots: &[Certificate],
    name: &str,
    now: OffsetDateTime,
) -> Result<(), TlsError> {
    verify_server(chain, roots, Roots::Only, name, now)
}

/// The verdict of [`client_config`](crate::client_config) on a chain (leaf first) at any moment, without a connection.
///
/// # Errors
/// [`TlsError::Name`] when `name` is no name, [`TlsError::NoCertificate`] for an empty chain, and
/// [`TlsError::IssuedServer`] with what the client would say otherwise.
pub fn verify_server(
    chain: &[CertificateDer<'_>],
    host_roots: &[Certificate],
    roots: Roots,
    name: &str,
    now: OffsetDateTime,
) -> Result<(), TlsError> {
    let server_name = ServerName::try_from(name).map_err(|_| TlsError::Name { name: name.to_owned() })?;
    let (leaf, intermediates) = chain.split_first().ok_or(TlsError::NoCertificate)?;
    let verifier = ServerVerifier { anchors: Anchors::of(host_roots, roots) };
    verifier
        .verify_server_cert(leaf, intermediates, &server_name, &[], unix_time(now))
        .map(|_| ())
        .map_err(TlsError::IssuedServer)
}
