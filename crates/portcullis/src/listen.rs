//! Opens the registry's port.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context;

/// Binds `address`. `[::]` takes IPv4 too where the machine has IPv6, and becomes `0.0.0.0` where it has none.
pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = match TcpListener::bind(address) {
        Err(_) if address.ip().is_unspecified() && address.is_ipv6() && !has_ipv6() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        }
        bound => bound,
    };
    let listener = listener.map_err(|error| explain(address, error))?;
    listener.set_nonblocking(true).context("cannot prepare the port")?;
    Ok(listener)
}

fn has_ipv6() -> bool {
    std::net::UdpSocket::bind("[::1]:0").is_ok()
}

fn explain(address: SocketAddr, error: io::Error) -> anyhow::Error {
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there: stop it, or take another port with --listen",
        io::ErrorKind::PermissionDenied => "ports below 1024 are root's: take another with --listen, such as [::]:5443",
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address: try [::] for all it has",
        _ => "try another address with --listen",
    };
    anyhow::Error::new(error).context(format!("cannot listen on {address}: {fix}"))
}
