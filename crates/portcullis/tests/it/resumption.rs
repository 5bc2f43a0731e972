//! No session comes back without a verdict: whatever a client keeps of a connection, the next one is a whole handshake.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{ADDRESS, IP, Machine, NSENTER};
use crate::peers::{CURL, OPENSSL, curl_identity};
use crate::process::{DEADLINE, Ran, Running, eventually};
use crate::registry::Registry;

const BOTH: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// One connection of `openssl s_client`, with a request so that a TLS 1.3 ticket has time to come.
fn connect(machine: &Machine, registry: &Registry<'_>, pair: &PairFiles, to: &str, args: &[&str]) -> Ran {
    let request = machine.dir().join("request");
    fs::write(&request, "GET /v2/ HTTP/1.1\r\nHost: registry.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut command = machine.command("openssl");
    command.args(["s_client", "-connect", to, "-ign_eof", "-CAfile"]).arg(registry.ca());
    command.arg("-cert").arg(&pair.cert).arg("-key").arg(&pair.key).args(args);
    command.stdin(fs::File::open(&request).unwrap());
    Running::start(command, &machine.logs()).wait(DEADLINE)
}

/// Twice, with what the first one kept; says whether the second was resumed.
fn is_resumed(machine: &Machine, registry: &Registry<'_>, pair: &PairFiles, to: &str, version: &str) -> bool {
    let kept = machine.dir().join("session.pem");
    let _none_yet = fs::remove_file(&kept);
    let path = kept.display().to_string();
    let first = connect(machine, registry, pair, to, &[version, "-sess_out", &path]).ok().says("New, TLSv1.");
    assert!(first.stdout.contains("HTTP/1."), "{first}");
    if !has_session(&kept) {
        return false;
    }
    let second = connect(machine, registry, pair, to, &[version, "-sess_in", &path]).ok();
    second.stdout.contains("Reused, TLSv1.")
}

fn has_session(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains("BEGIN SSL SESSION PARAMETERS"))
}

#[test]
fn openssl_gets_nothing_to_resume() {
    skip_unless!(IP, NSENTER, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    // A server that does resume shows that this would be seen.
    let mut other = machine.command("openssl");
    let server = registry.home().join("pki/server");
    other.args(["s_server", "-accept", &format!("{ADDRESS}:4433"), "-www", "-cert"]).arg(server.join("server.crt"));
    other.arg("-key").arg(server.join("server.key")).stdin(Stdio::null());
    let _other = Running::start(other, &machine.logs());
    assert!(eventually(DEADLINE, || machine.listens_on(4433)));
    for version in BOTH {
        assert!(is_resumed(&machine, &registry, &pair, &format!("{ADDRESS}:4433"), version), "{version}");
        assert!(!is_resumed(&machine, &registry, &pair, &format!("{ADDRESS}:5443"), version), "{version}");
    }
}

/// curl keeps sessions for as long as it runs: its second connection sends the certificate again.
#[test]
fn curl_shows_its_certificate_each_time() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    for (version, max) in [("TLSv1.2", "1.2"), ("TLSv1.3", "1.3")] {
        let mut command = machine.command("curl");
        command.args(["--verbose", "--http1.1", "--header", "Connection: close", "--tls-max", max]);
        command.args(curl_identity(&registry, Some(&pair))).args([registry.url("/v2/"), registry.url("/v2/")]);
        let ran = crate::process::run(command, &machine.logs(), DEADLINE).ok();
        let shown = format!("{version} (OUT), TLS handshake, Certificate (11)");
        assert_eq!(ran.stderr.matches(&shown).count(), 2, "{ran}");
        assert!(!ran.stderr.to_lowercase().contains("reusing session"), "{ran}");
        assert_eq!(ran.stdout, "{}{}", "{ran}");
    }
}
