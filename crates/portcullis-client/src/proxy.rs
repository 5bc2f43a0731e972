//! Which proxy the environment names for an address, by the rules of Go, which every engine follows
//! (`golang.org/x/net/http/httpproxy`): `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, also in lower case. `ALL_PROXY` is not
//! read. Must not know what a proxy is told.

use std::net::IpAddr;

use reqwest::Url;

/// The variables, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    https: Option<String>,
    http: Option<String>,
    exceptions: Vec<Exception>,
}

/// What a variable names is no proxy that this client can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadProxy {
    /// The scheme, or `None` where it is no address at all. The rest may hold a password.
    pub(crate) scheme: Option<String>,
}

/// One entry of `NO_PROXY`.
#[derive(Debug, PartialEq, Eq)]
enum Exception {
    All,
    Network {
        address: IpAddr,
        prefix: u8,
    },
    Address {
        address: IpAddr,
        port: Option<u16>,
    },
    /// With a leading dot; `itself`: the name without it is meant too.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    pub(crate) fn from_environment() -> Self {
        Self::read(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |upper: &str| variable(upper).or_else(|| variable(&upper.to_ascii_lowercase()));
        // A CGI program's HTTP_PROXY is a header of its client (httpoxy, CVE-2016-5385).
        let http = if variable("REQUEST_METHOD").is_some() { None } else { either("HTTP_PROXY") };
        let exceptions = either("NO_PROXY").unwrap_or_default();
        let exceptions = exceptions.split(',').filter_map(exception).collect();
        Self { https: either("HTTPS_PROXY"), http, exceptions }
    }

    /// The proxy for an address; `None`: it is reached directly, as loopback always is.
    pub(crate) fn proxy_for(&self, url: &Url) -> Result<Option<Url>, BadProxy> {
        let named = if url.scheme() == "https" { &self.https } else { &self.http };
        match named {
            Some(named) if !self.is_direct(url) => parse(named).map(Some),
            _ => Ok(None),
        }
    }

    fn is_direct(&self, url: &Url) -> bool {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return true };
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|address| address.to_canonical().is_loopback()) {
            return true;
        }
        self.exceptions.iter().any(|exception| exception.is_for(&host, address, port))
    }
}

impl Exception {
    fn is_for(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Network { address: network, prefix } => {
                address.is_some_and(|address| is_within(address, *network, *prefix))
            }
            Self::Address { address: own, port: own_port } => {
                address.is_some_and(|address| address.to_canonical() == own.to_canonical())
                    && own_port.is_none_or(|own| own == port)
            }
            Self::Domain { suffix, itself, port: own_port } => {
                let named = host.ends_with(suffix.as_str()) || (*itself && host == &suffix[1..]);
                named && own_port.is_none_or(|own| own == port)
            }
        }
    }
}

fn exception(text: &str) -> Option<Exception> {
    let text = text.trim().to_ascii_lowercase();
    if text == "*" {
        return Some(Exception::All);
    }
    if let Some((address, prefix)) = text.split_once('/') {
        let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        return (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some(Exception::Network { address, prefix });
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Some(Exception::Address { address, port: None });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text.as_str(), None),
    };
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return Some(Exception::Address { address, port });
    }
    let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
    match host {
        "" => None,
        host if host.starts_with('.') => Some(Exception::Domain { suffix: host.to_owned(), itself: false, port }),
        host => Some(Exception::Domain { suffix: format!(".{host}"), itself: true, port }),
    }
}

fn is_within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let shifted = |bits: u128, width: u32| bits.checked_shr(width - u32::from(prefix)).unwrap_or(0);
    match (address.to_canonical(), network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            shifted(address.to_bits().into(), 32) == shifted(network.to_bits().into(), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            shifted(address.to_bits(), 128) == shifted(network.to_bits(), 128)
        }
        _ => false,
    }
}

/// `host:port` is an http proxy. One of `https` is spoken to over TLS (`tunnel.rs`).
fn parse(text: &str) -> Result<Url, BadProxy> {
    let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
    let url = url.ok().filter(Url::has_host);
    match url {
        Some(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        url => Err(BadProxy { scheme: url.map(|url| url.scheme().to_owned()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    /// Whether an address is reached directly in spite of a proxy.
    fn is_direct(no_proxy: &str, url: &str) -> bool {
        let proxies = proxies(&[("HTTPS_PROXY", "http://proxy.test:3128"), ("NO_PROXY", no_proxy)]);
        proxies.proxy_for(&Url::parse(url).unwrap()).unwrap().is_none()
    }

    #[test]
    fn whom_no_proxy_is_for() {
        for (no_proxy, url, direct) in [
            ("", "https://r.test/", false),
            ("*", "https://r.test/", true),
            ("a.test, *", "https://r.test/", true),
            ("r.test", "https://r.test/", true),
            ("r.test", "https://R.Test:5000/", true),
            ("r.test", "https://sub.r.test/", true),
            ("r.test", "https://other.test/", false),
            ("r.test", "https://notr.test/", false),
            (".r.test", "https://sub.r.test/", true),
            (".r.test", "https://r.test/", false),
            ("*.r.test", "https://sub.r.test/", true),
            ("*.r.test", "https://r.test/", false),
            ("r.test:5000", "https://r.test:5000/", true),
            ("r.test:5000", "https://r.test:5001/", false),
            ("r.test:443", "https://r.test/", true),
            ("r.test:x", "https://r.test/", false),
            ("10.1.2.3", "https://10.1.2.3:5000/", true),
            ("10.1.2.3:5000", "https://10.1.2.3:5000/", true),
            ("10.1.2.3:5000", "https://10.1.2.3/", false),
            ("10.0.0.0/8", "https://10.200.1.1/", true),
            ("10.0.0.0/8", "https://11.0.0.1/", false),
            ("10.0.0.0/8", "https://r.test/", false),
            ("0.0.0.0/0", "https://11.0.0.1/", true),
            ("10.0.0.0/33", "https://10.0.0.1/", false),
            ("fd00::/8", "https://[fd12::1]:5000/", true),
            ("fd00::/8", "https://[fe80::1]/", false),
            ("fd00::1", "https://[fd00::1]/", true),
            ("[fd00::1]:5000", "https://[fd00::1]:5000/", true),
            ("[fd00::1]:5000", "https://[fd00::1]:5001/", false),
            (" , ,,r.test ", "https://r.test/", true),
            ("*r.test", "https://sub.r.test/", false),
        ] {
            assert_eq!(is_direct(no_proxy, url), direct, "{no_proxy:?} {url}");
        }
    }

    #[test]
    fn loopback_never_has_a_proxy() {
        for url in ["https://localhost:5000/", "https://127.3.2.1/", "https://[::1]:5000/", "https://LOCALHOST/"] {
            assert!(is_direct("", url), "{url}");
        }
        for url in ["https://localhost.test/", "https://128.0.0.1/", "https://[::2]/"] {
            assert!(!is_direct("", url), "{url}");
        }
    }

    #[test]
    fn which_variable_is_read() {
        let of = |variables: &[(&str, &str)], url: &str| {
            let found = proxies(variables).proxy_for(&Url::parse(url).unwrap());
            found.map(|url| url.map(|url| url.host_str().unwrap().to_owned()))
        };
        let some = |host: &str| Ok(Some(host.to_owned()));
        assert_eq!(of(&[("HTTPS_PROXY", "http://a"), ("https_proxy", "http://b")], "https://r/"), some("a"));
        assert_eq!(of(&[("https_proxy", "b.test:3128")], "https://r/"), some("b.test"));
        assert_eq!(of(&[("HTTP_PROXY", "http://a"), ("ALL_PROXY", "http://b")], "https://r/"), Ok(None));
        assert_eq!(of(&[("HTTP_PROXY", "http://a")], "http://r/"), some("a"));
        assert_eq!(of(&[("HTTP_PROXY", "http://a"), ("REQUEST_METHOD", "GET")], "http://r/"), Ok(None));
        assert_eq!(of(&[("HTTPS_PROXY", "https://u:p@a")], "https://r/"), some("a"));
        for (named, scheme) in [("socks5://a", Some("socks5")), ("http://", None)] {
            let scheme = scheme.map(str::to_owned);
            assert_eq!(of(&[("HTTPS_PROXY", named)], "https://r/"), Err(BadProxy { scheme }), "{named}");
        }
    }
}
