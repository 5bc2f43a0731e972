//! The way through a proxy that is itself spoken to over TLS. The HTTP library would do that under the registry's own
//! configuration: it would offer the proxy the registry's client certificate, and trust it by the registry's CA (reqwest
//! 0.13.5 `connect.rs`, `tls_proxy`). So it is given a socket in a directory of ours instead, and what it says there, TLS with
//! the registry, goes through a tunnel (`CONNECT`, RFC 9110 §9.3.6) in a TLS connection with the proxy, which has the
//! certificates of the proxy's own directory. Must not know what goes through.

use std::fmt;
use std::fs::Permissions;
use std::future::pending;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use portcullis_certs::HostCerts;
use portcullis_oci::RegistryHost;
use portcullis_tls::proxy_config;
use reqwest::Url;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpStream, UnixListener, UnixStream, lookup_host};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::options::ClientOptions;
use crate::refusal::{Failure, Wait};
use crate::secret::Secret;
use crate::{ClientError, blocking};

/// How many connections of one session go through at a time.
const MAX_OPEN: usize = 64;

/// The longest answer to `CONNECT`, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// A way to one origin. Connections end with it.
pub(crate) struct Tunnel {
    through: Arc<Through>,
    /// Ours alone: whoever reaches the socket in it reaches the registry's network.
    directory: TempDir,
    task: AbortHandle,
}

struct Through {
    proxy: RegistryHost,
    /// For messages: without a user's name and password.
    name: String,
    tls: TlsConnector,
    server_name: ServerName<'static>,
    login: Option<HeaderValue>,
    /// `host:port` of the origin.
    to: String,
    patience: Duration,
    /// Why the last connection was not made; `None` when it was.
    trouble: Mutex<Option<Failure>>,
}

/// A tunnel, and what has come through it so far.
struct Opened {
    stream: TlsStream<TcpStream>,
    early: BytesMut,
}

impl Tunnel {
    /// A way to `origin` through the proxy at this address, with the certificates that its own directory has.
    pub(crate) async fn open(
        address: &Url,
        proxy: RegistryHost,
        certs: &HostCerts,
        origin: &Url,
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        let tls = proxy_config(&certs.roots, options.roots, certs.pairs.first())
            .map_err(|source| ClientError::Tls { host: proxy.clone(), source: Box::new(source) })?;
        let unusable = || ClientError::Host { host: proxy.clone() };
        let server_name = ServerName::try_from(proxy.server_name().to_owned()).map_err(|_| unusable())?;
        let (Some(host), Some(port)) = (origin.host_str(), origin.port_or_known_default()) else {
            return Err(unusable());
        };
        let through = Arc::new(Through {
            name: format!("https://{proxy}"),
            tls: TlsConnector::from(Arc::new(tls)),
            server_name,
            login: login(address),
            to: format!("{host}:{port}"),
            patience: options.timeouts.connect,
            trouble: Mutex::default(),
            proxy,
        });
        let directory = blocking(private_directory).await.map_err(no_socket(&std::env::temp_dir()))?;
        let socket = socket_in(&directory);
        let listener = UnixListener::bind(&socket).map_err(no_socket(&socket))?;
        let task = tokio::spawn(accept(listener, Arc::clone(&through))).abort_handle();
        Ok(Self { through, directory, task })
    }

    /// Where the HTTP library connects to.
    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(&self.directory)
    }

    /// Why the last connection through the proxy was not made.
    pub(crate) fn trouble(&self) -> Option<Failure> {
        self.through.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnel({} to {})", self.through.name, self.through.to)
    }
}

fn private_directory() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("portcullis-").permissions(Permissions::from_mode(0o700)).tempdir()
}

fn socket_in(directory: &TempDir) -> PathBuf {
    directory.path().join("proxy")
}

fn no_socket(path: &Path) -> impl FnOnce(io::Error) -> ClientError {
    ClientError::io("make a socket, for the way through the proxy, in", path)
}

/// `user:password@` of the proxy's address, as every client shows it to a proxy.
fn login(address: &Url) -> Option<HeaderValue> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let password = Secret::new(decoded(address.password().unwrap_or_default()));
    let has_any = !address.username().is_empty() || address.password().is_some();
    if has_any { password.basic(&decoded(address.username())) } else { None }
}

/// Ends when it is aborted, and all connections with it.
async fn accept(listener: UnixListener, through: Arc<Through>) {
    let mut open = JoinSet::new();
    loop {
        let has_room = open.len() < MAX_OPEN;
        tokio::select! {
            accepted = listener.accept(), if has_room => match accepted {
                Ok((local, _)) => drop(open.spawn(Arc::clone(&through).forward(local))),
                // No descriptor is left, mostly.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            () = async { if open.join_next().await.is_none() { pending::<()>().await } } => {}
        }
    }
}

impl Through {
    async fn forward(self: Arc<Self>, mut local: UnixStream) {
        let opened = timeout(self.patience, self.connect()).await;
        let opened = opened.unwrap_or(Err(Failure::TimedOut { waiting_for: Wait::Connection }));
        // Told before the other side can see that the connection is gone.
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) =
            opened.as_ref().err().map(|failure| self.trouble_of(failure));
        let Ok(Opened { stream, early }) = opened else { return };
        if local.write_all(&early).await.is_err() {
            return;
        }
        let (mut from_here, mut to_here) = local.into_split();
        let (mut from_there, mut to_there) = tokio::io::split(stream);
        // HTTP closes no half: the end of one direction is the end.
        tokio::select! {
            _ = copy(&mut from_here, &mut to_there) => {}
            _ = copy(&mut from_there, &mut to_here) => {}
        }
        let _gone_already = timeout(self.patience, to_there.shutdown()).await;
    }

    async fn connect(&self) -> Result<Opened, Failure> {
        let tcp = self.reach().await?;
        let mut stream = self.tls.connect(self.server_name.clone(), tcp).await.map_err(|error| Failure::of(&error))?;
        let broken = |error: io::Error| Failure::of(&error);
        stream.write_all(&self.request()).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        let mut early = BytesMut::new();
        let end = loop {
            if let Some(end) = early.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if early.len() > MAX_HEAD {
                return Err(refused(&format!("an answer to CONNECT of more than {MAX_HEAD} bytes")));
            }
            if stream.read_buf(&mut early).await.map_err(broken)? == 0 {
                return Err(Failure::Closed);
            }
        };
        let head = early.split_to(end);
        match status(&head) {
            Some(line) if line.starts_with("200") => Ok(Opened { stream, early }),
            Some(line) => Err(refused(&line)),
            None => Err(refused("an answer that is no HTTP")),
        }
    }

    async fn reach(&self) -> Result<TcpStream, Failure> {
        let (name, port) = (self.proxy.server_name(), self.proxy.port_or_default());
        let addresses = lookup_host((name, port)).await.map_err(|_| Failure::NameNotFound { name: name.to_owned() })?;
        let mut last = Failure::NameNotFound { name: name.to_owned() };
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(tcp) => {
                    let _only_slower = tcp.set_nodelay(true);
                    return Ok(tcp);
                }
                Err(error) => last = Failure::of(&error),
            }
        }
        Err(last)
    }

    fn request(&self) -> Vec<u8> {
        let to = &self.to;
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
        if let Some(login) = &self.login {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(login.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request
    }

    fn trouble_of(&self, failure: &Failure) -> Failure {
        let proxy = self.name.clone();
        match failure {
            Failure::Proxy { reason } => Failure::Proxy { reason: format!("{proxy} answered {reason}") },
            other => Failure::ProxyNotReached { proxy, failure: Box::new(other.clone()) },
        }
    }
}

fn refused(reason: &str) -> Failure {
    Failure::Proxy { reason: reason.to_owned() }
}

/// Status and reason of an answer: `200 Connection established`.
fn status(head: &[u8]) -> Option<String> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    let rest = line.split_once(' ')?.1;
    let is_status = rest.len() >= 3 && rest.bytes().take(3).all(|byte| byte.is_ascii_digit());
    is_status.then(|| rest.chars().take(100).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_proxy_answers() {
        for (head, expected) in [
            ("HTTP/1.1 200 Connection established\r\nx: y\r\n\r\n", Some("200 Connection established")),
            ("HTTP/1.0 407 Proxy Authentication Required\r\n\r\n", Some("407 Proxy Authentication Required")),
            ("HTTP/1.1 200\r\n\r\n", Some("200")),
            ("HTTP/1.1 OK\r\n\r\n", None),
            ("HTTP/2 200\r\n\r\n", None),
            ("SSH-2.0-x\r\n\r\n", None),
        ] {
            assert_eq!(status(head.as_bytes()).as_deref(), expected, "{head}");
        }
    }

    #[test]
    fn a_login_comes_from_the_address() {
        let of = |url: &str| login(&Url::parse(url).unwrap()).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(of("https://proxy.test"), None);
        assert_eq!(of("https://u:p%40x@proxy.test").as_deref(), Some("Basic dTpwQHg="));
        assert_eq!(of("https://u@proxy.test").as_deref(), Some("Basic dTo="));
    }
}
