//! CNCF Distribution behind the gateway, as a mutual-TLS registry: it writes addresses in full and redirects to a store.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use portcullis_testkit::image::{Image, rootfs_tar};
use portcullis_testkit::pki::Authority;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use super::{AUTHORITY, Gateway};
use crate::docker_registry::DOCKER_REGISTRY;
use crate::dockerd::{DOCKER, DOCKERD, Dockerd, digest_in};
use crate::netns::{ADDRESS, HOST, IP, Machine, NSENTER};
use crate::peers::{CURL, SKOPEO, files_below};
use crate::process::{DEADLINE, Running, eventually, read_lossy};

const PORT: u16 = 5443;
const STORE_PORT: u16 = 6443;
const NGINX: Need = Need::Program("nginx");

struct Site<'m> {
    machine: &'m Machine,
    server_ca: Authority,
    client_ca: Authority,
}

impl<'m> Site<'m> {
    /// A CA for each end, and the client's files where the gateway looks for them.
    fn new(machine: &'m Machine) -> Self {
        let (server_ca, client_ca) = (Authority::new("server CA"), Authority::new("client CA"));
        let certs = machine.docker_certs(&Self::host());
        fs::create_dir_all(&certs).unwrap();
        server_ca.write_ca(&certs);
        client_ca.client("ci-7").write_pair(&certs, "client");
        Self { machine, server_ca, client_ca }
    }

    fn host() -> String {
        format!("{HOST}:{PORT}")
    }

    /// Server certificate and key, and the clients' CA, in a directory of their own.
    fn server_files(&self, name: &str) -> (PathBuf, PathBuf, PathBuf) {
        let dir = self.machine.subdir(name);
        let pair = self.server_ca.server(&[HOST], &[ADDRESS.parse().unwrap()]).write_pair(&dir, "server");
        (pair.cert, pair.key, self.client_ca.write_ca(&dir))
    }

    /// `docker-registry` that takes the clients of our CA only; `more` is added to its configuration.
    fn registry(&self, more: &str) -> Running {
        let (cert, key, ca) = self.server_files("distribution");
        let path = self.machine.dir().join("distribution.yml");
        let data = self.machine.subdir("distribution-data");
        let text = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: false}}}}\n\
             storage:\n  filesystem: {{rootdirectory: \"{}\"}}\n  delete: {{enabled: true}}\n\
             http:\n  addr: \"{ADDRESS}:{PORT}\"\n  secret: of the test\n  tls:\n    certificate: \"{}\"\n    key: \"{}\"\n    clientcas: [\"{}\"]\n{more}",
            data.display(),
            cert.display(),
            key.display(),
            ca.display(),
        );
        fs::write(&path, text).unwrap();
        let mut command = self.machine.command("docker-registry");
        command.arg("serve").arg(&path).stdin(Stdio::null());
        self.wait_for(Running::start(command, &self.machine.logs()), PORT)
    }

    /// nginx, which serves the registry's files by their paths, asks for a certificate and writes down what it was shown.
    fn store(&self) -> (Running, PathBuf) {
        let (cert, key, ca) = self.server_files("store");
        let log = self.machine.dir().join("store.log");
        let temporary = self.machine.subdir("store-tmp");
        let temporaries: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {}/{kind};", temporary.display()))
            .collect();
        let config = format!(
            "daemon off; master_process off; pid {dir}/store.pid; error_log {dir}/store.error; events {{}}\n\
             http {{ {temporaries} log_format shown '$request_method $uri dn=$ssl_client_s_dn auth=$http_authorization'; access_log {log} shown;\n\
             server {{ listen {ADDRESS}:{STORE_PORT} ssl; ssl_certificate {cert}; ssl_certificate_key {key};\n\
             ssl_verify_client optional; ssl_client_certificate {ca}; root {dir}/distribution-data; }} }}\n",
            dir = self.machine.dir().display(),
            log = log.display(),
            cert = cert.display(),
            key = key.display(),
            ca = ca.display(),
        );
        let path = self.machine.dir().join("nginx.conf");
        fs::write(&path, config).unwrap();
        let mut command = self.machine.command("nginx");
        command.arg("-c").arg(&path).stdin(Stdio::null());
        (self.wait_for(Running::start(command, &self.machine.logs()), STORE_PORT), log)
    }

    fn wait_for(&self, mut program: Running, port: u16) -> Running {
        let listens = eventually(DEADLINE, || program.has_ended() || self.machine.listens_on(port));
        assert!(listens && !program.has_ended(), "it does not serve:\n{}", program.said());
        program
    }
}

fn push_with_skopeo(machine: &Machine, reference: &str) -> Image {
    let image = Image::new(7, &[2_000_000, 1000]);
    image.write_layout(&machine.dir().join("layout"), "v1");
    let to = format!("docker://{reference}");
    machine.run("skopeo", &["copy", "--preserve-digests", "--dest-tls-verify=false", "oci:layout:v1", &to]).ok();
    image
}

fn blobs(layout: &Path) -> Vec<PathBuf> {
    files_below(&layout.join("blobs"))
}

#[test]
fn docker_and_skopeo_through_it() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, SKOPEO, CURL, DOCKER_REGISTRY, Need::Namespaces);
    let machine = Machine::new();
    let site = Site::new(&machine);
    let _registry = site.registry("");
    let gateway = Gateway::start(&machine, &Site::host(), &["--push"]);

    push_with_skopeo(&machine, &format!("{AUTHORITY}/team/app:1"));
    let from = format!("docker://{AUTHORITY}/team/app:1");
    machine.run("skopeo", &["copy", "--preserve-digests", "--src-tls-verify=false", &from, "oci:back:v1"]).ok();
    assert_eq!(blobs(&machine.dir().join("back")), blobs(&machine.dir().join("layout")));

    let docker = Dockerd::start(&machine);
    let reference = format!("{AUTHORITY}/team/docker:1");
    docker.import(&rootfs_tar(1, 100_000), &reference);
    let pushed = digest_in(&docker.docker(&["push", &reference]).ok());
    docker.docker(&["rmi", &reference]).ok();
    assert_eq!(digest_in(&docker.docker(&["pull", &reference]).ok()), pushed);

    // Its addresses are `https://registry.test:5443/…?_state=…`.
    let begun = gateway.curl(&["--request", "POST"], "/v2/team/app/blobs/uploads/").header("location").unwrap();
    assert!(begun.starts_with("/v2/team/app/blobs/uploads/") && !begun.contains('?'), "{begun}");
    let bytes = ["--header", "Content-Type: application/octet-stream", "--data-binary", "hello"];
    let patched = gateway.curl(&[&["--request", "PATCH"][..], &bytes].concat(), &begun);
    assert_eq!(patched.header("location").as_ref(), Some(&begun));
    let hello = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let finished = gateway.curl(&["--request", "PUT"], &format!("{begun}?digest={hello}"));
    assert_eq!(finished.header("location").as_deref(), Some(format!("/v2/team/app/blobs/{hello}").as_str()));
    // The list of two repositories, page after page.
    let page = gateway.curl(&[], "/v2/_catalog?n=1");
    assert_eq!(page.header("link").as_deref(), Some("</v2/_catalog?last=team%2Fapp&n=1>; rel=\"next\""));
    let page = gateway.curl(&[], "/v2/_catalog?last=team%2Fapp&n=1");
    assert!(String::from_utf8_lossy(&page.body).contains("team/docker"), "{page:?}");
}

#[test]
fn a_redirect_is_followed_inside_without_the_certificate() {
    skip_unless!(IP, NSENTER, SKOPEO, CURL, DOCKER_REGISTRY, NGINX, Need::Namespaces);
    let machine = Machine::new();
    let site = Site::new(&machine);
    let redirects = format!(
        "middleware:\n  storage:\n    - name: redirect\n      options: {{baseurl: \"https://{ADDRESS}:{STORE_PORT}/\"}}\n"
    );
    let _registry = site.registry(&redirects);
    let (_store, log) = site.store();
    let store_certs = machine.docker_certs(&format!("{ADDRESS}:{STORE_PORT}"));
    fs::create_dir_all(&store_certs).unwrap();
    site.server_ca.write_ca(&store_certs);
    let gateway = Gateway::start(&machine, &Site::host(), &["--push"]);

    let image = push_with_skopeo(&machine, &format!("{AUTHORITY}/team/app:1"));
    let layer = format!("/v2/team/app/blobs/{}", image.config.digest);
    let answer = gateway.curl(&["--header", "Authorization: Bearer secret"], &layer);
    assert_eq!((answer.status, answer.header("location")), (200, None), "{answer:?}");
    assert_eq!(answer.body, image.config.bytes);
    let ranged = gateway.curl(&["--range", "0-3"], &layer);
    assert_eq!((ranged.status, ranged.body.as_slice()), (206, &image.config.bytes[..4]));
    let from = format!("docker://{AUTHORITY}/team/app:1");
    machine.run("skopeo", &["copy", "--preserve-digests", "--src-tls-verify=false", &from, "oci:back:v1"]).ok();
    assert_eq!(blobs(&machine.dir().join("back")), blobs(&machine.dir().join("layout")));
    let shown = read_lossy(&log);
    assert!(shown.lines().count() >= 4, "{shown}");
    assert!(shown.lines().all(|line| line.ends_with("dn=- auth=-")), "{shown}");

    // A store that is not trusted is not read from, and the answer says who.
    fs::remove_file(store_certs.join("ca.crt")).unwrap();
    drop(gateway);
    let gateway = Gateway::start(&machine, &Site::host(), &[]);
    let answer = gateway.curl(&[], &layer);
    assert_eq!(answer.status, 502);
    assert!(String::from_utf8_lossy(&answer.body).contains(&format!("{ADDRESS}:{STORE_PORT}")), "{answer:?}");
}
