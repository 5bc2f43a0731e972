//! A stub registry with a certificate directory for it: what one test starts from.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use portcullis_client::{
    CertsChoice, Client, ClientError, ClientOptions, Credentials, Event, LayoutDir, Location, Progress, Retries,
};
use portcullis_oci::{Reference, RegistryHost};
use portcullis_testkit::pki::{Authority, Pair};
use portcullis_tls::Roots;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

use crate::stub::Stub;
use crate::tls::TlsSetup;

/// The two certificates that every test can use.
pub(crate) struct Pki {
    pub(crate) server_ca: Authority,
    pub(crate) client_ca: Authority,
    pub(crate) server: Pair,
    pub(crate) good: Pair,
}

pub(crate) struct Site {
    pub(crate) stub: Stub,
    pub(crate) host: RegistryHost,
    pub(crate) dir: TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let server_ca = Authority::new("server CA");
        let client_ca = Authority::new("client CA");
        let server = server_ca.server(&["localhost", "registry.test"], &["127.0.0.1".parse().unwrap()]);
        let good = client_ca.client("good");
        Self { server_ca, client_ca, server, good }
    }

    pub(crate) fn tls(&self) -> TlsSetup {
        TlsSetup::new(&self.server).accept("good", &self.good)
    }
}

impl Site {
    /// A registry, and a directory that trusts its CA and has no pair.
    pub(crate) async fn without_pair(pki: &Pki, tls: TlsSetup) -> Self {
        let stub = Stub::start(tls).await;
        let host = stub.address.to_string().parse().unwrap();
        let site = Self { stub, host, dir: TempDir::new().unwrap() };
        pki.server_ca.write_ca(&site.certs());
        site
    }

    /// The same with the good pair.
    pub(crate) async fn good() -> Self {
        let pki = Pki::new();
        Self::with_good_pair(&pki, pki.tls()).await
    }

    pub(crate) async fn with_good_pair(pki: &Pki, tls: TlsSetup) -> Self {
        let site = Self::without_pair(pki, tls).await;
        pki.good.write_pair(&site.certs(), "good");
        site
    }

    /// The certificate directory.
    pub(crate) fn certs(&self) -> PathBuf {
        self.certs_of(self.host.as_str())
    }

    pub(crate) fn certs_of(&self, host: &str) -> PathBuf {
        let directory = self.dir.path().join("certs.d").join(host);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    pub(crate) fn options(&self) -> ClientOptions {
        let mut options = options();
        options.certs.location = Location::Root(self.dir.path().join("certs.d"));
        options
    }

    pub(crate) async fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(&self.host, &self.options()).await
    }

    pub(crate) async fn client(&self) -> Client {
        self.connect().await.unwrap()
    }

    pub(crate) fn layout(&self) -> LayoutDir {
        LayoutDir::create(&self.dir.path().join("layout")).unwrap()
    }

    pub(crate) fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host).parse().unwrap()
    }
}

/// Impatient, so that a test of a retry takes no time, and without this machine's roots and this user's passwords.
pub(crate) fn options() -> ClientOptions {
    ClientOptions {
        certs: CertsChoice::default(),
        roots: Roots::Only,
        credentials: Credentials::Anonymous,
        retries: Retries {
            limit: 3,
            pause: Duration::from_millis(1),
            max_pause: Duration::from_millis(5),
            total: Duration::from_mins(5),
        },
        ..ClientOptions::default()
    }
}

/// A sink and what fell into it.
pub(crate) fn recorder() -> (Progress, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    (Progress::new(move |event| sink.lock().unwrap().push(event)), events)
}
