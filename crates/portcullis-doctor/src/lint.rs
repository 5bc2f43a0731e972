//! Certificate files without an engine and without a registry: what `cert lint` and `cert show` say about them.

use crate::checks::{lint_directory, weaknesses};
use crate::diagnosis::{Diagnosis, day};
use portcullis_certs::{
    AltName, Certificate, CertsLocation, DirectorySurvey, EngineProfile, FileSurvey, RegistryHost, Severity, Visible,
    pem, read_host_certs, survey_directory, survey_file,
};
use serde::Serialize;
use std::path::Path;
use time::OffsetDateTime;

/// The checks D20 to D48 on a directory, read as Docker's page says, or on one file, whatever it is called.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let now = time::OffsetDateTime::UNIX_EPOCH;
/// std::fs::write(dir.path().join("ca.crt"), "")?;
/// let found = portcullis_doctor::lint(dir.path(), now);
/// assert_eq!((found[0].code, found[0].what.as_str()), ("D26", "ca.crt: is empty"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lint(path: &Path, now: OffsetDateTime) -> Vec<Diagnosis> {
    let mut found = if path.is_dir() { lint_host_directory(path, now) } else { lint_file(path, now) };
    found.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.code.cmp(b.code)));
    found
}

fn lint_host_directory(path: &Path, now: OffsetDateTime) -> Vec<Diagnosis> {
    let Ok(anybody) = "lint.invalid".parse::<RegistryHost>() else { return Vec::new() };
    let location = CertsLocation::HostDirectory(path);
    let (_, findings) = read_host_certs(&EngineProfile::DOCKER_DOCS, location, &anybody, now);
    let mut found: Vec<Diagnosis> = findings.iter().map(|finding| Diagnosis::of(finding, finding.severity)).collect();
    found.extend(lint_directory(&survey_directory(path), now));
    found
}

/// A file by itself: as a key when its name says so, else as certificates.
fn lint_file(path: &Path, now: OffsetDateTime) -> Vec<Diagnosis> {
    let findings = if path.extension().is_some_and(|extension| extension == "key") {
        pem::read_private_key(path).err().unwrap_or_default()
    } else {
        pem::read_certificates(path).1
    };
    let mut found: Vec<Diagnosis> = findings.iter().map(|finding| Diagnosis::of(finding, finding.severity)).collect();
    let survey = survey_file(path);
    found.extend(dates(&survey, now));
    let alone = DirectorySurvey {
        path: path.to_owned(),
        real_path: path.parent().and_then(|parent| parent.canonicalize().ok()),
        ownership: None,
        fault: None,
        files: vec![survey],
    };
    found.extend(lint_directory(&alone, now));
    found
}

/// The reading of a directory has these; a file alone is not read as a pair.
fn dates(file: &FileSurvey, now: OffsetDateTime) -> Vec<Diagnosis> {
    let is_root = file.path.extension().is_some_and(|extension| extension == "crt");
    let over = file.certificates.iter().filter(|located| {
        let facts = located.certificate.facts();
        facts.not_after < now || facts.not_before > now
    });
    over.map(|located| {
        let facts = located.certificate.facts();
        let what = if facts.not_after < now {
            format!("certificate `{}` expired {}", facts.subject, day(facts.not_after))
        } else {
            format!("certificate `{}` is not valid before {}", facts.subject, day(facts.not_before))
        };
        Diagnosis::new(if is_root { "D41" } else { "D40" }, Severity::Warning, what)
            .at_line(&file.path, Some(located.line))
            .say_of(&file.path, "ask whoever issued it for a new one")
    })
    .collect()
}

/// One certificate as a person wants to see it. The keys are stable; texts are made visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateView {
    /// Whom it names.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The issuer's number for it, in hex.
    pub serial: String,
    /// What it is for, in words: `a CA`, `a client`, `a server`.
    pub role: String,
    /// subjectAltName, `DNS:x`.
    pub names: Vec<String>,
    /// The first day.
    pub not_before: String,
    /// The last.
    pub not_after: String,
    /// How that is from now: `for 29 days`, `expired 2 days ago`.
    pub validity: String,
    /// basicConstraints says CA:TRUE.
    pub is_ca: bool,
    /// Its own key verifies its signature.
    pub self_signed: bool,
    /// keyUsage and extKeyUsage, by their names; empty: any.
    pub usages: Vec<&'static str>,
    /// Kind and size of its key.
    pub key: String,
    /// How it was signed.
    pub signature: String,
    /// 1, 2 or 3.
    pub version: u8,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// SHA-256 of its key.
    pub key_hash: String,
    /// What is odd about it, in words.
    pub odd: Vec<String>,
}

/// A certificate in words.
pub fn view(certificate: &Certificate, now: OffsetDateTime) -> CertificateView {
    let facts = certificate.facts();
    CertificateView {
        subject: facts.subject.to_string(),
        issuer: facts.issuer.to_string(),
        serial: facts.serial.to_string(),
        role: role(certificate).to_owned(),
        names: facts.alt_names.iter().map(alt_name).collect(),
        not_before: day(facts.not_before),
        not_after: day(facts.not_after),
        validity: validity(certificate, now),
        is_ca: facts.is_ca == Some(true),
        self_signed: facts.self_signed,
        usages: usages(certificate),
        key: facts.key.to_string(),
        signature: facts.signature.to_string(),
        version: facts.version,
        fingerprint: certificate.fingerprint().to_string(),
        key_hash: facts.key_hash.to_string(),
        odd: odd(certificate, now),
    }
}

fn role(certificate: &Certificate) -> &'static str {
    let facts = certificate.facts();
    let signs = facts.key_usage.is_none_or(|usage| usage.key_cert_sign);
    match &facts.extended_key_usage {
        _ if facts.is_ca == Some(true) && facts.self_signed && facts.key_usage.is_none() => {
            "a CA, or a client certificate made as Docker's page says"
        }
        _ if facts.is_ca == Some(true) && signs && facts.self_signed => "a root CA",
        _ if facts.is_ca == Some(true) && signs => "an intermediate CA",
        Some(usage) if usage.client_auth && usage.server_auth => "a client or a server",
        Some(usage) if usage.client_auth => "a client",
        Some(usage) if usage.server_auth => "a server",
        Some(usage) if usage.any => "any use",
        Some(_) => "neither a client nor a server",
        None if facts.version < 3 => "any use (X.509 v1 cannot say)",
        None => "any use",
    }
}

fn alt_name(name: &AltName) -> String {
    match name {
        AltName::Dns(text) => format!("DNS:{}", Visible(text)),
        AltName::Ip(ip) => format!("IP:{ip}"),
        AltName::Email(text) => format!("email:{}", Visible(text)),
        AltName::Uri(text) => format!("URI:{}", Visible(text)),
        AltName::Other(text) => Visible(text).to_string(),
    }
}

fn usages(certificate: &Certificate) -> Vec<&'static str> {
    let facts = certificate.facts();
    let mut usages = Vec::new();
    if let Some(usage) = &facts.key_usage {
        usages.extend(usage.digital_signature.then_some("digitalSignature"));
        usages.extend(usage.key_encipherment.then_some("keyEncipherment"));
        usages.extend(usage.key_cert_sign.then_some("keyCertSign"));
        usages.extend(usage.crl_sign.then_some("cRLSign"));
    }
    if let Some(usage) = &facts.extended_key_usage {
        usages.extend(usage.server_auth.then_some("serverAuth"));
        usages.extend(usage.client_auth.then_some("clientAuth"));
        usages.extend(usage.any.then_some("anyExtendedKeyUsage"));
    }
    usages
}

fn validity(certificate: &Certificate, now: OffsetDateTime) -> String {
    let facts = certificate.facts();
    let days = |duration: time::Duration| match duration.whole_days() {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    if facts.not_after < now {
        format!("expired {} ago", days(now - facts.not_after))
    } else if facts.not_before > now {
        format!("not valid for another {}", days(facts.not_before - now))
    } else {
        format!("for another {}", days(facts.not_after - now))
    }
}

/// What an attentive reader would stumble over.
fn odd(certificate: &Certificate, now: OffsetDateTime) -> Vec<String> {
    let facts = certificate.facts();
    let mut odd = weaknesses(certificate);
    if facts.not_after < now || facts.not_before > now {
        odd.push(validity(certificate, now));
    }
    if facts.version < 3 {
        odd.push(format!("X.509 v{}: it cannot say what it is for", facts.version));
    }
    if facts.not_after < facts.not_before {
        odd.push("it ends before it begins".to_owned());
    }
    if facts.subject.is_empty() && facts.alt_names.is_empty() {
        odd.push("it names nobody".to_owned());
    }
    let for_servers = facts.extended_key_usage.as_ref().is_some_and(|usage| usage.server_auth);
    let has_name = facts.alt_names.iter().any(|name| matches!(name, AltName::Dns(_) | AltName::Ip(_)));
    if for_servers && !has_name {
        odd.push("a server's certificate without a name: the common name no longer counts".to_owned());
    }
    if facts.is_ca == Some(true) && facts.key_usage.is_some_and(|usage| !usage.key_cert_sign) {
        odd.push("a CA that may not sign certificates".to_owned());
    }
    if facts.subject.common_names().count() > 1 {
        odd.push("several common names".to_owned());
    }
    odd.extend(facts.unknown_critical.iter().map(|oid| format!("the critical extension {oid} is not understood")));
    odd
}
