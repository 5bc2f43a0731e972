//! The files of a trust generation: read whole, judged, and every problem told with its place.
//!
//! Must not know which generation is in force.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_certs::state_dir::{SeenCrl, State, StateDir};
use portcullis_certs::trust_dir::{DenyEntry, DenyRule, TrustDir, TrustFiles};
use portcullis_certs::{
    Certificate, Finding, Fingerprint, Fix, PrivateKey, RevocationList, Severity, ShellCommand, pem, permissions,
};
use portcullis_tls::{CaRejected, CrlFault, ServerTls, TrustStore};
use time::OffsetDateTime;

use crate::config::{Config, Mode};
use crate::crl_rules::CaTables;
use crate::document::Problem;
use crate::policy::Policy;
use crate::watch::Stamps;

/// A policy or a config larger than this is none.
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// Lines gone from the deny list that are named one by one.
const MAX_TOLD: usize = 16;

/// Where everything lies.
#[derive(Debug, Clone)]
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    trust: TrustDir,
    state: StateDir,
    policy: PathBuf,
    config: PathBuf,
    /// What the server was started with.
    mode: Mode,
}

/// What the files were when they were looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    files: Stamps,
    /// Of what we write ourselves.
    state: Stamps,
}

/// Files in which nothing is wrong that keeps them from being in force.
pub(super) struct Loaded {
    pub(super) tls: ServerTls,
    pub(super) policy: Policy,
    pub(super) mode: Mode,
    pub(super) deny: Vec<DenyEntry>,
    pub(super) warnings: Vec<Problem>,
    /// The CAs of which a revocation list is remembered, by the SHA-256 of their keys.
    pub(super) seen_crls: HashSet<Fingerprint>,
}

impl Seen {
    /// Our own writing is no change that anybody else made.
    pub(super) fn take_own_writing(&mut self, files: &Files) {
        self.state = files.state_stamps();
    }
}

impl Files {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            certificate: config.certificate.clone(),
            key: config.key.clone(),
            trust: TrustDir::new(&config.trust),
            state: StateDir::new(&config.state),
            policy: config.policy.clone(),
            config: config.file.clone(),
            mode: config.mode,
        }
    }

    /// What is there now, as far as it can be told without reading.
    pub(super) fn seen(&self) -> Seen {
        Seen { files: self.stamps(), state: self.state_stamps() }
    }

    fn stamps(&self) -> Stamps {
        let deny = self.trust.deny_file();
        let (cas, pins, crls) = (self.trust.cas_dir(), self.trust.pins_dir(), self.trust.crls_dir());
        Stamps::of(&[&self.certificate, &self.key, &self.policy, &self.config, &deny], &[&cas, &pins, &crls])
    }

    /// Of what we write ourselves, and `trust forgive` beside us.
    fn state_stamps(&self) -> Stamps {
        let state = &self.state;
        Stamps::of(&[&state.deny_file(), &state.crls_file(), &state.forgiven_file()], &[])
    }

    /// What can be read of the trust directory, whatever is wrong with the rest, and what was ever denied.
    pub(super) fn read_trust(&self) -> TrustFiles {
        let mut files = self.trust.read().0;
        self.add_remembered(&mut files, &self.state.read().0, &[]);
        files
    }

    /// Writes down what is denied and which lists are in force, so that a `trust/` of an earlier day un-revokes nobody; and
    /// `lines`, which are in force although no file may have them. Nothing where the files are not those that were
    /// loaded, `seen`: somebody has forgiven something since, and it must not come back.
    pub(super) fn remember(&self, trust: &TrustStore, lines: &[DenyEntry], seen: &Seen) -> io::Result<bool> {
        let crls = || trust.crls().map(|crl| (crl.ca_key, &crl.list));
        let state = self.state.read().0;
        let mut deny = self.trust.read().0.deny;
        deny.extend(lines.iter().filter(|entry| !state.forgiven.contains(&entry.rule)).cloned());
        if state.knows(&deny, crls()) {
            return Ok(false);
        }
        let lock = self.state.lock()?;
        // Under the lock, so that what was read until now still holds.
        if self.seen() == *seen { self.state.remember(&lock, &deny, crls()) } else { Ok(false) }
    }

    /// What to tell when it cannot be written down.
    pub(super) fn not_remembered(&self, error: &io::Error) -> String {
        let state = self.state.root().display();
        format!(
            "what is denied cannot be written down in {state}: {error}; it is enforced while this server runs. \
             Let it write there, or set `tls.state` to a directory that it can write"
        )
    }

    /// Adds the lines that are gone from the deny list, also from what is remembered of it, and were not forgiven; returns
    /// what to tell about them.
    fn add_remembered(&self, files: &mut TrustFiles, state: &State, earlier: &[DenyEntry]) -> Vec<Problem> {
        let mut told: HashSet<DenyRule> = files.deny.iter().map(|entry| entry.rule.clone()).collect();
        let earlier = earlier.iter().filter(|entry| !state.forgiven.contains(&entry.rule));
        let gone: Vec<&DenyEntry> =
            state.deny.iter().chain(earlier).filter(|entry| told.insert(entry.rule.clone())).collect();
        let mut warnings: Vec<Problem> = gone.iter().take(MAX_TOLD).map(|entry| self.gone(&entry.rule)).collect();
        if gone.len() > MAX_TOLD {
            let message = format!("and {} more lines are gone from the deny list", gone.len() - MAX_TOLD);
            warnings.push(Problem::new(&self.trust.deny_file(), message));
        }
        files.deny.extend(gone.into_iter().cloned());
        warnings
    }

    fn gone(&self, rule: &DenyRule) -> Problem {
        let forgive = forgive(&rule.to_string());
        let message =
            format!("the line {rule} is gone from the deny list; it stays denied, unless you type: {forgive}");
        Problem::new(&self.trust.deny_file(), message)
    }

    /// CAs whose newest list is older than one that was in force once, or not there; and those of which nobody can tell
    /// which list is the newest.
    fn doubtful_lists(&self, store: &TrustStore, state: &State) -> Vec<Problem> {
        let mut told = HashSet::new();
        let mut warnings = Vec::new();
        for (ca, key) in store.ca_keys().filter(|(_, key)| told.insert(*key)) {
            let lists: Vec<&RevocationList> =
                store.crls().filter(|crl| crl.ca_key == key).map(|crl| &crl.list).collect();
            let is_in_order =
                |seen: &SeenCrl| lists.iter().any(|list| seen.is_older_than(list) || seen.is_that_of(list));
            match (state.crls.get(&key), lists.as_slice()) {
                (_, [one, other, ..]) => warnings.push(self.disagreement(ca, &SeenCrl::of(one), other)),
                (Some(seen), []) => warnings.push(self.older_list(ca, seen, "none is there now")),
                (Some(seen), [list]) if seen.is_newer_than(list) => {
                    warnings.push(self.older_list(ca, seen, "an older one is there now"));
                }
                (Some(seen), [list]) if !is_in_order(seen) => warnings.push(self.disagreement(ca, seen, list)),
                (Some(_) | None, [_] | []) => {}
            }
        }
        warnings
    }

    fn disagreement(&self, ca: &str, one: &SeenCrl, other: &RevocationList) -> Problem {
        let message = format!(
            "the CA {ca} has the revocation lists {} and {}, and number and date disagree about which is the newer one: while this server runs, what either of them names is revoked. If the CA began to count anew, type: {}",
            edition(one),
            edition(&SeenCrl::of(other)),
            forgive(&format!("crl:{ca}"))
        );
        Problem::new(&self.trust.crls_dir(), message)
    }

    fn older_list(&self, ca: &str, seen: &SeenCrl, now: &str) -> Problem {
        let message = format!(
            "the CA {ca} had the revocation list {}, and {now}: get the newest, or type: {}",
            edition(seen),
            forgive(&format!("crl:{ca}"))
        );
        Problem::new(&self.trust.crls_dir(), message)
    }

    /// Everything, or every problem; and in both cases what could be read of the trust directory. What `earlier` denies
    /// stays denied, like what is remembered.
    pub(super) fn load(&self, earlier: &[DenyEntry]) -> (TrustFiles, Result<Loaded, Vec<Problem>>) {
        let now = OffsetDateTime::now_utc();
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let pair = self.load_pair(&mut problems);
        let policy = self.load_policy(&mut problems);
        let mode = self.load_mode(&mut problems);
        let cas = policy.as_ref().map(|policy| policy.cas().clone()).unwrap_or_default();
        let (mut files, findings) = self.trust.read();
        let (state, of_state) = self.state.read();
        warnings.extend(self.add_remembered(&mut files, &state, earlier));
        let findings = findings.into_iter().chain(of_state).collect();
        self.check_trust(&files, findings, &mut problems, &mut warnings);
        let trust = self.build_trust(&files, &cas, now, &mut problems, &mut warnings);
        warnings.extend(self.doubtful_lists(&trust, &state));
        let checked = policy.as_ref().map(|policy| policy.check(&self.policy, &trust));
        match checked.transpose() {
            Ok(found) => warnings.extend(found.into_iter().flatten()),
            Err(found) => problems.extend(found),
        }
        let tls = pair.and_then(|(chain, key)| match ServerTls::new(chain, &key, Arc::new(trust)) {
            Ok(tls) => Some(tls),
            Err(error) => {
                problems.push(Problem::new(&self.key, error.to_string()));
                None
            }
        });
        let seen_crls = state.crls.keys().copied().collect();
        let loaded = match (tls, policy, problems.is_empty()) {
            (Some(tls), Some(policy), true) => {
                Ok(Loaded { tls, policy, mode, deny: files.deny.clone(), warnings, seen_crls })
            }
            _ => Err(problems),
        };
        (files, loaded)
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

    fn check_trust(
        &self,
        files: &TrustFiles,
        findings: Vec<Finding>,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) {
        let trust = &self.trust;
        let own = [trust.root.clone(), trust.cas_dir(), trust.pins_dir(), trust.crls_dir(), trust.deny_file()];
        let own = own.into_iter().chain([
            self.state.root().to_owned(),
            self.state.deny_file(),
            self.state.crls_file(),
            self.state.forgiven_file(),
        ]);
        let own: Vec<PathBuf> = own.collect();
        let cas = files.cas.iter().map(|ca| &ca.path);
        let others = files.pins.iter().map(|pin| &pin.path).chain(files.crls.iter().map(|crl| &crl.path));
        for path in own.iter().chain(cas).chain(others) {
            check_owner(path, permissions::check_not_writable, problems);
        }
        let entries = files.cas.iter().map(|ca| &ca.path).chain(files.pins.iter().map(|pin| &pin.path));
        for path in entries.chain(files.crls.iter().map(|crl| &crl.path)) {
            check_link(path, problems);
        }
        for finding in findings {
            let is_fatal = finding.severity == Severity::Fatal;
            if is_fatal { &mut *problems } else { &mut *warnings }.push(problem(&finding));
        }
    }

    fn build_trust(
        &self,
        files: &TrustFiles,
        cas: &CaTables,
        now: OffsetDateTime,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Problem>,
    ) -> TrustStore {
        let (store, rejected) = TrustStore::build(files, now);
        for ca in rejected {
            // Expiry leaves out that one CA and never refuses a generation: the others' clients must not pay for it.
            if ca.only_expired() {
                warnings.push(Problem::new(&ca.path, format!("{} is left out: {}", ca.subject, reasons(&ca))));
            } else {
                problems.push(Problem::new(&ca.path, format!("{} is no CA: {}", ca.subject, reasons(&ca))));
            }
        }
        let (store, rejected) = store.with_crls(&files.crls, &cas.rules);
        for crl in rejected {
            // A CA that is trusted no longer lets nobody in: to remove it is a restriction, which its list must not hold back.
            let is_idle = matches!(crl.fault, CrlFault::NoCa { .. });
            let what = if is_idle { "revocation list of another CA" } else { "revocation list does not count" };
            let message = format!("{what}: {}", crl.fault);
            let problem = Problem { path: crl.path, line: crl.line.map(|line| line as usize), message };
            if is_idle { &mut *warnings } else { &mut *problems }.push(problem);
        }
        let known = |name: &str| files.cas.iter().any(|ca| ca.name == name);
        for (name, line) in cas.lines.iter().filter(|(name, _)| !known(name)) {
            let names: Vec<&str> = files.cas.iter().map(|ca| ca.name.as_str()).collect();
            let message = format!("`ca.{name}`: no CA of that name is in trust/cas; there are: {}", names.join(", "));
            warnings.push(Problem { path: self.policy.clone(), line: Some(*line), message });
        }
        store
    }

    /// All else in the config file holds from the start on. A server that was given its configuration in another way
    /// has no such file.
    fn load_mode(&self, problems: &mut Vec<Problem>) -> Mode {
        match read_text(&self.config) {
            Ok(text) => match Config::parse(&self.config, &text) {
                Ok(config) => return config.mode,
                Err(found) => problems.extend(found),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => problems.push(Problem::new(&self.config, format!("the config cannot be read: {error}"))),
        }
        self.mode
    }

    fn load_policy(&self, problems: &mut Vec<Problem>) -> Option<Policy> {
        check_owner(&self.policy, permissions::check_not_writable, problems);
        match read_text(&self.policy) {
            Ok(text) => match Policy::parse(&self.policy, &text) {
                Ok(policy) => return Some(policy),
                Err(found) => problems.extend(found),
            },
            Err(error) => problems.push(Problem::new(&self.policy, format!("the policy cannot be read: {error}"))),
        }
        None
    }
}

fn forgive(entry: &str) -> ShellCommand {
    ShellCommand::new(["portcullis", "trust", "forgive", entry])
}

/// A list as its CA's operator knows it.
fn edition(seen: &SeenCrl) -> String {
    let number = seen.number.as_ref().map(|number| format!("number {number} ")).unwrap_or_default();
    format!("{number}of {}", seen.this_update.date())
}

/// The text of a file of bounded size.
fn read_text(path: &Path) -> io::Result<String> {
    let bytes = fs::metadata(path)?.len();
    if bytes > MAX_TEXT_BYTES {
        return Err(io::Error::other(format!("it has {bytes} bytes, at most {MAX_TEXT_BYTES} are read")));
    }
    fs::read_to_string(path)
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

/// A link that another user put into a sticky directory could lead to any of root's certificates.
fn check_link(path: &Path, problems: &mut Vec<Problem>) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let fault = permissions::check_not_foreign(path, &metadata, rustix::process::geteuid().as_raw());
    if let Some(fault) = fault.filter(|_| metadata.is_symlink()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_certs::state_dir::without_rule;

    /// Between the loading of a generation and its being written down somebody takes a denial back.
    #[test]
    fn what_is_forgiven_meanwhile_is_not_remembered_again() {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::parse(&home.path().join("config.toml"), "").expect("all defaults");
        let files = Files::of(&config);
        let line = format!("sha256:{}", "ab".repeat(32));
        fs::create_dir(&config.trust).expect("made");
        fs::write(files.trust.deny_file(), &line).expect("written");
        let (store, _) = TrustStore::build(&TrustFiles::default(), OffsetDateTime::UNIX_EPOCH);
        let (seen, deny) = (files.seen(), files.read_trust().deny);
        let lock = files.state.lock().expect("locked");
        without_rule(&files.trust.deny_file(), &deny[0].rule).expect("taken out");
        files.state.forget_deny(&lock, &deny[0].rule).expect("forgiven");
        drop(lock);
        for seen in [seen, files.seen()] {
            assert!(!files.remember(&store, &deny, &seen).expect("nothing to write"));
            assert!(files.read_trust().deny.is_empty());
        }
        // Denied again, it counts again.
        fs::write(files.trust.deny_file(), &line).expect("written");
        assert!(files.remember(&store, &[], &files.seen()).expect("written"));
        assert!(files.state.read().0.forgiven.is_empty());
    }
}
