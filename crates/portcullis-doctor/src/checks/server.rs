//! D60 to D66: the way to the registry, and the certificate it shows.

use super::issuer::{incomplete_chain, unknown_issuer};
use super::trust::shown;
use super::{Check, without_network};
use crate::diagnosis::{Diagnosis, day};
use crate::facts::{Answer, Contact, Facts, Live, LiveFacts};
use portcullis_certs::{AltName, Certificate, DistinguishedName, KeyType, Severity, ShellCommand, TlsVersion, Visible};
use portcullis_client::Failure;
use portcullis_oci::Endpoint;
use std::io::ErrorKind;
use time::Duration;

/// A difference of clocks that nobody's certificate minds.
const SKEW: Duration = Duration::minutes(5);

/// Words in the names of CAs that belong to programs which look into TLS.
const INTERCEPTORS: [&str; 14] = [
    "zscaler",
    "netskope",
    "fortinet",
    "fortigate",
    "palo alto",
    "blue coat",
    "symantec web",
    "cisco umbrella",
    "sophos",
    "mcafee web",
    "squid",
    "mitmproxy",
    "charles proxy",
    "burp",
];

pub(super) static CHECKS: &[Check] = &[
    Check {
        code: "D60",
        title: "the registry cannot be reached",
        severity: Severity::Fatal,
        why: "no certificate matters before there is a connection",
        text: "First the name is resolved, then each address is connected to. `no such host` is a matter of DNS or of the hosts file, `connection refused` means that nothing listens on this port, a timeout that a firewall drops. Engines' daemons use the proxy of their own environment, not of your shell; this check connects directly.",
        fix: "start the registry, check the name and the port, or set the proxy of the engine's service",
        skip: |facts| match &facts.live {
            Live::NotAsked(reason) => Some(reason),
            Live::Asked(_) => None,
        },
        find: reach,
    },
    Check {
        code: "D61",
        title: "the port speaks plain HTTP",
        severity: Severity::Fatal,
        why: "without TLS there are no certificates at all: everybody on the way can read and change everything",
        text: "Engines say `http: server gave HTTP response to HTTPS client` (Go), `WRONG_VERSION_NUMBER` or `packet length too long` (OpenSSL, curl), `received corrupt message of type InvalidContentType` (rustls). The reverse, HTTPS asked in plain HTTP, is `malformed HTTP response \"\\x15\\x03…\"` or a 400 that says so.",
        fix: "let the registry serve TLS on this port, or ask for the port on which it does",
        skip: without_network,
        find: plain_http,
    },
    Check {
        code: "D62",
        title: "the registry's TLS is old, or there is no version in common",
        severity: Severity::Warning,
        why: "engines need TLS 1.2 with ECDHE and AEAD, or TLS 1.3",
        text: "Docker offers TLS 1.2 with six ECDHE AEAD suites and TLS 1.3; Go no longer speaks 1.0 and 1.1. A server that knows only RSA key exchange or CBC ends with `handshake failure`, one that is older with `protocol version`.",
        fix: "enable TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM, at the registry or at the proxy before it",
        skip: without_network,
        find: versions,
    },
    Check {
        code: "D63",
        title: "the registry's certificate is not for this name, not for now, or not for servers",
        severity: Severity::Fatal,
        why: "engines refuse the registry, whichever CA signed its certificate",
        text: "The name that is typed must be in the subjectAltName: a DNS name as DNS, an address as IP. The common name no longer counts (`relies on legacy Common Name field`), a wildcard covers one label, a port is never part of it. Dates are compared with this machine's clock: the evidence shows the registry's own clock beside it.",
        fix: "issue the registry's certificate again with this name in its subjectAltName, or set the clock",
        skip: without_network,
        find: server_certificate,
    },
    Check {
        code: "D64",
        title: "the registry does not send its intermediate certificate",
        severity: Severity::Fatal,
        why: "engines know the root alone and cannot build the path; browsers fetch or remember the missing one",
        text: "`cert.pem` instead of `fullchain.pem` is the usual cause (moby#31602). It works in a browser and on machines that have the intermediate in their store. The finding names the missing certificate where that is proved by signatures: it lies in a file here, or the registry sends others that do not lead on. A registry that sends one certificate of an issuer that is not here may leave out an intermediate or come from another CA: D66 says so. Putting the intermediate into a .crt of the directory helps one client; the registry should send it.",
        fix: "let the registry send its certificate followed by the intermediate (the full chain)",
        skip: without_network,
        find: incomplete_chain,
    },
    Check {
        code: "D65",
        title: "something on the way may be looking into TLS",
        severity: Severity::Warning,
        why: "a client certificate can never pass a proxy that ends TLS, whatever roots are installed",
        text: "The certificate that arrives was issued by a CA whose name is that of a known interception product, or by another CA than the one in the directory. With interception the registry sees the proxy and not the client, so that mutual TLS fails even when the proxy's CA is trusted.",
        fix: "except the registry from interception, for example with NO_PROXY or in the product's settings",
        skip: without_network,
        find: interception,
    },
    Check {
        code: "D66",
        title: "no CA on this machine leads to the registry's certificate",
        severity: Severity::Fatal,
        why: "engines refuse the registry with `certificate signed by unknown authority`",
        text: "Each certificate of each file was tried as the only root. The evidence shows the issuer that the registry's certificate names, and its authority key identifier beside the subject key identifier of every CA here: the same name with another identifier is a CA that was made anew. A .crt that is not PEM is ignored in silence by Docker and Podman (D26).",
        fix: "get the CA's certificate from whoever runs the registry and put it into the directory as ca.crt",
        skip: without_network,
        find: unknown_issuer,
    },
];

fn reach(facts: &Facts) -> Vec<Diagnosis> {
    let Some(live) = facts.live() else { return Vec::new() };
    let host = facts.target.host.as_str();
    let addresses = match &live.resolved {
        Err(error) => {
            let what = format!("{} has no address", facts.target.host.server_name());
            return vec![proxied(
                facts,
                Diagnosis::new("D60", Severity::Fatal, what).value(error).run([
                    "getent",
                    "hosts",
                    facts.target.host.server_name(),
                ]),
            )];
        }
        Ok(addresses) => addresses,
    };
    if live.connected.iter().any(|(_, reached)| reached.is_ok()) {
        return dead_addresses(facts, live);
    }
    let what = format!("nothing at {host} can be connected to ({} addresses)", addresses.len());
    let mut diagnosis = Diagnosis::new("D60", Severity::Fatal, what);
    for (address, reached) in &live.connected {
        diagnosis = diagnosis.also(format!("{address}: {}", reached.err().map_or("connected", connect_text)));
    }
    vec![proxied(
        facts,
        diagnosis.say("start the registry, check the port in the name, or the firewall between", head(facts)),
    )]
}

/// Engines try all addresses too, but slowly, and some give up.
fn dead_addresses(facts: &Facts, live: &LiveFacts) -> Vec<Diagnosis> {
    let dead: Vec<_> = live.connected.iter().filter_map(|(address, reached)| Some((address, reached.err()?))).collect();
    if dead.is_empty() {
        return Vec::new();
    }
    let what = format!("{} of the registry's addresses do not answer", dead.len());
    let diagnosis = dead.iter().fold(Diagnosis::new("D60", Severity::Note, what), |diagnosis, (address, error)| {
        diagnosis.also(format!("{address}: {}", connect_text(*error)))
    });
    let name = facts.target.host.server_name();
    let text = "remove the addresses that do not answer from DNS, or let the registry listen on them";
    vec![diagnosis.say(text, ShellCommand::new(["getent", "ahosts", name]))]
}

fn proxied(facts: &Facts, diagnosis: Diagnosis) -> Diagnosis {
    if facts.machine.environment.proxy {
        diagnosis.also("HTTPS_PROXY is set: engines may go through the proxy, this check went directly")
    } else {
        diagnosis
    }
}

fn connect_text(error: ErrorKind) -> &'static str {
    match error {
        ErrorKind::ConnectionRefused => "connection refused: nothing listens there",
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "no answer within 3 s",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "no way there",
        _ => "cannot be connected to",
    }
}

fn plain_http(facts: &Facts) -> Vec<Diagnosis> {
    let line = facts.live().and_then(|live| live.plain_http.as_ref());
    line.into_iter()
        .map(|line| {
            let what = format!("{} answers in plain HTTP", facts.target.host);
            Diagnosis::new("D61", Severity::Fatal, what).value(format!("it said: {line}")).say(
                "let the registry serve TLS on this port, or ask for the port on which it does; who answers",
                ShellCommand::new(["curl".to_owned(), "-sI".to_owned(), base("http", facts)]),
            )
        })
        .collect()
}

fn versions(facts: &Facts) -> Vec<Diagnosis> {
    let Some(live) = facts.live() else { return Vec::new() };
    let Some(greeting) = &live.greeting else { return Vec::new() };
    let fix = "enable TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM, at the registry or at the proxy before it";
    if let (true, None, Some(failure)) = (greeting.chain.is_empty(), &live.plain_http, greeting.failure()) {
        let what = format!("there is no TLS handshake: {failure}");
        let at = connect_to(facts);
        let command = ShellCommand::new(["openssl", "s_client", "-connect", at.as_str()]);
        return vec![Diagnosis::new("D62", Severity::Fatal, what).say(fix, command)];
    }
    let refused = |version| live.versions.iter().any(|trial| trial.version == version && trial.result.is_err());
    if refused(TlsVersion::V1_3) {
        let what = "the registry does not speak TLS 1.3";
        let suite = greeting.suite.clone().unwrap_or_default();
        return vec![Diagnosis::new("D62", Severity::Note, what).value(format!("agreed on TLS 1.2, {suite}"))];
    }
    Vec::new()
}

fn server_certificate(facts: &Facts) -> Vec<Diagnosis> {
    let Some(live) = facts.live() else { return Vec::new() };
    let Some(leaf) = shown(live).and_then(<[Certificate]>::first) else { return Vec::new() };
    let mut found: Vec<Diagnosis> = name_fault(facts, leaf).into_iter().collect();
    found.extend(date_fault(facts, leaf));
    if leaf.facts().extended_key_usage.as_ref().is_some_and(|usage| !usage.server_auth && !usage.any) {
        let what = "the registry's certificate is not one for servers (serverAuth is missing)";
        found.push(
            Diagnosis::new("D63", Severity::Fatal, what)
                .value(leaf.facts().subject.to_string())
                .say(
                    "have the registry's certificate issued again with serverAuth in its extended key usage; a Portcullis registry",
                    new_server(facts.target.host.server_name()),
                ),
        );
    }
    found.extend(skew(facts, live));
    found
}

fn name_fault(facts: &Facts, leaf: &Certificate) -> Option<Diagnosis> {
    if leaf.is_for(facts.target.host.server_name()) {
        return None;
    }
    let wanted = facts.target.host.server_name();
    let names = &leaf.facts().alt_names;
    let is_address = wanted.parse::<std::net::IpAddr>().is_ok();
    let usable = names.iter().filter(|name| matches!(name, AltName::Dns(_) | AltName::Ip(_))).map(shown_name);
    let usable: Vec<String> = usable.collect();
    let what = match (usable.as_slice(), leaf.facts().subject.common_name()) {
        ([], Some(common)) => format!(
            "the registry's certificate has no subjectAltName, only the common name {}, which no longer counts",
            Visible(common)
        ),
        ([], None) => "the registry's certificate is for no name at all".to_owned(),
        _ if is_address && !names.iter().any(|name| matches!(name, AltName::Ip(_))) => {
            format!("the registry's certificate has no IP address, so it is not for {wanted}")
        }
        _ => format!("the registry's certificate is not for {wanted}"),
    };
    let kind = if is_address { "IP" } else { "DNS" };
    Some(
        Diagnosis::new("D63", Severity::Fatal, what)
            .value(format!("it is for: {}", if usable.is_empty() { "nothing".to_owned() } else { usable.join(", ") }))
            .say(
                format!("issue the registry's certificate again with `subjectAltName = {kind}:{wanted}`; a Portcullis registry"),
                new_server(wanted),
            ),
    )
}

fn shown_name(name: &AltName) -> String {
    match name {
        AltName::Dns(text) | AltName::Email(text) | AltName::Uri(text) | AltName::Other(text) => {
            Visible(text).to_string()
        }
        AltName::Ip(address) => address.to_string(),
    }
}

fn date_fault(facts: &Facts, leaf: &Certificate) -> Option<Diagnosis> {
    let (from, until) = (leaf.facts().not_before, leaf.facts().not_after);
    let what = if facts.now > until {
        format!("the registry's certificate expired on {}", day(until))
    } else if facts.now < from {
        format!("the registry's certificate is not valid before {}", day(from))
    } else {
        return None;
    };
    let theirs = facts.live().and_then(server_clock).map(|date| format!(", the registry's {}", day(date)));
    Some(
        Diagnosis::new("D63", Severity::Fatal, what)
            .value(format!("this machine's clock says {}{}", day(facts.now), theirs.unwrap_or_default()))
            .say(
                "if this machine's clock is wrong, set it; else have the registry's certificate renewed; a Portcullis registry",
                ShellCommand::new(["portcullis", "maintain"]),
            ),
    )
}

fn skew(facts: &Facts, live: &LiveFacts) -> Option<Diagnosis> {
    let theirs = server_clock(live)?;
    let off = facts.now - theirs;
    (off.abs() > SKEW).then(|| {
        let (minutes, side) = (off.abs().whole_minutes(), if off.is_positive() { "ahead of" } else { "behind" });
        Diagnosis::new(
            "D63",
            Severity::Warning,
            format!("this machine's clock is {minutes} minutes {side} the registry's"),
        )
        .value(format!("here {}, there {}", day(facts.now), day(theirs)))
        .run(["timedatectl", "status"])
    })
}

fn server_clock(live: &LiveFacts) -> Option<time::OffsetDateTime> {
    let contacts = live.pairs.iter().filter_map(|trial| trial.contact.as_ref()).chain(&live.greeting);
    contacts.filter_map(Contact::answer).find_map(|answer: &Answer| answer.date)
}

fn interception(facts: &Facts) -> Vec<Diagnosis> {
    let Some(chain) = facts.live().and_then(shown) else { return Vec::new() };
    let names = chain.iter().map(|certificate| certificate.facts().issuer.to_string());
    let found = names.into_iter().find(|name| {
        let lower = name.to_ascii_lowercase();
        INTERCEPTORS.iter().any(|word| lower.contains(word))
    });
    found
        .map(|issuer| {
            Diagnosis::new("D65", Severity::Warning, "the certificate that arrives is not the registry's own")
                .value(format!("issued by {issuer}"))
                .say(
                    "except the registry from interception, in the product's settings or in the environment of the engine",
                    ShellCommand::new(["export".to_owned(), format!("NO_PROXY={}", facts.target.host.server_name())]),
                )
        })
        .into_iter()
        .collect()
}

fn base(scheme: &str, facts: &Facts) -> String {
    format!("{scheme}://{}{}", facts.target.host, Endpoint::Base.to_request().1)
}

/// What an engine would ask first.
pub(super) fn head(facts: &Facts) -> ShellCommand {
    ShellCommand::new(["curl".to_owned(), "-vI".to_owned(), base("https", facts)])
}

/// `host:port`, with the brackets of IPv6.
pub(super) fn connect_to(facts: &Facts) -> String {
    let host = &facts.target.host;
    if host.port().is_some() { host.to_string() } else { format!("{host}:443") }
}

fn new_server(name: &str) -> ShellCommand {
    ShellCommand::new(["portcullis", "cert", "new", "server", "--name", name])
}

/// What a person may want to know of the registry's certificate and connection.
pub(crate) fn described(contact: &Contact) -> Option<String> {
    let leaf = contact.chain.first()?;
    let version = match contact.version {
        Some(TlsVersion::V1_2) => "TLS 1.2",
        Some(TlsVersion::V1_3) => "TLS 1.3",
        None => "no TLS",
    };
    let asks = match &contact.request {
        None => "asks for no client certificate".to_owned(),
        Some(request) if request.authorities.is_empty() => "asks for a client certificate of any CA".to_owned(),
        Some(request) => format!("asks for a client certificate of {}", authorities(&request.authorities)),
    };
    let weak = matches!(leaf.facts().key, KeyType::Rsa { bits } if bits < 2048);
    let key = if weak { ", weak key" } else { "" };
    let parts = [contact.suite.as_deref(), contact.group.as_deref()];
    let agreed: Vec<&str> = parts.into_iter().flatten().collect();
    Some(format!(
        "{version} ({}), certificate `{}` until {}{key}, {asks}",
        agreed.join(", "),
        leaf.facts().subject,
        day(leaf.facts().not_after)
    ))
}

/// The first names of a list, and how many more there are.
fn authorities(all: &[Vec<u8>]) -> String {
    const SHOWN: usize = 3;
    let name =
        |der: &Vec<u8>| DistinguishedName::from_der(der).map_or("an unreadable name".to_owned(), |n| n.to_string());
    let names: Vec<String> = all.iter().take(SHOWN).map(name).collect();
    match all.len().saturating_sub(SHOWN) {
        0 => format!("`{}`", names.join("`, `")),
        more => format!("`{}` and {more} more", names.join("`, `")),
    }
}

/// Whether a conversation failed because of the client certificate, or the lack of one.
pub(crate) fn is_refusal(failure: &Failure) -> bool {
    failure.is_about_identity()
}
