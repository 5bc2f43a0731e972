//! The operating system's store of trusted CAs: where each distribution has it, what goes into it, and how it goes away
//! again. Runs no program: which one makes the change count is said by [`SystemStore::update`].
//!
//! A CA in this store is believed by everything on the machine, so one that may certify any name is refused unless
//! somebody says [`Limits::Waived`].

use std::fs;
use std::path::{Path, PathBuf};

use portcullis_certs::{Certificate, Fingerprint, RegistryHost, ShellCommand, pem};

use super::record::{self, Owner, Record};
use super::uninstall::{self, Removal, Undo, UninstallRequest};
use super::{Change, Scope, Step, change, links_below_root, meanwhile, refuse_if_changed};
use crate::files::{self, PUBLIC};
use crate::{PkiError, constraints};

/// Where programs of the system lie, below its root.
const PROGRAM_DIRECTORIES: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

/// One distribution's store.
#[derive(Debug, PartialEq, Eq)]
pub struct SystemStore {
    /// Whose it is.
    pub systems: &'static str,
    /// Where the administrator's CAs lie, below the root.
    pub directory: &'static str,
    /// How their names must end.
    suffix: &'static str,
    /// The program that makes a change count, with its words after one was added, and after one was removed.
    program: &'static str,
    added: &'static [&'static str],
    removed: &'static [&'static str],
}

/// What the store's program is to take notice of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreChange {
    /// A CA is there that was not.
    Added,
    /// One that was there is gone.
    Removed,
}

/// Whether a CA must be limited to certain names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// By critical name constraints on DNS names and on addresses.
    Required,
    /// The operator takes a CA that may certify everything.
    Waived,
}

/// What to put into the store.
#[derive(Debug, Clone, Copy)]
pub struct TrustRequest<'a> {
    /// The registry for which it is done.
    pub host: &'a RegistryHost,
    /// The directory whose `ca.crt` it is.
    pub from: &'a Path,
    /// The root of the file system; no symbolic link below another one than `/` is followed.
    pub root: &'a Path,
    /// Where to record what was written.
    pub record: &'a Path,
    /// What is asked of the CA.
    pub limits: Limits,
}

/// What [`apply`] will do.
#[derive(Debug)]
pub struct TrustPlan {
    /// The store.
    pub store: &'static SystemStore,
    /// One step per CA.
    pub steps: Vec<Step>,
    /// Earlier CAs of the same registry, which `ca.crt` does not have any more.
    pub stale: Vec<Removal>,
    host: RegistryHost,
    root: Option<PathBuf>,
    record: PathBuf,
}

impl SystemStore {
    /// All of them, as mkcert's table has them. SUSE's program has the name of Debian's: the directory tells them apart, and
    /// SUSE's is tried first because anybody may have made `/usr/local/share/ca-certificates`.
    pub const ALL: [Self; 4] = [
        Self {
            systems: "RHEL, Fedora",
            directory: "etc/pki/ca-trust/source/anchors",
            suffix: "pem",
            program: "update-ca-trust",
            added: &["extract"],
            removed: &["extract"],
        },
        Self {
            systems: "SUSE",
            directory: "usr/share/pki/trust/anchors",
            suffix: "pem",
            program: "update-ca-certificates",
            added: &[],
            removed: &[],
        },
        Self {
            systems: "Arch Linux",
            directory: "etc/ca-certificates/trust-source/anchors",
            suffix: "crt",
            program: "trust",
            added: &["extract-compat"],
            removed: &["extract-compat"],
        },
        Self {
            systems: "Debian, Ubuntu, Alpine",
            directory: "usr/local/share/ca-certificates",
            suffix: "crt",
            program: "update-ca-certificates",
            added: &[],
            // Without it Debian's leaves the links to a file that is gone.
            removed: &["--fresh"],
        },
    ];

    /// The store of the system at `root`: the first whose directory and program are both there.
    ///
    /// # Errors
    /// [`PkiError::NoSystemStore`].
    pub fn find(root: &Path) -> Result<&'static Self, PkiError> {
        const STORES: &[SystemStore] = &SystemStore::ALL;
        let is_here = |store: &&Self| root.join(store.directory).is_dir() && store.program_below(root).is_some();
        STORES.iter().find(is_here).ok_or_else(|| PkiError::NoSystemStore { root: root.to_owned() })
    }

    /// The command that makes a change count, with the program's path as seen by the system at `root` itself.
    pub fn update(&self, root: &Path, what: StoreChange) -> ShellCommand {
        let program = self.program_below(root).unwrap_or_else(|| self.program.into());
        let words = match what {
            StoreChange::Added => self.added,
            StoreChange::Removed => self.removed,
        };
        ShellCommand::new([program].into_iter().chain(words.iter().map(PathBuf::from)))
    }

    /// Whether a CA for this registry may lie there.
    pub(super) fn is_place(&self, root: &Path, host: &RegistryHost, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours = name.starts_with(&name_of(host)) && path.extension().is_some_and(|end| end == self.suffix);
        is_ours && path.parent() == Some(root.join(self.directory).as_path())
    }

    fn program_below(&self, root: &Path) -> Option<PathBuf> {
        let mut places = PROGRAM_DIRECTORIES.iter().map(|directory| Path::new(directory).join(self.program));
        places.find(|place| fs::symlink_metadata(root.join(place)).is_ok()).map(|place| Path::new("/").join(place))
    }
}

/// Looks at everything and changes nothing.
///
/// # Errors
/// [`PkiError::NoSystemStore`], [`PkiError::UnlimitedCa`] for the first CA that is not limited, [`PkiError::Files`] for
/// a `ca.crt` that cannot be read, [`PkiError::InstallRefused`] when something else is in the way.
pub fn plan(request: &TrustRequest<'_>) -> Result<TrustPlan, PkiError> {
    let store = SystemStore::find(request.root)?;
    let path = request.from.join("ca.crt");
    let (roots, findings) = pem::read_certificates(&path);
    if roots.is_empty() {
        return Err(PkiError::Files { findings });
    }
    if request.limits == Limits::Required {
        for root in &roots {
            refuse_if_unlimited(root, &path)?;
        }
    }
    let directory = request.root.join(store.directory);
    let other_root = (request.root != Path::new("/")).then_some(request.root);
    let mut conflicts = links_below_root(other_root, &directory)?;
    conflicts.extend(links_below_root(other_root, request.record)?);
    let record = Record::read(request.record)?;
    let mut steps: Vec<Step> = Vec::new();
    for root in &roots {
        let path = directory.join(file_name(request.host, root, store.suffix));
        let contents = encode(root)?;
        match change(&path, PUBLIC, &contents, &record)? {
            Ok(change) => steps.push(Step { path, mode: PUBLIC, change, contents }),
            Err(conflict) => conflicts.push(conflict),
        }
    }
    if !conflicts.is_empty() {
        return Err(PkiError::InstallRefused { conflicts });
    }
    steps.dedup_by(|a, b| a.path == b.path);
    let mut stale = uninstall::plan(&UninstallRequest {
        host: request.host,
        owner: Some(Owner::SystemStore),
        scope: &Scope::System,
        root: other_root,
        record: request.record,
    })?;
    stale.retain(|old| old.what == Undo::Remove && steps.iter().all(|step| step.path != old.path));
    Ok(TrustPlan {
        store,
        steps,
        stale,
        host: request.host.clone(),
        root: other_root.map(Path::to_owned),
        record: request.record.to_owned(),
    })
}

/// Writes what the plan says. It counts once [`SystemStore::update`] has run.
///
/// # Errors
/// [`PkiError::ChangedMeanwhile`] when somebody else wrote there since the plan was made; [`PkiError::Busy`].
pub fn apply(plan: &TrustPlan) -> Result<(), PkiError> {
    let lock = record::Lock::take(&plan.record)?;
    for step in plan.steps.iter().filter(|step| step.change != Change::AlreadySo) {
        refuse_if_changed(step)?;
        let content = Fingerprint::of(&step.contents);
        record::append(&plan.record, plan.host.as_str(), Owner::SystemStore, &step.path, content)?;
        match step.change {
            Change::Create => files::write_new(&step.path, &step.contents, step.mode),
            _ => files::replace(&step.path, &step.contents, step.mode),
        }
        .map_err(|error| meanwhile(error, &step.path))?;
    }
    drop(lock);
    let (host, owner, scope) = (&plan.host, Some(Owner::SystemStore), &Scope::System);
    uninstall::apply(
        &UninstallRequest { host, owner, scope, root: plan.root.as_deref(), record: &plan.record },
        &plan.stale,
    )
}

fn refuse_if_unlimited(ca: &Certificate, path: &Path) -> Result<(), PkiError> {
    if constraints::limits_names(ca)? {
        return Ok(());
    }
    Err(PkiError::UnlimitedCa { path: path.to_owned(), subject: ca.facts().subject.to_string() })
}

/// By registry and certificate: two registries do not share a file, and a new CA does not replace one that is still used.
fn file_name(host: &RegistryHost, ca: &Certificate, suffix: &str) -> String {
    let fingerprint = Fingerprint::of(ca.der()).to_string();
    let short: String = fingerprint.trim_start_matches("sha256:").chars().take(16).collect();
    format!("{}{short}.{suffix}", name_of(host))
}

fn name_of(host: &RegistryHost) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
    let host: String = host.as_str().chars().map(plain).collect();
    format!("portcullis-{host}-")
}

fn encode(ca: &Certificate) -> Result<Vec<u8>, PkiError> {
    let text = pem_rfc7468::encode_string("CERTIFICATE", pem_rfc7468::LineEnding::LF, ca.der());
    text.map(String::into_bytes).map_err(|_| PkiError::Crypto { doing: "write a certificate as PEM" })
}
