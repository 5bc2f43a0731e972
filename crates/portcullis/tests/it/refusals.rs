//! Everyone else is refused: with the exact alert, whichever client asks, and with a line in the log that says who.

use std::fs;
use std::path::PathBuf;

use portcullis_testkit::image::Image;
use portcullis_testkit::pki::{Authority, LeafSpec, PairFiles, openssl, recipe_shaped};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use rustls::SupportedProtocolVersion;

use crate::netns::{ADDRESS, IP, Machine, NSENTER};
use crate::peers::{CURL, OPENSSL, SKOPEO, curl, curl_identity, ping_request, rustls_connection, s_client};
use crate::registry::{PORTCULLIS, Registry};

/// Somebody who is refused.
struct Stranger {
    name: &'static str,
    /// `None`: shows no certificate.
    pair: Option<PairFiles>,
    /// TLS's number of the alert (RFC 8446 §6, RFC 5246 §7.2).
    alert: u8,
    /// As OpenSSL, and with it curl, names it.
    in_openssl: &'static str,
    /// As RFC 8446 spells it, and our client with it.
    in_rfc: &'static str,
    /// As Go's clients (docker, podman, skopeo) name it. They show no certificate whose issuer the registry did not ask
    /// for, hence `certificate required` for another CA's.
    in_go: &'static str,
}

/// One of each kind, and the trust they are measured against: a CA of the tests' own, a pin.
struct Strangers {
    good: PairFiles,
    all: Vec<Stranger>,
}

fn strangers(machine: &Machine, registry: &Registry<'_>) -> Strangers {
    let dir = |name: &str| -> PathBuf { machine.subdir(name) };
    let ca = Authority::new("tests' client CA");
    ca.pair.write_crt(&dir("trusted"), "ca");
    registry.portcullis(&["trust", "add", "trusted/ca.crt", "--as", "ca", "--name", "tests"]).ok();
    let pinned = recipe_shaped("pinned");
    pinned.write_crt(&dir("trusted"), "pin");
    registry.portcullis(&["trust", "add", "trusted/pin.crt", "--as", "pin", "--name", "pinned"]).ok();

    let stranger = |name: &'static str, pair: PairFiles, alert, in_openssl: &'static str, in_go| Stranger {
        name,
        pair: Some(pair),
        alert,
        in_openssl,
        in_rfc: match alert {
            43 => "unsupported_certificate",
            45 => "certificate_expired",
            _ => "unknown_ca",
        },
        in_go,
    };
    let other = Authority::new("another CA").client("eve").write_pair(&dir("other"), "client");
    let expired = ca.issue(&LeafSpec::client("late").expired()).write_pair(&dir("expired"), "client");
    let early = ca.issue(&LeafSpec::client("early").not_yet_valid()).write_pair(&dir("early"), "client");
    let server = ca.issue(&LeafSpec::client("web").server_auth_only()).write_pair(&dir("server-only"), "client");
    let child = pinned.mint(&LeafSpec::client("mallory")).write_pair(&dir("child"), "client");
    let unpinned = recipe_shaped("unpinned").write_pair(&dir("unpinned"), "client");
    let nobody = Stranger {
        name: "no certificate",
        pair: None,
        alert: 116,
        in_openssl: "certificate required",
        in_rfc: "certificate_required",
        in_go: "certificate required",
    };
    let all = vec![
        nobody,
        stranger("another CA's", other, 48, "unknown ca", "certificate required"),
        stranger("expired", expired, 45, "certificate expired", "expired certificate"),
        stranger("not yet valid", early, 45, "certificate expired", "expired certificate"),
        stranger("serverAuth only", server, 43, "unsupported certificate", "unsupported certificate"),
        stranger("child of a pin", child, 48, "unknown ca", "unknown certificate authority"),
        stranger("unpinned recipe", unpinned, 48, "unknown ca", "certificate required"),
    ];
    Strangers { good: ca.client("good").write_pair(&dir("good"), "client"), all }
}

#[test]
fn every_stranger_sees_the_exact_alert() {
    skip_unless!(IP, NSENTER, OPENSSL, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let strangers = strangers(&machine, &registry);
    let request = ping_request(&registry);

    let let_in = s_client(&machine, &registry, Some(&strangers.good), &[], &request);
    assert!(let_in.stdout.starts_with("HTTP/1.1 200"), "{let_in}");
    assert_eq!(curl(&machine, &registry, &strangers.good, &[], "/v2/").status, 200);

    for stranger in &strangers.all {
        eprintln!("{}", stranger.name);
        let refused = s_client(&machine, &registry, stranger.pair.as_ref(), &[], &request);
        assert!(!refused.stdout.contains("HTTP/"), "{refused}");
        let refused = refused.says(&format!("SSL alert number {}", stranger.alert)).says(stranger.in_openssl);
        drop(refused);

        let mut command = machine.command("curl");
        command.args(["--silent", "--show-error"]).args(curl_identity(&registry, stranger.pair.as_ref()));
        command.arg(registry.url("/v2/"));
        let refused = crate::process::run(command, &machine.logs(), crate::process::DEADLINE).fails();
        refused.says(&format!("alert {}", stranger.in_openssl));
    }
}

/// In TLS 1.2 the refusal comes inside the handshake, with the same alert. Only "no certificate" has none of its own there.
#[test]
fn tls_1_2_clients_see_the_same_alerts() {
    skip_unless!(IP, NSENTER, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let strangers = strangers(&machine, &registry);
    let request = ping_request(&registry);
    let let_in = s_client(&machine, &registry, Some(&strangers.good), &["-tls1_2"], &request);
    assert!(let_in.stdout.starts_with("HTTP/1.1 200"), "{let_in}");
    for stranger in strangers.all.iter().filter(|stranger| stranger.pair.is_some()) {
        eprintln!("{}", stranger.name);
        let refused = s_client(&machine, &registry, stranger.pair.as_ref(), &["-tls1_2"], &request);
        refused.says(&format!("SSL alert number {}", stranger.alert));
    }
    let refused = s_client(&machine, &registry, None, &["-tls1_2"], &request);
    assert!(!refused.stdout.contains("HTTP/"), "{refused}");
    refused.says("SSL alert number");
}

#[test]
fn our_client_and_go_clients_say_what_was_refused() {
    skip_unless!(IP, NSENTER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let strangers = strangers(&machine, &registry);
    let reference = registry.reference("demo/app:1");
    for stranger in &strangers.all {
        eprintln!("{}", stranger.name);
        let dir = machine.subdir(&format!("certs/{}", stranger.name.replace(' ', "-")));
        fs::copy(registry.ca(), dir.join("ca.crt")).unwrap();
        if let Some(pair) = &stranger.pair {
            registry.fill_certs(&dir, pair);
        }
        let dir = dir.to_str().unwrap();
        let skopeo = machine.run("skopeo", &["inspect", "--cert-dir", dir, &format!("docker://{reference}")]).fails();
        skopeo.says(&format!("tls: {}", stranger.in_go));
        let ours = machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci:out", "--cert-dir", dir]).exits(3);
        ours.says(stranger.in_rfc);
    }
}

/// A client, and the versions of TLS it can be held to.
#[derive(Debug, Clone, Copy)]
enum Knocks {
    Openssl(&'static str),
    Curl(&'static [&'static str]),
    Rustls(&'static SupportedProtocolVersion),
    /// Go 1.14 took away the setting (`GODEBUG=tls13=0`) that held its programs to TLS 1.2: there is TLS 1.3 only.
    Skopeo,
    /// As it comes: nothing holds it to a version either.
    Ours,
}

/// A pin's key signs for nobody: whoever asks, in either version of TLS, with the pin's own certificate behind the
/// minted one or without it.
#[test]
fn nobody_is_minted_from_a_pin() {
    skip_unless!(IP, NSENTER, OPENSSL, CURL, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pinned = recipe_shaped("pinned");
    pinned.write_crt(&machine.subdir("trusted"), "pin");
    registry.portcullis(&["trust", "add", "trusted/pin.crt", "--as", "pin", "--name", "pinned"]).ok();
    let own = pinned.write_pair(&machine.subdir("own"), "client");
    let clients = [
        Knocks::Openssl("-tls1_2"),
        Knocks::Openssl("-tls1_3"),
        Knocks::Curl(&["--tlsv1.2", "--tls-max", "1.2"]),
        Knocks::Curl(&["--tlsv1.3"]),
        Knocks::Rustls(&rustls::version::TLS12),
        Knocks::Rustls(&rustls::version::TLS13),
        Knocks::Skopeo,
        Knocks::Ours,
    ];
    for (number, client) in clients.into_iter().enumerate() {
        let said = client.knock(&machine, &registry, &own);
        assert!(!client.is_refused(&said), "the pin itself, {client:?}: {said}");
        for with_pin in [false, true] {
            // One for each, so that its line in the log is its own.
            let minted = pinned.mint(&LeafSpec::client("mallory"));
            let mut files = minted.write_pair(&machine.subdir(&format!("minted-{number}-{with_pin}")), "client");
            let fingerprint = openssl::fingerprint_of(&files.cert);
            if with_pin {
                let chain = files.cert.with_file_name("chain.cert");
                files.cert = openssl::bundle(&chain, &[&files.cert, &own.cert]);
            }
            let said = client.knock(&machine, &registry, &files);
            assert!(client.is_refused(&said), "{client:?}, with the pin: {with_pin}: {said}");
            registry.log_line(&[
                "WARN",
                "client certificate refused",
                &fingerprint,
                "issued by the pinned certificate pin:pinned",
            ]);
        }
    }
}

impl Knocks {
    /// What it says when it knocks with this pair.
    fn knock(self, machine: &Machine, registry: &Registry<'_>, pair: &PairFiles) -> String {
        let reference = registry.reference("demo/app:1");
        let certs = || {
            let dir = pair.cert.with_extension("certs.d");
            registry.fill_certs(&dir, pair);
            dir.display().to_string()
        };
        match self {
            Self::Openssl(version) => {
                s_client(machine, registry, Some(pair), &[version], &ping_request(registry)).said()
            }
            Self::Curl(version) => {
                let mut command = machine.command("curl");
                command.args(["--silent", "--show-error", "--include"]).args(version);
                command.args(curl_identity(registry, Some(pair))).arg(registry.url("/v2/"));
                crate::process::run(command, &machine.logs(), crate::process::DEADLINE).said()
            }
            Self::Rustls(version) => rustls_says(machine, registry, pair, version),
            Self::Skopeo => {
                let from = format!("docker://{reference}");
                machine.run("skopeo", &["inspect", "--cert-dir", &certs(), &from]).said()
            }
            Self::Ours => {
                machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci:out", "--cert-dir", &certs()]).said()
            }
        }
    }

    /// Whether it read the alert `unknown_ca`, and nothing that an HTTP server says.
    fn is_refused(self, said: &str) -> bool {
        let alert = match self {
            Self::Openssl(_) => "SSL alert number 48",
            Self::Curl(_) => "alert unknown ca",
            Self::Rustls(_) => "AlertReceived(UnknownCA)",
            Self::Skopeo => "tls: unknown certificate authority",
            Self::Ours => "unknown_ca",
        };
        said.contains(alert) && !said.contains("HTTP/")
    }
}

/// One request with rustls held to this version: the answer's first bytes, or the error.
fn rustls_says(
    machine: &Machine,
    registry: &Registry<'_>,
    pair: &PairFiles,
    version: &'static SupportedProtocolVersion,
) -> String {
    let answer = rustls_connection(machine, registry, pair, version).ask(&ping_request(registry));
    answer.unwrap_or_else(|error| format!("{error:?}"))
}

/// What an operator needs to know who knocked: peer, subject, issuer, fingerprint, reason.
#[test]
fn each_refusal_is_a_warning_in_the_log() {
    skip_unless!(IP, NSENTER, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let strangers = strangers(&machine, &registry);
    let request = ping_request(&registry);
    let peer = format!("{ADDRESS}:");
    for stranger in &strangers.all {
        eprintln!("{}", stranger.name);
        s_client(&machine, &registry, stranger.pair.as_ref(), &[], &request);
        let Some(pair) = &stranger.pair else {
            registry.log_line(&["WARN", &peer, "reason", "no client certificate"]);
            continue;
        };
        let fingerprint = openssl::fingerprint_of(&pair.cert);
        let name = |what: &str| {
            let line = openssl::run(machine.dir(), &["x509", "-in", pair.cert.to_str().unwrap(), "-noout", what]);
            let line = String::from_utf8(line).unwrap();
            line.trim().rsplit(" = ").next().unwrap().to_owned()
        };
        let line = registry.log_line(&["WARN", &peer, &fingerprint]);
        assert!(line.contains(&name("-subject")) && line.contains(&name("-issuer")), "{line}");
        assert!(line.contains("reason"), "{line}");
    }
}

/// A client that is still sending when it is refused must read the alert, not a reset: it is what tells its user why.
#[test]
fn three_hundred_refused_posts_see_the_alert() {
    const POSTS: usize = 300;
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let stranger = Authority::new("another CA").client("eve").write_pair(&machine.subdir("other"), "client");
    fs::write(machine.dir().join("body"), vec![b'x'; 1 << 20]).unwrap();
    let url = registry.url(&format!("/v2/demo/app/blobs/uploads/?post=[1-{POSTS}]"));
    let mut command = machine.command("curl");
    // Without `Expect:` curl sends the body at once instead of waiting for `100 Continue`.
    command.args(["--silent", "--show-error", "--http1.1", "--header", "Expect:", "--data-binary", "@body"]);
    command.args(curl_identity(&registry, Some(&stranger))).arg(url);
    let refused = crate::process::run(command, &machine.logs(), crate::process::DEADLINE).fails();
    let alerts = refused.stderr.lines().filter(|line| line.contains("alert unknown ca")).count();
    assert_eq!(alerts, POSTS, "{refused}");
}

/// What Docker's page promises and no engine does: the second certificate is tried when the first is refused.
#[test]
fn the_second_pair_is_tried_when_the_first_is_refused() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let good = registry.new_client("ci-7");
    let dir = machine.docker_certs("registry.test:5443");
    registry.fill_certs(&dir, &good);
    Authority::new("another CA").client("eve").write_pair(&dir, "a-refused");
    Image::new(13, &[1000]).write_layout(&machine.dir().join("layout"), "v1");
    let reference = registry.reference("demo/app:1");
    machine.run(PORTCULLIS, &["push", "oci:layout:v1", &reference]).ok().says("client.cert");
    machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci:out"]).ok();
    registry.log_line(&["WARN", "CN=eve"]);

    // When every pair is refused, each is listed with its reason.
    fs::remove_file(dir.join("client.cert")).unwrap();
    fs::remove_file(dir.join("client.key")).unwrap();
    Authority::new("a third CA").client("zoe").write_pair(&dir, "b-refused");
    let refused = machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci:out"]).exits(3);
    refused.says("a-refused").says("b-refused").says("unknown_ca");
}
