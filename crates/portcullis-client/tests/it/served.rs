//! A Debian program that serves with mutual TLS, from its configuration to its end.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portcullis_client::{Client, ClientError, ClientOptions, Location};
use portcullis_oci::RegistryHost;
use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::find_program;
use tempfile::TempDir;

use crate::site::{Pki, options};

pub(crate) struct Served {
    process: Child,
    pub(crate) dir: TempDir,
    pub(crate) host: RegistryHost,
    pub(crate) pki: Pki,
}

/// What a configuration is written from.
pub(crate) struct Setting<'a> {
    pub(crate) address: SocketAddr,
    /// For the program's own files; the clients' CA is there, as `ca.crt`.
    pub(crate) own: &'a Path,
    pub(crate) server: PairFiles,
}

impl Served {
    /// Starts `program` once its configuration is written; `configure` gives its text and `args` its command line.
    pub(crate) async fn start(
        program: &str,
        configure: impl FnOnce(&Setting<'_>) -> String,
        args: impl FnOnce(&mut Command, &Setting<'_>, &Path),
    ) -> Self {
        let pki = Pki::new();
        let dir = TempDir::new().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let own = dir.path().join("own");
        fs::create_dir(&own).unwrap();
        pki.client_ca.write_ca(&own);
        let setting = Setting { address, own: &own, server: pki.server.write_pair(&own, "server") };
        let config = own.join("config");
        fs::write(&config, configure(&setting)).unwrap();
        let mut command = Command::new(find_program(program).unwrap());
        args(&mut command, &setting, &config);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let served = Self { process, dir, host: address.to_string().parse().unwrap(), pki };
        served.pki.server_ca.write_ca(&served.certs());
        for _ in 0..400 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return served;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = fs::read_to_string(own.join("error.log")).unwrap_or_default();
        panic!("{program} does not listen on {address}: {log}");
    }

    /// The client's directory for it.
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
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
