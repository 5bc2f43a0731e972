//! The names of this machine: those that go into the server's certificate, and the one that is printed for others to
//! type.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use portcullis_pki::ServerName;

/// A resolver that does not answer must not hold up a start: without an answer by then, a name counts as unknown.
const LOOKUP_TIME: Duration = Duration::from_secs(2);

/// How clients should be told to type the registry.
#[derive(Debug, Clone)]
pub(crate) struct Typed {
    /// `host:port`, or `host` for port 443.
    pub(crate) host: String,
    /// The line that a client's `/etc/hosts` needs, where this machine has no name that resolves beyond it.
    pub(crate) hosts_line: Option<String>,
}

/// FQDN, host name, non-loopback addresses and `localhost`, after the names that were given.
pub(crate) fn of_this_machine(given: &[ServerName], listen: SocketAddr) -> Vec<ServerName> {
    let mut names = given.to_vec();
    let host = host_name();
    let mut add = |name: Option<ServerName>| {
        if let Some(name) = name.filter(|name| !names.contains(name)) {
            names.push(name);
        }
    };
    add(fqdn(&host).and_then(|name| name.parse().ok()));
    add(host.parse().ok());
    let listen = listen.ip().to_canonical();
    if listen.is_unspecified() {
        for address in addresses() {
            add(Some(address.into()));
        }
    } else {
        add(Some(listen.into()));
    }
    add("localhost".parse().ok());
    names
}

/// The first name that leads here from elsewhere. dockerd treats what resolves to loopback as insecure and never reads
/// its certificate directory, so such a name must not be printed.
pub(crate) fn to_type(names: &[ServerName], listen: SocketAddr) -> Typed {
    let with_port = |host: &str| match listen.port() {
        443 => host.to_owned(),
        port => format!("{host}:{port}"),
    };
    let beyond = |name: &&ServerName| name.dns().is_some_and(|dns| leads_beyond_loopback(dns, listen.port()));
    if let Some(name) = names.iter().find(beyond) {
        return Typed { host: with_port(&name.to_string()), hosts_line: None };
    }
    let address = names.iter().filter_map(ServerName::ip).find(|ip| !ip.is_loopback());
    let own = names.iter().filter_map(ServerName::dns).find(|dns| *dns != "localhost" && !dns.starts_with('*'));
    let host = match address {
        Some(IpAddr::V6(v6)) => format!("[{v6}]"),
        Some(IpAddr::V4(v4)) => v4.to_string(),
        None => "localhost".to_owned(),
    };
    let hosts_line = address.zip(own).map(|(address, name)| format!("{address} {name}"));
    Typed { host: with_port(&host), hosts_line }
}

fn leads_beyond_loopback(name: &str, port: u16) -> bool {
    let name = name.to_owned();
    let found = in_time(move || (name, port).to_socket_addrs().ok().map(Iterator::collect::<Vec<_>>));
    found.is_some_and(|addresses| {
        !addresses.is_empty() && addresses.iter().all(|address| !address.ip().to_canonical().is_loopback())
    })
}

/// The resolver of the system has no deadline of its own. A look-up that comes too late ends unheard.
fn in_time<T: Send + 'static>(look_up: impl FnOnce() -> Option<T> + Send + 'static) -> Option<T> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(look_up()));
    told.recv_timeout(LOOKUP_TIME).ok().flatten()
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What `hostname -f` prints: the canonical name of the host's own address.
fn fqdn(host: &str) -> Option<String> {
    let host = host.to_owned();
    in_time(move || {
        let hints = dns_lookup::AddrInfoHints { flags: AI_CANONNAME, ..Default::default() };
        let found = dns_lookup::getaddrinfo(Some(&host), None, Some(hints)).ok()?;
        found.flatten().find_map(|info| info.canonname).filter(|name| name.contains('.'))
    })
}

/// `AI_CANONNAME` of `getaddrinfo(3)`, the same number on Linux and macOS.
const AI_CANONNAME: i32 = 2;

/// Addresses that others can reach: neither loopback nor link-local. Those of container bridges cannot be told apart and
/// do no harm in a certificate.
fn addresses() -> Vec<IpAddr> {
    let reachable = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| interface.ip())
        .filter(reachable)
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}
