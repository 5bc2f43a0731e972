//! What an engine says about a registry's certificate that it refuses: the words of Go's `crypto/x509` (verify.go), with which
//! Docker, Podman, containerd and BuildKit all speak. That they refuse is `portcullis-tls`'s verdict; the words follow from
//! what is in the certificates. Pure.

use crate::facts::verdict;
use portcullis_certs::{AltName, Certificate, KeyType, RegistryHost};
use portcullis_client::Distrust;
use portcullis_tls::Roots;
use std::net::IpAddr;
use time::OffsetDateTime;

const DATES: &str = "x509: certificate has expired or is not yet valid";
const UNKNOWN: &str = "x509: certificate signed by unknown authority";

/// What a Go engine that trusts `roots` alone says to the chain (leaf first) of `host` at `now`; `None`: it takes it.
///
/// The text is the part of the engine's message that depends on the certificates alone. Names in it are the certificate's
/// own, not made visible.
///
/// ```
/// # let host = "registry.test:5443".parse()?;
/// # let now = time::OffsetDateTime::UNIX_EPOCH;
/// assert_eq!(portcullis_doctor::go_refusal(&[], &[], &host, now), None, "nothing was shown");
/// # Ok::<(), portcullis_oci::InvalidReference>(())
/// ```
pub fn go_refusal(
    chain: &[Certificate],
    roots: &[Certificate],
    host: &RegistryHost,
    now: OffsetDateTime,
) -> Option<String> {
    if chain.is_empty() {
        return None;
    }
    let reason = verdict(chain, roots, Roots::Only, host, now).err()?;
    Some(in_go(&reason, chain, roots, host, now))
}

/// A refusal in Go's words. `Verify` looks at the leaf's dates, then at the name, then for a path, then at the usages.
pub(crate) fn in_go(
    reason: &Distrust,
    chain: &[Certificate],
    roots: &[Certificate],
    host: &RegistryHost,
    now: OffsetDateTime,
) -> String {
    let Some(leaf) = chain.first() else { return UNKNOWN.to_owned() };
    if !is_in_time(leaf, now) {
        return DATES.to_owned();
    }
    if !leaf.is_for(host.server_name()) {
        return name(leaf, host);
    }
    if *reason == Distrust::Purpose {
        return "x509: certificate specifies an incompatible key usage".to_owned();
    }
    let named = chain.iter().flat_map(|child| roots.iter().map(move |root| (child, root)));
    let named = named.filter(|(child, root)| child != root && child.facts().issuer == root.facts().subject);
    named.map(|(child, root)| path(child, root, host, now)).next().unwrap_or_else(|| UNKNOWN.to_owned())
}

fn is_in_time(certificate: &Certificate, now: OffsetDateTime) -> bool {
    (certificate.facts().not_before..=certificate.facts().not_after).contains(&now)
}

/// `HostnameError.Error`.
fn name(leaf: &Certificate, host: &RegistryHost) -> String {
    let (facts, wanted) = (leaf.facts(), host.server_name());
    let is_common = facts.subject.common_names().any(|common| common.eq_ignore_ascii_case(wanted));
    if facts.alt_names.is_empty() && is_common {
        return "x509: certificate relies on legacy Common Name field".to_owned();
    }
    let is_address = wanted.parse::<IpAddr>().is_ok();
    let usable = facts.alt_names.iter().filter_map(|name| match name {
        AltName::Ip(address) if is_address => Some(address.to_string()),
        AltName::Dns(name) if !is_address => Some(name.clone()),
        _ => None,
    });
    let usable: Vec<String> = usable.collect();
    if usable.is_empty() && is_address {
        return format!("x509: cannot validate certificate for {wanted} because it doesn't contain any IP SANs");
    }
    if usable.is_empty() {
        return format!("x509: certificate is not valid for any names, but wanted to match {wanted}");
    }
    format!("x509: certificate is valid for {}, not {wanted}", usable.join(", "))
}

/// `buildChains` with the one root that has the issuer's name: `CheckSignatureFrom`, then `isValid`.
fn path(child: &Certificate, root: &Certificate, host: &RegistryHost, now: OffsetDateTime) -> String {
    let facts = root.facts();
    let possibly = |why: &str| format!("{UNKNOWN} (possibly because of \"{why}");
    if (facts.version == 3 && facts.is_ca != Some(true))
        || facts.key_usage.as_ref().is_some_and(|usage| !usage.key_cert_sign)
    {
        return possibly("x509: invalid signature: parent certificate cannot sign this kind of certificate\"");
    }
    if child.facts().signature.is_sha1_or_older() {
        return possibly("x509: cannot verify signature: insecure algorithm");
    }
    if !child.is_signed_by(root) {
        return possibly(match facts.key {
            KeyType::Rsa { .. } => "crypto/rsa: verification error\"",
            KeyType::Ed25519 => "x509: Ed25519 verification failure\"",
            _ => "x509: ECDSA verification failure\"",
        });
    }
    if !is_in_time(root, now) {
        return DATES.to_owned();
    }
    if facts.name_constraints.as_ref().is_some_and(|constraints| !constraints.permits(host)) {
        return "x509: a root or intermediate certificate is not authorized to sign for this name".to_owned();
    }
    UNKNOWN.to_owned()
}
