//! Trust generations: the server's certificate, whom it trusts and what the policy allows, built whole from files,
//! checked, and only then swapped in. A broken one is refused and the old stays.
//!
//! Must not know connections: each asks for the generation in force and keeps its number.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use portcullis_certs::trust_dir::{DenyEntry, TrustDir};
use portcullis_certs::{Certificate, Finding, Fix, PrivateKey, Severity, pem, permissions};
use portcullis_tls::{CaRejected, ServerTls, TrustStore};
use time::OffsetDateTime;

use crate::config::Config;
use crate::document::Problem;
use crate::events::Events;
use crate::policy::Policy;
use crate::watch::Stamps;

/// A policy larger than this is none.
const MAX_POLICY_BYTES: u64 = 1 << 20;

/// One complete state of trust.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) tls: ServerTls,
    pub(crate) policy: Policy,
    pub(crate) since: OffsetDateTime,
    /// What is on its deny list.
    pub(crate) deny: Vec<DenyEntry>,
}

/// The generation in force, and how to make the next one.
#[derive(Debug)]
pub(crate) struct Generations {
    files: Files,
    pub(crate) events: Arc<Events>,
    current: ArcSwap<Generation>,
    /// Held while a generation is built, so that two reloads cannot swap in the wrong order.
    last: Mutex<LastLoad>,
}

/// What the files were when they were last loaded, and why they were refused; empty when they are in force.
#[derive(Debug, Default)]
struct LastLoad {
    stamps: Stamps,
    refused: Vec<Problem>,
}

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    trust: TrustDir,
    policy: PathBuf,
}

impl Generations {
    /// The first generation: without it there is no server.
    pub(crate) fn start(config: &Config) -> Result<Self, Vec<Problem>> {
        let files = Files {
            certificate: config.certificate.clone(),
            key: config.key.clone(),
            trust: TrustDir::new(&config.trust),
            policy: config.policy.clone(),
        };
        // Before the files are read: what changes while they are is then seen as a change.
        let stamps = files.stamps();
        let first = files.load(1)?;
        let last = Mutex::new(LastLoad { stamps, refused: Vec::new() });
        Ok(Self { files, events: Arc::default(), current: ArcSwap::from_pointee(first), last })
    }

    /// The same; from now on `events` is told of each change, and first of what is in force.
    pub(crate) fn telling(self, events: Arc<Events>) -> Self {
        events.trust_changed(None, &self.current());
        Self { events, ..self }
    }

    pub(crate) fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Builds the next generation from the files and puts it in force; returns its number.
    pub(crate) fn reload(&self) -> Result<u64, Vec<Problem>> {
        self.load(&mut self.last())
    }

    /// The same, but only where the files are not those that were loaded last: whoever asks after the watch has seen the
    /// change, or the other way round, gets the same generation or the same refusal.
    pub(crate) fn refresh(&self) -> Result<u64, Vec<Problem>> {
        let mut last = self.last();
        if self.files.stamps() != last.stamps {
            return self.load(&mut last);
        }
        if last.refused.is_empty() { Ok(self.current().number) } else { Err(last.refused.clone()) }
    }

    fn load(&self, last: &mut LastLoad) -> Result<u64, Vec<Problem>> {
        // Before the files are read: what changes while they are is then seen as a change.
        last.stamps = self.files.stamps();
        let number = self.current().number + 1;
        match self.files.load(number) {
            Ok(generation) => {
                tracing::info!(generation = number, "trust is reloaded and in force");
                self.put_in_force(generation);
                last.refused.clear();
                Ok(number)
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(%problem, "trust is not reloaded, the generation before stays in force");
                }
                self.events.trust_refused(self.current().number, &problems);
                last.refused.clone_from(&problems);
                self.restrict(number);
                Err(problems)
            }
        }
    }

    /// Restrictions are never held back: when the files are refused, the generation before goes on with every line of the
    /// deny list that can be read, beside its own.
    fn restrict(&self, number: u64) {
        let current = self.current();
        let new = self.files.deny_lines_beyond(&current.deny);
        if new.is_empty() {
            return;
        }
        let trust = Arc::new(current.tls.trust().denying_also(&new));
        tracing::warn!(generation = number, lines = new.len(), "new lines of the deny list are in force all the same");
        self.put_in_force(Generation {
            number,
            tls: current.tls.with_trust(trust),
            policy: current.policy.clone(),
            since: OffsetDateTime::now_utc(),
            deny: [current.deny.as_slice(), &new].concat(),
        });
    }

    fn put_in_force(&self, generation: Generation) {
        let generation = Arc::new(generation);
        let before = self.current.swap(Arc::clone(&generation));
        self.events.trust_changed(Some(&before), &generation);
    }

    /// Whether every line of the deny list that can be read is in force, whatever became of the rest.
    pub(crate) fn deny_in_force(&self) -> bool {
        self.files.deny_lines_beyond(&self.current().deny).is_empty()
    }

    /// Why the last reload was refused; empty when it was not.
    pub(crate) fn refused(&self) -> Vec<Problem> {
        self.last().refused.clone()
    }

    fn last(&self) -> MutexGuard<'_, LastLoad> {
        // Whole at any time: each field is replaced in one step.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn deny_lines_beyond(&self, known: &[DenyEntry]) -> Vec<DenyEntry> {
        let (files, _) = self.trust.read();
        let is_new = |entry: &DenyEntry| !known.iter().any(|known| known.rule == entry.rule);
        files.deny.into_iter().filter(is_new).collect()
    }

    fn stamps(&self) -> Stamps {
        let deny = self.trust.deny_file();
        let (cas, pins, crls) = (self.trust.cas_dir(), self.trust.pins_dir(), self.trust.crls_dir());
        Stamps::of(&[&self.certificate, &self.key, &self.policy, &deny], &[&cas, &pins, &crls])
    }

    fn load(&self, number: u64) -> Result<Generation, Vec<Problem>> {
        let now = OffsetDateTime::now_utc();
        let mut problems = Vec::new();
        let pair = self.load_pair(&mut problems);
        let (trust, deny) = self.load_trust(now, &mut problems);
        let policy = self.load_policy(&trust, &mut problems);
        let tls = pair.and_then(|(chain, key)| match ServerTls::new(chain, &key, Arc::new(trust)) {
            Ok(tls) => Some(tls),
            Err(error) => {
                problems.push(Problem::new(&self.key, error.to_string()));
                None
            }
        });
        match (tls, policy, problems.is_empty()) {
            (Some(tls), Some(policy), true) => Ok(Generation { number, tls, policy, since: now, deny }),
            _ => Err(problems),
        }
    }

    fn load_pair(&self, problems: &mut Vec<Problem>) -> Option<(Vec<Certificate>, PrivateKey)> {
        check_owner(&self.key, permissions::check_private, problems);
        check_owner(&self.certificate, permissions::check_not_writable, problems);
        let (chain, findings) = pem::read_certificates(&self.certificate);
        problems.extend(findings.iter().map(problem));
        let key = match pem::read_private_key(&self.key) {
            Ok(key) => Some(key),
            Err(findings) => {
                problems.extend(findings.iter().map(problem));
                None
            }
        };
        key.filter(|_| !chain.is_empty()).map(|key| (chain, key))
    }

    fn load_trust(&self, now: OffsetDateTime, problems: &mut Vec<Problem>) -> (TrustStore, Vec<DenyEntry>) {
        let (files, findings) = self.trust.read();
        let own = [self.trust.root.clone(), self.trust.cas_dir(), self.trust.pins_dir(), self.trust.deny_file()];
        let cas = files.cas.iter().map(|ca| &ca.path);
        for path in own.iter().chain(cas).chain(files.pins.iter().map(|pin| &pin.path)) {
            check_owner(path, permissions::check_not_writable, problems);
        }
        for finding in findings {
            if finding.severity == Severity::Fatal {
                problems.push(problem(&finding));
            } else {
                tracing::warn!(%finding, "trust");
            }
        }
        let (store, rejected) = TrustStore::build(&files, now);
        for ca in rejected {
            // Expiry leaves out that one CA and never refuses a generation: the others' clients must not pay for it.
            if ca.only_expired() {
                tracing::warn!(path = %ca.path.display(), subject = %ca.subject, reason = %reasons(&ca), "a CA is left out");
            } else {
                problems.push(Problem::new(&ca.path, format!("{} is no CA: {}", ca.subject, reasons(&ca))));
            }
        }
        (store, files.deny)
    }

    fn load_policy(&self, trust: &TrustStore, problems: &mut Vec<Problem>) -> Option<Policy> {
        check_owner(&self.policy, permissions::check_not_writable, problems);
        let read = || {
            let bytes = fs::metadata(&self.policy)?.len();
            if bytes > MAX_POLICY_BYTES {
                return Err(std::io::Error::other(format!(
                    "it has {bytes} bytes, at most {MAX_POLICY_BYTES} are read"
                )));
            }
            fs::read_to_string(&self.policy)
        };
        match read() {
            Ok(text) => match Policy::parse(&self.policy, &text).and_then(|policy| self.hold_against(policy, trust)) {
                Ok(policy) => return Some(policy),
                Err(found) => problems.extend(found),
            },
            Err(error) => problems.push(Problem::new(&self.policy, format!("the policy cannot be read: {error}"))),
        }
        None
    }

    fn hold_against(&self, policy: Policy, trust: &TrustStore) -> Result<Policy, Vec<Problem>> {
        for warning in policy.check(&self.policy, trust)? {
            tracing::warn!(%warning, "policy");
        }
        Ok(policy)
    }
}

/// Refuses what others could have written or read; what is not there is somebody else's problem to report.
fn check_owner(
    path: &Path,
    check: fn(&Path, &fs::Metadata, u32) -> Option<portcullis_certs::Fault>,
    problems: &mut Vec<Problem>,
) {
    let Ok(metadata) = fs::metadata(path) else { return };
    if let Some(fault) = check(path, &metadata, rustix::process::geteuid().as_raw()) {
        problems.push(problem(&Finding::new(path, Severity::Fatal, fault)));
    }
}

/// The finding with what to do about it.
fn problem(finding: &Finding) -> Problem {
    let message = match finding.fix() {
        Fix::NothingToDo => finding.fault.to_string(),
        fix => format!("{}: {fix}", finding.fault),
    };
    Problem { path: finding.path.clone(), line: finding.line.map(|line| line as usize), message }
}

fn reasons(ca: &CaRejected) -> String {
    ca.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
