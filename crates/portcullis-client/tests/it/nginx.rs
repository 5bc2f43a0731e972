//! Debian's nginx in front of a registry: it refuses with HTTP answers of its own, after the handshake.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use portcullis_client::{Client, ClientError, Location, Refusal};
use portcullis_oci::RegistryHost;
use portcullis_testkit::pki::Authority;
use portcullis_testkit::skip::{Need, find_program};
use portcullis_testkit::skip_unless;
use tempfile::TempDir;

use crate::site::{Pki, options};

const PROGRAM: &str = "nginx";

struct Nginx {
    process: Child,
    dir: TempDir,
    host: RegistryHost,
    pki: Pki,
}

/// `ssl_verify_client on`: 400 with a page, in both versions of TLS; or, with `optional_no_ca`, what its administrator chose.
#[test]
fn the_next_pair_is_tried_after_each_of_its_refusals() {
    skip_unless!(Need::Program(PROGRAM));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for version in ["TLSv1.2", "TLSv1.3"] {
            for (rule, status) in [
                ("ssl_verify_client on;", 400),
                ("ssl_verify_client optional_no_ca; if ($ssl_client_verify != SUCCESS) { return 403; }", 403),
                ("ssl_verify_client on; error_page 495 496 =401 /none;", 401),
                ("ssl_verify_client optional_no_ca; if ($ssl_client_verify != SUCCESS) { return 503; }", 503),
            ] {
                let nginx = Nginx::start(version, rule).await;
                let error = nginx.connect().await.unwrap_err();
                assert!(error.is_refusal() || status == 503, "{version} {rule}: {error}");

                for name in ["a", "b"] {
                    Authority::new("another CA").client("stranger").write_pair(&nginx.certs(), name);
                }
                let error = nginx.connect().await.unwrap_err();
                let statuses = statuses(&error);
                assert_eq!(statuses, [("a".to_owned(), status), ("b".to_owned(), status)], "{version} {rule}: {error}");

                nginx.pki.good.write_pair(&nginx.certs(), "c");
                let client = nginx.connect().await.unwrap();
                assert_eq!(client.pair_used().as_deref(), Some("c"), "{version} {rule}");
            }
        }
    });
}

fn statuses(error: &ClientError) -> Vec<(String, u16)> {
    let ClientError::Refused { attempts, .. } = error else { panic!("{error:?}") };
    let status = |refusal: &Refusal| match refusal {
        Refusal::Answer(answer) => answer.status,
        Refusal::Handshake(failure) => panic!("{failure}"),
    };
    attempts.iter().map(|attempt| (attempt.pair.clone().unwrap(), status(&attempt.refusal))).collect()
}

impl Nginx {
    async fn start(version: &str, rule: &str) -> Self {
        let pki = Pki::new();
        let dir = TempDir::new().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let own = dir.path().join("own");
        fs::create_dir(&own).unwrap();
        pki.client_ca.write_ca(&own);
        let files = pki.server.write_pair(&own, "server");
        let config = format!(
            "daemon off; master_process off; pid {own}/pid; error_log {own}/error.log;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path {own}/body; proxy_temp_path {own}/proxy;\n\
             fastcgi_temp_path {own}/fastcgi; uwsgi_temp_path {own}/uwsgi; scgi_temp_path {own}/scgi;\n\
             server {{ listen {address} ssl; ssl_protocols {version};\n\
             ssl_certificate {cert}; ssl_certificate_key {key}; ssl_client_certificate {own}/ca.crt;\n\
             {rule}\n\
             location / {{ return 200 \"{{}}\"; }} location /none {{ return 401 \"none\"; }} }} }}\n",
            own = own.display(),
            cert = files.cert.display(),
            key = files.key.display(),
        );
        let path = own.join("nginx.conf");
        fs::write(&path, config).unwrap();
        let mut command = Command::new(find_program(PROGRAM).unwrap());
        command.arg("-p").arg(&own).arg("-c").arg(&path).arg("-e").arg(own.join("error.log"));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let nginx = Self { process, dir, host: address.to_string().parse().unwrap(), pki };
        nginx.pki.server_ca.write_ca(&nginx.certs());
        for _ in 0..400 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return nginx;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let log = fs::read_to_string(own.join("error.log")).unwrap_or_default();
        panic!("{PROGRAM} does not listen on {address}: {log}");
    }

    fn certs(&self) -> std::path::PathBuf {
        let directory = self.dir.path().join("certs.d").join(self.host.as_str());
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    async fn connect(&self) -> Result<Client, ClientError> {
        let mut options = options();
        options.certs.location = Location::Root(self.dir.path().join("certs.d"));
        Client::connect(&self.host, &options).await
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
