//! nameConstraints (RFC 5280 §4.2.1.10): which hosts a CA may vouch for. Knows no DER.

use crate::visible::Visible;
use portcullis_oci::RegistryHost;
use std::fmt;
use std::net::IpAddr;

/// The names for which a CA may vouch, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NameConstraints {
    /// Of each kind of name that appears here, only names within one of these.
    pub permitted: Vec<NameSubtree>,
    /// No name within one of these.
    pub excluded: Vec<NameSubtree>,
}

/// A subtree of names of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameSubtree {
    /// A DNS name and all below it; only those below it when it begins with a dot; every one when it is empty.
    Dns(String),
    /// Addresses of one family.
    Ip {
        /// 4 or 16 octets.
        network: Vec<u8>,
        /// As many.
        mask: Vec<u8>,
    },
    /// Cannot be read, or may be about hosts: no name passes.
    Malformed,
    /// Another kind of name, which no host has.
    Other,
}

impl NameConstraints {
    /// Whether a certificate for this host can be valid under the CA. A kind of name that is not mentioned is not restricted.
    pub fn permits(&self, host: &RegistryHost) -> bool {
        let covers = |subtrees: &[NameSubtree]| -> Vec<bool> {
            subtrees.iter().filter_map(|subtree| subtree.covers(host.server_name())).collect()
        };
        let is_malformed = self.permitted.iter().chain(&self.excluded).any(|tree| *tree == NameSubtree::Malformed);
        let permitted = covers(&self.permitted);
        !is_malformed && (permitted.is_empty() || permitted.contains(&true)) && !covers(&self.excluded).contains(&true)
    }
}

impl NameSubtree {
    /// `None` when it is about another kind of name.
    fn covers(&self, host: &str) -> Option<bool> {
        match (self, host.parse::<IpAddr>()) {
            (Self::Dns(base), Err(_)) => Some(is_within(host, base)),
            (Self::Ip { network, mask }, Ok(address)) => {
                let octets = match address {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                let same =
                    octets.iter().zip(network).zip(mask).all(|((octet, base), mask)| octet & mask == base & mask);
                // Both families are one kind of name: a range of the other is one that does not match.
                Some(same && network.len() == octets.len())
            }
            _ => None,
        }
    }
}

/// The leading dot is not RFC 5280's for DNS names; Go and OpenSSL both take it for "below, and not itself".
fn is_within(host: &str, base: &str) -> bool {
    let (host, base) = (host.to_ascii_lowercase(), base.to_ascii_lowercase());
    match host.trim_end_matches('.').strip_suffix(base.as_str()) {
        Some(rest) if base.starts_with('.') => !rest.is_empty(),
        Some(rest) => base.is_empty() || rest.is_empty() || rest.ends_with('.'),
        None => false,
    }
}

impl fmt::Display for NameConstraints {
    /// `permitted DNS test, IP 10.0.0.0/255.0.0.0; excluded DNS (all)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |subtrees: &[NameSubtree]| subtrees.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let named = [("permitted", &self.permitted), ("excluded", &self.excluded)];
        let parts = named.into_iter().filter(|(_, subtrees)| !subtrees.is_empty());
        let parts: Vec<String> = parts.map(|(name, subtrees)| format!("{name} {}", list(subtrees))).collect();
        f.write_str(&parts.join("; "))
    }
}

impl fmt::Display for NameSubtree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(base) if base.is_empty() => f.write_str("DNS (all)"),
            Self::Dns(base) => write!(f, "DNS {}", Visible(base)),
            Self::Ip { network, mask } => match (address(network), address(mask)) {
                (Some(network), Some(mask)) => write!(f, "IP {network}/{mask}"),
                _ => f.write_str("IP (malformed)"),
            },
            Self::Malformed => f.write_str("(malformed)"),
            Self::Other => f.write_str("(names of another kind)"),
        }
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    super::parse::ip(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subtree(text: &str) -> NameSubtree {
        match text.split_once('/') {
            Some((network, mask)) => {
                let octets = |text: &str| match text.parse::<IpAddr>().unwrap() {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                NameSubtree::Ip { network: octets(network), mask: octets(mask) }
            }
            None if text == "malformed" => NameSubtree::Malformed,
            None if text == "other" => NameSubtree::Other,
            None => NameSubtree::Dns(text.to_owned()),
        }
    }

    #[test]
    fn which_hosts_a_ca_may_vouch_for() {
        let rows: &[(&[&str], &[&str], &str, bool)] = &[
            (&[], &[], "r.test", true),
            (&["test"], &[], "r.test:5443", true),
            (&["R.Test"], &[], "r.test", true),
            (&["r.test"], &[], "a.b.r.test", true),
            (&["r.test"], &[], "bar.test", false),
            (&["r.test"], &[], "test", false),
            (&[".test"], &[], "r.test", true),
            (&[".r.test"], &[], "r.test", false),
            (&["a.test", "r.test"], &[], "r.test", true),
            (&[""], &[], "r.test", true),
            (&["test"], &["r.test"], "r.test", false),
            (&["test"], &["other.test"], "r.test", true),
            (&[], &["test"], "r.test", false),
            (&[], &[""], "r.test", false),
            // A kind that is not mentioned is free.
            (&["test"], &[], "10.0.0.1:5000", true),
            (&["10.0.0.0/255.0.0.0"], &[], "r.test", true),
            (&["other"], &["other"], "r.test", true),
            (&[], &[""], "10.0.0.1:5000", true),
            (&["10.0.0.0/255.0.0.0"], &[], "10.9.9.9:5000", true),
            (&["10.0.0.0/255.0.0.0"], &[], "11.0.0.1:5000", false),
            (&["10.0.0.0/255.0.0.0"], &[], "[fd00::1]:5000", false),
            (&["fd00::/ff00::"], &[], "[fd00::1]:5000", true),
            (&[], &["0.0.0.0/0.0.0.0"], "10.0.0.1:5000", false),
            (&[], &["0.0.0.0/0.0.0.0"], "[fd00::1]:5000", true),
            (&["test", "malformed"], &[], "r.test", false),
            (&[], &["malformed"], "r.test", false),
        ];
        for (permitted, excluded, host, expected) in rows {
            let trees = |texts: &[&str]| texts.iter().map(|text| subtree(text)).collect();
            let constraints = NameConstraints { permitted: trees(permitted), excluded: trees(excluded) };
            assert_eq!(constraints.permits(&host.parse().unwrap()), *expected, "{constraints}: {host}");
        }
    }
}
