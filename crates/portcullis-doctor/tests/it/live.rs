//! The doctor and a registry: every check D60 to D72 against a server that has the fault.

use crate::machine::{Machine, PLAIN, assert_pasteable, lasting};
use crate::registry::{Clients, Registry, answer, closed_port, ok, start, start_plain, start_with};
use portcullis_doctor::{Reach, Report, VerdictState, examine};
use portcullis_testkit::pki::{Authority, LeafSpec, Pair};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A machine with Podman only: Docker reads no directory for a registry on loopback.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.without("usr/sbin/dockerd");
    machine
}

fn server(machine: &Machine) -> Pair {
    machine.ca.issue(&LeafSpec { not_after: lasting("x").not_after, ..LeafSpec::server(&[], &[LOOPBACK]) })
}

/// A registry that asks for certificates of the machine's CA.
fn mutual(machine: &Machine) -> Registry {
    start(&server(machine), Clients::From(machine.ca.cert_der().to_vec()), ok)
}

/// The machine's files for this registry: its CA, and the pair of a client.
fn files(machine: &mut Machine, host: &str, pair: Option<&Pair>) {
    host.clone_into(&mut machine.target);
    let directory = machine.host_directory(host);
    machine.ca.write_ca(&directory);
    if let Some(pair) = pair {
        pair.write_pair(&directory, "client");
    }
}

fn ask(machine: &Machine) -> Report {
    examine(&machine.facts(Reach::Network))
}

fn codes(report: &Report) -> Vec<&'static str> {
    let worse = report.findings.iter().filter(|finding| finding.severity > portcullis_certs::Severity::Note);
    worse.map(|finding| finding.code).collect()
}

#[track_caller]
fn check(report: &Report, expected: &[&str], said: &[&str]) {
    let text = report.to_text(PLAIN);
    assert_pasteable(report, &text);
    assert_eq!(codes(report), expected, "{text}");
    for said in said {
        assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(said), "{said} in {text}");
    }
}

#[test]
fn all_is_well() {
    let mut machine = machine();
    let registry = mutual(&machine);
    let pair = machine.ca.issue(&lasting("ci-7"));
    files(&mut machine, &registry.host(), Some(&pair));
    let report = ask(&machine);
    check(&report, &[], &["sends client.cert, and is let in", "TLS 1.3", "asks for a client certificate"]);
    assert_eq!(report.verdicts[0].state, VerdictState::Works);
    assert!(!report.refused);
    assert!(registry.presented.load(Ordering::SeqCst) >= 1);
}

/// Portcullis' own client looks at no list and goes on to the next pair; Podman sends the first that fits the list, or nothing.
#[test]
fn who_goes_on_to_the_next_pair() {
    let mut machine = machine();
    let registry = mutual(&machine);
    let expired = machine.ca.issue(&LeafSpec::client("ci-6").expired());
    let pair = machine.ca.issue(&lasting("ci-7"));
    files(&mut machine, &registry.host(), Some(&pair));
    expired.write_pair(&machine.host_directory(&registry.host()), "a");
    let summary = |machine: &Machine| ask(machine).verdicts[0].summary.clone();
    assert_eq!(summary(&machine), "sends a.cert, and is not let in");
    machine.without("usr/bin/podman");
    assert_eq!(summary(&machine), "sends client.cert, and is let in");
    // A stranger's is sent all the same.
    let stranger = Authority::new("somebody").issue(&lasting("ci-8"));
    for name in ["a.cert", "a.key"] {
        std::fs::remove_file(machine.host_directory(&registry.host()).join(name)).unwrap();
    }
    files(&mut machine, &registry.host(), Some(&stranger));
    assert_eq!(summary(&machine), "sends client.cert, and is not let in");
}

#[test]
fn nothing_listens() {
    let mut machine = machine();
    files(&mut machine, &closed_port().to_string(), None);
    check(&ask(&machine), &["D60"], &["connection refused"]);
    machine.target = "no-such-name.invalid:5443".to_owned();
    check(&ask(&machine), &["D60"], &["has no address", "getent hosts no-such-name.invalid"]);
}

#[test]
fn plain_http_on_the_port() {
    let mut machine = machine();
    let address = start_plain("HTTP/1.1 400 Bad Request\r\n\r\n");
    files(&mut machine, &address.to_string(), None);
    check(&ask(&machine), &["D61"], &["answers in plain HTTP", "HTTP/1.1 400 Bad Request"]);
}

#[test]
fn something_that_is_neither() {
    let mut machine = machine();
    let address = start_plain("SSH-2.0-OpenSSH_9\r\n");
    files(&mut machine, &address.to_string(), None);
    check(&ask(&machine), &["D62"], &["there is no TLS handshake"]);
}

#[test]
fn an_old_version_is_only_a_note() {
    let mut machine = machine();
    let clients = Clients::From(machine.ca.cert_der().to_vec());
    let registry = start_with(&server(&machine), clients, ok, &[&rustls::version::TLS12]);
    let pair = machine.ca.issue(&lasting("ci-7"));
    files(&mut machine, &registry.host(), Some(&pair));
    let report = ask(&machine);
    check(&report, &[], &["does not speak TLS 1.3", "agreed on TLS 1.2"]);
}

#[test]
fn an_unknown_ca_is_compared_and_no_pair_is_shown_to_it() {
    let mut machine = machine();
    let stranger = Authority::new("another CA");
    let registry = start(&stranger.server(&[], &[LOOPBACK]), Clients::From(machine.ca.cert_der().to_vec()), ok);
    let pair = machine.ca.issue(&lasting("ci-7"));
    files(&mut machine, &registry.host(), Some(&pair));
    let report = ask(&machine);
    check(&report, &["D66"], &["(AKI)", "`CN=registry CA`", "another name", "no pair was shown to the registry"]);
    assert_eq!(registry.presented.load(Ordering::SeqCst), 0);
}

#[test]
fn a_ca_made_anew_is_recognized() {
    let mut machine = machine();
    let anew = Authority::new("registry CA");
    let registry = start(&anew.server(&[], &[LOOPBACK]), Clients::NotAsked, ok);
    files(&mut machine, &registry.host(), None);
    check(&ask(&machine), &["D66"], &["the same name, another key"]);
}

#[test]
fn another_name_and_an_expired_certificate() {
    let mut machine = machine();
    let registry = start(&machine.ca.server(&["other.test"], &[]), Clients::NotAsked, ok);
    files(&mut machine, &registry.host(), None);
    check(&ask(&machine), &["D63"], &["has no IP address", "it is for: other.test", "subjectAltName = IP:127.0.0.1"]);

    let expired = LeafSpec { dns: vec![], ips: vec![LOOPBACK], ..LeafSpec::server(&[], &[]).expired() };
    let registry = start(&machine.ca.issue(&expired), Clients::NotAsked, ok);
    files(&mut machine, &registry.host(), None);
    check(&ask(&machine), &["D63"], &["certificate expired on", "this machine's clock says"]);
}

#[test]
fn clocks_that_differ() {
    let late = |_: &str| answer(200, "OK", "Date: Tue, 01 Jan 2019 00:00:00 GMT\r\n", "{}");
    let mut machine = machine();
    let registry = start(&server(&machine), Clients::NotAsked, late);
    files(&mut machine, &registry.host(), None);
    check(&ask(&machine), &["D63"], &["minutes ahead of the registry's", "timedatectl status"]);
}

/// That one is missing is said where it is proved: it lies here. Else it may be another CA as well.
#[test]
fn the_intermediate_is_not_sent() {
    let mut machine = machine();
    let issuing = machine.ca.intermediate("issuing CA");
    let full = issuing.issue(&LeafSpec::server(&[], &[LOOPBACK]));
    let registry = start(&full.without_chain(), Clients::NotAsked, ok);
    files(&mut machine, &registry.host(), None);
    check(&ask(&machine), &["D66"], &["if that issuer is an intermediate CA, it leaves the intermediate out"]);
    // The client's chain has it.
    files(&mut machine, &registry.host(), Some(&issuing.issue(&lasting("ci-7"))));
    check(&ask(&machine), &["D64", "D66"], &["does not send the certificate of `CN=issuing CA`", "client.cert has it"]);
    // The same name with another key proves nothing.
    let namesake = machine.ca.intermediate("issuing CA");
    files(&mut machine, &registry.host(), Some(&namesake.issue(&lasting("ci-7"))));
    check(&ask(&machine), &["D66"], &[]);
    let registry = start(&full, Clients::NotAsked, ok);
    files(&mut machine, &registry.host(), None);
    check(&ask(&machine), &[], &[]);
}

#[test]
fn nothing_fits_what_the_registry_asks_for() {
    let mut machine = machine();
    let registry = mutual(&machine);
    let stranger = Authority::new("client CA of somebody").issue(&lasting("ci-7"));
    files(&mut machine, &registry.host(), Some(&stranger));
    let report = ask(&machine);
    check(
        &report,
        &["D67", "D68"],
        &["it takes: CN=registry CA", "issued by `CN=client CA of somebody`", "TLS alert unknown_ca"],
    );
    assert!(report.refused);
    assert!(report.verdicts[0].summary.contains("sends no certificate"));

    files(&mut machine, &registry.host(), None);
    std::fs::remove_file(machine.host_directory(&registry.host()).join("client.cert")).unwrap();
    std::fs::remove_file(machine.host_directory(&registry.host()).join("client.key")).unwrap();
    check(&ask(&machine), &["D67"], &["requires a client certificate, and there is none"]);
}

#[test]
fn the_first_pair_decides_though_the_next_would_do() {
    let mut machine = machine();
    let registry = mutual(&machine);
    let host = registry.host();
    let expired = machine.ca.issue(&LeafSpec::client("a").expired());
    let pair = machine_pair(&machine);
    files(&mut machine, &host, Some(&pair));
    expired.write_pair(&machine.host_directory(&host), "a-old");
    let report = ask(&machine);
    check(&report, &["D68", "D40"], &["TLS alert certificate_expired", "sends a-old.cert, and is not let in"]);
    assert_eq!(report.verdicts[0].state, VerdictState::Fails);
    // Somebody is let in: the registry does not refuse this machine.
    assert!(!report.refused);
}

fn machine_pair(machine: &Machine) -> Pair {
    machine.ca.issue(&lasting("ci-7"))
}

#[test]
fn a_servers_certificate_is_not_a_clients() {
    let mut machine = machine();
    let registry = mutual(&machine);
    let wrong = machine.ca.issue(&LeafSpec { not_after: lasting("x").not_after, ..LeafSpec::server(&["x.test"], &[]) });
    files(&mut machine, &registry.host(), Some(&wrong));
    check(&ask(&machine), &["D68", "D44"], &["TLS alert unsupported_certificate"]);
}

#[test]
fn nobody_asks_for_the_pair() {
    let mut machine = machine();
    let registry = start(&server(&machine), Clients::NotAsked, ok);
    let pair = machine_pair(&machine);
    files(&mut machine, &registry.host(), Some(&pair));
    check(&ask(&machine), &[], &["D71", "asks for no client certificate"]);
}

#[test]
fn a_token_server_is_followed_with_its_own_directory() {
    let challenge = |_: &str| {
        answer(
            401,
            "Unauthorized",
            "WWW-Authenticate: Bearer realm=\"https://no-such-name.invalid/token\",service=\"x\"\r\n",
            "{}",
        )
    };
    let mut machine = machine();
    let registry = start(&server(&machine), Clients::NotAsked, challenge);
    files(&mut machine, &registry.host(), None);
    let report = ask(&machine);
    check(&report, &["D69"], &["sends to no-such-name.invalid, which cannot be reached", "the registry wants a login"]);
}

#[test]
fn a_redirect_for_blobs_is_followed_too() {
    let redirecting = |path: &str| {
        if path.contains("manifests") {
            let digest = format!("sha256:{}", "0".repeat(64));
            return answer(200, "OK", "", &format!("{{\"config\":{{\"digest\":\"{digest}\"}}}}"));
        }
        if path.contains("blobs") {
            return answer(307, "Temporary Redirect", "Location: https://no-such-store.invalid/x\r\n", "");
        }
        ok(path)
    };
    let mut machine = machine();
    let registry = start(&server(&machine), Clients::NotAsked, redirecting);
    files(&mut machine, &registry.host(), None);
    machine.target = format!("{}/team/app:1", registry.host());
    check(&ask(&machine), &["D70"], &["for blobs the registry sends to no-such-store.invalid"]);
}

#[test]
fn known_and_not_allowed() {
    let forbidden = |_: &str| answer(403, "Forbidden", "", "{}");
    let mut machine = machine();
    let registry = start(&server(&machine), Clients::From(machine.ca.cert_der().to_vec()), forbidden);
    let pair = machine_pair(&machine);
    files(&mut machine, &registry.host(), Some(&pair));
    check(&ask(&machine), &["D72"], &["the registry answers 403 with client.cert"]);
}

/// The header of a Portcullis registry in explain mode, which lets every handshake through.
#[test]
fn the_servers_own_reason_is_shown() {
    let reason = |_: &str| answer(401, "Unauthorized", "Portcullis-Reason: revoked: deny:3 \u{202e}\r\n", "{}");
    let mut machine = machine();
    let registry = start(&server(&machine), Clients::From(machine.ca.cert_der().to_vec()), reason);
    let pair = machine_pair(&machine);
    files(&mut machine, &registry.host(), Some(&pair));
    let report = ask(&machine);
    check(&report, &["D68"], &["the registry answered 401: revoked: deny:3"]);
    assert!(!report.to_text(PLAIN).contains('\u{202e}'));
}

#[test]
fn a_product_between_us_and_the_registry() {
    let mut machine = machine();
    let product = Authority::new("Zscaler Root CA");
    let registry = start(&product.server(&[], &[LOOPBACK]), Clients::NotAsked, ok);
    files(&mut machine, &registry.host(), None);
    check(&ask(&machine), &["D66", "D65"], &["issued by CN=Zscaler Root CA", "NO_PROXY"]);
}

/// Podman goes there with the registry's roots, whatever lies in the token server's own directory.
#[test]
fn a_token_server_that_is_there_is_judged_by_the_registrys_directory() {
    // The registry's answer is a plain function: the one port that it needs comes from outside.
    static PORT: std::sync::OnceLock<u16> = std::sync::OnceLock::new();
    let mut machine = machine();
    let elsewhere = Authority::new("CA of the token server");
    let token = start(&elsewhere.server(&["localhost"], &[LOOPBACK]), Clients::NotAsked, ok);
    PORT.set(token.address.port()).unwrap();
    let challenge = |_: &str| {
        let realm = format!("https://127.0.0.1:{}/token", PORT.get().unwrap());
        answer(401, "Unauthorized", &format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"), "{}")
    };
    let registry = start(&server(&machine), Clients::NotAsked, challenge);
    files(&mut machine, &registry.host(), None);
    check(&ask(&machine), &["D69"], &["whose certificate is not trusted"]);
    elsewhere.write_ca(&machine.host_directory(&token.host()));
    check(&ask(&machine), &["D69"], &["whose certificate is not trusted"]);
    elsewhere.pair.write_crt(&machine.host_directory(&registry.host()), "token");
    check(&ask(&machine), &[], &["which is trusted"]);
}

/// What a server chose to be called is shown, and nothing else.
#[test]
fn a_hostile_registry() {
    let mut machine = machine();
    let name = "$(id)\u{1b}[2J\u{202e}";
    let hostile = Authority::new(name);
    let spec = LeafSpec { cn: Some(name.to_owned()), ..LeafSpec::server(&["a.test"], &[]) };
    let said = |_: &str| answer(403, "Forbidden", "", "\u{1b}]0;x\u{7}");
    let registry = start(&hostile.issue(&spec), Clients::From(hostile.cert_der().to_vec()), said);
    files(&mut machine, &registry.host(), None);
    hostile.pair.write_crt(&machine.host_directory(&registry.host()), "hostile");
    let report = ask(&machine);
    let text = report.to_text(PLAIN);
    assert!(text.contains("$(id)\\u{1b}[2J\\u{202e}"), "{text}");
    assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text}");
    for finding in &report.findings {
        if let portcullis_certs::Fix::Run(command) = &finding.fix {
            assert!(!command.to_string().contains("id"), "{command}");
        }
    }
}
