//! What time and mistakes bring: certificates that are renewed, revocations that are published, forgiven and remembered.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis_pki::{Authority, KeySource, ServerRequest, issue_server};
use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{HOST, IP, Machine, NSENTER};
use crate::peers::{CURL, curl_identity};
use crate::process::{Running, eventually};
use crate::registry::{PORTCULLIS, Registry};

/// Far beyond the second in which a change is in force: what is tested is that it comes, not when.
const SOON: Duration = Duration::from_secs(20);

fn is_let_in(machine: &Machine, registry: &Registry<'_>, pair: &PairFiles) -> bool {
    let mut words = curl_identity(registry, Some(pair));
    words.extend(["--silent".to_owned(), "--fail".to_owned(), registry.url("/v2/")]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    machine.run("curl", &words).status.success()
}

/// What other servers that read the list would say.
fn openssl_verify(registry: &Registry<'_>, pair: &PairFiles) -> String {
    let home = registry.home();
    let mut verify = Command::new("openssl");
    verify.args(["verify", "-crl_check", "-CAfile"]).arg(home.join("pki/client-ca/ca.crt"));
    let said = verify.arg("-CRLfile").arg(home.join("trust/crls/clients.crl")).arg(&pair.cert).output().unwrap();
    String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
}

#[test]
fn a_revocation_is_published_remembered_and_forgiven() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    let (lost, other) = (registry.new_client("ci-7"), registry.new_client("ci-8"));
    assert!(openssl_verify(&registry, &lost).contains("OK"), "{}", openssl_verify(&registry, &lost));
    registry.portcullis(&["cert", "revoke", "ci-7"]).ok().says("in force").says("clients.crl");
    assert!(openssl_verify(&registry, &lost).contains("revoked"), "{}", openssl_verify(&registry, &lost));
    assert!(openssl_verify(&registry, &other).contains("OK"));

    // Yesterday's trust directory is put back.
    registry.stop();
    fs::write(registry.home().join("trust/deny"), "").unwrap();
    registry.start_again();
    assert!(!is_let_in(&machine, &registry, &lost) && is_let_in(&machine, &registry, &other));
    let status = registry.portcullis(&["status"]).ok().says("is gone from the deny list");
    let command = status.stdout.lines().find_map(|line| line.split("type: portcullis ").nth(1)).unwrap().to_owned();
    let words: Vec<&str> = command.split_whitespace().collect();
    registry.portcullis(&words).ok().says("forgiven").says("in force");
    assert!(is_let_in(&machine, &registry, &lost));
    assert!(openssl_verify(&registry, &lost).contains("OK"));
    registry.portcullis(&words).fails().says("is not denied");
}

#[test]
fn a_cut_off_shuts_out_what_is_older_and_not_what_is_made_next() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let (pair, other) = (registry.new_client("ci-7"), registry.new_client("web-1"));
    let now = machine.run("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]).ok().stdout;
    registry.portcullis(&["cert", "revoke", "ci-*", "--before", now.trim()]).ok().says("in force");
    assert!(!is_let_in(&machine, &registry, &pair) && is_let_in(&machine, &registry, &other));
    let replacement = registry.new_client("ci-7");
    assert!(is_let_in(&machine, &registry, &replacement));
    registry.portcullis(&["cert", "revoke", "ci-*", "--before", "2099-01-01T00:00:00Z"]).fails().says("lies ahead");
    registry.portcullis(&["cert", "revoke", "nobody", "--before", now.trim()]).fails().says("web-1");
}

#[test]
fn certificates_are_renewed_with_their_keys() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    registry.portcullis(&["maintain"]).ok().says("nothing is due");
    // One of which less than a third is left: made an hour ago by its own word, and ending soon.
    let server = registry.home().join("pki/server");
    let authority = Authority::open(&registry.home().join("pki/server-ca")).unwrap();
    let key = fs::read(server.join("server.key")).unwrap();
    let request = ServerRequest {
        key: KeySource::Existing(server.join("server.key")),
        lifetime: time::Duration::minutes(20),
        ..ServerRequest::new(vec![HOST.parse().unwrap()])
    };
    let short = issue_server(&authority, &request, time::OffsetDateTime::now_utc()).unwrap();
    short.write_server(&server).unwrap();
    let warned = || registry.portcullis(&["status"]).ok().stdout.contains("the server's certificate ends on");
    assert!(eventually(SOON, warned));
    registry.log_line(&["WARN", "the server's certificate ends on"]);
    assert!(is_let_in(&machine, &registry, &pair));

    registry.portcullis(&["maintain"]).ok().says("renewed the server's certificate").says("in force");
    assert!(!warned() && is_let_in(&machine, &registry, &pair));
    assert_eq!(fs::read(server.join("server.key")).unwrap(), key);
    registry.portcullis(&["maintain"]).ok().says("nothing is due");

    let (cert, key) = (fs::read(&pair.cert).unwrap(), fs::read(&pair.key).unwrap());
    registry.portcullis(&["cert", "renew", "--all"]).ok().says("ci-7: not due").says("admin: not due");
    assert_eq!(fs::read(&pair.cert).unwrap(), cert);
    registry.portcullis(&["cert", "renew", "ci-7"]).ok().says("ci-7: renewed until");
    assert_ne!(fs::read(&pair.cert).unwrap(), cert);
    assert_eq!(fs::read(&pair.key).unwrap(), key);
    assert!(is_let_in(&machine, &registry, &pair));
    registry.portcullis(&["cert", "revoke", "ci-7"]).ok();
    registry.portcullis(&["cert", "renew", "ci-7"]).fails().says("revoked").says("cert new client ci-7");
    registry.portcullis(&["cert", "renew", "nobody"]).fails().says("cert new client nobody");
}

/// What serves needs no CA: their directories can be on another machine.
#[test]
fn a_registry_without_its_cas_serves() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let ca = fs::read(registry.ca()).unwrap();
    assert!(registry.printed().contains("InaccessiblePaths="), "root is shown a service: {}", registry.printed());
    registry.stop();
    for name in ["server-ca", "client-ca"] {
        fs::rename(registry.home().join("pki").join(name), machine.dir().join(name)).unwrap();
    }
    let config = registry.home().join("config.toml");
    let mut serve = machine.command(PORTCULLIS);
    serve.arg("serve").arg("--config").arg(&config).stdin(Stdio::null());
    let _serving = Running::start(serve, &machine.logs());
    assert!(eventually(SOON, || machine.listens_on(5443)));
    let root = machine.dir().join("ca.crt");
    fs::write(&root, ca).unwrap();
    let url = registry.url("/v2/");
    let (cert, key) = (pair.cert.to_str().unwrap(), pair.key.to_str().unwrap());
    let curl = ["--silent", "--fail", "--cacert", root.to_str().unwrap(), "--cert", cert, "--key", key, &url];
    machine.run("curl", &curl).ok();
    registry.portcullis(&["maintain"]).ok().says("nothing is due");
}
