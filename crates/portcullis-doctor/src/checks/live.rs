//! D67 to D72: the client certificate at the registry, and the hosts that the registry sends to.

use super::issuer::into_directory;
use super::server::{head, is_refusal};
use super::{Check, without_network};
use crate::diagnosis::{Diagnosis, name};
use crate::facts::{Answer, Contact, ContactEnd, EngineFacts, Facts, LiveFacts, OtherHost, PairTrial, verdict};
use portcullis_certs::{
    Certificate, CertificateRequest, Choice, DistinguishedName, Elsewhere, EngineProfile, LoadedPair, Severity,
    ShellCommand, Skipped, TlsVersion,
};
use portcullis_client::{Distrust, Failure};
use portcullis_tls::{RecordedRequest, Roots};
use std::ffi::OsString;
use std::path::Path;

/// CA names of a CertificateRequest that are shown.
const MAX_NAMES: usize = 8;

pub(super) static CHECKS: &[Check] = &[
    Check {
        code: "D67",
        title: "the registry asks for a client certificate, and nothing that is here will be sent",
        severity: Severity::Fatal,
        why: "Go clients send a pair only when one of its issuers is in the list that the server sends, and say nothing otherwise",
        text: "The evidence shows the CA names that the registry lists and the issuer of each pair here. Docker, Podman, containerd and buildkit compare them byte for byte; when none matches they send an empty certificate and get `certificate required` (or `handshake failure` in TLS 1.2). curl and rustls send what they have: that is why curl works where Docker does not.",
        fix: "install a pair issued by a CA in the list, with its intermediate in the .cert; or have the registry trust your CA",
        skip: without_network,
        find: nothing_sent,
    },
    Check {
        code: "D68",
        title: "the registry refused the client certificate",
        severity: Severity::Fatal,
        why: "the handshake ends with an alert of the registry's, which names its reason in one word",
        text: "`remote error` means that the registry refused us; a message without it means that we refused the registry. In TLS 1.3 the alert comes after our own handshake is complete, so it can look like an error of the request. Each pair was tried apart: unknown ca (another CA, or the intermediate is missing), expired certificate (also: not valid yet), revoked certificate, unsupported certificate (no clientAuth), certificate required (nothing was sent), bad certificate (older servers, for anything).",
        fix: "renew or replace the pair, or have the registry trust it: the registry's log has the reason",
        skip: without_network,
        find: refused,
    },
    Check {
        code: "D69",
        title: "the registry sends clients to a token server on another host",
        severity: Severity::Warning,
        why: "that host has another certificate, and which directory counts for it differs from engine to engine",
        text: "Docker, Podman and containerd use the registry's own roots and client certificates for the token server, and never read that host's directory; Portcullis' own client reads that host's directory and shows it nothing of the registry's; buildx fetches the token with the roots of the client's machine. Docker 29.0 to 29.4 with containerd's store used none at all (D84).",
        fix: "put the CA of the token server into the registry's directory; for Portcullis' own client make a directory for the token server",
        skip: without_network,
        find: token_server,
    },
    Check {
        code: "D70",
        title: "the registry redirects to another host for blobs",
        severity: Severity::Warning,
        why: "layers come from a host with another certificate: `docker pull` fails after the manifest",
        text: "Registries with an object store answer a blob request with a redirect to the store. Its certificate must be trusted too. Docker, Podman and containerd use the registry's roots for it and offer it the registry's client certificate; Portcullis' own client reads that host's own directory. Whether a blob is redirected was asked with the image that you named.",
        fix: "put that host's CA into the registry's directory, or turn redirects off at the registry",
        skip: |facts| {
            without_network(facts).or(match facts.target.repository {
                Some(_) => None,
                None => Some("no image was named: add /NAME:TAG to the host"),
            })
        },
        find: redirected,
    },
    Check {
        code: "D71",
        title: "the registry asks for no client certificate although there are pairs for it",
        severity: Severity::Note,
        why: "the pairs are never used: whoever gets through does so without a certificate",
        text: "A server asks with a CertificateRequest, or does not; a client cannot offer a certificate by itself. A proxy or load balancer before the registry that ends TLS is the usual reason. Servers that ask after the handshake, in TLS 1.2 renegotiation, are not supported by Go.",
        fix: "nothing to do if no client certificate is meant; else turn client authentication on where TLS ends",
        skip: without_network,
        find: not_asked,
    },
    Check {
        code: "D72",
        title: "the certificate is accepted, but the registry answers 401 or 403",
        severity: Severity::Fatal,
        why: "the identity is known and has no right, or the registry wants a login beside the certificate",
        text: "The handshake worked, so certificates are not the problem. 401 with a Bearer or Basic challenge means that a login is wanted too (`docker login`); 403 means that this identity may not. A Portcullis registry in explain mode says in `Portcullis-Reason` what it has against the certificate, and on its own host `portcullis why FINGERPRINT` tells which rule decided.",
        fix: "log in, or have the registry's policy allow this identity",
        skip: without_network,
        find: denied,
    },
];

/// What an engine sends when the registry asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent<'a> {
    /// This pair.
    Pair(&'a LoadedPair),
    /// No pair fits the list.
    NoneFits(Vec<Skipped>),
    /// There is no pair.
    NoPair,
    /// The registry does not ask.
    NotAsked,
}

/// What this engine sends to the registry as it asked in the first conversation.
pub(crate) fn sends<'a>(engine: &'a EngineFacts, facts: &Facts) -> Option<Sent<'a>> {
    let live = facts.live()?;
    let greeting = live.greeting.as_ref().filter(|greeting| !greeting.chain.is_empty())?;
    let endpoint = engine.prediction.registry()?;
    let Some(request) = &greeting.request else { return Some(Sent::NotAsked) };
    if endpoint.pairs.is_empty() {
        return Some(Sent::NoPair);
    }
    if engine.profile.name == EngineProfile::DOCKER_DOCS.name {
        return endpoint.pairs.iter().find(|pair| is_taken(pair, live)).or(endpoint.pairs.first()).map(Sent::Pair);
    }
    let request = CertificateRequest {
        version: greeting.version.unwrap_or(TlsVersion::V1_3),
        schemes: &request.schemes,
        authorities: &request.authorities,
    };
    Some(match endpoint.choose(&request) {
        Choice::Sends { pair, .. } => Sent::Pair(pair),
        Choice::SendsNothing { skipped } => Sent::NoneFits(skipped),
    })
}

/// Our own client looks at no list, and goes on to the next pair when one is refused: the first that is let in counts.
fn is_taken(pair: &LoadedPair, live: &LiveFacts) -> bool {
    live.pairs.iter().any(|trial| trial.pair.cert_path == pair.cert_path && is_let_in(trial))
}

/// Whether the registry let this pair in.
pub(crate) fn is_let_in(trial: &PairTrial) -> bool {
    trial.contact.as_ref().and_then(Contact::answer).is_some_and(|answer| answer.status == 200)
}

/// Whether the registry turns away who shows no certificate.
pub(crate) fn requires(live: &LiveFacts) -> bool {
    live.greeting.as_ref().is_some_and(|greeting| greeting.request.is_some() && is_turned_away(greeting))
}

fn is_turned_away(contact: &Contact) -> bool {
    match &contact.end {
        ContactEnd::Failed(failure) => is_refusal(failure) || *failure == Failure::Closed,
        ContactEnd::Answered(answer) => is_about_certificate(answer),
    }
}

/// nginx says 400, 495 or 496; a Portcullis registry in explain mode says its reason.
fn is_about_certificate(answer: &Answer) -> bool {
    let says = |text: &str| answer.body_shown().to_ascii_lowercase().contains(text);
    matches!(answer.status, 495 | 496)
        || answer.reason.is_some()
        || (answer.status == 400 && (says("ssl certificate") || says("required certificate")))
}

fn nothing_sent(facts: &Facts) -> Vec<Diagnosis> {
    let Some(live) = facts.live() else { return Vec::new() };
    let Some(request) = live.greeting.as_ref().and_then(|greeting| greeting.request.as_ref()) else {
        return Vec::new();
    };
    let must = requires(live);
    let severity = if must { Severity::Fatal } else { Severity::Warning };
    let mut found = Vec::new();
    let none: Vec<&'static str> = by(facts, |sent| *sent == Sent::NoPair);
    if must && !none.is_empty() {
        let what = format!("{} requires a client certificate, and there is none for it", facts.target.host);
        let diagnosis = Diagnosis::new("D67", severity, what).for_engines(none);
        let host = facts.target.host.as_str();
        found.push(listed(diagnosis, request).say(
            "get a certificate with its key from whoever runs the registry, in a directory DIR",
            ShellCommand::new(["portcullis", "install", host, "--from", "DIR"]),
        ));
    }
    let unfit: Vec<&'static str> = by(facts, |sent| matches!(sent, Sent::NoneFits(_)));
    if !unfit.is_empty() {
        let what = "the registry asks for a client certificate, and no pair here fits its list";
        let mut diagnosis = listed(Diagnosis::new("D67", severity, what).for_engines(unfit), request);
        let all = pairs(facts);
        for trial in &all {
            let issuers: Vec<String> = trial.chain.iter().map(|c| c.facts().issuer.to_string()).collect();
            diagnosis = diagnosis.at(&trial.cert_path).value(format!("issued by `{}`", issuers.join("`, `")));
        }
        let text =
            "append the intermediate CA's certificate to the .cert, or ask for a certificate of a CA in the list";
        let first = all.first().map_or_else(|| Path::new("."), |pair| pair.cert_path.as_path());
        found.push(diagnosis.say_of(first, text));
    }
    found
}

fn by(facts: &Facts, wanted: impl Fn(&Sent<'_>) -> bool) -> Vec<&'static str> {
    let engines = facts.engines.iter().filter(|engine| sends(engine, facts).is_some_and(|sent| wanted(&sent)));
    engines.map(|engine| engine.profile.name).collect()
}

/// Every pair that an engine loads, once.
fn pairs(facts: &Facts) -> Vec<&LoadedPair> {
    let mut all: Vec<&LoadedPair> = Vec::new();
    for pair in facts.engines.iter().filter_map(|engine| engine.prediction.registry()).flat_map(|e| &e.pairs) {
        if !all.iter().any(|known| known.cert_path == pair.cert_path) {
            all.push(pair);
        }
    }
    all
}

fn listed(diagnosis: Diagnosis, request: &RecordedRequest) -> Diagnosis {
    if request.authorities.is_empty() {
        return diagnosis.also("it lists no CA: any certificate is sent");
    }
    let shown = request.authorities.iter().take(MAX_NAMES).map(|der| DistinguishedName::from_der(der));
    let mut diagnosis = diagnosis;
    for listed in shown {
        diagnosis =
            diagnosis.also(format!("it takes: {}", listed.map_or("an unreadable name".to_owned(), |n| n.to_string())));
    }
    match request.authorities.len().saturating_sub(MAX_NAMES) {
        0 => diagnosis,
        more => diagnosis.also(format!("and {more} more")),
    }
}

fn refused(facts: &Facts) -> Vec<Diagnosis> {
    let Some(live) = facts.live() else { return Vec::new() };
    let mut found: Vec<Diagnosis> = live.pairs.iter().filter_map(|trial| refusal(trial, facts)).collect();
    if live.pairs.is_empty() && !pairs(facts).is_empty() && requires(live) {
        let what = "no pair was shown to the registry, because nothing here trusts its certificate";
        found.push(
            Diagnosis::new("D68", Severity::Note, what)
                .say("mend what is wrong with the registry's certificate first, then ask again", again(facts)),
        );
    }
    found
}

fn refusal(trial: &PairTrial, facts: &Facts) -> Option<Diagnosis> {
    let contact = trial.contact.as_ref().filter(|contact| is_turned_away(contact))?;
    let (said, fix) = match &contact.end {
        ContactEnd::Failed(failure) => (failure.to_string(), failure.advice().unwrap_or("the registry's log says why")),
        ContactEnd::Answered(answer) => {
            let reason = answer.reason.clone().unwrap_or_else(|| answer.body_shown());
            (format!("the registry answered {}: {reason}", answer.status), "the registry's log says why")
        }
    };
    let first: Vec<&'static str> =
        by(facts, |sent| matches!(sent, Sent::Pair(pair) if pair.cert_path == trial.pair.cert_path));
    // Engines that send another pair are not hurt by this one.
    let severity = if first.is_empty() { Severity::Warning } else { Severity::Fatal };
    let what = format!("{}: {}", name(&trial.pair.cert_path), portcullis_certs::Visible(&said));
    let mut diagnosis = Diagnosis::new("D68", severity, what).for_engines(first).at(&trial.pair.cert_path);
    if let Some(leaf) = trial.pair.chain.first() {
        diagnosis = diagnosis.value(format!("`{}`, issued by `{}`", leaf.facts().subject, leaf.facts().issuer));
    }
    for decision in facts.decisions.iter().filter(|decision| decision.cert_path == trial.pair.cert_path) {
        diagnosis = diagnosis.also(format!("the server says: {}", decision.text));
    }
    let all = facts.live().map(|live| live.pairs.as_slice()).unwrap_or_default();
    if let Some(next) = all.iter().find(|other| is_let_in(other)) {
        let next = name(&next.pair.cert_path);
        diagnosis =
            diagnosis.also(format!("{next} is let in: Portcullis' own client goes on to it, Go tools never do"));
    }
    Some(diagnosis.say_of(&trial.pair.cert_path, fix))
}

fn again(facts: &Facts) -> ShellCommand {
    ShellCommand::new(["portcullis", "doctor", facts.target.host.as_str()])
}

fn token_server(facts: &Facts) -> Vec<Diagnosis> {
    facts
        .live()
        .and_then(|live| live.token.as_ref())
        .map(|other| elsewhere("D69", "a token", other, facts))
        .unwrap_or_default()
}

fn redirected(facts: &Facts) -> Vec<Diagnosis> {
    facts
        .live()
        .and_then(|live| live.redirect.as_ref())
        .map(|other| elsewhere("D70", "blobs", other, facts))
        .unwrap_or_default()
}

/// Another host: whether it can be reached, and which engines will not trust it.
fn elsewhere(code: &'static str, what_for: &str, other: &OtherHost, facts: &Facts) -> Vec<Diagnosis> {
    if other.host == facts.target.host {
        return Vec::new();
    }
    let host = &other.host;
    let Some(contact) = other.contact.as_ref().filter(|contact| !contact.chain.is_empty()) else {
        let what = format!("for {what_for} the registry sends to {host}, which cannot be reached over TLS");
        return vec![
            Diagnosis::new(code, Severity::Fatal, what)
                .say("what the registry says, and to whom it sends", head(facts)),
        ];
    };
    let distrusting = other.predictions.iter().filter_map(|(profile, prediction)| {
        let registry = facts.engine(profile.name).and_then(|engine| engine.prediction.registry());
        let endpoint = match prediction.elsewhere() {
            Elsewhere::Registrys => registry,
            Elsewhere::Own => prediction.registry(),
        }?;
        let roots: Vec<Certificate> = endpoint.roots.iter().map(|root| root.certificate.clone()).collect();
        let by_files = verdict(&contact.chain, &roots, Roots::Only, host, facts.now);
        let trusted = !endpoint.verifies
            || by_files.is_ok()
            || (endpoint.system_roots && matches!(other.by_system, Some(Ok(()))));
        (!trusted).then(|| (profile.name, by_files.err().unwrap_or(Distrust::UnknownIssuer)))
    });
    let distrusting: Vec<(&'static str, Distrust)> = distrusting.collect();
    let Some((_, reason)) = distrusting.first() else {
        let what = format!("for {what_for} the registry sends to {host}, which is trusted");
        return vec![Diagnosis::new(code, Severity::Note, what)];
    };
    let what = format!("for {what_for} the registry sends to {host}, whose certificate is not trusted: {reason}");
    let engines: Vec<&'static str> = distrusting.iter().map(|(engine, _)| *engine).collect();
    let of_its_own = engines == [EngineProfile::DOCKER_DOCS.name];
    let text = if of_its_own {
        "put that host's CA into a certificate directory of its own"
    } else {
        "put that host's CA beside the registry's own: these engines look nowhere else"
    };
    let to = into_directory(facts, &engines, Path::new("other-ca.crt"), "other-ca.crt");
    vec![Diagnosis::new(code, Severity::Fatal, what).for_engines(engines).say(text, to)]
}

fn not_asked(facts: &Facts) -> Vec<Diagnosis> {
    let Some(greeting) = facts.live().and_then(|live| live.greeting.as_ref()) else { return Vec::new() };
    let all = pairs(facts);
    if greeting.request.is_some() || greeting.chain.is_empty() || all.is_empty() {
        return Vec::new();
    }
    let what = "the registry asks for no client certificate; the pairs here are not used";
    let diagnosis =
        all.iter().fold(Diagnosis::new("D71", Severity::Note, what), |diagnosis, pair| diagnosis.at(&pair.cert_path));
    vec![diagnosis]
}

fn denied(facts: &Facts) -> Vec<Diagnosis> {
    let Some(live) = facts.live() else { return Vec::new() };
    let trials = live.pairs.iter().map(|trial| (Some(&trial.pair), trial.contact.as_ref()));
    let alone = live.greeting.as_ref().filter(|greeting| greeting.request.is_none());
    let all = trials.chain(alone.map(|greeting| (None, Some(greeting))));
    all.filter_map(|(pair, contact)| denial(pair, contact?.answer()?, facts)).collect()
}

fn denial(pair: Option<&LoadedPair>, answer: &Answer, facts: &Facts) -> Option<Diagnosis> {
    if !matches!(answer.status, 401 | 403) || is_about_certificate(answer) {
        return None;
    }
    let who = pair
        .map_or_else(|| "without a client certificate".to_owned(), |pair| format!("with {}", name(&pair.cert_path)));
    let wants_login = answer.status == 401 && !answer.authenticate.is_empty();
    let severity = if wants_login { Severity::Note } else { Severity::Fatal };
    let what = if wants_login {
        format!("the registry wants a login {who}")
    } else {
        format!("the registry answers {} {who}", answer.status)
    };
    let mut diagnosis = Diagnosis::new("D72", severity, what);
    for challenge in &answer.authenticate {
        diagnosis = diagnosis.also(format!("WWW-Authenticate: {challenge}"));
    }
    for decision in facts.decisions.iter().filter(|d| pair.is_some_and(|pair| pair.cert_path == d.cert_path)) {
        diagnosis = diagnosis.also(format!("the server says: {}", decision.text));
    }
    let host = facts.target.host.as_str();
    Some(if wants_login {
        diagnosis.run(["docker", "login", host])
    } else {
        let repository = facts.target.repository.as_ref().map_or_else(|| "NAME".to_owned(), ToString::to_string);
        let cert = pair.map_or_else(|| "CERT".into(), |pair| pair.cert_path.clone().into_os_string());
        let check = ["portcullis", "policy", "check", "--cert"].map(OsString::from);
        diagnosis.say(
            "have whoever runs the registry allow this identity; on the registry, with this certificate",
            ShellCommand::new(check.into_iter().chain([cert, "pull".into(), repository.into()])),
        )
    })
}
