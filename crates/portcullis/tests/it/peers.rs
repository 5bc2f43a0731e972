//! curl and openssl as clients of the registry. skopeo and podman need no help: `machine.run("skopeo", …)`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::Need;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use serde_json::Value;

use crate::netns::{ADDRESS, HOST, Machine};
use crate::process::{DEADLINE, Ran, Running};
use crate::registry::Registry;

pub(crate) const SKOPEO: Need = Need::Program("skopeo");
pub(crate) const PODMAN: Need = Need::Program("podman");
pub(crate) const CURL: Need = Need::Program("curl");
pub(crate) const OPENSSL: Need = Need::Program("openssl");

/// An answer that curl got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The code of the first error of an OCI error body.
    #[track_caller]
    pub(crate) fn error_code(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"));
        let code = body["errors"][0]["code"].as_str();
        code.unwrap_or_else(|| panic!("no OCI error in {self:?}")).to_owned()
    }

    /// The value of a header, whose name is given in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.headers.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    }
}

/// The words of a curl command line before the URL: who we are and whom we trust.
pub(crate) fn curl_identity(registry: &Registry<'_>, pair: Option<&PairFiles>) -> Vec<String> {
    let text = |path: &Path| path.display().to_string();
    let mut words = vec!["--cacert".to_owned(), text(&registry.ca())];
    if let Some(pair) = pair {
        words.extend(["--cert".to_owned(), text(&pair.cert), "--key".to_owned(), text(&pair.key)]);
    }
    words
}

/// One request with curl, sent exactly as written (`--path-as-is`), that must get an answer.
#[track_caller]
pub(crate) fn curl(machine: &Machine, registry: &Registry<'_>, pair: &PairFiles, args: &[&str], path: &str) -> Answer {
    let (headers, body) = (machine.dir().join("curl.headers"), machine.dir().join("curl.body"));
    fs::write(&body, "").unwrap();
    let mut command = machine.command("curl");
    command.args(["--silent", "--show-error", "--path-as-is", "--write-out", "%{http_code}"]);
    command.arg("--dump-header").arg(&headers).arg("--output").arg(&body);
    command.args(curl_identity(registry, Some(pair))).args(args).arg(registry.url(path));
    let ran = crate::process::run(command, &machine.logs(), DEADLINE);
    let status = ran.stdout.trim().parse().unwrap_or(0);
    assert_ne!(status, 0, "no answer: {ran}");
    Answer { status, headers: crate::process::read_lossy(&headers), body: fs::read(&body).unwrap() }
}

/// Sends `request` through `openssl s_client` and waits until the registry ends the connection.
#[track_caller]
pub(crate) fn s_client(
    machine: &Machine,
    registry: &Registry<'_>,
    pair: Option<&PairFiles>,
    args: &[&str],
    request: &[u8],
) -> Ran {
    let file = machine.dir().join("s_client.request");
    fs::write(&file, request).unwrap();
    let mut command = machine.command("openssl");
    command.args(["s_client", "-quiet", "-connect", &with_port(&registry.host()), "-CAfile"]).arg(registry.ca());
    if let Some(pair) = pair {
        command.arg("-cert").arg(&pair.cert).arg("-key").arg(&pair.key);
    }
    command.args(args).stdin(fs::File::open(&file).unwrap());
    Running::start(command, &machine.logs()).wait(DEADLINE)
}

/// A connection of rustls, from the machine.
pub(crate) struct RustlsConnection(StreamOwned<ClientConnection, TcpStream>);

impl RustlsConnection {
    /// The whole of a short answer, or the error with the alert's name.
    pub(crate) fn ask(&mut self, request: &[u8]) -> io::Result<String> {
        self.0.write_all(request)?;
        let mut answer = [0; 4096];
        let read = self.0.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    /// Waits until the registry ends it.
    #[track_caller]
    pub(crate) fn ends(mut self) {
        let mut rest = vec![];
        let ended = self.0.read_to_end(&mut rest);
        let timed_out = ended.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        assert!(!timed_out, "the connection stays open: {}", String::from_utf8_lossy(&rest));
    }
}

/// rustls, held to this version.
#[track_caller]
pub(crate) fn rustls_connection(
    machine: &Machine,
    registry: &Registry<'_>,
    pair: &PairFiles,
    version: &'static SupportedProtocolVersion,
) -> RustlsConnection {
    let certificates = |path: &Path| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&registry.ca()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[expect(clippy::disallowed_methods, reason = "a foreign client, held to one version")]
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
    let config = config.with_root_certificates(roots).with_client_auth_cert(certificates(&pair.cert), key).unwrap();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(HOST).unwrap()).unwrap();
    let connect = || {
        machine.enter_network();
        TcpStream::connect((ADDRESS, 5443)).unwrap()
    };
    // A thread that has entered the network stays in it.
    let stream = thread::scope(|scope| scope.spawn(connect).join().unwrap());
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    RustlsConnection(StreamOwned::new(connection, stream))
}

/// `GET /v2/`, the last request of its connection.
pub(crate) fn ping_request(registry: &Registry<'_>) -> Vec<u8> {
    format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", registry.host()).into_bytes()
}

/// Every file below `dir`, relative, sorted: what a test compares to see that nothing stayed.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                pending.push(path);
            } else {
                files.push(path.strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

fn with_port(host: &str) -> String {
    if host.contains(':') { host.to_owned() } else { format!("{host}:443") }
}
