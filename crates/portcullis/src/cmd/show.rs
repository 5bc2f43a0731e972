//! `portcullis cert show`: what is in certificate files, as a person wants to see it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use portcullis_certs::{AltName, Certificate, Severity, Visible, pem};
use serde::Serialize;

use crate::args::CertShowArgs;
use crate::cmd::date;
use crate::output;

/// One certificate of `--json`. The keys are stable.
#[derive(Serialize)]
struct Shown {
    file: PathBuf,
    subject: String,
    issuer: String,
    serial: String,
    names: Vec<String>,
    not_before: String,
    not_after: String,
    is_ca: bool,
    self_signed: bool,
    usages: Vec<&'static str>,
    key: String,
    signature: String,
    version: u8,
    fingerprint: String,
    key_hash: String,
}

pub(crate) fn run(args: &CertShowArgs) -> anyhow::Result<()> {
    let mut shown = Vec::new();
    let mut failed = Vec::new();
    for file in files(&args.files)? {
        let (certificates, findings) = pem::read_certificates(&file);
        for finding in &findings {
            output::note(&format!("{finding}\n  {}", finding.fix()));
        }
        if findings.iter().any(|finding| finding.severity == Severity::Fatal) {
            failed.push(file.display().to_string());
        }
        shown.extend(certificates.iter().map(|certificate| describe(&file, certificate)));
    }
    if args.json {
        output::json(&shown)?;
    } else {
        shown.iter().flat_map(lines).for_each(|line| output::line(&line));
    }
    anyhow::ensure!(failed.is_empty(), "cannot be used: {}", failed.join(", "));
    Ok(())
}

/// Directories become the certificate files in them.
fn files(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_certificate =
            |path: &PathBuf| path.extension().is_some_and(|extension| extension == "crt" || extension == "cert");
        let mut found: Vec<PathBuf> =
            entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(is_certificate).collect();
        found.sort();
        anyhow::ensure!(!found.is_empty(), "{} holds no .crt and no .cert", path.display());
        files.extend(found);
    }
    Ok(files)
}

fn describe(file: &Path, certificate: &Certificate) -> Shown {
    let facts = certificate.facts();
    let mut usages = Vec::new();
    if let Some(usage) = &facts.key_usage {
        usages.extend(usage.digital_signature.then_some("digitalSignature"));
        usages.extend(usage.key_cert_sign.then_some("keyCertSign"));
        usages.extend(usage.crl_sign.then_some("cRLSign"));
    }
    if let Some(usage) = &facts.extended_key_usage {
        usages.extend(usage.server_auth.then_some("serverAuth"));
        usages.extend(usage.client_auth.then_some("clientAuth"));
        usages.extend(usage.any.then_some("anyExtendedKeyUsage"));
    }
    Shown {
        file: file.to_owned(),
        subject: facts.subject.to_string(),
        issuer: facts.issuer.to_string(),
        serial: facts.serial.to_string(),
        names: facts.alt_names.iter().map(name).collect(),
        not_before: date(facts.not_before),
        not_after: date(facts.not_after),
        is_ca: facts.is_ca == Some(true),
        self_signed: facts.self_signed,
        usages,
        key: facts.key.to_string(),
        signature: facts.signature.to_string(),
        version: facts.version,
        fingerprint: certificate.fingerprint().to_string(),
        key_hash: facts.key_hash.to_string(),
    }
}

fn name(name: &AltName) -> String {
    match name {
        AltName::Dns(text) => format!("DNS:{}", Visible(text)),
        AltName::Ip(ip) => format!("IP:{ip}"),
        AltName::Email(text) => format!("email:{}", Visible(text)),
        AltName::Uri(text) => format!("URI:{}", Visible(text)),
        AltName::Other(text) => Visible(text).to_string(),
    }
}

fn lines(shown: &Shown) -> Vec<String> {
    let issuer = if shown.self_signed { "itself".to_owned() } else { shown.issuer.clone() };
    let kind = if shown.is_ca { "a CA" } else { "not a CA" };
    let usages = if shown.usages.is_empty() { "any use".to_owned() } else { shown.usages.join(", ") };
    let names = if shown.names.is_empty() { "none".to_owned() } else { shown.names.join(", ") };
    vec![
        format!("{}: {}", shown.file.display(), shown.subject),
        format!("  issued by    {issuer}"),
        format!("  valid        {} to {}", shown.not_before, shown.not_after),
        format!("  for          {usages}; {kind}"),
        format!("  names        {names}"),
        format!("  key          {}, signed with {}, X.509 v{}", shown.key, shown.signature, shown.version),
        format!("  serial       {}", shown.serial),
        format!("  fingerprint  {}", shown.fingerprint),
    ]
}
