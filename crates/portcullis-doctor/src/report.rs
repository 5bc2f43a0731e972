//! What came of the checks: a verdict per engine, the findings, and what could not be checked.
//!
//! Values here, words in `text` and `json`.

mod json;
pub(crate) mod text;

use crate::checks::{Sent, Trust, is_let_in, requires, sends, server_shown, trusts, unread_matters};
use crate::diagnosis::{Diagnosis, shown};
use crate::facts::{EngineFacts, Facts, LiveFacts};
use crate::go_words::in_go;
use portcullis_certs::{Certificate, EngineProfile, Outcome, Severity, UnreadReason, Visible};
use portcullis_client::Distrust;

pub use text::{Style, write_findings};

/// The whole result.
#[derive(Debug, Clone)]
pub struct Report {
    /// The registry, as it was typed.
    pub host: String,
    /// One line about the registry as it was met; `None` when it was not.
    pub server: Option<String>,
    /// One per engine, in the order of `EngineProfile::ALL`.
    pub verdicts: Vec<Verdict>,
    /// The worst first.
    pub findings: Vec<Diagnosis>,
    /// Checks that could not be made.
    pub skipped: Vec<Skipped>,
    /// Whether the registry refused every identity that it was shown, or the lack of one.
    pub refused: bool,
}

/// What one engine will do with this registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The profile's name.
    pub engine: &'static str,
    /// The engine's version, where it was found.
    pub version: Option<String>,
    /// Whether it works.
    pub state: VerdictState,
    /// The codes of what is in its way; where nothing is, of its warnings.
    pub codes: Vec<&'static str>,
    /// What happens, in one sentence.
    pub summary: String,
    /// The directory or file that counts for it.
    pub directory: Option<String>,
    /// Which version the rules were asked for, and how they are known.
    pub basis: String,
}

/// Whether an engine works with this registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictState {
    /// It does, as far as could be seen.
    Works,
    /// It does not.
    Fails,
    /// It cannot be told from here.
    Unknown,
}

/// A check that was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// Its code.
    pub code: &'static str,
    /// Why.
    pub reason: &'static str,
}

impl Report {
    pub(crate) fn new(facts: &Facts, findings: Vec<Diagnosis>, skipped: Vec<Skipped>) -> Self {
        let verdicts = facts.engines.iter().map(|engine| verdict(engine, facts, &findings)).collect();
        let live = facts.live();
        let let_in = live.is_some_and(|live| live.pairs.iter().any(is_let_in));
        Self {
            host: facts.target.host.to_string(),
            server: live.and_then(|live| server_shown(live.greeting.as_ref()?)),
            verdicts,
            findings,
            skipped,
            refused: live.is_some_and(|live| requires(live) && !(live.pairs.is_empty() && has_pairs(facts))) && !let_in,
        }
    }

    /// The worst of the findings; `None` when there are none.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// How many findings are this bad.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Pairs that were not shown to the registry were not refused by it.
fn has_pairs(facts: &Facts) -> bool {
    facts.engines.iter().filter_map(|engine| engine.prediction.registry()).any(|endpoint| !endpoint.pairs.is_empty())
}

fn verdict(engine: &EngineFacts, facts: &Facts, findings: &[Diagnosis]) -> Verdict {
    let name = engine.profile.name;
    let concerns = |finding: &&Diagnosis| finding.engines.is_empty() || finding.engines.contains(&name);
    let mut codes = codes(findings.iter().filter(concerns), Severity::Fatal);
    let (mut state, summary) = judge(engine, facts);
    if state == VerdictState::Works && !codes.is_empty() {
        state = VerdictState::Fails;
    }
    if codes.is_empty() {
        codes = self::codes(findings.iter().filter(concerns), Severity::Warning);
    }
    Verdict {
        engine: name,
        version: engine.version.map(|version| version.to_string()),
        state,
        codes,
        summary: Visible(&summary).to_string(),
        directory: engine.prediction.taken().map(shown),
        basis: engine.prediction.basis(),
    }
}

fn codes<'a>(findings: impl Iterator<Item = &'a Diagnosis>, severity: Severity) -> Vec<&'static str> {
    let mut codes: Vec<&'static str> = Vec::new();
    for finding in findings.filter(|finding| finding.severity == severity) {
        if !codes.contains(&finding.code) {
            codes.push(finding.code);
        }
    }
    codes
}

/// What happens, step by step; the first step that fails decides.
fn judge(engine: &EngineFacts, facts: &Facts) -> (VerdictState, String) {
    use VerdictState::{Fails, Unknown, Works};
    match &engine.prediction.outcome {
        Outcome::Fails { text, .. } => return (Fails, format!("stops with: {text}")),
        Outcome::NotAReference { text } => return (Fails, format!("takes no such name: `{text}`")),
        Outcome::Hangs { at } => return (Fails, format!("waits for ever at {}", shown(at))),
        Outcome::CannotTell { at } => return (Unknown, format!("{} could not be read by this user", shown(at))),
        Outcome::NotRead(UnreadReason::PlainHttp) => {
            return (Fails, "speaks plain HTTP to it, without certificates".to_owned());
        }
        Outcome::NotRead(UnreadReason::NoConfigPath) => {
            return (Unknown, "is not told to read certificate directories (config_path)".to_owned());
        }
        Outcome::NotRead(UnreadReason::Loopback(_) | UnreadReason::Insecure(_)) if !unread_matters(facts) => {
            return (Works, "takes the registry for insecure: no certificate plays a part".to_owned());
        }
        Outcome::NotRead(_) => return (Fails, "does not read its directory".to_owned()),
        Outcome::Loaded | Outcome::NoFiles => {}
    }
    let files = loaded(engine);
    let Some(live) = facts.live() else { return (Works, format!("{files}; the registry was not asked")) };
    match trusts(engine, facts) {
        None => return (Fails, format!("{files}; the registry showed no certificate")),
        Some(Trust::No(reason)) => return (Fails, refusal(engine, live, &reason, facts)),
        Some(Trust::ByFiles | Trust::BySystem | Trust::NotVerified) => {}
    }
    match sends(engine, facts) {
        Some(Sent::Pair(pair)) => {
            let file = crate::diagnosis::name(&pair.cert_path);
            let trial = live.pairs.iter().find(|trial| trial.pair.cert_path == pair.cert_path);
            match trial {
                Some(trial) if is_let_in(trial) => (Works, format!("sends {file}, and is let in")),
                Some(_) => (Fails, format!("sends {file}, and is not let in")),
                None => (Unknown, format!("sends {file}")),
            }
        }
        Some(Sent::NoneFits(_)) if requires(live) => {
            (Fails, "sends no certificate: none fits what the registry asks for".to_owned())
        }
        Some(Sent::NoPair) if requires(live) => {
            (Fails, "has no client certificate, and the registry requires one".to_owned())
        }
        _ => (Works, "trusts the registry, which lets it in without a client certificate".to_owned()),
    }
}

/// Why it refuses, and what it says, so that whoever has its message before them finds it again. Our own client has words of its own.
fn refusal(engine: &EngineFacts, live: &LiveFacts, reason: &Distrust, facts: &Facts) -> String {
    let chain = live.greeting.as_ref().map(|greeting| greeting.chain.as_slice()).unwrap_or_default();
    let roots = engine.prediction.registry().map(|endpoint| endpoint.roots.as_slice()).unwrap_or_default();
    let roots: Vec<Certificate> = roots.iter().map(|root| root.certificate.clone()).collect();
    let why = format!("refuses the registry: {reason}");
    if engine.profile.name == EngineProfile::DOCKER_DOCS.name {
        return why;
    }
    format!("{why}; it says `{}`", in_go(reason, chain, &roots, &facts.target.host, facts.now))
}

fn loaded(engine: &EngineFacts) -> String {
    let Some(endpoint) = engine.prediction.registry() else { return "reads nothing".to_owned() };
    let count = |n: usize, one: &str, many: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {many}") };
    match (endpoint.roots.len(), endpoint.pairs.len()) {
        (0, 0) => "no certificates of its own, the system's roots only".to_owned(),
        (roots, pairs) => {
            format!(
                "reads {}, {}",
                count(roots, "CA", "CAs"),
                count(pairs, "client certificate", "client certificates")
            )
        }
    }
}

impl VerdictState {
    /// The key in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Fails => "fails",
            Self::Unknown => "unknown",
        }
    }
}

/// The engines in words: those that take it worst, then the others.
pub(crate) fn engines_shown(diagnosis: &Diagnosis) -> String {
    if diagnosis.engines.is_empty() {
        return "all engines".to_owned();
    }
    let milder = diagnosis.milder.iter().map(|(engine, severity)| format!("{engine} ({severity})"));
    diagnosis.engines.iter().map(ToString::to_string).chain(milder).collect::<Vec<_>>().join(", ")
}
