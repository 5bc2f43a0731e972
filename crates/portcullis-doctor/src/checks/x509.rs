//! D40 to D48: what certificates say, held against what they are there for.

use super::files::has_suffix;
use super::{Check, never, nothing_more};
use crate::diagnosis::{Diagnosis, day, name};
use crate::facts::Facts;
use portcullis_certs::{Certificate, DirectorySurvey, FileSurvey, KeyType, LocatedCertificate, RegistryHost, Severity};
use time::{Duration, OffsetDateTime};

/// Renewal takes people a while.
const SOON: Duration = Duration::days(30);

pub(super) static CHECKS: &[Check] = &[
    Check {
        code: "D40",
        title: "a client certificate has expired, is not valid yet, or will expire soon",
        severity: Severity::Warning,
        why: "engines present it all the same, and the registry refuses it with `expired certificate`",
        text: "Nothing on the client's side looks at the dates. With several pairs the first that fits is sent even when it has expired, and no other is tried afterwards. `openssl req -x509` without -days makes certificates for 30 days. A certificate that is not valid yet gets the same alert: compare the clocks.",
        fix: "renew the certificate, or set the clock",
        skip: never,
        find: expiring,
    },
    Check {
        code: "D41",
        title: "a CA in the directory has expired",
        severity: Severity::Warning,
        why: "engines refuse every certificate that it signed, whatever that certificate's own dates are",
        text: "Go and OpenSSL check the dates of the root too (`x509: certificate has expired or is not yet valid`); webpki, on which many Rust clients rest, does not, so that a Rust client may still work where Docker fails.",
        fix: "get the CA's new certificate; a renewed one with the same key and name keeps all its certificates valid",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D42",
        title: "a certificate signed another one and may not",
        severity: Severity::Warning,
        why: "engines refuse what it signed: `parent certificate cannot sign this kind of certificate`",
        text: "An issuer of version 3 must say CA:TRUE in its basicConstraints, and its keyUsage, where it has one, must contain keyCertSign. Go and OpenSSL insist on both; webpki does not. The message is `certificate signed by unknown authority (possibly because of \"x509: invalid signature: parent certificate cannot sign this kind of certificate\")`. X.509 v1 certificates cannot say either and are taken.",
        fix: "issue the CA's certificate again with CA:TRUE and keyCertSign, for the same key",
        skip: never,
        find: cannot_sign,
    },
    Check {
        code: "D43",
        title: "a .crt holds a certificate that is no CA's",
        severity: Severity::Note,
        why: "it is trusted as exactly itself, so a renewed server certificate will be refused",
        text: "Putting the server's own certificate into ca.crt works in Go: an exact match is enough, names and dates are still checked. OpenSSL and curl refuse a leaf without its issuer, stock rustls refuses a self-signed one with CA:TRUE. The pin must be replaced whenever the server's certificate is.",
        fix: "nothing to do if a pin is meant; else put the CA's certificate there",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D44",
        title: "a client certificate's usages do not allow it to be a client's",
        severity: Severity::Warning,
        why: "the registry refuses it with `unsupported certificate`",
        text: "Where a certificate has an extendedKeyUsage, clientAuth must be in it; where it has a keyUsage, digitalSignature must be. Using the server's certificate for the client is the usual cause. Go clients send it regardless.",
        fix: "ask for a certificate with digitalSignature and clientAuth",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D45",
        title: "a certificate is weak or malformed in a way that peers refuse",
        severity: Severity::Warning,
        why: "modern TLS libraries refuse SHA-1, short RSA keys and broken serial numbers, each with another message",
        text: "SHA-1 and MD5 signatures are refused by Go (`insecure algorithm`), rustls and OpenSSL's default level, except on a root, whose own signature nobody checks. RSA below 2048 bits fails in rustls and OpenSSL; below 1024 in Go. A serial number must be positive and at most 20 octets; Go 1.23 and later refuse negative ones.",
        fix: "issue the certificate again, with SHA-256, a P-256 or RSA 2048 key and a random positive serial number",
        skip: never,
        find: weak,
    },
    Check {
        code: "D46",
        title: "a CA is constrained to certain names",
        severity: Severity::Warning,
        why: "a certificate for any other name is refused although the CA signed it",
        text: "nameConstraints limit what a CA may sign for: a good thing for a private CA. The registry's name, or its address if an address is typed, must lie within a permitted subtree of its kind, if there is one, and in no excluded one; a kind that is not mentioned is free. Go says `is not permitted by any constraint`, OpenSSL `permitted subtree violation`.",
        fix: "nothing to do if the registry's name is within the constraints; else a CA that may sign for it",
        skip: never,
        find: constrained,
    },
    Check {
        code: "D47",
        title: "two CAs are the same, or have the same name and different keys",
        severity: Severity::Note,
        why: "with the same name and another key, one of the two is the old CA and half of the messages mislead",
        text: "The same certificate twice is harmless. Two certificates with one subject and different keys are usually a CA that was made anew instead of renewed: what the old one signed is no longer valid under the new one. Keep both while certificates of both are about.",
        fix: "remove the CA that no certificate in use comes from",
        skip: never,
        find: duplicates,
    },
    Check {
        code: "D48",
        title: "there are several client certificates",
        severity: Severity::Note,
        why: "Go tools send the first one that fits the server's list, and never try another, whatever Docker's page says",
        text: "Docker's page promises that the next certificate is tried on an error; that has not been so since Docker 1.4. All pairs are loaded in byte order of their names (`10` before `2`, upper case first), and the first whose issuer the server lists is sent. Expired or not, no other follows. Portcullis' own client does try the next.",
        fix: "leave one pair, or name the one that must be sent so that it comes first",
        skip: never,
        find: several_pairs,
    },
];

/// The checks of one directory that need no registry, for `cert lint` too.
pub(crate) fn lint(directory: &DirectorySurvey, now: OffsetDateTime) -> Vec<Diagnosis> {
    let mut found = super::files::intermediate_missing_in(directory);
    found.extend(super::files::links_out_of(directory));
    found.extend(expiring_in(directory, now));
    found.extend(cannot_sign_in(directory, &[]));
    found.extend(weak_in(directory));
    found.extend(constrained_in(directory, None));
    found.extend(duplicates_in(directory));
    found
}

fn in_each(facts: &Facts, look: impl Fn(&DirectorySurvey) -> Vec<Diagnosis>) -> Vec<Diagnosis> {
    facts.directories.iter().flat_map(look).collect()
}

fn expiring(facts: &Facts) -> Vec<Diagnosis> {
    in_each(facts, |directory| expiring_in(directory, facts.now))
}

/// Client certificates only: the reading has what is over already.
fn expiring_in(directory: &DirectorySurvey, now: OffsetDateTime) -> Vec<Diagnosis> {
    let soon = |not_after: OffsetDateTime| not_after >= now && not_after - now < SOON;
    each(directory, &["cert", "crt"])
        .filter(|(_, located)| soon(located.certificate.facts().not_after))
        .map(|(file, located)| {
            let facts = located.certificate.facts();
            let code = if has_suffix(file, "cert") { "D40" } else { "D41" };
            let left = (facts.not_after - now).whole_days();
            let what = format!("certificate `{}` expires in {left} days", facts.subject);
            Diagnosis::new(code, Severity::Note, what)
                .at_line(&file.path, Some(located.line))
                .value(format!("until {}", day(facts.not_after)))
                .say_of(&file.path, "ask whoever issued it for a new one before then")
        })
        .collect()
}

/// What the registry sent counts too: its issuer may lie here and not be allowed to sign.
fn cannot_sign(facts: &Facts) -> Vec<Diagnosis> {
    let live = facts.live().and_then(|live| live.greeting.as_ref());
    let shown: Vec<&Certificate> = live.iter().flat_map(|contact| &contact.chain).collect();
    in_each(facts, |directory| cannot_sign_in(directory, &shown))
}

fn cannot_sign_in(directory: &DirectorySurvey, others: &[&Certificate]) -> Vec<Diagnosis> {
    let here = each(directory, &["cert", "crt"]).map(|(_, located)| &located.certificate);
    let signed: Vec<&Certificate> = here.chain(others.iter().copied()).collect();
    let may_not = |facts: &portcullis_certs::CertificateFacts| facts.version == 3 && facts.is_ca != Some(true);
    each(directory, &["crt"])
        .filter(|(_, issuer)| may_not(issuer.certificate.facts()))
        .filter_map(|(file, issuer)| {
            let child = signed.iter().find(|child| is_issued_by(child, &issuer.certificate))?;
            let subject = &issuer.certificate.facts().subject;
            let what = format!("`{subject}` signed `{}`, but is no CA (CA:TRUE is missing)", child.facts().subject);
            Some(Diagnosis::new("D42", Severity::Warning, what).at_line(&file.path, Some(issuer.line)).say_of(
                &file.path,
                "ask for a CA certificate for the same key with basicConstraints CA:TRUE and keyCertSign",
            ))
        })
        .collect()
}

fn is_issued_by(child: &Certificate, issuer: &Certificate) -> bool {
    child != issuer && child.facts().issuer == issuer.facts().subject && child.is_signed_by(issuer)
}

fn weak(facts: &Facts) -> Vec<Diagnosis> {
    in_each(facts, weak_in)
}

fn weak_in(directory: &DirectorySurvey) -> Vec<Diagnosis> {
    each(directory, &["cert", "crt"])
        .filter_map(|(file, located)| {
            let weaknesses = weaknesses(&located.certificate);
            let what = format!("certificate `{}`: {}", located.certificate.facts().subject, weaknesses.join(", "));
            (!weaknesses.is_empty()).then(|| {
                Diagnosis::new("D45", Severity::Warning, what)
                    .at_line(&file.path, Some(located.line))
                    .say_of(&file.path, "ask whoever issued it for a new one, with SHA-256 and a P-256 or RSA 2048 key")
            })
        })
        .collect()
}

/// What peers refuse in it. A root's own signature is checked by nobody.
pub(crate) fn weaknesses(certificate: &Certificate) -> Vec<String> {
    let facts = certificate.facts();
    let mut found = Vec::new();
    if facts.signature.is_sha1_or_older() && !facts.self_signed {
        found.push(format!("signed with {}", facts.signature));
    }
    match &facts.key {
        KeyType::Rsa { bits } if *bits < 2048 => found.push(format!("its key is RSA with {bits} bits")),
        KeyType::Other(kind) => found.push(format!("its key is {kind}")),
        _ => {}
    }
    let octets = facts.serial.as_octets().len();
    if facts.serial_is_negative {
        found.push("its serial number is negative".to_owned());
    } else if octets > 20 {
        found.push(format!("its serial number has {octets} octets, 20 are allowed"));
    }
    found
}

fn constrained(facts: &Facts) -> Vec<Diagnosis> {
    in_each(facts, |directory| constrained_in(directory, Some(&facts.target.host)))
}

/// Without a host it can only be told that there are constraints.
fn constrained_in(directory: &DirectorySurvey, host: Option<&RegistryHost>) -> Vec<Diagnosis> {
    let constrain = |(file, located): (&FileSurvey, &LocatedCertificate)| {
        let facts = located.certificate.facts();
        let constraints = facts.name_constraints.as_ref()?;
        let diagnosis = match host.filter(|host| !constraints.permits(host)) {
            Some(host) => {
                let what = format!("CA `{}` may not vouch for {}", facts.subject, host.server_name());
                let text =
                    format!("put the CA here that may vouch for {host}; this one's constraints leave the name out");
                Diagnosis::new("D46", Severity::Warning, what).say_of(&file.path, text)
            }
            None => {
                let what = format!("CA `{}` is constrained to certain names", facts.subject);
                Diagnosis::new("D46", Severity::Note, what)
            }
        };
        Some(diagnosis.at_line(&file.path, Some(located.line)).value(constraints.to_string()))
    };
    each(directory, &["crt"]).filter_map(constrain).collect()
}

fn duplicates(facts: &Facts) -> Vec<Diagnosis> {
    in_each(facts, duplicates_in)
}

fn duplicates_in(directory: &DirectorySurvey) -> Vec<Diagnosis> {
    let roots: Vec<(&FileSurvey, &LocatedCertificate)> = each(directory, &["crt"]).collect();
    let mut found = Vec::new();
    for (index, (file, located)) in roots.iter().enumerate() {
        let facts = located.certificate.facts();
        let earlier = roots.iter().take(index);
        let twin = earlier.clone().find(|(_, other)| other.certificate == located.certificate);
        let namesake = earlier.into_iter().find(|(_, other)| {
            other.certificate.facts().subject == facts.subject && other.certificate.facts().key_hash != facts.key_hash
        });
        let (other, what) = match (twin, namesake) {
            (Some(twin), _) => (twin, format!("the same certificate is in {} already", name(&twin.0.path))),
            (None, Some(namesake)) => {
                (namesake, format!("two CAs are called `{}` and have different keys", facts.subject))
            }
            (None, None) => continue,
        };
        let diagnosis = Diagnosis::new("D47", Severity::Note, what)
            .at_line(&file.path, Some(located.line))
            .at_line(&other.0.path, Some(other.1.line));
        found.push(if twin.is_some() {
            diagnosis
        } else {
            let directory = file.path.parent().unwrap_or(&file.path);
            diagnosis.say_of(directory, "keep both while certificates of both are in use, then remove the older")
        });
    }
    found
}

fn several_pairs(facts: &Facts) -> Vec<Diagnosis> {
    let mut found: Vec<Diagnosis> = Vec::new();
    for engine in &facts.engines {
        let Some(endpoint) = engine.prediction.registry().filter(|endpoint| endpoint.pairs.len() > 1) else { continue };
        let (Some(first), Some(directory)) = (endpoint.pairs.first(), engine.prediction.taken()) else { continue };
        let known =
            found.iter_mut().find(|known| known.evidence.first().is_some_and(|e| e.path.as_deref() == Some(directory)));
        if let Some(known) = known {
            known.engines.push(engine.profile.name);
            continue;
        }
        let order: Vec<String> = endpoint.pairs.iter().map(|pair| name(&pair.cert_path)).collect();
        let what = format!(
            "{} client certificates: {} is sent when the server lists no CA",
            order.len(),
            name(&first.cert_path)
        );
        found.push(
            Diagnosis::new("D48", Severity::Note, what)
                .for_engine(engine.profile.name)
                .at(directory)
                .value(format!("in this order: {}", order.join(", "))),
        );
    }
    found
}

/// Every certificate of the files with one of these suffixes.
fn each<'a>(
    directory: &'a DirectorySurvey,
    suffixes: &'static [&'static str],
) -> impl Iterator<Item = (&'a FileSurvey, &'a LocatedCertificate)> {
    let files = directory.files.iter().filter(|file| suffixes.iter().any(|suffix| has_suffix(file, suffix)));
    files.flat_map(|file| file.certificates.iter().map(move |located| (file, located)))
}
