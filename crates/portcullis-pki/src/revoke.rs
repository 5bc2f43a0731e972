//! Revoking, and taking it back: lines on the deny list, one per certificate. A cut-off by date only where one is asked
//! for: new certificates are backdated, and it would deny the replacement too, if that did not heed it.

use std::fmt;
use std::str::FromStr;

use portcullis_certs::state_dir::{self, StateDir};
use portcullis_certs::trust_dir::{DenyEntry, DenyRule, TrustDir};
use portcullis_certs::{Fingerprint, Serial, glob};
use time::OffsetDateTime;

use crate::journal::{EntryKind, Journal, JournalEntry};
use crate::{PkiError, files};

/// What a revocation did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revoked {
    /// The certificates that are denied from now on.
    pub denied: Vec<Fingerprint>,
    /// Those that were denied before.
    pub already: Vec<Fingerprint>,
    /// Lines of the journal that cannot be read, counted from 1, where they may be about certificates that were meant too.
    /// Empty for a fingerprint and for a serial number that was found: those mean one certificate.
    pub unread: Vec<usize>,
}

/// Denies every certificate that `target` means: all unexpired ones of the client of that name, else the one with that
/// serial number, else the certificate with that SHA-256, whoever issued it. `note` says who, when and why.
///
/// The lines are synced when this returns; they are in force when the server has read them.
///
/// # Errors
/// [`PkiError::NothingToRevoke`] with the names there are: a misspelled name must not look like success.
pub fn revoke(
    journal: &Journal,
    trust: &TrustDir,
    target: &str,
    note: &str,
    now: OffsetDateTime,
) -> Result<Revoked, PkiError> {
    let Meant { certificates: meant, is_all } = meant(journal, target, now);
    if meant.is_empty() {
        return Err(nothing(journal, target, now));
    }
    // Lines that cannot be read are the server's to complain about; they deny nothing that we could repeat here.
    let (present, _) = trust.read();
    let is_denied =
        |fingerprint: &Fingerprint| present.deny.iter().any(|entry| entry.rule == DenyRule::Certificate(*fingerprint));
    let (already, denied): (Vec<_>, Vec<_>) = meant.into_iter().partition(is_denied);
    for fingerprint in &denied {
        let line = DenyEntry::to_line(&DenyRule::Certificate(*fingerprint), Some(note))?;
        files::append_line(&trust.deny_file(), &line)?;
    }
    Ok(Revoked { denied, already, unread: if is_all { Vec::new() } else { journal.damaged.clone() } })
}

/// Denies every certificate of the client `name` that was issued before `before`: for "everything until the break-in", where
/// the list of certificates is not to be trusted. `*` in the name stands for any part. Returns the rule, and whether it
/// was there before.
///
/// # Errors
/// [`PkiError::CutOffAhead`]: it would deny certificates that are not made yet. [`PkiError::NothingToRevoke`] when no
/// client was ever called so.
pub fn cut_off(
    journal: &Journal,
    trust: &TrustDir,
    (name, before): (&str, OffsetDateTime),
    note: &str,
    now: OffsetDateTime,
) -> Result<(DenyRule, bool), PkiError> {
    if before > now {
        return Err(PkiError::CutOffAhead { before });
    }
    // A line that cannot be read may be the one that has the name.
    let is_known = !journal.damaged.is_empty()
        || journal.entries.iter().any(|entry| entry.kind == EntryKind::Client && glob(name, &entry.name));
    if !is_known {
        return Err(nothing(journal, name, now));
    }
    let rule = DenyRule::Name { matcher: format!("cn={name}"), before };
    if trust.read().0.deny.iter().any(|entry| entry.rule == rule) {
        return Ok((rule, true));
    }
    files::append_line(&trust.deny_file(), &DenyEntry::to_line(&rule, Some(note))?)?;
    Ok((rule, false))
}

/// The moment before which a new certificate must not seem to have been issued: the latest cut-off of the deny list, to
/// the full second after it.
pub fn latest_cut_off(deny: &[DenyEntry]) -> Option<OffsetDateTime> {
    let cut_offs = deny.iter().filter_map(|entry| match entry.rule {
        DenyRule::Name { before, .. } => Some(before),
        _ => None,
    });
    let latest = cut_offs.max()?;
    Some(if latest.nanosecond() == 0 { latest } else { latest.replace_nanosecond(0).ok()? + time::Duration::SECOND })
}

/// Takes back what was denied, from the deny list and from what is remembered of it: `target` is an entry as it stands
/// there, or `crl:` and a CA's name in `trust/cas`, for a revocation list of which an older edition shall count again.
///
/// # Errors
/// [`PkiError::NothingToForgive`] when there is no such entry.
pub fn forgive(trust: &TrustDir, state: &StateDir, target: &str) -> Result<(), PkiError> {
    let failed = |source| PkiError::State { path: state.root().to_owned(), source };
    let lock = state.lock().map_err(failed)?;
    let found = match target.strip_prefix("crl:") {
        Some(name) => {
            let (files, _) = trust.read();
            let cas = files.cas.iter().filter(|ca| ca.name == name).flat_map(|ca| &ca.certificates);
            let mut found = false;
            for ca in cas {
                found |= state.forget_crl(&lock, ca.facts().key_hash).map_err(failed)?;
            }
            found
        }
        None => {
            let rule: DenyRule = target.parse()?;
            let written = state_dir::without_rule(&trust.deny_file(), &rule);
            let written = written.map_err(|source| PkiError::State { path: trust.deny_file(), source })?;
            state.forget_deny(&lock, &rule).map_err(failed)? || written
        }
    };
    if found {
        return Ok(());
    }
    let (remembered, _) = state.read();
    Err(PkiError::NothingToForgive {
        target: target.chars().take(300).collect(),
        known: remembered.deny.len() + remembered.crls.len(),
    })
}

struct Meant {
    certificates: Vec<Fingerprint>,
    /// Whether no line of the journal that cannot be read could add to them.
    is_all: bool,
}

fn meant(journal: &Journal, target: &str, now: OffsetDateTime) -> Meant {
    let clients = || journal.entries.iter().filter(|entry| entry.kind == EntryKind::Client);
    let found = |is_meant: &dyn Fn(&JournalEntry) -> bool| -> Vec<Fingerprint> {
        clients().filter(|entry| is_meant(entry)).map(|entry| entry.fingerprint).collect()
    };
    let by_name = found(&|entry| entry.name == target && entry.not_after > now);
    if !by_name.is_empty() {
        return Meant { certificates: by_name, is_all: journal.damaged.is_empty() };
    }
    if let Ok(fingerprint) = Fingerprint::from_str(target) {
        return Meant { certificates: vec![fingerprint], is_all: true };
    }
    let by_serial = Serial::from_str(target).map(|serial| found(&|entry| entry.serial == serial));
    Meant { certificates: by_serial.unwrap_or_default(), is_all: true }
}

fn nothing(journal: &Journal, target: &str, now: OffsetDateTime) -> PkiError {
    PkiError::NothingToRevoke {
        target: target.chars().take(300).collect(),
        known: names(journal, now),
        damaged: journal.damaged.clone(),
    }
}

/// The clients that can be revoked by name.
fn names(journal: &Journal, now: OffsetDateTime) -> Vec<String> {
    let live = journal.entries.iter().filter(|entry| entry.kind == EntryKind::Client && entry.not_after > now);
    let mut names: Vec<String> = live.map(|entry| entry.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.denied.iter().map(|fingerprint| format!("revoked {fingerprint}"));
        let already = self.already.iter().map(|fingerprint| format!("already revoked {fingerprint}"));
        f.write_str(&lines.chain(already).collect::<Vec<_>>().join("\n"))
    }
}
