//! Whether an engine takes a registry for insecure: moby `isSecureIndex` and `isCIDRMatch`, containerd `IsLocalhost`.

use super::UnreadReason;
use crate::profile::Loopback;
use portcullis_oci::RegistryHost;
use std::net::{IpAddr, Ipv4Addr};

/// Docker's answer: by an entry of the list as written, by an address in one of its ranges, or by loopback.
pub(super) fn to_docker(
    loopback: Loopback,
    list: &[String],
    host: &RegistryHost,
    addresses: &[IpAddr],
) -> Option<UnreadReason> {
    if let Some(entry) = list.iter().find(|entry| entry.as_str() == host.as_str()) {
        return Some(UnreadReason::Insecure(entry.clone()));
    }
    let literal = host.server_name().parse::<IpAddr>().ok();
    let named = literal.is_none() && host.host() == "localhost";
    let guessed = named.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)).filter(|_| addresses.is_empty());
    // An address stands for itself: only a name is resolved.
    let all = literal.map_or_else(|| addresses.to_vec(), |address| vec![address]);
    let all: Vec<IpAddr> = all.into_iter().chain(guessed).map(|address| address.to_canonical()).collect();
    if let Some(entry) = list.iter().find(|entry| all.iter().any(|address| contains(entry, *address))) {
        return Some(UnreadReason::Insecure(entry.clone()));
    }
    let counts = |address: &IpAddr| match loopback {
        Loopback::InsecureIpv4 => address.is_ipv4() && address.is_loopback(),
        Loopback::Insecure => address.is_loopback(),
        _ => false,
    };
    all.into_iter().find(counts).map(UnreadReason::Loopback)
}

/// containerd's `docker.IsLocalhost` and `MatchLocalhost`: the literal name or an address, nothing is resolved.
pub(super) fn is_literal_loopback(host: &RegistryHost) -> bool {
    host.host() == "localhost" || host.server_name().parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether `10.0.0.0/8` contains the address. An entry that is no range contains none.
fn contains(range: &str, address: IpAddr) -> bool {
    let parse = || {
        let (base, length) = range.split_once('/')?;
        Some((base.parse::<IpAddr>().ok()?, length.parse::<u32>().ok()?))
    };
    match (parse(), address) {
        (Some((IpAddr::V4(base), length @ 0..=32)), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        (Some((IpAddr::V6(base), length @ 0..=128)), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            base.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(loopback: Loopback, list: &[&str], host: &str, addresses: &[&str]) -> Option<UnreadReason> {
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        to_docker(loopback, &list, &host.parse().unwrap(), &addresses)
    }

    #[test]
    fn names_addresses_and_ranges() {
        let old = Loopback::InsecureIpv4;
        let loopback = |address: &str| Some(UnreadReason::Loopback(address.parse().unwrap()));
        let entry = |entry: &str| Some(UnreadReason::Insecure(entry.to_owned()));
        assert_eq!(check(old, &[], "r.test:5000", &["10.0.0.1"]), None);
        assert_eq!(check(old, &[], "r.test:5000", &["10.0.0.1", "127.0.1.1"]), loopback("127.0.1.1"));
        assert_eq!(check(old, &[], "localhost:5000", &[]), loopback("127.0.0.1"));
        assert_eq!(check(old, &[], "127.0.0.2:5000", &["10.0.0.1"]), loopback("127.0.0.2"));
        assert_eq!(check(old, &[], "[::1]:5000", &[]), None);
        assert_eq!(check(Loopback::Insecure, &[], "[::1]:5000", &[]), loopback("::1"));
        assert_eq!(check(old, &[], "[::ffff:127.0.0.1]:5000", &[]), loopback("127.0.0.1"));
        assert_eq!(check(old, &["r.test:5000"], "r.test:5000", &[]), entry("r.test:5000"));
        assert_eq!(check(old, &["r.test"], "r.test:5000", &[]), None, "the port is part of the name");
        assert_eq!(check(old, &["10.0.0.0/8"], "r.test", &["10.255.0.1"]), entry("10.0.0.0/8"));
        assert_eq!(check(old, &["10.0.0.0/8", "x/8", "10.0.0.0/33"], "r.test", &["11.0.0.1"]), None);
        assert_eq!(check(old, &["0.0.0.0/0"], "r.test", &["11.0.0.1"]), entry("0.0.0.0/0"));
        assert_eq!(check(old, &["fd00::/8"], "r.test", &["fd12::1"]), entry("fd00::/8"));
    }

    #[test]
    fn containerd_takes_the_words_only() {
        for (host, is) in [("localhost:5000", true), ("127.0.0.1:5000", true), ("[::1]:5", true), ("r.test", false)] {
            assert_eq!(is_literal_loopback(&host.parse().unwrap()), is, "{host}");
        }
    }
}
