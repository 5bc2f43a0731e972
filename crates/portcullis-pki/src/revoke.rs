//! Revoking: lines on the deny list, one per certificate. There is no cut-off by date here: new certificates are
//! backdated, and one would deny the replacement too.

use std::fmt;
use std::str::FromStr;

use portcullis_certs::trust_dir::{DenyEntry, DenyRule, TrustDir};
use portcullis_certs::{Fingerprint, Serial};
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
    let meant = meant(journal, target, now);
    if meant.is_empty() {
        return Err(PkiError::NothingToRevoke {
            target: target.chars().take(300).collect(),
            known: names(journal, now),
        });
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
    Ok(Revoked { denied, already })
}

fn meant(journal: &Journal, target: &str, now: OffsetDateTime) -> Vec<Fingerprint> {
    let clients = || journal.entries.iter().filter(|entry| entry.kind == EntryKind::Client);
    let found = |is_meant: &dyn Fn(&JournalEntry) -> bool| -> Vec<Fingerprint> {
        clients().filter(|entry| is_meant(entry)).map(|entry| entry.fingerprint).collect()
    };
    let by_name = found(&|entry| entry.name == target && entry.not_after > now);
    if !by_name.is_empty() {
        return by_name;
    }
    if let Ok(fingerprint) = Fingerprint::from_str(target) {
        return vec![fingerprint];
    }
    Serial::from_str(target).map(|serial| found(&|entry| entry.serial == serial)).unwrap_or_default()
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
