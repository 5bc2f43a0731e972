//! A home with certificates, trust and policy in a temporary directory, and a server that runs on it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_oci::{Algorithm, Digest};
use portcullis_server::{Config, Handle, Problem, Server, ServerError};
use portcullis_testkit::pki::{Authority, BasicConstraints, CrlSpec, LeafSpec, Pair, write_file};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Client, Conn, Protocol, own_address, tcp_from};
use crate::log;

/// The CA's clients may do all everywhere; the pin may pull below `team/`.
const POLICY: &str = r#"
[[rule]]
ca = "clients"
repositories = ["**"]
allow = ["pull", "push", "delete"]

[[rule]]
pin = "alice"
repositories = ["team/**"]
allow = ["pull"]
"#;

/// A deadline that only a hanging test reaches.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Everything a server needs, on disk; what a test wants otherwise it changes before [`Home::serve`].
pub(crate) struct Home {
    pub(crate) root: TempDir,
    /// The registry's own CA.
    pub(crate) server_ca: Authority,
    /// In `trust/cas/clients.crt`.
    pub(crate) client_ca: Authority,
    /// Issued by it.
    pub(crate) admin: Pair,
    /// In `trust/pins/alice.crt`, shaped as the Docker page's recipe makes it.
    pub(crate) alice: Pair,
    /// The top of the config file.
    pub(crate) top: String,
    /// What stands in `[storage]` beside the reserve.
    pub(crate) storage: String,
    /// What follows `[limits]`.
    pub(crate) limits: String,
}

/// A server that runs.
pub(crate) struct Site {
    pub(crate) home: Home,
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), ServerError>>,
}

impl Home {
    pub(crate) fn new() -> Self {
        log::install();
        let root = tempfile::tempdir().unwrap();
        let (server_ca, client_ca) = (Authority::new("server CA"), Authority::new("client CA"));
        let server = server_ca.server(&["registry.test"], &[[127, 0, 0, 1].into()]);
        let home = Self {
            admin: client_ca.client("admin"),
            alice: alice(),
            server_ca,
            client_ca,
            root,
            top: "probe = \"off\"\nadmin_socket = \"off\"\n".to_owned(),
            storage: String::new(),
            limits: String::new(),
        };
        home.write_server(&server);
        home.client_ca.pair.write_crt(&home.path("trust/cas"), "clients");
        home.add_pin("alice", &home.alice);
        home.write_policy(POLICY);
        home
    }

    pub(crate) fn with_limits(limits: &str) -> Self {
        Self { limits: limits.to_owned(), ..Self::new() }
    }

    pub(crate) fn with_client_auth(mode: &str) -> Self {
        let home = Self::new();
        Self { top: format!("{}[tls]\nclient_auth = {mode:?}\n", home.top), ..home }
    }

    pub(crate) fn with_storage(storage: &str) -> Self {
        Self { storage: format!("{storage}\n"), ..Self::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn write_policy(&self, text: &str) {
        write_file(&self.path("policy.toml"), text.as_bytes(), 0o644);
    }

    pub(crate) fn write_server(&self, pair: &Pair) {
        write_file(&self.path("pki/server/server.crt"), pair.chain_pem().as_bytes(), 0o644);
        write_file(&self.path("pki/server/server.key"), pair.key_pem().as_bytes(), 0o600);
    }

    pub(crate) fn add_pin(&self, name: &str, pair: &Pair) {
        pair.write_crt(&self.path("trust/pins"), name);
    }

    /// A revocation list of the clients' CA, in `trust/crls/<name>.crl`.
    pub(crate) fn write_crl(&self, name: &str, spec: &CrlSpec) {
        write_file(&self.path(&format!("trust/crls/{name}.crl")), self.client_ca.crl(spec).as_bytes(), 0o644);
    }

    pub(crate) fn remove_pin(&self, name: &str) {
        fs::remove_file(self.path(&format!("trust/pins/{name}.crt"))).unwrap();
    }

    pub(crate) fn parse_config(&self) -> Result<Config, Vec<Problem>> {
        Config::parse(&self.path("config.toml"), &self.config_text(""))
    }

    /// Puts the config file there, with `storage` added to what the server was started with.
    pub(crate) fn write_config(&self, storage: &str) {
        write_file(&self.path("config.toml"), self.config_text(storage).as_bytes(), 0o644);
    }

    fn config_text(&self, storage: &str) -> String {
        let Self { top, storage: own, limits, .. } = self;
        format!("{top}\n[storage]\nreserve = \"0\"\n{own}{storage}[limits]\n{limits}\n")
    }

    pub(crate) fn config(&self) -> Config {
        self.parse_config().unwrap()
    }

    /// What lies under `data/portcullis` of uploads and temporaries; empty when nothing was left behind.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        ["data/portcullis/tmp", "data/portcullis/uploads"]
            .iter()
            .flat_map(|name| files_below(&self.path(name)))
            .collect()
    }

    /// Every file of the registry's own tree.
    pub(crate) fn stored(&self) -> Vec<PathBuf> {
        files_below(&self.path("data/docker"))
    }

    pub(crate) async fn serve(self) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = self.config();
        let server = tokio::task::spawn_blocking(|| Server::open(config)).await.unwrap().unwrap();
        let handle = server.handle();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(listener, async {
            let _ = stopped.await;
        }));
        Site { home: self, address, handle, stop: Some(stop), running }
    }
}

/// As the Docker page's recipe makes it, for longer: of its 30 days the last 30 are told as a warning.
fn alice() -> Pair {
    Pair::self_signed(&LeafSpec {
        not_after: time::OffsetDateTime::now_utc() + time::Duration::days(90),
        is_ca: BasicConstraints::Ca,
        client_auth: false,
        key_usages: vec![],
        ..LeafSpec::client("alice")
    })
}

impl Site {
    pub(crate) async fn start() -> Self {
        Home::new().serve().await
    }

    /// Presents this pair.
    pub(crate) fn client(&self, pair: &Pair) -> Client {
        Client::new(self.address, &self.home.server_ca, Some(pair))
    }

    /// May do all.
    pub(crate) fn admin(&self) -> Client {
        self.client(&self.home.admin)
    }

    /// May pull below `team/`.
    pub(crate) fn alice(&self) -> Client {
        self.client(&self.home.alice)
    }

    /// Presents nothing.
    pub(crate) fn anonymous(&self) -> Client {
        Client::new(self.address, &self.home.server_ca, None)
    }

    /// The files as they are now, in force.
    pub(crate) fn reload(&self) {
        self.handle.reload().unwrap();
    }

    pub(crate) fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Until the server's `run` has returned.
    pub(crate) async fn stopped(mut self) -> Home {
        self.begin_stop();
        within("the server stops", self.running).await.unwrap().unwrap();
        self.home
    }
}

/// The same test over HTTP/1.1 and HTTP/2, by a client that may do all, each in a repository of its own.
pub(crate) async fn on_both(test: impl AsyncFn(&mut Conn, &str)) -> Home {
    let site = Site::start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut conn = site.admin().connect(protocol).await;
        test(&mut conn, &format!("team/{protocol}")).await;
    }
    site.stopped().await
}

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(late) => panic!("not in time: {what}: {late}"),
    }
}

/// Asks again and again until it holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

pub(crate) async fn tcp(address: SocketAddr) -> TcpStream {
    tcp_from(own_address(), address).await.unwrap()
}

/// As the server writes it.
pub(crate) fn fingerprint(pair: &Pair) -> String {
    let der = rustls_pki_types::CertificateDer::from(pair.cert_der().to_vec());
    portcullis_certs::Certificate::from_der(der).unwrap().fingerprint().to_string()
}

pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

pub(crate) fn sha512(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha512, bytes)
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { files_below(&path) } else { vec![path] }
        })
        .collect()
}
