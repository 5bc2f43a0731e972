//! Name constraints of a server CA (RFC 5280 §4.2.1.10): what is put into it, and the check before it signs.

use std::net::IpAddr;

use portcullis_certs::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::{Ia5String, OctetString};
use x509_cert::ext::pkix::constraints::NameConstraints;
use x509_cert::ext::pkix::constraints::name::{GeneralSubtree, GeneralSubtrees};
use x509_cert::ext::pkix::name::GeneralName;

use crate::{PkiError, ServerName};

/// Permits `names` (a DNS name with all below it, an address alone) and nothing else. A kind of name that is not
/// mentioned would be unrestricted, so the kind that is absent is excluded whole.
pub(crate) fn permit(names: &[ServerName]) -> Result<NameConstraints, PkiError> {
    let mut permitted = GeneralSubtrees::new();
    let mut excluded = GeneralSubtrees::new();
    for name in names {
        permitted.push(subtree(match (name.dns(), name.ip()) {
            (Some(dns), _) => dns_base(dns.strip_prefix("*.").unwrap_or(dns))?,
            (None, Some(address)) => ip_base(address)?,
            (None, None) => return Err(PkiError::NoNames),
        }));
    }
    if names.iter().all(|name| name.dns().is_none()) {
        excluded.push(subtree(dns_base("")?));
    }
    if names.iter().all(|name| name.ip().is_none()) {
        excluded.push(subtree(GeneralName::IpAddress(OctetString::new(vec![0; 8])?)));
        excluded.push(subtree(GeneralName::IpAddress(OctetString::new(vec![0; 32])?)));
    }
    let excluded = (!excluded.is_empty()).then_some(excluded);
    Ok(NameConstraints { permitted_subtrees: Some(permitted), excluded_subtrees: excluded })
}

/// The names that `ca` may not certify.
///
/// # Errors
/// [`PkiError::Encode`] when the extension cannot be read.
pub(crate) fn outside(ca: &Certificate, names: &[ServerName]) -> Result<Vec<ServerName>, PkiError> {
    if ca.facts().name_constraints.is_none() {
        return Ok(Vec::new());
    }
    let certificate = x509_cert::Certificate::from_der(ca.der())?;
    let Some((_, constraints)) = certificate.tbs_certificate().get_extension::<NameConstraints>()? else {
        return Ok(Vec::new());
    };
    Ok(names.iter().filter(|name| !is_permitted(&constraints, name)).cloned().collect())
}

/// Whether critical name constraints limit both the DNS names and the addresses that `ca` may certify: a CA of which one kind
/// is open may vouch for every server.
///
/// # Errors
/// [`PkiError::Encode`] when the extension cannot be read.
pub(crate) fn limits_names(ca: &Certificate) -> Result<bool, PkiError> {
    if ca.facts().name_constraints.is_none() {
        return Ok(false);
    }
    let certificate = x509_cert::Certificate::from_der(ca.der())?;
    let found = certificate.tbs_certificate().get_extension::<NameConstraints>()?;
    Ok(found.is_some_and(|(critical, constraints)| critical && limits_dns(&constraints) && limits_ip(&constraints)))
}

/// A permitted subtree that is not all of them, or all of them excluded. What lies in between (some names excluded) leaves the
/// rest open.
fn limits_dns(constraints: &NameConstraints) -> bool {
    let bases = |subtrees: &Option<GeneralSubtrees>| -> Vec<String> {
        let dns = |subtree: &GeneralSubtree| match &subtree.base {
            GeneralName::DnsName(base) => Some(base.as_str().trim_start_matches('.').to_owned()),
            _ => None,
        };
        subtrees.iter().flatten().filter_map(dns).collect()
    };
    let permitted = bases(&constraints.permitted_subtrees);
    let is_narrow = !permitted.is_empty() && permitted.iter().all(|base| !base.is_empty());
    is_narrow || bases(&constraints.excluded_subtrees).iter().any(String::is_empty)
}

/// The same. Both families are one kind of name: permitted addresses of one shut out the other.
fn limits_ip(constraints: &NameConstraints) -> bool {
    let masks = |subtrees: &Option<GeneralSubtrees>| -> Vec<Vec<u8>> {
        let mask = |subtree: &GeneralSubtree| match &subtree.base {
            GeneralName::IpAddress(range) => Some(range.as_bytes()[range.as_bytes().len() / 2..].to_vec()),
            _ => None,
        };
        subtrees.iter().flatten().filter_map(mask).collect()
    };
    let is_all = |mask: &Vec<u8>| mask.iter().all(|octet| *octet == 0);
    let permitted = masks(&constraints.permitted_subtrees);
    let excluded = masks(&constraints.excluded_subtrees);
    let shut = |len: usize| excluded.iter().any(|mask| mask.len() == len && is_all(mask));
    (!permitted.is_empty() && !permitted.iter().any(is_all)) || (shut(4) && shut(16))
}

fn is_permitted(constraints: &NameConstraints, name: &ServerName) -> bool {
    let bases = |subtrees: &Option<GeneralSubtrees>| -> Vec<bool> {
        subtrees.iter().flatten().filter_map(|subtree| covers(&subtree.base, name)).collect()
    };
    let permitted = bases(&constraints.permitted_subtrees);
    let excluded = bases(&constraints.excluded_subtrees);
    (permitted.is_empty() || permitted.contains(&true)) && !excluded.contains(&true)
}

/// Whether `name` lies in the subtree; `None` when the subtree is about another kind of name.
fn covers(base: &GeneralName, name: &ServerName) -> Option<bool> {
    match (base, name.dns(), name.ip()) {
        (GeneralName::DnsName(base), Some(dns), _) => {
            let base = base.as_str().to_ascii_lowercase();
            let host = dns.strip_prefix("*.").unwrap_or(dns);
            let below = host.strip_suffix(base.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            Some(base.is_empty() || below)
        }
        (GeneralName::IpAddress(range), _, Some(address)) => {
            let octets = octets(address);
            // Both kinds of address are one kind of name: a range of the other family is one that does not match.
            let Some((network, mask)) = range.as_bytes().split_at_checked(octets.len()) else { return Some(false) };
            let same = octets.iter().zip(network).zip(mask).all(|((octet, base), mask)| octet & mask == base & mask);
            Some(same && mask.len() == octets.len())
        }
        _ => None,
    }
}

fn subtree(base: GeneralName) -> GeneralSubtree {
    GeneralSubtree { base, minimum: 0, maximum: None }
}

fn dns_base(name: &str) -> Result<GeneralName, PkiError> {
    Ok(GeneralName::DnsName(Ia5String::new(name)?))
}

fn ip_base(address: IpAddr) -> Result<GeneralName, PkiError> {
    let address = octets(address);
    let mask = vec![0xff; address.len()];
    Ok(GeneralName::IpAddress(OctetString::new([address, mask].concat())?))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(permitted: &[&str], name: &str, expected: bool) {
        let parse = |text: &&str| text.parse().unwrap();
        let constraints = permit(&permitted.iter().map(parse).collect::<Vec<ServerName>>()).unwrap();
        assert_eq!(is_permitted(&constraints, &parse(&name)), expected, "{permitted:?} {name}");
    }

    #[test]
    fn a_name_permits_itself_and_all_below() {
        check(&["example.com"], "example.com", true);
        check(&["example.com"], "a.b.example.com", true);
        check(&["example.com"], "*.example.com", true);
        check(&["*.example.com"], "a.example.com", true);
        check(&["example.com"], "badexample.com", false);
        check(&["example.com"], "example.org", false);
        check(&["example.com", "localhost"], "localhost", true);
    }

    #[test]
    fn a_kind_that_is_not_mentioned_is_excluded() {
        check(&["example.com"], "10.0.0.1", false);
        check(&["example.com"], "fd00::1", false);
        check(&["10.0.0.1"], "example.com", false);
        check(&["10.0.0.1"], "10.0.0.1", true);
        check(&["10.0.0.1"], "10.0.0.2", false);
        check(&["10.0.0.1", "example.com"], "fd00::1", false);
        check(&["fd00::1", "example.com"], "10.0.0.1", false);
    }
}
