//! A proxy from the environment: it tunnels, and sees neither certificate nor key.
//!
//! The environment belongs to the whole process, so each case runs this test program again with its own.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use portcullis_client::{Client, ClientError, Failure, Location};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::site::{Pki, Site, options};

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

/// reqwest would speak TLS with the proxy under the registry's own configuration, certificate and all.
#[tokio::test]
async fn an_https_proxy_is_not_used() {
    let site = far(&Pki::new()).await;
    let (address, sight) = proxy("").await;
    let said = child(&site, &[("HTTPS_PROXY", &format!("https://{address}")), ("NO_PROXY", "")]).await;
    assert!(said.contains("https proxy refused by us"), "{said}");
    assert!(sight.lock().unwrap().is_empty());
    assert_eq!(site.stub.connections(), 0);
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
    match Client::connect(&host, &options).await {
        Ok(client) => println!("pair used: {:?}", client.pair_used()),
        Err(ClientError::Connection { failure: Failure::Proxy { reason }, .. }) => println!("proxy refused: {reason}"),
        Err(ClientError::Proxy { .. }) => println!("https proxy refused by us"),
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
async fn proxy(answer: &'static str) -> (std::net::SocketAddr, Sight) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sight = Sight::default();
    let kept = Arc::clone(&sight);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(tunnel(client, answer, Arc::clone(&kept)));
        }
    });
    (address, sight)
}

async fn tunnel(mut client: TcpStream, answer: &'static str, sight: Sight) {
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
    let (mut from_client, mut to_client) = client.into_split();
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
