//! Opens the registry's port.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// How many connections the kernel completes that nobody has accepted yet: a host's worth of pulls at once.
const BACKLOG: u32 = 1024;

/// An address that is ours and where nobody is answered yet: a connection is refused.
#[derive(Debug)]
pub(crate) struct Port {
    socket: TcpSocket,
    address: SocketAddr,
}

impl Port {
    /// Takes `address`. `[::]` takes IPv4 too where the machine has IPv6, and becomes `0.0.0.0` where it has none.
    pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = match bind(address) {
            Err(_) if address.ip().is_unspecified() && address.is_ipv6() && !has_ipv6() => {
                bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
            }
            bound => bound,
        };
        let socket = socket.map_err(|error| explain(address, error))?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// With the port that the system chose where 0 was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections are taken. To be called within a runtime.
    pub(crate) fn listen(self) -> anyhow::Result<TcpListener> {
        self.socket.listen(BACKLOG).map_err(|error| explain(self.address, error))
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // A server that was stopped a moment ago leaves connections that hold its address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
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
