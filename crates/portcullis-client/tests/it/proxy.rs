//! A proxy from the environment: it tunnels, and sees neither certificate nor key.
//!
//! The environment belongs to the whole process, so each case runs this test program again with its own.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use portcullis_client::{Client, ClientError, Failure, Location};
use portcullis_testkit::pki::Authority;
use portcullis_tls::Roots;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

use crate::site::{Pki, Site, options};
use crate::tls::{self, H1, TlsSetup};

/// What a proxy saw of one client: the request for a tunnel, and all bytes through it from the client.
type Sight = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

#[tokio::test]
async fn an_http_proxy_gets_a_tunnel_and_nothing_else() {
    let pki = Pki::new();
    // In TLS 1.3 the client's certificate is encrypted.
    let site = far(&pki).await;
    let (address, sight) = proxy("HTTP/1.1 200 OK\r\n\r\n").await;
    let said = child(&site, &[("HTTPS_PROXY", &format!("http://{address}")), ("NO_PROXY", "")]).await;
    assert!(said.contains("pair used: Some(\"good\")"), "{said}");
    let sight = sight.lock().unwrap();
    let (asked, sent) = &sight[0];
    assert!(asked.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", site.host)), "{asked}");
    assert!(!asked.to_ascii_lowercase().contains("authorization"), "{asked}");
    let seen = [asked.as_bytes(), sent].concat();
    let der = pki.good.cert_der();
    assert!(!seen.windows(64).any(|window| window == &der[..64]), "the certificate is in the clear");
    assert_eq!(seen[asked.len()], 0x16, "a TLS handshake record");
}

#[tokio::test]
async fn no_proxy_is_honoured() {
    let site = far(&Pki::new()).await;
    let (address, sight) = proxy("HTTP/1.1 200 OK\r\n\r\n").await;
    let said = child(&site, &[("HTTPS_PROXY", &format!("http://{address}")), ("NO_PROXY", ".other,.test")]).await;
    assert!(said.contains("NameNotFound"), "nobody but the proxy knows the name: {said}");
    assert!(sight.lock().unwrap().is_empty());
}

#[tokio::test]
async fn loopback_is_reached_directly() {
    let site = Site::good().await;
    let (address, sight) = proxy("HTTP/1.1 200 OK\r\n\r\n").await;
    let said = child(&site, &[("HTTPS_PROXY", &format!("http://{address}")), ("NO_PROXY", "")]).await;
    assert!(said.contains("pair used: Some(\"good\")"), "{said}");
    assert!(sight.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_as_the_cause() {
    let site = far(&Pki::new()).await;
    let (address, _) = proxy("HTTP/1.1 403 Forbidden\r\n\r\n").await;
    let said = child(&site, &[("HTTPS_PROXY", &format!("http://{address}")), ("NO_PROXY", "")]).await;
    assert!(said.contains("proxy refused"), "{said}");
    assert_eq!(site.stub.connections(), 0);
}

/// A proxy that is spoken to over TLS asks for a client certificate and gets none; the registry behind it gets its own.
#[tokio::test]
async fn an_https_proxy_sees_nothing_of_the_registrys() {
    let pki = Pki::new();
    let site = far(&pki).await;
    let proxy = TlsProxy::start("HTTP/1.1 200 OK\r\n\r\n", |tls| tls.accept("good", &pki.good)).await;
    let said = proxy.child(&site, "u:p%40ss@").await;
    assert!(said.contains("pair used: Some(\"good\")"), "{said}");
    let sight = proxy.sight.lock().unwrap();
    let (asked, sent) = &sight[0];
    assert!(asked.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", site.host)), "{asked}");
    assert!(asked.contains("Proxy-Authorization: Basic dTpwQHNz\r\n"), "{asked}");
    assert_eq!(sent[0], 0x16, "a TLS handshake record");
    assert_eq!(proxy.presented(), Vec::<String>::new());
    assert_eq!(site.stub.presented(), ["good"]);
    assert!(site.stub.log().iter().all(|seen| seen.authorization.is_none()));
}

/// The registry's CA is the registry's: a proxy that has a certificate of it is not trusted.
#[tokio::test]
async fn an_https_proxy_is_not_trusted_by_the_registrys_ca() {
    let pki = Pki::new();
    let site = far(&pki).await;
    let mut proxy = TlsProxy::start("HTTP/1.1 200 OK\r\n\r\n", |_| pki.tls()).await;
    proxy.ca = None;
    let said = proxy.child(&site, "").await;
    assert!(said.contains(&format!("no connection with the proxy https://{}", proxy.address)), "{said}");
    assert!(said.contains("the proxy's certificate is not trusted"), "{said}");
    assert!(proxy.sight.lock().unwrap().is_empty());
    assert_eq!(site.stub.connections(), 0);
}

/// A proxy has a directory of its own, as every host has.
#[tokio::test]
async fn an_https_proxy_has_a_directory_of_its_own() {
    let pki = Pki::new();
    let site = far(&pki).await;
    let pair = pki.client_ca.client("proxys");
    let mandatory = |tls: TlsSetup| {
        let mut tls = tls.accept("proxys", &pair);
        tls.mandatory = true;
        tls
    };
    let mut proxy = TlsProxy::start("HTTP/1.1 200 OK\r\n\r\n", mandatory).await;
    let certs = site.certs_of(&proxy.address.to_string());
    proxy.ca.take().unwrap().write_ca(&certs);
    let said = proxy.child(&site, "").await;
    assert!(said.contains("no connection with the proxy https://") && said.contains("certificate_required"), "{said}");
    pair.write_pair(&certs, "any");
    let said = proxy.child(&site, "").await;
    assert!(said.contains("pair used: Some(\"good\")"), "{said}");
    assert_eq!(proxy.presented(), ["proxys"]);
    assert_eq!(site.stub.presented(), ["good"]);
}

#[tokio::test]
async fn an_https_proxy_that_refuses_is_named_with_its_answer() {
    let site = far(&Pki::new()).await;
    for (answer, says) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "answered 407 Proxy Authentication Required"),
        ("garbage\r\n\r\n", "answered an answer that is no HTTP"),
        ("", "the connection was closed"),
    ] {
        let proxy = TlsProxy::start(answer, |tls| tls).await;
        let said = proxy.child(&site, "u:secret@").await;
        assert!(said.contains(&format!("https://{}", proxy.address)) && said.contains(says), "{says}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = child(&site, &[("HTTPS_PROXY", &format!("https://{nobody}")), ("NO_PROXY", "")]).await;
    assert!(said.contains(&format!("https://{nobody}: connection refused")), "{said}");
    assert_eq!(site.stub.connections(), 0);
}

/// A proxy on loopback that is spoken to over TLS, with a CA that is the system's only one for who asks through it.
struct TlsProxy {
    address: SocketAddr,
    sight: Sight,
    presented: Arc<Mutex<Vec<String>>>,
    ca: Option<Authority>,
    files: TempDir,
}

impl TlsProxy {
    async fn start(answer: &'static str, change: impl FnOnce(TlsSetup) -> TlsSetup) -> Self {
        let ca = Authority::new("proxy CA");
        let server = ca.server(&[], &["127.0.0.1".parse().unwrap()]);
        let mut setup = TlsSetup::new(&server);
        (setup.mandatory, setup.alpn) = (false, H1);
        let setup = change(setup);
        let presented = Arc::clone(&setup.presented);
        let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(&setup)));
        let (address, sight) =
            listening(move |client, sight| tunnel_in_tls(acceptor.clone(), client, answer, sight)).await;
        Self { address, sight, presented, ca: Some(ca), files: TempDir::new().unwrap() }
    }

    fn presented(&self) -> Vec<String> {
        self.presented.lock().unwrap().clone()
    }

    /// What a client says that is to use it; `login` ends in `@`.
    async fn child(&self, site: &Site, login: &str) -> String {
        if let Some(ca) = &self.ca {
            ca.write_ca(self.files.path());
        }
        let roots = self.files.path().join("ca.crt").display().to_string();
        let proxy = format!("https://{login}{}", self.address);
        let which = if self.ca.is_some() { "merge" } else { "only" };
        let temporary = self.files.path().join("tmp");
        fs::create_dir_all(&temporary).unwrap();
        let temporary_path = temporary.display().to_string();
        let variables = [
            ("TMPDIR", temporary_path.as_str()),
            ("HTTPS_PROXY", proxy.as_str()),
            ("NO_PROXY", ""),
            ("SSL_CERT_FILE", &roots),
            ("PORTCULLIS_TEST_ROOTS", which),
        ];
        let said = child(site, &variables).await;
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "the tunnel's socket is left behind");
        said
    }
}

/// A registry that only the proxy knows the way to.
async fn far(pki: &Pki) -> Site {
    let mut site = Site::with_good_pair(pki, pki.tls()).await;
    site.host = format!("registry.test:{}", site.stub.address.port()).parse().unwrap();
    pki.server_ca.write_ca(&site.certs());
    pki.good.write_pair(&site.certs(), "good");
    site
}

/// What the tests above run in a process of its own.
#[tokio::test]
#[ignore = "run by the other tests of this module"]
async fn in_a_child() {
    let host = std::env::var("PORTCULLIS_TEST_HOST").unwrap().parse().unwrap();
    let mut options = options();
    options.certs.location = Location::Root(std::env::var("PORTCULLIS_TEST_ROOT").unwrap().into());
    if std::env::var("PORTCULLIS_TEST_ROOTS").is_ok_and(|roots| roots == "merge") {
        options.roots = Roots::Merge;
    }
    match Client::connect(&host, &options).await {
        Ok(client) => println!("pair used: {:?}", client.pair_used()),
        Err(ClientError::Connection { failure: Failure::Proxy { reason }, .. }) => println!("proxy refused: {reason}"),
        Err(error @ ClientError::Connection { failure: Failure::ProxyNotReached { .. }, .. }) => println!("{error}"),
        Err(error) => println!("error: {error:?}"),
    }
}

async fn child(site: &Site, variables: &[(&str, &str)]) -> String {
    let root = site.dir.path().join("certs.d");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "proxy::in_a_child", "--ignored", "--nocapture"])
        .env("PORTCULLIS_TEST_HOST", site.host.as_str())
        .env("PORTCULLIS_TEST_ROOT", root)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for name in ["https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "no_proxy", "REQUEST_METHOD"] {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Answers every CONNECT with `answer`, and tunnels when that is a 200.
async fn proxy(answer: &'static str) -> (SocketAddr, Sight) {
    listening(move |client, sight| tunnel(client, answer, sight)).await
}

/// A listener that serves every client so.
async fn listening<F>(serve: impl Fn(TcpStream, Sight) -> F + Send + 'static) -> (SocketAddr, Sight)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sight = Sight::default();
    let kept = Arc::clone(&sight);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, Arc::clone(&kept)));
        }
    });
    (address, sight)
}

async fn tunnel_in_tls(acceptor: TlsAcceptor, client: TcpStream, answer: &'static str, sight: Sight) {
    if let Ok(client) = acceptor.accept(client).await {
        tunnel(client, answer, sight).await;
    }
}

async fn tunnel(mut client: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, answer: &'static str, sight: Sight) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        match client.read_u8().await {
            Ok(byte) => asked.push(byte),
            Err(_) => break,
        }
    }
    let asked = String::from_utf8_lossy(&asked).into_owned();
    let number = {
        let mut sight = sight.lock().unwrap();
        sight.push((asked.clone(), Vec::new()));
        sight.len() - 1
    };
    client.write_all(answer.as_bytes()).await.unwrap();
    if !answer.contains(" 200 ") {
        return;
    }
    let target = asked.split(' ').nth(1).unwrap();
    let server = TcpStream::connect(target.replace("registry.test", "127.0.0.1")).await.unwrap();
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { drop(tokio::io::copy(&mut from_server, &mut to_client).await) });
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
        sight.lock().unwrap()[number].1.extend_from_slice(&buffer[..count]);
        if to_server.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    drop(to_server);
    drop(back.await);
}
