//! Trust generations: the server's certificate, whom it trusts and what the policy allows, built whole from files,
//! checked, and only then swapped in. A broken one is refused and the old stays.
//!
//! Must not know connections: each asks for the generation in force and keeps its number.

mod files;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use portcullis_certs::trust_dir::{DenyEntry, DenyRule, TrustFiles};
use portcullis_certs::{Fingerprint, RevocationList};
use portcullis_tls::{ServerTls, TrustStore};
use time::OffsetDateTime;

use crate::config::{Config, Mode};
use crate::document::Problem;
use crate::events::Events;
use crate::policy::Policy;
use files::{Files, Loaded, Seen};

/// How often files are read again that change while they are read. The next look finds what has come after that.
const MAX_READS: usize = 3;

/// One complete state of trust.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) tls: ServerTls,
    pub(crate) policy: Policy,
    pub(crate) mode: Mode,
    pub(crate) since: OffsetDateTime,
    /// What is wrong with its files and does not keep them from being in force: told loudly, with file and line.
    pub(crate) warnings: Vec<Problem>,
    /// What is on its deny list.
    pub(crate) deny: Vec<DenyEntry>,
}

/// The generation in force, and how to make the next one.
#[derive(Debug)]
pub(crate) struct Generations {
    files: Files,
    pub(crate) events: Arc<Events>,
    current: ArcSwap<Generation>,
    /// For those who ask: they must not wait for whoever reads files.
    told: ArcSwap<Told>,
    /// What the files were when they were last loaded. Held while a generation is built, so that two reloads cannot swap in
    /// the wrong order.
    last: Mutex<Seen>,
}

/// What is wrong with the files. Changed only by whoever holds the last load.
#[derive(Debug, Clone, Default)]
struct Told {
    /// Why they were refused when they were last loaded; empty when they are in force.
    refused: Vec<Problem>,
    /// Why what is denied cannot be written down; from then on nothing is let go that this process knows to be denied.
    not_remembered: Option<String>,
}

impl Generations {
    /// The first generation: without it there is no server.
    pub(crate) fn start(config: &Config) -> Result<Self, Vec<Problem>> {
        let files = Files::of(config);
        let (seen, (_, loaded)) = settled(|| files.seen(), || files.load(&[]));
        let first = Generation::new(1, loaded?);
        first.tell_warnings();
        let last = Mutex::new(seen);
        Ok(Self {
            files,
            events: Arc::default(),
            current: ArcSwap::from_pointee(first),
            told: ArcSwap::default(),
            last,
        })
    }

    /// The same; from now on `events` is told of each change, and first of what is in force, and what is denied is written
    /// down.
    pub(crate) fn telling(self, events: Arc<Events>) -> Self {
        events.trust_changed(None, &self.current());
        self.remember(&mut self.last());
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
        if self.files.seen() != *last {
            return self.load(&mut last);
        }
        let refused = self.refused();
        if refused.is_empty() { Ok(self.current().number) } else { Err(refused) }
    }

    fn load(&self, last: &mut Seen) -> Result<u64, Vec<Problem>> {
        let current = self.current();
        let number = current.number + 1;
        let is_remembered = self.not_remembered().is_none();
        let (seen, (files, loaded)) = settled(|| self.files.seen(), || self.files.load(&current.deny));
        *last = seen;
        let outcome = match loaded {
            Ok(loaded) => {
                let seen = loaded.seen_crls.clone();
                let is_kept = |ca_key| !is_remembered || seen.contains(&ca_key);
                let generation = Generation::new(number, loaded).keeping_crls_of(&current, is_kept);
                tracing::info!(generation = number, "trust is reloaded and in force");
                generation.tell_warnings();
                self.put_in_force(generation);
                self.tell(|told| told.refused.clear());
                Ok(number)
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(%problem, "trust is not reloaded, the generation before stays in force");
                }
                self.events.trust_refused(self.current().number, &problems);
                self.tell(|told| told.refused.clone_from(&problems));
                self.restrict(&current, &files);
                Err(problems)
            }
        };
        self.remember(last);
        outcome
    }

    /// Writes down what is in force. Where that is not possible (a read-only container), the registry works all the same.
    fn remember(&self, last: &mut Seen) {
        let (current, not_remembered) = (self.current(), self.not_remembered());
        match self.files.remember(current.tls.trust(), &current.deny, last) {
            Ok(is_new) => {
                self.tell(|told| told.not_remembered = None);
                if is_new {
                    // Our own writing is no change that anybody else made.
                    last.take_own_writing(&self.files);
                }
            }
            Err(error) => {
                let reason = Some(self.files.not_remembered(&error));
                if let (Some(reason), true) = (&reason, not_remembered != reason) {
                    tracing::warn!(%reason, "what is denied is not remembered");
                }
                self.tell(|told| told.not_remembered = reason);
            }
        }
    }

    /// Why what is denied cannot be written down, if it cannot.
    pub(crate) fn not_remembered(&self) -> Option<String> {
        self.told.load().not_remembered.clone()
    }

    /// Restrictions are never held back: when the files are refused, the generation before goes on with every line of the
    /// deny list that can be read and every revocation list that its CAs signed, beside its own, and without the CAs and
    /// pins whose files are gone.
    fn restrict(&self, current: &Generation, files: &TrustFiles) {
        let lines = current.lines_beyond(files);
        let before = current.tls.trust();
        let trust = before.restricted_by(&lines, files);
        let known = |list: &RevocationList| before.revocation_lists().any(|own| own == list);
        let new_crls = trust.revocation_lists().filter(|list| !known(list)).count();
        let gone = names_gone(before, files);
        if lines.is_empty() && new_crls == 0 && gone.is_empty() {
            return;
        }
        let number = current.number + 1;
        tracing::warn!(
            generation = number,
            lines = lines.len(),
            crls = new_crls,
            gone = gone.join(", "),
            "new lines of the deny list, new revocation lists and what is gone from cas and pins are in force all the same"
        );
        self.put_in_force(Generation {
            number,
            tls: current.tls.with_trust(Arc::new(trust)),
            policy: current.policy.clone(),
            mode: current.mode,
            since: OffsetDateTime::now_utc(),
            warnings: current.warnings.clone(),
            deny: [current.deny.as_slice(), &lines].concat(),
        });
    }

    fn put_in_force(&self, generation: Generation) {
        let generation = Arc::new(generation);
        let before = self.current.swap(Arc::clone(&generation));
        self.events.trust_changed(Some(&before), &generation);
    }

    /// Whether every restriction that can be read is in force, whatever became of the rest: the lines of the deny list, and
    /// that nobody is trusted by a file that is gone.
    pub(crate) fn deny_in_force(&self) -> bool {
        let (current, files) = (self.current(), self.files.read_trust());
        current.lines_beyond(&files).is_empty() && names_gone(current.tls.trust(), &files).is_empty()
    }

    /// Why the last reload was refused; empty when it was not.
    pub(crate) fn refused(&self) -> Vec<Problem> {
        self.told.load().refused.clone()
    }

    fn tell(&self, change: impl FnOnce(&mut Told)) {
        let mut told = Told::clone(&self.told.load());
        change(&mut told);
        self.told.store(Arc::new(told));
    }

    fn last(&self) -> MutexGuard<'_, Seen> {
        // Whole at any time: it is replaced in one step.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The CAs and pins whose files are gone, as far as that can be told.
fn names_gone(trust: &TrustStore, files: &TrustFiles) -> Vec<String> {
    let is_gone = |listed: &Option<HashSet<String>>, name: &str| listed.as_ref().is_some_and(|all| !all.contains(name));
    let cas = trust.ca_keys().map(|(name, _)| name).filter(|name| is_gone(&files.listed_cas, name));
    let pins = trust.pin_names().filter(|name| is_gone(&files.listed_pins, name));
    let gone: BTreeSet<String> =
        cas.map(|name| format!("ca:{name}")).chain(pins.map(|name| format!("pin:{name}"))).collect();
    gone.into_iter().collect()
}

/// Reads files that did not change meanwhile: half of one change and half of the next is a state that nobody wrote. Returns
/// what they were before they were read.
fn settled<S: PartialEq, T>(mut look: impl FnMut() -> S, mut read: impl FnMut() -> T) -> (S, T) {
    let mut before = look();
    let mut found = read();
    for _ in 1..MAX_READS {
        let after = look();
        if after == before {
            break;
        }
        (before, found) = (after, read());
    }
    (before, found)
}

impl Generation {
    fn new(number: u64, loaded: Loaded) -> Self {
        let Loaded { tls, policy, mode, deny, warnings, seen_crls: _ } = loaded;
        Self { number, tls, policy, mode, since: OffsetDateTime::now_utc(), warnings, deny }
    }

    /// A list that was replaced by an older one, or taken away, would let the revoked in again: the newer one stays in
    /// force while the server runs, unless it was forgiven. What has gone is told already, by what is remembered.
    fn keeping_crls_of(mut self, earlier: &Self, is_kept: impl Fn(Fingerprint) -> bool) -> Self {
        let (trust, kept) = TrustStore::clone(self.tls.trust()).keeping_crls_of(earlier.tls.trust(), is_kept);
        if !kept.is_empty() {
            self.tls = self.tls.with_trust(Arc::new(trust));
        }
        self
    }

    /// What `files` denies and this generation does not.
    fn lines_beyond(&self, files: &TrustFiles) -> Vec<DenyEntry> {
        let known: HashSet<&DenyRule> = self.deny.iter().map(|entry| &entry.rule).collect();
        files.deny.iter().filter(|entry| !known.contains(&entry.rule)).cloned().collect()
    }

    fn tell_warnings(&self) {
        for problem in &self.warnings {
            tracing::warn!(%problem, "trust");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A policy of one change beside the certificates of the next is a state that nobody wrote.
    #[test]
    fn files_that_change_while_they_are_read_are_read_again() {
        let check = |stamps: &[u32], expected: (u32, u32)| {
            let (mut looks, mut reads) = (stamps.iter().copied(), 0);
            let mut read = || {
                reads += 1;
                reads
            };
            let found = settled(|| looks.next().unwrap_or(stamps[stamps.len() - 1]), &mut read);
            assert_eq!(found, expected, "{stamps:?}");
        };
        check(&[1, 1], (1, 1));
        check(&[1, 2, 2], (2, 2));
        check(&[1, 2, 3, 3], (3, 3));
        // Never at rest: the next look finds that it has changed since, and loads it again.
        check(&[1, 2, 3, 4, 5], (3, 3));
    }
}
