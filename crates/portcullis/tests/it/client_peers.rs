//! The client's commands against the registry that most people run: Debian's `docker-registry` (CNCF Distribution 2.8) as a
//! mutual-TLS server, and behind nginx that asks for the certificates. (Against our own server: `client_commands`.)

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use portcullis_testkit::image::Image;
use portcullis_testkit::pki::Authority;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::docker_registry::{DOCKER_REGISTRY, DockerRegistry};
use crate::netns::{ADDRESS, HOST, IP, Machine, NSENTER};
use crate::process::{DEADLINE, Ran, Running, eventually};
use crate::registry::PORTCULLIS;

const NGINX: Need = Need::Program("nginx");
const PORT: u16 = 5443;

/// The server's files.
struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: PathBuf,
}

/// Certificates for both ends. The client has two: a stranger's, which is tried first, and a good one.
fn certificates(machine: &Machine) -> Files {
    let (server_ca, client_ca) = (Authority::new("server CA"), Authority::new("client CA"));
    let certs = machine.docker_certs(&format!("{HOST}:{PORT}"));
    fs::create_dir_all(&certs).unwrap();
    server_ca.write_ca(&certs);
    Authority::new("another CA").client("stranger").write_pair(&certs, "10-stranger");
    client_ca.client("ci-7").write_pair(&certs, "20-good");
    let dir = machine.subdir("server");
    let pair = server_ca.server(&[HOST], &[ADDRESS.parse().unwrap()]).write_pair(&dir, "server");
    Files { cert: pair.cert, key: pair.key, client_ca: client_ca.write_ca(&dir) }
}

fn serve(machine: &Machine, program: &str, args: &[&str]) -> Running {
    let mut command = machine.command(program);
    command.args(args).stdin(Stdio::null());
    let mut running = Running::start(command, &machine.logs());
    let listens = eventually(DEADLINE, || running.has_ended() || machine.listens_on(PORT));
    assert!(listens && !running.has_ended(), "{program} does not serve:\n{}", running.said());
    running
}

#[test]
fn distribution_that_asks_for_certificates_itself() {
    skip_unless!(IP, NSENTER, DOCKER_REGISTRY, Need::Namespaces);
    let machine = Machine::new();
    let Files { cert, key, client_ca } = certificates(&machine);
    let config = machine.dir().join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\n\
         storage:\n  filesystem: {{rootdirectory: \"{}\"}}\n  delete: {{enabled: true}}\n\
         http:\n  addr: \"{ADDRESS}:{PORT}\"\n  tls: {{certificate: \"{}\", key: \"{}\", clientcas: [\"{}\"]}}\n",
        machine.subdir("data").display(),
        cert.display(),
        key.display(),
        client_ca.display(),
    );
    fs::write(&config, text).unwrap();
    let _registry = serve(&machine, "docker-registry", &["serve", "registry.yml"]);
    everything(&machine);
}

#[test]
fn nginx_that_asks_for_certificates_in_front_of_distribution() {
    skip_unless!(IP, NSENTER, DOCKER_REGISTRY, NGINX, Need::Namespaces);
    let machine = Machine::new();
    let Files { cert, key, client_ca } = certificates(&machine);
    let _registry = DockerRegistry::start(&machine, &machine.subdir("data"));
    let temporary = machine.subdir("nginx").display().to_string();
    let temporaries: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {temporary}/{kind};"))
        .collect();
    let text = format!(
        "daemon off; master_process off; pid {temporary}/pid; error_log {temporary}/error; events {{}}\n\
         http {{ {temporaries} access_log off; server {{ listen {ADDRESS}:{PORT} ssl;\n\
         ssl_certificate {}; ssl_certificate_key {}; ssl_verify_client on; ssl_client_certificate {};\n\
         client_max_body_size 0; location / {{ proxy_pass {}; proxy_request_buffering off;\n\
         proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https; }} }} }}\n",
        cert.display(),
        key.display(),
        client_ca.display(),
        DockerRegistry::base(),
    );
    let config = machine.dir().join("nginx.conf");
    fs::write(&config, text).unwrap();
    let _nginx = serve(&machine, "nginx", &["-c", &config.display().to_string()]);
    everything(&machine);
}

/// Each command once, as somebody would who uses it for a day.
fn everything(machine: &Machine) {
    let run = |args: &[&str]| -> Ran { machine.run(PORTCULLIS, args) };
    let at = |name: &str| format!("{HOST}:{PORT}/{name}");
    let image = Image::new(7, &[3_000_000, 5]);
    image.write_layout(&machine.dir().join("layout"), "v1");
    let signature = image.referrer("application/vnd.test.signature", b"signed");
    signature.add_to_layout(&machine.dir().join("layout"));
    let (digest, demo) = (image.manifest.digest.to_string(), at("demo/app:1"));

    run(&["push", "oci:layout:v1", &demo]).ok().says("using the client certificate 20-good.cert");
    let again = run(&["push", "oci:layout:v1", &demo]).ok();
    assert_eq!(again.stderr.matches("is there already").count(), 3, "{again}");
    let copied = run(&["copy", &demo, &at("prod/app:1")]).ok();
    assert_eq!(copied.stderr.matches("is mounted").count(), 3, "{copied}");
    assert_eq!(run(&["catalog", &format!("{HOST}:{PORT}")]).ok().stdout, "demo/app\nprod/app\n");
    assert!(run(&["manifest", &demo]).ok().stdout.as_bytes() == image.manifest.bytes);

    // Distribution 2 knows no referrers: the tag that stands in for the API is kept by the client, and kept once.
    for _ in 0..2 {
        run(&["push", "oci:layout:v1", &demo, "--referrers"]).ok();
    }
    let listed = run(&["referrers", &demo]).ok();
    assert_eq!(listed.stdout.lines().count(), 1, "{listed}");
    assert!(listed.stdout.starts_with(&format!("{}  application/vnd.test.signature  ", signature.manifest.digest)));
    let standing_in = digest.replace(':', "-");
    // In no order: Distribution 2 lists a directory.
    let tags = run(&["tags", &at("demo/app")]).ok().stdout;
    assert_eq!(tags.lines().collect::<BTreeSet<_>>(), BTreeSet::from(["1", standing_in.as_str()]));

    run(&["pull", &demo, "--to", "docker-archive:d.tar"]).ok();
    run(&["pull", &demo, "--to", "oci-archive:o.tar", "--platform", "linux/amd64"]).ok();
    for (archive, to) in [("docker-archive:d.tar", "back/docker:1"), ("oci-archive:o.tar", "back/oci:1")] {
        run(&["push", archive, &at(to)]).ok();
        run(&["diff", &demo, &at(to)]).ok().says("the same image");
    }
    run(&["delete", &at("back/oci:1")]).exits(1).says("some registries delete by digest only");
    run(&["delete", &format!("{}@{digest}", at("back/oci"))]).ok();
    run(&["manifest", &at("back/oci:1")]).exits(1).says("404");
}
