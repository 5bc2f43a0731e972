//! The names that go into certificates, each checked once, where it is typed.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::{NameFault, PkiError};

/// A name that a server certificate is for: a DNS name in lower-case ASCII, one wildcard label at most, or an address.
///
/// ```
/// use portcullis_pki::ServerName;
///
/// assert_eq!("Registry.Example.COM.".parse::<ServerName>()?.to_string(), "registry.example.com");
/// assert_eq!("[fd00::1]".parse::<ServerName>()?.to_string(), "fd00::1");
/// assert!("registry.test:5443".parse::<ServerName>().is_err());
/// # Ok::<(), portcullis_pki::PkiError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName(Kind);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Dns(String),
    Ip(IpAddr),
}

/// The name of a client: its certificate's common name, the name of its directory, and the last part of its SPIFFE id.
/// 1 to 64 of `A-Z a-z 0-9 . _ -`; not starting with `.` (no `..`, no hidden directory) or `-` (no option).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientName(String);

/// A SPIFFE trust domain (SPIFFE ID specification §2.1): 1 to 255 of `a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

impl ServerName {
    /// The DNS name, if it is one.
    pub fn dns(&self) -> Option<&str> {
        match &self.0 {
            Kind::Dns(name) => Some(name),
            Kind::Ip(_) => None,
        }
    }

    /// The address, if it is one.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self.0 {
            Kind::Dns(_) => None,
            Kind::Ip(address) => Some(address),
        }
    }
}

impl From<IpAddr> for ServerName {
    fn from(address: IpAddr) -> Self {
        Self(Kind::Ip(address))
    }
}

impl FromStr for ServerName {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        parse_server_name(text).map(Self).map_err(|fault| PkiError::ServerName { text: cut(text), fault })
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Dns(name) => f.write_str(name),
            Kind::Ip(address) => address.fmt(f),
        }
    }
}

impl ClientName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientName {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        if is_safe_name(text) { Ok(Self(text.to_owned())) } else { Err(PkiError::ClientName { text: cut(text) }) }
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TrustDomain {
    /// `spiffe://<trust domain>/host/<name>`.
    pub fn host_id(&self, name: &ClientName) -> String {
        format!("spiffe://{}/host/{name}", self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'_' | b'-');
        let valid = (1..=255).contains(&text.len()) && text.bytes().all(fits);
        if valid { Ok(Self(text.to_owned())) } else { Err(PkiError::TrustDomain { text: cut(text) }) }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a name of ours may stand in a path, in an argument and in a policy as it is.
pub(crate) fn is_safe_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && !text.starts_with(['.', '-']) && text.chars().all(is_name_character)
}

pub(crate) const fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}

fn parse_server_name(text: &str) -> Result<Kind, NameFault> {
    if text.is_empty() {
        return Err(NameFault::Empty);
    }
    if let Some(address) = parse_address(text) {
        return if address.is_unspecified() { Err(NameFault::Unspecified) } else { Ok(Kind::Ip(address)) };
    }
    if !text.is_ascii() {
        return Err(NameFault::NotAscii);
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    check_dns_name(&name)?;
    Ok(Kind::Dns(name))
}

fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

fn check_dns_name(name: &str) -> Result<(), NameFault> {
    if let Some((_, port)) = name.rsplit_once(':') {
        return Err(if port.parse::<u16>().is_ok() { NameFault::Port } else { NameFault::Character });
    }
    let (host, wildcard) = name.strip_prefix("*.").map_or((name, false), |rest| (rest, true));
    // webpki asks for two labels after the wildcard, so *.test would be a certificate that our own client refuses.
    if host.contains('*') || (wildcard && !host.contains('.')) {
        return Err(NameFault::Wildcard);
    }
    if name.len() > 253 || host.split('.').any(|label| label.len() > 63) {
        return Err(NameFault::TooLong);
    }
    if !host.split('.').all(is_label) {
        return Err(NameFault::Character);
    }
    let last = host.rsplit('.').next().unwrap_or(host);
    if last.bytes().all(|c| c.is_ascii_digit()) { Err(NameFault::NotAnAddress) } else { Ok(()) }
}

fn is_label(label: &str) -> bool {
    let fits = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
    !label.is_empty() && label.bytes().all(fits) && !label.starts_with('-') && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, NameFault>) {
        let parsed = parse_server_name(text).map(|kind| ServerName(kind).to_string());
        assert_eq!(parsed, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn server_names() {
        check("registry.test", Ok("registry.test"));
        check("LOCALHOST", Ok("localhost"));
        check("a.example.com.", Ok("a.example.com"));
        check("*.Example.com", Ok("*.example.com"));
        check("xn--zrich-kva.example", Ok("xn--zrich-kva.example"));
        check("10.77.0.1", Ok("10.77.0.1"));
        check("FD00::1", Ok("fd00::1"));
        check("[fd00::1]", Ok("fd00::1"));
        check(&format!("{}.test", "a".repeat(63)), Ok(&format!("{}.test", "a".repeat(63))));
    }

    #[test]
    fn what_is_no_server_name() {
        check("", Err(NameFault::Empty));
        check("registry.test:5443", Err(NameFault::Port));
        check("[fd00::1]:5443", Err(NameFault::Port));
        check("https://registry.test", Err(NameFault::Character));
        check("fe80::1%eth0", Err(NameFault::Character));
        check("zürich.example", Err(NameFault::NotAscii));
        check("10.0.0.256", Err(NameFault::NotAnAddress));
        check("1234", Err(NameFault::NotAnAddress));
        check("0.0.0.0", Err(NameFault::Unspecified));
        check("::", Err(NameFault::Unspecified));
        check("my_host.test", Err(NameFault::Character));
        check("a..b", Err(NameFault::Character));
        check(".", Err(NameFault::Character));
        check("-a.test", Err(NameFault::Character));
        check("a-.test", Err(NameFault::Character));
        check("a b.test", Err(NameFault::Character));
        check("[10.0.0.1]", Err(NameFault::Character));
        for wildcard in ["*", "*.test", "*.*.example.com", "a.*.example.com", "a*.example.com", "**.example.com"] {
            check(wildcard, Err(NameFault::Wildcard));
        }
        check(&format!("{}.test", "a".repeat(64)), Err(NameFault::TooLong));
        check(&["a".repeat(60).as_str(); 5].join("."), Err(NameFault::TooLong));
    }

    #[test]
    fn client_names() {
        for name in ["ci-7", "_a", "A.b_c-d", &"x".repeat(64)] {
            assert_eq!(name.parse::<ClientName>().unwrap().as_str(), name);
        }
        for text in ["", ".", "..", ".hidden", "-rf", "a/b", "a b", "ä", "a\n", "a\0", &"x".repeat(65)] {
            assert!(text.parse::<ClientName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn trust_domains() {
        let domain: TrustDomain = "prod.example.com".parse().unwrap();
        assert_eq!(domain.host_id(&"ci-7".parse().unwrap()), "spiffe://prod.example.com/host/ci-7");
        for text in ["", "Prod", "a/b", "a b", "a:1", &"x".repeat(256)] {
            assert!(text.parse::<TrustDomain>().is_err(), "{text:?}");
        }
    }
}
