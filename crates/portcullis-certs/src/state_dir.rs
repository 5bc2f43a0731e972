//! `<home>/state/`: what was ever denied, and the newest revocation list of each CA that was ever in force, kept outside of
//! `trust/` and the data, so that a `trust/` restored from a backup, or rolled back by whoever deploys it, un-revokes
//! nobody.
//!
//! ```text
//! state/deny      a copy of every line that was ever in trust/deny, in its grammar
//! state/crls      <SHA-256 of a CA's key> <thisUpdate, RFC 3339> <CRL number, hexadecimal, or ->
//! state/forgiven  the lines that were taken out by `trust forgive`, and not denied again since
//! state/lock      held by whoever writes
//! ```
//!
//! Knows what the files say, not what it is worth. The one place that writes here, for the server and for commands.

use crate::crl::{self, RevocationList};
use crate::deny::{DenyEntry, DenyRule, parse_list};
use crate::fault::Fault;
use crate::file;
use crate::finding::{Finding, Severity};
use crate::fingerprint::{Fingerprint, Serial};
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Twice what a deny list may have, since lines that were taken out stay here.
const DENY_LIMIT: u64 = 32 << 20;
/// A line is 120 octets; no server has so many CAs.
const CRLS_LIMIT: u64 = 1 << 20;

/// A `state/` directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

/// What a `state/` directory remembers.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Everything that was ever denied and not forgiven.
    pub deny: Vec<DenyEntry>,
    /// What was denied and forgiven: what tells that from a line that somebody took out by hand.
    pub forgiven: HashSet<DenyRule>,
    /// The newest list of each CA, by the SHA-256 of the CA's key.
    pub crls: HashMap<Fingerprint, SeenCrl>,
}

/// A revocation list that was in force once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenCrl {
    /// Its number; version 1 has none.
    pub number: Option<Serial>,
    /// When it was made.
    pub this_update: OffsetDateTime,
}

impl StateDir {
    /// The state directory at this path, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `deny`.
    pub fn deny_file(&self) -> PathBuf {
        self.root.join("deny")
    }

    /// `forgiven`.
    pub fn forgiven_file(&self) -> PathBuf {
        self.root.join("forgiven")
    }

    /// `crls`.
    pub fn crls_file(&self) -> PathBuf {
        self.root.join("crls")
    }

    /// Reads everything. What is missing is empty. What is there and cannot be read is fatal: who was denied would not be
    /// known; a single line that cannot be read (a crash cuts the last one short) is a warning.
    pub fn read(&self) -> (State, Vec<Finding>) {
        let mut findings = Vec::new();
        let deny = read_rules(&self.deny_file(), &mut findings);
        let forgiven = read_rules(&self.forgiven_file(), &mut findings).into_iter().map(|entry| entry.rule).collect();
        let mut state = State { deny, forgiven, ..State::default() };
        if let Some(bytes) = read_if_there(&self.crls_file(), CRLS_LIMIT, &mut findings) {
            for (number, line) in (1..).zip(String::from_utf8_lossy(&bytes).lines()) {
                match parse_seen(line) {
                    Some((ca_key, seen)) => {
                        state.crls.insert(ca_key, seen);
                    }
                    None => {
                        let fault =
                            Fault::BadDenyLine { text: line.to_owned(), reason: "not a list that was seen".to_owned() };
                        findings.push(Finding::at(&self.crls_file(), number, Severity::Warning, fault));
                    }
                }
            }
        }
        (state, findings)
    }

    /// Adds what is not remembered yet, under the lock. Returns whether anything was. What is given must have been read since
    /// the lock was taken, or be known not to have changed: what another has taken out in between must not come back.
    ///
    /// # Errors
    /// The files cannot be written, as in a read-only container.
    pub fn remember<'a>(
        &self,
        lock: &StateLock,
        deny: &[DenyEntry],
        crls: impl IntoIterator<Item = (Fingerprint, &'a RevocationList)>,
    ) -> io::Result<bool> {
        let (known, _) = self.read();
        let Lacking { rules: new, crls: seen } = known.lacks(deny, crls);
        if !new.is_empty() {
            // Denied again: whoever takes it out by hand from now on has not forgiven it.
            let again: HashSet<&DenyRule> = new.iter().map(|entry| &entry.rule).collect();
            if known.forgiven.iter().any(|rule| again.contains(rule)) {
                self.write_forgiven(lock, known.forgiven.iter().filter(|rule| !again.contains(rule)))?;
            }
            self.append(&new)?;
        }
        if let Some(seen) = &seen {
            self.write_crls(seen)?;
        }
        Ok(!new.is_empty() || seen.is_some())
    }

    /// Held while files here, or the deny list beside them, are changed: what one process takes out, another must not put
    /// back.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn lock(&self) -> io::Result<StateLock> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        let path = self.root.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.lock()?;
        Ok(StateLock(file))
    }

    /// Takes an entry out, under the lock, and writes down that it was forgiven. Returns whether it was there.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn forget_deny(&self, lock: &StateLock, rule: &DenyRule) -> io::Result<bool> {
        // First: whoever looks in between must not take it for a line that went by somebody's hand.
        let forgiven = self.read().0.forgiven;
        if !forgiven.contains(rule) {
            self.write_forgiven(lock, forgiven.iter().chain([rule]))?;
        }
        without_rule(&self.deny_file(), rule)
    }

    /// Takes what is remembered of a CA's list out, under the lock. Returns whether there was anything.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forget_crl(&self, _lock: &StateLock, ca_key: Fingerprint) -> io::Result<bool> {
        let mut seen = self.read().0.crls;
        if seen.remove(&ca_key).is_none() {
            return Ok(false);
        }
        self.write_crls(&seen).map(|()| true)
    }

    fn append(&self, entries: &[&DenyEntry]) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.deny_file())?;
        let mut text = String::new();
        if ends_within_a_line(&mut file)? {
            text.push('\n');
        }
        for entry in entries {
            // What was read as a rule can be written as one; a note that could not would be left out, never the rule.
            let line = DenyEntry::to_line(&entry.rule, entry.note.as_deref());
            let line = line.or_else(|_| DenyEntry::to_line(&entry.rule, None)).map_err(io::Error::other)?;
            text.push_str(&line);
            text.push('\n');
        }
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        File::open(&self.root)?.sync_all()
    }

    fn write_forgiven<'a>(&self, _lock: &StateLock, forgiven: impl Iterator<Item = &'a DenyRule>) -> io::Result<()> {
        let line = |rule| DenyEntry::to_line(rule, None).map(|line| format!("{line}\n"));
        let lines: Result<Vec<String>, _> = forgiven.map(line).collect();
        let mut lines = lines.map_err(io::Error::other)?;
        lines.sort();
        replace(&self.forgiven_file(), lines.concat().as_bytes())
    }

    fn write_crls(&self, seen: &HashMap<Fingerprint, SeenCrl>) -> io::Result<()> {
        let mut lines: Vec<String> = seen.iter().filter_map(|(ca_key, seen)| seen_line(ca_key, seen)).collect();
        lines.sort();
        replace(&self.crls_file(), lines.concat().as_bytes())
    }
}

/// What a state does not have yet.
struct Lacking<'a> {
    rules: Vec<&'a DenyEntry>,
    /// All that shall be known of lists, where that is more.
    crls: Option<HashMap<Fingerprint, SeenCrl>>,
}

impl State {
    /// Whether there is nothing in these that [`StateDir::remember`] would add.
    pub fn knows<'a>(
        &self,
        deny: &[DenyEntry],
        crls: impl IntoIterator<Item = (Fingerprint, &'a RevocationList)>,
    ) -> bool {
        let lacking = self.lacks(deny, crls);
        lacking.rules.is_empty() && lacking.crls.is_none()
    }

    fn lacks<'a, 'b>(
        &self,
        deny: &'a [DenyEntry],
        crls: impl IntoIterator<Item = (Fingerprint, &'b RevocationList)>,
    ) -> Lacking<'a> {
        let mut known: HashSet<&DenyRule> = self.deny.iter().map(|entry| &entry.rule).collect();
        let rules = deny.iter().filter(|entry| known.insert(&entry.rule)).collect();
        let mut seen = self.crls.clone();
        for (ca_key, list) in crls {
            if seen.get(&ca_key).is_none_or(|seen| seen.is_older_than(list)) {
                seen.insert(ca_key, SeenCrl::of(list));
            }
        }
        Lacking { rules, crls: (seen != self.crls).then_some(seen) }
    }
}

/// A lock on a `state/` directory, given back when it is dropped.
#[derive(Debug)]
pub struct StateLock(#[expect(dead_code, reason = "open, it holds the lock")] File);

impl SeenCrl {
    /// What is remembered of this list.
    pub fn of(list: &RevocationList) -> Self {
        Self { number: list.number().cloned(), this_update: list.this_update() }
    }

    /// Whether `list` supersedes what was seen.
    pub fn is_older_than(&self, list: &RevocationList) -> bool {
        crl::supersedes(edition(list), self.edition())
    }

    /// Whether what was seen supersedes `list`.
    pub fn is_newer_than(&self, list: &RevocationList) -> bool {
        crl::supersedes(self.edition(), edition(list))
    }

    /// Whether `list` is what was seen, as far as can be told.
    pub fn is_that_of(&self, list: &RevocationList) -> bool {
        self.edition() == edition(list)
    }

    /// The file keeps whole seconds, as lists do.
    fn edition(&self) -> crl::Edition<'_> {
        (self.number.as_ref().map(crl::by_size), self.this_update)
    }
}

fn read_rules(path: &Path, findings: &mut Vec<Finding>) -> Vec<DenyEntry> {
    let Some(bytes) = read_if_there(path, DENY_LIMIT, findings) else { return Vec::new() };
    let (entries, faults) = parse_list(&bytes);
    findings.extend(faults.into_iter().map(|(line, fault)| Finding::at(path, line, Severity::Warning, fault)));
    entries
}

fn edition(list: &RevocationList) -> crl::Edition<'_> {
    (list.number().map(crl::by_size), list.this_update())
}

/// Takes every line with this rule out of a deny list, and leaves the other lines as they are. Returns whether there was
/// one.
///
/// # Errors
/// The file cannot be read or written. A missing file has no such line.
pub fn without_rule(deny_file: &Path, rule: &DenyRule) -> io::Result<bool> {
    let text = match fs::read_to_string(deny_file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let is_it = |line: &&str| parse_list(line.as_bytes()).0.iter().any(|entry| entry.rule == *rule);
    let kept: String = text.split_inclusive('\n').filter(|line| !is_it(line)).collect();
    if kept == text {
        return Ok(false);
    }
    replace(deny_file, kept.as_bytes()).map(|()| true)
}

fn read_if_there(path: &Path, limit: u64, findings: &mut Vec<Finding>) -> Option<Vec<u8>> {
    match file::read(path, limit) {
        Ok((bytes, _)) => Some(bytes),
        Err(Fault::Unreadable { error: io::ErrorKind::NotFound }) => None,
        Err(fault) => {
            findings.push(Finding::new(path, Severity::Fatal, fault));
            None
        }
    }
}

fn parse_seen(line: &str) -> Option<(Fingerprint, SeenCrl)> {
    let mut words = line.split_whitespace();
    let (ca_key, this_update, number) = (words.next()?, words.next()?, words.next()?);
    let number = if number == "-" { None } else { Some(number.parse().ok()?) };
    let seen = SeenCrl { number, this_update: OffsetDateTime::parse(this_update, &Rfc3339).ok()? };
    words.next().is_none().then_some((ca_key.parse().ok()?, seen))
}

fn seen_line(ca_key: &Fingerprint, seen: &SeenCrl) -> Option<String> {
    let this_update = seen.this_update.format(&Rfc3339).ok()?;
    let number = seen.number.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let mut line = String::new();
    writeln!(line, "{ca_key} {this_update} {number}").ok()?;
    Some(line)
}

/// Written beside it, synced, renamed. The mode and, for root, the owner stay as they were.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    let temporary = directory.join(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let like = fs::metadata(path).ok();
    if let Some(like) = &like {
        file.set_permissions(like.permissions())?;
    }
    if rustix::process::geteuid().is_root() {
        let like = like.map_or_else(|| fs::metadata(directory), Ok)?;
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

fn ends_within_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}
