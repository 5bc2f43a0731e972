//! Listens for an alert that got lost. In TLS 1.3 a client has sent its request before it learns that its certificate
//! was refused. A server that closes with that request unread resets the connection, and then our own write fails before
//! the alert is read (seen with Go's TLS). A handshake that is followed by nothing but reading
//! always hears it. Must not know what was asked for.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::time::timeout;

use crate::blocking;
use crate::refusal::Failure;

/// How long a server may take for its verdict on a certificate that it has.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tickets and the like that may come before an alert.
const MAX_READS: usize = 16;

/// The refusal that a handshake with this configuration ends in, if it does.
pub(crate) async fn listen(base: &Url, tls: &Arc<ClientConfig>, connect: Duration) -> Option<Failure> {
    let (host, port) = (base.host_str()?, base.port_or_known_default()?);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let tls = Arc::clone(tls);
    let heard = timeout(connect + PATIENCE, blocking(move || handshake(&host, port, tls, connect))).await;
    let failure = Failure::of(&heard.ok()?.err()?);
    failure.is_about_identity().then_some(failure)
}

fn handshake(host: &str, port: u16, tls: Arc<ClientConfig>, connect: Duration) -> io::Result<()> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut tcp = connect_any(host, port, connect)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    let mut tls = ClientConnection::new(tls, name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    for _ in 0..MAX_READS {
        if tls.read_tls(&mut tcp)? == 0 {
            break;
        }
        tls.process_new_packets().map_err(io::Error::other)?;
    }
    Ok(())
}

fn connect_any(host: &str, port: u16, connect: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, connect) {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}
