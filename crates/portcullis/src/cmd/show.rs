//! `portcullis cert show`: what is in certificate files, as a person wants to see it: who, for what, by whom, until when,
//! and what is odd.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use portcullis_certs::{Severity, pem};
use portcullis_doctor::{CertificateView, view};
use serde::Serialize;
use time::OffsetDateTime;

use super::shown;
use crate::args::CertShowArgs;
use crate::output;

/// One certificate of `--json`. The keys are stable.
#[derive(Serialize)]
struct Shown {
    file: PathBuf,
    #[serde(flatten)]
    certificate: CertificateView,
}

pub(crate) fn run(args: &CertShowArgs) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc();
    let mut all = Vec::new();
    let mut failed = Vec::new();
    for file in files(&args.files)? {
        let (certificates, findings) = pem::read_certificates(&file);
        for finding in &findings {
            output::note(&format!("{finding}\n  {}", finding.fix()));
        }
        if findings.iter().any(|finding| finding.severity == Severity::Fatal) {
            failed.push(shown(&file));
        }
        let views = certificates.iter().map(|certificate| view(certificate, now));
        all.extend(views.map(|certificate| Shown { file: file.clone(), certificate }));
    }
    if args.json {
        output::json(&all)?;
    } else {
        all.iter().flat_map(lines).for_each(|line| output::line(&line));
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
        let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", shown(path)))?;
        let is_certificate =
            |path: &PathBuf| path.extension().is_some_and(|extension| extension == "crt" || extension == "cert");
        let mut found: Vec<PathBuf> =
            entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(is_certificate).collect();
        found.sort();
        anyhow::ensure!(!found.is_empty(), "{} holds no .crt and no .cert", shown(path));
        files.extend(found);
    }
    Ok(files)
}

fn lines(entry: &Shown) -> Vec<String> {
    let Shown { file, certificate } = entry;
    let issuer = if certificate.self_signed { "itself" } else { certificate.issuer.as_str() };
    let listed = |all: &[String]| if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    let usages: Vec<String> = certificate.usages.iter().map(ToString::to_string).collect();
    let usages = if usages.is_empty() { "not limited".to_owned() } else { usages.join(", ") };
    let mut lines = vec![
        format!("{}: {}", shown(file), certificate.subject),
        format!("  is           {}", certificate.role),
        format!("  issued by    {issuer}"),
        format!("  valid        {} to {}, {}", certificate.not_before, certificate.not_after, certificate.validity),
        format!("  usages       {usages}"),
        format!("  names        {}", listed(&certificate.names)),
        format!(
            "  key          {}, signed with {}, X.509 v{}",
            certificate.key, certificate.signature, certificate.version
        ),
        format!("  serial       {}", certificate.serial),
        format!("  fingerprint  {}", certificate.fingerprint),
    ];
    lines.extend(certificate.odd.iter().map(|odd| format!("  odd          {odd}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_becomes_its_certificate_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.cert", "a.crt", "a.key", "c.pem"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<PathBuf> = files(&[dir.path().to_owned()]).unwrap();
        assert_eq!(names, [dir.path().join("a.crt"), dir.path().join("b.cert")]);
        assert!(files(&[tempfile::tempdir().unwrap().path().to_owned()]).is_err());
    }
}
