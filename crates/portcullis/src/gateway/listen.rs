//! Where the gateway listens: a loopback address, or a Unix socket that is its user's alone. Knows nothing of HTTP.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, bail};
use portcullis_certs::visible_bytes;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::io::{AsyncRead, AsyncWrite};

use super::peer_user::{self, Unknown, User};
use super::rules::Entrance;
use crate::exit::Misconfigured;

/// `ADDRESS:PORT`, `localhost:PORT` or `unix:PATH`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp {
        address: SocketAddr,
        /// What was typed was `localhost`, which may then be typed to engines too.
        is_localhost: bool,
    },
    Unix(PathBuf),
}

/// Who may connect, besides what the place itself allows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Openness {
    /// Every user of this machine may use a TCP port.
    pub(crate) any_user: bool,
    /// Other machines may reach it.
    pub(crate) beyond_loopback: bool,
}

/// An open place. A Unix socket is removed when this is dropped.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp { listener: tokio::net::TcpListener, is_localhost: bool, any_user: bool },
    Unix { listener: tokio::net::UnixListener, _file: SocketFile },
}

/// A place that is taken, before anything runs.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp { listener: std::net::TcpListener, is_localhost: bool, any_user: bool },
    Unix { listener: UnixListener, file: SocketFile },
}

/// A connection, and what is known of it.
pub(super) struct Arrival {
    pub(super) stream: Box<dyn Stream>,
    /// None for a Unix socket.
    pub(super) address: Option<SocketAddr>,
    pub(super) entrance: Entrance,
    /// None where every user is let in.
    pub(super) user: Option<Result<User, Unknown>>,
}

/// Bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The file of a Unix socket.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            return Ok(Self::Tcp { address, is_localhost: true });
        }
        let address = text.parse().map_err(|_| {
            format!("{text:?} is no place to listen: write 127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:PATH")
        })?;
        Ok(Self::Tcp { address, is_localhost: false })
    }
}

impl Place {
    /// Takes the place. To be called while nothing else runs: the file mode of a Unix socket is the process's for a moment.
    pub(crate) fn bind(&self, open: Openness) -> anyhow::Result<Bound> {
        match self {
            Self::Tcp { address, is_localhost } => {
                if !open.beyond_loopback && !address.ip().to_canonical().is_loopback() {
                    bail!(Misconfigured(format!(
                        "{address} is no loopback address: without a word of TLS, whoever reaches it could use your certificate; listen on 127.0.0.1:{}, or add --i-know if something else keeps others out",
                        address.port()
                    )));
                }
                if !open.any_user {
                    peer_user::check_tcp().context(
                        "the kernel does not tell whose a connection is: listen on a Unix socket (--listen unix:PATH), or let in every user of this machine with --any-user",
                    )?;
                }
                let listener = std::net::TcpListener::bind(address).with_context(|| {
                    format!("cannot listen on {address}: take another address or port with --listen")
                })?;
                listener.set_nonblocking(true)?;
                Ok(Bound::Tcp { listener, is_localhost: *is_localhost, any_user: open.any_user })
            }
            Self::Unix(path) => {
                if open.any_user {
                    bail!(Misconfigured(
                        "a Unix socket is its user's alone: --any-user goes with a TCP port".to_owned()
                    ));
                }
                bind_unix(path)
                    .with_context(|| format!("cannot listen on {}", visible_bytes(path.as_os_str().as_encoded_bytes())))
            }
        }
    }
}

impl Bound {
    /// For the runtime that serves it.
    pub(crate) fn into_listener(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp { listener, is_localhost, any_user } => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                Listener::Tcp { listener, is_localhost, any_user }
            }
            Self::Unix { listener, file } => {
                Listener::Unix { listener: tokio::net::UnixListener::from_std(listener)?, _file: file }
            }
        })
    }
}

impl Listener {
    /// The next connection, with its user as the kernel says at once.
    pub(super) async fn accept(&self) -> io::Result<Arrival> {
        match self {
            Self::Tcp { listener, is_localhost, any_user } => {
                let (stream, address) = listener.accept().await?;
                let user = if *any_user { None } else { Some(peer_user::of_tcp(&stream)) };
                let entrance = Entrance::Tcp { local: stream.local_addr()?, is_localhost: *is_localhost };
                // Small answers are not to wait for acknowledgements (RFC 896).
                let _best_effort = stream.set_nodelay(true);
                Ok(Arrival { stream: Box::new(stream), address: Some(address), entrance, user })
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let user = Some(peer_user::of_unix(&stream));
                Ok(Arrival { stream: Box::new(stream), address: None, entrance: Entrance::Unix, user })
            }
        }
    }

    /// Host and port as programs here write them; none for a Unix socket.
    pub(crate) fn authority(&self) -> Option<String> {
        let Self::Tcp { listener, is_localhost, .. } = self else { return None };
        let address = listener.local_addr().ok()?;
        let ip = match address.ip() {
            _ if *is_localhost => return Some(format!("localhost:{}", address.port())),
            IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Some(SocketAddr::new(ip, address.port()).to_string())
    }

    /// Whether other machines can reach it.
    pub(crate) fn is_beyond_loopback(&self) -> bool {
        match self {
            Self::Tcp { listener, .. } => {
                listener.local_addr().is_ok_and(|address| !address.ip().to_canonical().is_loopback())
            }
            Self::Unix { .. } => false,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { _file: file, .. } => {
                write!(f, "unix:{}", visible_bytes(file.path.as_os_str().as_encoded_bytes()))
            }
            Self::Tcp { listener, .. } => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(error) => error.fmt(f),
            },
        }
    }
}

fn bind_unix(path: &Path) -> anyhow::Result<Bound> {
    clear(path)?;
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(&metadata) };
    // A default ACL of the directory goes before the mask.
    if metadata.mode() & 0o777 != 0o600 {
        bail!("its mode is {:04o} and must be 0600: name a place in a directory of your own", metadata.mode() & 0o777);
    }
    listener.set_nonblocking(true)?;
    Ok(Bound::Unix { listener, file })
}

/// Removes what a gateway that was killed left behind, and nothing else.
fn clear(path: &Path) -> anyhow::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        bail!("it exists and is no socket");
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("another program listens there: stop it, or take another path"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Err(error) => Err(error.into()),
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Not another's that has its name by now.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| identity(&metadata) == self.identity) {
            let _gone_already = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: Openness = Openness { any_user: false, beyond_loopback: false };

    fn bind(place: &str, open: Openness) -> anyhow::Result<Bound> {
        place.parse::<Place>().unwrap().bind(open)
    }

    #[test]
    fn places() {
        for text in ["127.0.0.1:5000", "[::1]:5000", "localhost:5000", "unix:/run/x.sock", "unix:x.sock"] {
            assert!(text.parse::<Place>().is_ok(), "{text}");
        }
        for text in ["", "5000", "127.0.0.1", "localhost", "localhost:x", "registry.test:5000", "unix:", "::1:5000x"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn nowhere_but_on_loopback() {
        for place in ["0.0.0.0:0", "[::]:0", "10.77.0.1:0", "[::ffff:10.77.0.1]:0"] {
            let error = bind(place, CLOSED).unwrap_err();
            assert!(
                error.downcast_ref::<Misconfigured>().is_some() && error.to_string().contains("--i-know"),
                "{error}"
            );
        }
        assert!(bind("0.0.0.0:0", Openness { beyond_loopback: true, any_user: true }).is_ok());
        assert!(bind("127.0.0.1:0", CLOSED).is_ok());
        assert!(bind("localhost:0", CLOSED).is_ok());
    }

    #[test]
    fn a_socket_is_its_users_alone_and_leaves_nothing() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("gateway.sock");
        let place = format!("unix:{}", path.display());
        let mode = || fs::symlink_metadata(&path).unwrap().mode() & 0o777;
        let bound = bind(&place, CLOSED).unwrap();
        assert_eq!(mode(), 0o600);
        assert!(bind(&place, CLOSED).unwrap_err().chain().any(|cause| cause.to_string().contains("another program")));
        drop(bound);
        assert!(!path.exists());
        // Killed, it leaves its file.
        drop(UnixListener::bind(&path).unwrap());
        drop(bind(&place, CLOSED).unwrap());
        fs::write(&path, "mine").unwrap();
        assert!(bind(&place, CLOSED).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
