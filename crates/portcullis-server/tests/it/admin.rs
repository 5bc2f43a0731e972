//! The admin socket and the probes.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use portcullis_server::{Server, ServerError, Status, admin};
use portcullis_testkit::pki::LeafSpec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};

use crate::fixture::{Home, Site, tcp, until, within};
use crate::log;

fn home() -> (Home, PathBuf) {
    let home = Home { top: "probe = \"off\"\n".to_owned(), ..Home::new() };
    let socket = home.path("run/admin.sock");
    (home, socket)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(crate) async fn status(socket: &Path) -> Status {
    // The socket is bound before the server answers anybody, but `serve` does not wait for it.
    within("the socket", async {
        loop {
            match admin::status(socket).await {
                Ok(status) => return status,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

#[tokio::test]
async fn status_tells_what_is_in_force() {
    let (home, socket) = home();
    let site = home.serve().await;
    let first = status(&socket).await;
    assert_eq!((first.generation, first.cas, first.pins, first.connections, first.open_uploads), (1, 1, 1, 0, 0));
    assert_eq!((first.pid, first.listen), (std::process::id(), site.address));
    assert_eq!(first.certificate.names, ["registry.test", "127.0.0.1"]);
    assert!(first.refused.is_empty() && first.not_ready.is_empty(), "{first:?}");
    let conn = site.admin().http1().await;
    conn.start_upload("team/app").await;
    let second = status(&socket).await;
    assert_eq!((second.connections, second.open_uploads), (1, 1));
    site.home.remove_pin("alice");
    let reloaded = admin::reload(&socket).await.unwrap();
    assert!(reloaded.generation > 1 && reloaded.problems.is_empty(), "{reloaded:?}");
    let third = status(&socket).await;
    assert_eq!((third.generation, third.pins), (reloaded.generation, 0));
    site.alice().refusal().await;
}

#[tokio::test]
async fn a_refused_reload_is_told_and_kept_in_the_status() {
    let (home, socket) = home();
    let site = home.serve().await;
    status(&socket).await;
    site.home.write_policy("[[rule]]\nca = 5\n");
    fs::write(site.home.path("trust/deny"), "what is this\n").unwrap();
    let reloaded = admin::reload(&socket).await.unwrap();
    assert_eq!(reloaded.generation, 1);
    for file in ["policy.toml:2: ", "deny:1: "] {
        assert!(reloaded.problems.iter().any(|problem| problem.contains(file)), "{file} {:?}", reloaded.problems);
    }
    let now = status(&socket).await;
    assert_eq!((now.generation, &now.refused), (1, &reloaded.problems));
    fs::remove_file(site.home.path("trust/deny")).unwrap();
    site.home.write_policy("[[rule]]\nca = \"*\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n");
    assert!(admin::reload(&socket).await.unwrap().generation > 1);
    assert!(status(&socket).await.refused.is_empty());
}

#[tokio::test]
async fn nobody_else_reaches_the_socket() {
    let (home, socket) = home();
    let site = home.serve().await;
    status(&socket).await;
    assert_eq!((mode(socket.parent().unwrap()), mode(&socket)), (0o700, 0o600));
    let home = site.stopped().await;
    assert!(!socket.exists());
    assert!(matches!(admin::status(&socket).await, Err(admin::AdminError::NotRunning { .. })));
    drop(home);
}

#[tokio::test]
async fn what_the_socket_does_not_know() {
    let (home, socket) = home();
    let _site = home.serve().await;
    status(&socket).await;
    for (line, expected) in [("GET /nothing", "404"), ("GET /reload", "404"), ("POST /status", "404"), ("GET /", "404")]
    {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let head = format!("{line} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{line}: {answer}");
    }
    assert_eq!(status(&socket).await.generation, 1);
}

#[tokio::test]
async fn a_socket_left_over_is_replaced() {
    let (home, socket) = home();
    fs::create_dir(socket.parent().unwrap()).unwrap();
    fs::set_permissions(socket.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    drop(UnixListener::bind(&socket).unwrap());
    let site = home.serve().await;
    assert_eq!(status(&socket).await.generation, 1);
    drop(site);
}

async fn run_fails(home: &Home) -> ServerError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = Server::open(home.config()).unwrap().run(listener, std::future::pending());
    within("a refused start", running).await.expect_err("it started")
}

#[tokio::test]
async fn what_is_no_socket_is_not_removed() {
    let (home, socket) = home();
    fs::create_dir(socket.parent().unwrap()).unwrap();
    fs::set_permissions(socket.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(&socket, "precious").unwrap();
    let error = run_fails(&home).await;
    assert!(matches!(&error, ServerError::Socket { path, .. } if *path == socket), "{error}");
    assert_eq!(fs::read(&socket).unwrap(), b"precious");
}

/// `admin_socket = "/run/portcullis.sock"` must not close `/run` to everybody else.
#[tokio::test]
async fn a_directory_that_others_use_is_left_as_it_is() {
    let (mut home, _) = home();
    home.top = "probe = \"off\"\nadmin_socket = \"shared/admin.sock\"\n".to_owned();
    let shared = home.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    let error = run_fails(&home).await;
    assert!(error.to_string().contains("0755") && error.to_string().contains("shared"), "{error}");
    assert_eq!(mode(&shared), 0o755);
    assert!(!shared.join("admin.sock").exists());
}

pub(crate) async fn probe(address: SocketAddr, request: &str) -> String {
    let mut stream = tcp(address).await;
    let head = format!("{request} HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// A server whose probe listens on `ip`, at a port that was free a moment ago.
pub(crate) async fn with_probe(ip: &str, home: Home) -> io::Result<(Site, SocketAddr)> {
    let free = std::net::TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
    let top = format!("probe = \"{free}\"\nadmin_socket = \"off\"\n");
    let site = Home { top, ..home }.serve().await;
    let reached = SocketAddr::from(([127, 0, 0, 1], free.port()));
    for _ in 0..500 {
        if tokio::net::TcpStream::connect(reached).await.is_ok() {
            return Ok((site, reached));
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[tokio::test]
async fn probes_of_a_server_that_is_well() {
    let (_site, address) = with_probe("127.0.0.1", Home::new()).await.unwrap();
    for path in ["/livez", "/readyz"] {
        let answer = probe(address, &format!("GET {path}")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
        assert!(probe(address, &format!("HEAD {path}")).await.ends_with("\r\n\r\n"));
    }
    for request in ["GET /", "GET /v2/", "POST /livez", "GET /livez/x", "POST /metrics"] {
        let answer = probe(address, request).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{request}: {answer}");
    }
}

#[tokio::test]
async fn what_needs_attention_is_told() {
    use portcullis_testkit::pki::CrlSpec;
    let now = time::OffsetDateTime::now_utc();
    let (home, socket) = home();
    let (not_before, not_after) = (now - time::Duration::days(61), now + time::Duration::days(29));
    let old = LeafSpec { not_before, not_after, ..LeafSpec::server(&["registry.test"], &[]) };
    home.write_server(&home.server_ca.issue(&old));
    home.write_crl("clients", &CrlSpec::new(258, &[&home.alice]).stale());
    let _site = home.serve().await;
    let now = status(&socket).await;
    for words in ["of the CA clients is out of date since", "the server's certificate ends on"] {
        let told = now.degraded.iter().find(|warning| warning.contains(words));
        let told = told.unwrap_or_else(|| panic!("{words}: {:?}", now.degraded));
        until("the log says the same", || !log::with("reason", told).is_empty()).await;
    }
    let [crl] = now.crls.as_slice() else { panic!("{:?}", now.crls) };
    assert_eq!((crl.ca.as_str(), crl.number.as_deref(), crl.revoked), ("clients", Some("0102"), 1));
}

#[tokio::test]
async fn details_are_for_this_machine_only() {
    for (ip, details) in [("127.0.0.1", true), ("0.0.0.0", false)] {
        let home = Home::new();
        let expired = home.server_ca.issue(&LeafSpec::server(&["registry.test"], &[]).expired());
        home.write_server(&expired);
        let (_site, address) = with_probe(ip, home).await.unwrap();
        let answer = probe(address, "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert_eq!(answer.contains("expired"), details, "{ip}: {answer}");
        assert!(probe(address, "GET /livez").await.starts_with("HTTP/1.1 200"));
    }
}
