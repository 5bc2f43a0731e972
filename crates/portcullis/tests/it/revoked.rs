//! Revocation and every other change of trust, in force while the registry runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use portcullis_testkit::pki::{Authority, PairFiles, openssl};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{CURL, OPENSSL, curl, curl_identity, rustls_connection};
use crate::process::eventually;
use crate::registry::Registry;

/// Far beyond the second in which a change is in force: what is tested is that it comes, not when.
const SOON: Duration = Duration::from_secs(20);

fn is_let_in(machine: &Machine, registry: &Registry<'_>, pair: &PairFiles) -> bool {
    let mut words = curl_identity(registry, Some(pair));
    words.extend(["--silent".to_owned(), "--fail".to_owned(), registry.url("/v2/")]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    machine.run("curl", &words).status.success()
}

#[test]
fn a_revoked_client_is_out_and_its_replacement_in() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let (pair, other) = (registry.new_client("ci-7"), registry.new_client("ci-70"));
    let old_key = fs::read(&pair.key).unwrap();
    assert!(is_let_in(&machine, &registry, &pair));

    registry.portcullis(&["cert", "revoke", "ci-7", "--reason", "laptop lost"]).ok().says("in force");
    assert!(!is_let_in(&machine, &registry, &pair));
    assert!(is_let_in(&machine, &registry, &other));
    registry.log_line(&["client certificate refused", "CN=ci-7", "deny list"]);
    let deny = fs::read_to_string(registry.home().join("trust/deny")).unwrap();
    assert!(deny.lines().count() == 1 && deny.contains("laptop lost"), "{deny}");
    registry.portcullis(&["cert", "revoke", "ci-7"]).ok().says("already revoked");
    registry.portcullis(&["cert", "revoke", "ci-8"]).fails().says("ci-70");

    let replacement = registry.new_client("ci-7");
    assert_ne!(fs::read(&replacement.key).unwrap(), old_key, "a revoked key is not used again");
    assert!(is_let_in(&machine, &registry, &replacement));
    registry.portcullis(&["cert", "new", "client", "ci-7"]).ok().says("already so");
}

/// The CA's key is best kept elsewhere; a leak is no time to go and fetch it.
#[test]
fn revoking_needs_no_key_of_the_ca() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    assert!(is_let_in(&machine, &registry, &pair));
    let key = registry.home().join("pki/client-ca/ca.key");
    let away = key.with_file_name("elsewhere");
    fs::rename(&key, &away).unwrap();

    registry.portcullis(&["cert", "revoke", "ci-7"]).ok().says("in force").says("ca.key");
    assert!(!is_let_in(&machine, &registry, &pair));
    fs::rename(&away, &key).unwrap();
    registry.portcullis(&["cert", "revoke", "ci-7"]).ok().says("already revoked").says("clients.crl");
}

/// A typo in the config, a file that others can write, upkeep that holds the home's lock: none of it is about whom to deny.
#[test]
fn revoking_waits_for_nothing_that_is_wrong_elsewhere() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let (config, policy) = (registry.home().join("config.toml"), registry.home().join("policy.toml"));
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("lisen = 5\n{text}")).unwrap();
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o664)).unwrap();
    let lock = fs::File::options().write(true).open(registry.home().join("lock")).unwrap();
    lock.lock().unwrap();
    let revoked = registry.portcullis(&["cert", "revoke", "ci-7"]).ok().says("in force");
    revoked.says("lisen").says("chmod").says("being changed by another portcullis");
    assert!(!is_let_in(&machine, &registry, &pair));
    drop(lock);
    // Where nothing of the config can be read, nor the server asked, the home's own trust directory is the one.
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&config, "= = =").unwrap();
    registry.portcullis(&["cert", "revoke", "ci-7"]).ok().says("already revoked").says("config.toml:1");
    // What others can write decides nothing, trust least of all.
    fs::set_permissions(registry.home().join("trust"), fs::Permissions::from_mode(0o777)).unwrap();
    registry.portcullis(&["cert", "revoke", "ci-7"]).fails().says("not safe to use").says("chmod");
}

/// What cannot be read of the journal may be a certificate of that name.
#[test]
fn a_revocation_that_may_not_be_whole_is_no_success() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let journal = registry.home().join("pki/client-ca/issued.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, format!("{text}{{\"name\":\"ci-7\",#\n")).unwrap();
    let damaged = text.lines().count() + 1;
    let ran = registry.portcullis(&["cert", "revoke", "ci-7"]).exits(1).says("in force");
    let ran = ran.says(&format!("cannot be read in line {damaged}")).says("cert revoke ci-7 --before ");
    assert!(!is_let_in(&machine, &registry, &pair), "{ran}");
    registry.portcullis(&["cert", "revoke", "ci-7", "--before", "2026-01-01T00:00:00Z"]).ok().says("revoked name:");
}

/// To trust somebody no longer is a restriction too; and a pin that a CA issued falls back on the CA's rights.
#[test]
fn a_pin_is_removed_although_everything_else_is_broken() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let [narrow, broken] = ["narrow", "broken"].map(|name| registry.new_client(name));
    for pair in [&narrow, &broken] {
        let name = pair.cert.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let file = pair.cert.display().to_string();
        registry.portcullis(&["trust", "add", &file, "--as", "pin", "--name", name]).ok().says("in force");
    }
    let print = openssl::fingerprint_of(&narrow.cert);
    let removed = registry.portcullis(&["trust", "remove", "narrow"]).ok().says("in force").says("the CA clients");
    removed.says(&format!("cert revoke {print}"));
    assert!(is_let_in(&machine, &registry, &narrow), "with its CA's rights");
    registry.portcullis(&["cert", "revoke", &print]).ok();
    assert!(!is_let_in(&machine, &registry, &narrow));

    fs::write(registry.home().join("policy.toml"), "[[rule]\n").unwrap();
    registry.log_line(&["trust is not reloaded", "policy.toml:1"]);
    registry.portcullis(&["trust", "remove", "broken"]).ok().says("in force").says("policy.toml:1");
    assert!(!is_let_in(&machine, &registry, &broken));
}

#[test]
fn files_are_in_force_without_being_asked_for() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let policy = registry.home().join("policy.toml");
    let before = fs::read_to_string(&policy).unwrap();
    let tags = || curl(&machine, &registry, &pair, &[], "/v2/demo/tags/list").status;
    assert_eq!(tags(), 404, "allowed, and nothing there");

    // Without the rule for the CA's clients.
    let (head, rest) = before.split_once("# every client of our own CA").unwrap();
    let (_, tail) = rest.split_once("# every certificate that was pinned").unwrap();
    fs::write(&policy, format!("{head}{tail}")).unwrap();
    assert!(eventually(SOON, || tags() == 403));

    // A broken one is refused, loudly, and the one before stays.
    fs::write(&policy, "[[rule]]\nca = 5\n").unwrap();
    registry.log_line(&["trust is not reloaded", "policy.toml:2"]);
    assert_eq!(tags(), 403);
    registry.portcullis(&["status"]).ok().says("not in force");

    // Restrictions are never held back.
    let other = registry.new_client("ci-8");
    assert!(is_let_in(&machine, &registry, &other));
    registry.portcullis(&["cert", "revoke", "ci-8"]).ok().says("in force").says("policy.toml:2");
    assert!(!is_let_in(&machine, &registry, &other));
    assert!(is_let_in(&machine, &registry, &pair));

    // Moved into place, as editors and configuration management do.
    fs::write(policy.with_extension("new"), &before).unwrap();
    fs::rename(policy.with_extension("new"), &policy).unwrap();
    assert!(eventually(SOON, || tags() == 404));

    let ca = registry.home().join("trust/cas/clients.crt");
    fs::rename(&ca, registry.home().join("clients.crt")).unwrap();
    assert!(eventually(SOON, || !is_let_in(&machine, &registry, &pair)));
    fs::rename(registry.home().join("clients.crt"), &ca).unwrap();
    assert!(eventually(SOON, || is_let_in(&machine, &registry, &pair)));
    assert!(!is_let_in(&machine, &registry, &other), "what was denied meanwhile stays denied");
}

/// The worst day: an expired CA, garbage for a CA and a broken policy at once, and a line of the deny list that nobody can
/// read. What restricts is in force all the same, on connections that are open too.
#[test]
fn revoking_bites_although_everything_else_is_broken() {
    skip_unless!(IP, NSENTER, CURL, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let (lost, denied, good) = (registry.new_client("ci-7"), registry.new_client("ci-8"), registry.new_client("ci-9"));
    let cas = registry.home().join("trust/cas");
    Authority::expired("old CA").pair.write_crt(&cas, "old");
    fs::write(cas.join("garbage.crt"), "garbage").unwrap();
    fs::write(registry.home().join("policy.toml"), "[[rule]\n").unwrap();
    registry.log_line(&["trust is not reloaded", "garbage.crt"]);
    registry.log_line(&["trust is not reloaded", "policy.toml:1"]);

    let request = format!("GET /v2/ HTTP/1.1\r\nHost: {}\r\n\r\n", registry.host()).into_bytes();
    let connected = |pair| {
        let mut connection = rustls_connection(&machine, &registry, pair, &rustls::version::TLS13);
        assert!(connection.ask(&request).unwrap().starts_with("HTTP/1.1 200"));
        connection
    };
    let (mut open, mut other) = (connected(&lost), connected(&good));
    registry.portcullis(&["cert", "revoke", "ci-7"]).ok().says("in force").says("policy.toml:1");
    assert!(!is_let_in(&machine, &registry, &lost));
    // An open connection is judged when it next asks.
    assert!(open.ask(&request).unwrap().starts_with("HTTP/1.1 401"));
    open.ends();
    assert!(is_let_in(&machine, &registry, &good));

    let deny = registry.home().join("trust/deny");
    let lines = fs::read_to_string(&deny).unwrap();
    let mut open = connected(&denied);
    fs::write(&deny, format!("{lines}what is this\n{}\n", openssl::fingerprint_of(&denied.cert))).unwrap();
    assert!(eventually(SOON, || !is_let_in(&machine, &registry, &denied)));
    assert!(open.ask(&request).unwrap().starts_with("HTTP/1.1 401"));
    open.ends();
    assert!(!is_let_in(&machine, &registry, &lost) && is_let_in(&machine, &registry, &good));
    registry.log_line(&["trust is not reloaded", "deny:2"]);
    assert!(other.ask(&request).unwrap().starts_with("HTTP/1.1 200"));
}
