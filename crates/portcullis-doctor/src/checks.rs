//! The table of checks: code, words, and a pure function from facts to diagnoses. No I/O here or below.
//!
//! What the reader of certificate directories finds while it reads as each engine does has its codes here too: those
//! findings are merged over the engines ([`readings`]), and a check's own function adds what no single reading can see.

mod config;
mod files;
mod issuer;
mod layout;
mod live;
mod repairs;
mod rights;
mod server;
mod trust;
mod x509;

use crate::diagnosis::Diagnosis;
use crate::facts::{EngineFacts, Facts};
use crate::report::{Report, Skipped};
use portcullis_certs::{Fault, Finding, LookAlike, Outcome, Severity};

pub(crate) use config::unread_matters;
pub(crate) use live::{Sent, is_let_in, requires, sends};
pub(crate) use server::described as server_shown;
pub(crate) use trust::{Trust, trusts};
pub(crate) use x509::{lint as lint_directory, weaknesses};

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Stable: scripts and pages refer to it.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub title: &'static str,
    /// How bad it can be at most.
    pub severity: Severity,
    /// Why it matters, in one sentence.
    pub why: &'static str,
    /// What engines do, in which they differ, and how it is told apart from what looks the same.
    pub text: &'static str,
    /// What mends it.
    pub fix: &'static str,
    /// Why it cannot be made here; `None` when it can.
    pub(crate) skip: fn(&Facts) -> Option<&'static str>,
    /// What it finds beyond the reading of directories.
    pub(crate) find: fn(&Facts) -> Vec<Diagnosis>,
}

/// All checks, by group, in the order of their codes.
pub static CHECKS: [&[Check]; 6] =
    [layout::CHECKS, files::CHECKS, x509::CHECKS, server::CHECKS, live::CHECKS, config::CHECKS];

/// The check with this code, in upper or lower case.
///
/// ```
/// assert_eq!(portcullis_doctor::check("d20").map(|check| check.code), Some("D20"));
/// assert!(portcullis_doctor::check("D99").is_none());
/// ```
pub fn check(code: &str) -> Option<&'static Check> {
    all().find(|check| check.code.eq_ignore_ascii_case(code))
}

pub(crate) fn all() -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().copied().flatten()
}

/// Runs every check on the facts. Pure.
pub fn examine(facts: &Facts) -> Report {
    let mut findings = readings(facts);
    let mut skipped = Vec::new();
    for check in all() {
        match (check.skip)(facts) {
            Some(reason) => skipped.push(Skipped { code: check.code, reason }),
            None => findings.extend((check.find)(facts)),
        }
    }
    repairs::settle(&mut findings, facts);
    rights::ask_for(&mut findings, facts);
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.code.cmp(b.code)).then_with(|| place(a).cmp(&place(b))));
    Report::new(facts, findings, skipped)
}

fn place(diagnosis: &Diagnosis) -> Option<&std::path::Path> {
    diagnosis.evidence.first().and_then(|evidence| evidence.path.as_deref())
}

/// What the engines' readings found, each thing once, with the engines that take it worst.
fn readings(facts: &Facts) -> Vec<Diagnosis> {
    let mut seen: Vec<(&Finding, Vec<(&'static str, Severity)>)> = Vec::new();
    for engine in &facts.engines {
        let findings = &engine.prediction.findings;
        let combined = findings.iter().any(|finding| finding.fault == Fault::CombinedPair);
        for finding in findings.iter().filter(|finding| !(combined && follows_from_combined(finding))) {
            // The engine stops at what follows from it, and that is left out.
            let is_cause = finding.fault == Fault::CombinedPair;
            let severity = match () {
                () if is_cause => Severity::Fatal,
                () if is_hidden(engine, finding) => Severity::Note,
                () => finding.severity,
            };
            let by = (engine.profile.name, severity);
            match seen.iter_mut().find(|(known, _)| is_same(known, finding)) {
                Some((_, engines)) => engines.push(by),
                None => seen.push((finding, vec![by])),
            }
        }
    }
    seen.into_iter().map(|(finding, engines)| merged(finding, &engines, facts)).collect()
}

/// What we may not read says nothing about a daemon of root's.
fn is_hidden(engine: &EngineFacts, finding: &Finding) -> bool {
    matches!(&engine.prediction.outcome, Outcome::CannotTell { at } if *at == finding.path)
}

/// What a reader says about two files that hosts.toml wrongly calls certificate and key in one: true of none of them.
fn follows_from_combined(finding: &Finding) -> bool {
    matches!(finding.code(), "D32" | "D35")
}

fn is_same(a: &Finding, b: &Finding) -> bool {
    (&a.path, a.line, &a.fault) == (&b.path, b.line, &b.fault)
}

fn merged(finding: &Finding, engines: &[(&'static str, Severity)], facts: &Facts) -> Diagnosis {
    let worst = engines.iter().map(|(_, severity)| *severity).max().unwrap_or(finding.severity);
    let (hit, spared): (Vec<_>, Vec<_>) = engines.iter().copied().partition(|(_, severity)| *severity == worst);
    let diagnosis = Diagnosis::of(finding, worst.max(least(&finding.fault)));
    let mut diagnosis = diagnosis.for_engines(hit.into_iter().map(|(engine, _)| engine));
    diagnosis.milder = spared;
    let is_hidden = |name: &str| facts.engine(name).is_some_and(|engine| is_hidden(engine, finding));
    if engines.iter().all(|(name, _)| is_hidden(name)) {
        return diagnosis.run(["sudo", "portcullis", "doctor", facts.target.host.as_str()]).with_mend(None);
    }
    let is_apple_double = finding.path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"._"));
    if is_apple_double {
        return diagnosis.run(["rm".into(), finding.path.clone().into_os_string()]).with_mend(None);
    }
    diagnosis
}

/// To an engine a directory of nearly the right name is nothing at all; to whoever made it, it is the mistake.
fn least(fault: &Fault) -> Severity {
    match fault {
        Fault::LookAlike { how: LookAlike::OtherPort, .. } => Severity::Note,
        Fault::LookAlike { .. } | Fault::FilesInRoot => Severity::Warning,
        _ => Severity::Note,
    }
}

// Why a check cannot be made.

fn never(_: &Facts) -> Option<&'static str> {
    None
}

fn without_network(facts: &Facts) -> Option<&'static str> {
    match &facts.live {
        crate::facts::Live::NotAsked(reason) => Some(reason),
        crate::facts::Live::Asked(live) if live.greeting.is_none() => Some("nothing answered to ask"),
        crate::facts::Live::Asked(_) => None,
    }
}

/// Nothing more of its own than what the readings found.
fn nothing_more(_: &Facts) -> Vec<Diagnosis> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_whole() {
        let codes: Vec<&str> = all().map(|check| check.code).collect();
        let ranges = [(1, 12), (20, 36), (40, 48), (60, 72), (80, 88)];
        let wanted: Vec<String> = ranges.into_iter().flat_map(|(a, b)| (a..=b).map(|n| format!("D{n:02}"))).collect();
        assert_eq!(codes, wanted);
    }

    #[test]
    fn every_row_has_its_words() {
        for check in all() {
            let one_line = |text: &str| !text.is_empty() && !text.contains('\n') && !text.ends_with('.');
            assert!(one_line(check.title) && one_line(check.why) && one_line(check.fix), "{}", check.code);
            assert!(check.text.len() > 120 && check.text.ends_with('.'), "{}: its long text", check.code);
        }
    }
}
