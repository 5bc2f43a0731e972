//! Puts a client's directory where an engine reads it: plan, apply, read back through the engine's own profile.
//!
//! Never replaces a file that it did not write: see `record`. What it adds to an engine's configuration file is in `config`,
//! how all of it goes away again in [`uninstall`], the operating system's own store in [`system_trust`]. Knows where engines look from their profiles in
//! `portcullis-certs`, see `place`.

mod config;
mod conflict;
mod place;
mod record;
pub mod system_trust;
pub mod uninstall;

pub use config::ConfigChange;
pub use conflict::Conflict;
pub use place::{Engine, Scope};
pub use record::Owner;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use portcullis_certs::RegistryHost;
use portcullis_certs::{
    Certificate, CertsLocation, EngineProfile, EngineUser, Fault, Finding, Fingerprint, HostCerts, Prediction,
    Severity, Situation, pem, permissions, predict, read_host_certs,
};
use time::OffsetDateTime;

use crate::files::{self, PUBLIC, PUBLIC_DIR, SECRET, Staged};
use crate::{PkiError, install::record::Record};

/// The files of a client's directory with their modes, in the order in which they are put in place: an engine that looks
/// in between finds the pair unusable for the moment between two renames, and whole before and after.
const FILES: [(&str, u32); 3] = [("ca.crt", PUBLIC), ("client.key", SECRET), ("client.cert", PUBLIC)];

/// What to install where.
#[derive(Debug, Clone)]
pub struct InstallRequest<'a> {
    /// The registry, as its users type it.
    pub host: &'a RegistryHost,
    /// A directory with `ca.crt`, `client.cert` and `client.key`, as `cert new client` writes it.
    pub from: &'a Path,
    /// Whose directory.
    pub engine: Engine,
    /// Where engines of this machine or user look.
    pub scope: &'a Scope,
    /// Another file system's root (an image, a mounted disk); no symbolic link below it is followed. What is installed
    /// there is for that system, so [`Scope::System`] goes with it unless somebody says otherwise.
    pub root: Option<&'a Path>,
    /// Where to record what was written; a file, made with its directory if it is missing.
    pub record: &'a Path,
    /// What to do where there is another client's pair.
    pub pairs: OtherPairs<'a>,
}

/// What to do where a directory has another client's pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtherPairs<'a> {
    /// Nothing is installed.
    #[default]
    Stop,
    /// The new pair goes beside it, as `<NAME>.cert` and `<NAME>.key`.
    Add(&'a str),
    /// One that we wrote earlier is replaced, also where it is another client's. One that we did not write is not.
    Replace,
}

/// The contents of a client's three files. Holds the private key: it has no `Debug` text.
pub struct ClientFiles {
    /// Of `ca.crt`.
    pub ca: Vec<u8>,
    /// Of the key.
    pub key: Vec<u8>,
    /// Of the certificate and its chain.
    pub cert: Vec<u8>,
}

/// What [`apply`] will do. Holds the private key: it is not in its `Debug` text.
#[derive(Debug)]
pub struct Plan {
    /// The engine.
    pub engine: Engine,
    /// The host's directory.
    pub directory: PathBuf,
    /// One step per file.
    pub steps: Vec<Step>,
    /// What is added to the engine's configuration file.
    pub config: Option<ConfigChange>,
    root: PathBuf,
    scope: Scope,
    host: RegistryHost,
    record: PathBuf,
    is_new_directory: bool,
    masked: Vec<PathBuf>,
}

/// One file of a plan.
pub struct Step {
    /// The file.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// What happens to it.
    pub change: Change,
    contents: Vec<u8>,
}

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is there with this content.
    AlreadySo,
    /// It is there with this content, and others can read the key.
    Tighten,
    /// It is not there.
    Create,
    /// It is there with what we wrote earlier: a renewal.
    Replace {
        /// What is replaced.
        old: Fingerprint,
    },
}

/// What is there now.
#[derive(Debug)]
pub struct Installed {
    /// The host's directory as the engine reads it.
    pub certs: HostCerts,
    /// What the engine would find wrong, and the directories for this host that it does not read any more.
    pub findings: Vec<Finding>,
    /// What the engine makes of all its files for this host now.
    pub prediction: Prediction,
}

/// Looks at everything and changes nothing. What `--dry-run` shows.
///
/// ```
/// use portcullis_pki::install::{Engine, InstallRequest, Scope, apply, plan};
/// # use portcullis_pki::{Authority, AuthorityKind, ClientRequest, KeyAlgorithm, issue_client};
/// # let home = tempfile::tempdir()?;
/// # let now = time::OffsetDateTime::now_utc();
/// # let create = |name, kind| Authority::create(&home.path().join(name), kind, "doc", KeyAlgorithm::P256, now);
/// # let (server_ca, client_ca) = (create("s", AuthorityKind::Server)?, create("c", AuthorityKind::Client)?);
/// # let from = home.path().join("ci-7");
/// # issue_client(&client_ca, &ClientRequest::new("ci-7".parse()?), now)?.write_client(&from, server_ca.certificate())?;
/// # let (image, record) = (home.path().join("image"), home.path().join("installed.jsonl"));
/// let request = InstallRequest {
///     host: &"registry.test:5443".parse()?,
///     from: &from,
///     engine: Engine::Docker,
///     scope: &Scope::System,
///     root: Some(&image),
///     record: &record,
///     pairs: Default::default(),
/// };
/// let installed = apply(&plan(&request, now)?, now)?;
/// assert_eq!(installed.certs.directory, Some(image.join("etc/docker/certs.d/registry.test:5443")));
/// assert!(plan(&request, now)?.is_done());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`PkiError::Files`] when the source is not sound, [`PkiError::InstallRefused`] with every conflict.
pub fn plan(request: &InstallRequest<'_>, now: OffsetDateTime) -> Result<Plan, PkiError> {
    plan_files(request, read_source(request, now)?)
}

/// As [`plan`], with files that come from elsewhere than [`InstallRequest::from`], which is not looked at: another engine's.
///
/// # Errors
/// [`PkiError::InstallRefused`] with every conflict.
pub fn plan_files(request: &InstallRequest<'_>, files: ClientFiles) -> Result<Plan, PkiError> {
    let contents = [files.ca, files.key, files.cert];
    let directory = request.directory();
    let record = Record::read(request.record)?;
    let mut conflicts = links_below_root(request.root, &directory)?;
    conflicts.extend(links_below_root(request.root, request.record)?);
    let names = conflicts.is_empty().then(|| list(&directory)).transpose()?.flatten();
    let is_new_directory = names.is_none();
    let targets = targets(request.pairs, &directory, &contents)?;
    if !matches!(request.pairs, OtherPairs::Add(_)) {
        let foreign = names.into_iter().flatten().filter(is_foreign_pair);
        conflicts.extend(foreign.map(|path| Conflict::ForeignPair { path }));
    }
    let mut steps = Vec::new();
    for ((path, (_, mode)), contents) in targets.into_iter().zip(FILES).zip(contents) {
        match change(&path, mode, &contents, &record)? {
            Ok(change) => steps.push(Step { path, mode, change, contents }),
            Err(conflict) => conflicts.push(conflict),
        }
    }
    conflicts.extend(steps.iter().filter_map(|step| other_client(request.pairs, step)));
    let config = match config::plan(request, &directory, &steps)? {
        Ok(config) => config,
        Err(conflict) => {
            conflicts.push(conflict);
            None
        }
    };
    if !conflicts.is_empty() {
        return Err(PkiError::InstallRefused { conflicts });
    }
    let (host, record) = (request.host.clone(), request.record.to_owned());
    let masked = request.masked(&directory);
    let root = request.root.unwrap_or(Path::new("/")).to_owned();
    let scope = request.scope.clone();
    Ok(Plan { engine: request.engine, directory, steps, config, root, scope, host, record, is_new_directory, masked })
}

/// Where the three files go, in the order of [`FILES`].
fn targets(pairs: OtherPairs<'_>, directory: &Path, contents: &[Vec<u8>]) -> Result<Vec<PathBuf>, PkiError> {
    let OtherPairs::Add(name) = pairs else { return Ok(FILES.map(|(name, _)| directory.join(name)).to_vec()) };
    let sound = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(sound) {
        return Err(PkiError::PairName { text: name.chars().take(64).collect() });
    }
    // Somebody's ca.crt stays what it is; ours goes beside it, and both are roots.
    let ca = directory.join("ca.crt");
    let is_same = fs::read(&ca).map_or(true, |present| Some(&present) == contents.first());
    let ca = if is_same { ca } else { directory.join(format!("{name}.crt")) };
    Ok(vec![ca, directory.join(format!("{name}.key")), directory.join(format!("{name}.cert"))])
}

/// A certificate of ours that would be replaced by one with another name.
fn other_client(pairs: OtherPairs<'_>, step: &Step) -> Option<Conflict> {
    let is_certificate = step.path.extension().is_some_and(|extension| extension == "cert");
    let replaces = matches!(step.change, Change::Replace { .. });
    if !is_certificate || !replaces || pairs == OtherPairs::Replace {
        return None;
    }
    let subject = |certificates: Vec<Certificate>| certificates.first().map(|leaf| leaf.facts().subject.to_string());
    let old = subject(pem::read_certificates(&step.path).0)?;
    let new = subject(pem::certificates(&step.contents, &step.path).0)?;
    (old != new).then(|| Conflict::OtherClient { path: step.path.clone(), old, new })
}

/// Does what the plan says and reads the directory back as the engine does.
///
/// # Errors
/// [`PkiError::ChangedMeanwhile`] when somebody else wrote there since the plan was made; their file is left alone.
/// [`PkiError::Busy`] when another process is at it.
pub fn apply(plan: &Plan, now: OffsetDateTime) -> Result<Installed, PkiError> {
    let _lock = (!plan.is_done()).then(|| record::Lock::take(&plan.record)).transpose()?;
    record_writes(plan)?;
    if plan.is_new_directory {
        publish_directory(plan)?;
    } else {
        publish_files(plan)?;
    }
    if let Some(config) = &plan.config {
        config::apply(config, &plan.record, plan.host.as_str(), plan.engine)?;
    }
    Ok(read_back(plan, now))
}

/// What the engine will read, through its own profile.
fn read_back(plan: &Plan, now: OffsetDateTime) -> Installed {
    let location = CertsLocation::HostDirectory(&plan.directory);
    let (certs, found) = read_host_certs(plan.engine.directory_profile(), location, &plan.host, now);
    let mut situation = Situation::here(&plan.root, now);
    if let Scope::User { home, config_home } = &plan.scope {
        situation.user = EngineUser::Rootless { home, config_home: config_home.as_deref() };
    }
    let prediction = predict(plan.engine.profile(), &situation, &plan.host);
    let mut findings = if plan.engine.has_config() { prediction.findings.clone() } else { found };
    let masked = |path: &PathBuf| Finding::new(path, Severity::Warning, Fault::Masked { by: plan.directory.clone() });
    findings.extend(plan.masked.iter().map(masked));
    Installed { certs, findings, prediction }
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_done(&self) -> bool {
        self.config.is_none() && self.steps.iter().all(|step| step.change == Change::AlreadySo)
    }

    fn writes(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| matches!(step.change, Change::Create | Change::Replace { .. }))
    }
}

impl Step {
    /// The certificates that the file has now, and those that it will have. None for a key.
    pub fn certificates(&self) -> (Vec<Certificate>, Vec<Certificate>) {
        let present = if self.change == Change::Create { Vec::new() } else { pem::read_certificates(&self.path).0 };
        (present, pem::certificates(&self.contents, &self.path).0)
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("path", &self.path).field("change", &self.change).finish_non_exhaustive()
    }
}

/// The three files, after the engine's own reader found nothing fatal in them.
fn read_source(request: &InstallRequest<'_>, now: OffsetDateTime) -> Result<ClientFiles, PkiError> {
    let paths = FILES.map(|(name, _)| request.from.join(name));
    let [ca, key, cert] = &paths;
    let read = |path: &Path| fs::read(path).map_err(PkiError::io("read", path));
    let contents = ClientFiles { ca: read(ca)?, key: read(key)?, cert: read(cert)? };
    let profile = &EngineProfile::DOCKER_DOCS;
    let (_, findings) = read_host_certs(profile, CertsLocation::HostDirectory(request.from), request.host, now);
    let mut fatal: Vec<Finding> = findings.into_iter().filter(|finding| finding.severity == Severity::Fatal).collect();
    let key = request.from.join("client.key");
    let metadata = fs::metadata(&key).map_err(PkiError::io("read", &key))?;
    // Whoever owns it: root installs what another user brought. Others must not have read it on the way.
    let exposed = permissions::check_private(&key, &metadata, metadata.uid());
    fatal.extend(exposed.map(|fault: Fault| Finding::new(&key, Severity::Fatal, fault)));
    if fatal.is_empty() { Ok(contents) } else { Err(PkiError::Files { findings: fatal }) }
}

/// Refuses a file that may not be one of the system at `root`: what an image names must not reach the host's files.
///
/// # Errors
/// [`PkiError::InstallRefused`] when `path` is not below `root`, has a `..`, or has a symbolic link on the way.
pub fn refuse_outside(root: &Path, path: &Path) -> Result<(), PkiError> {
    let is_plain = path.components().all(|part| part != Component::ParentDir);
    let conflicts = if is_plain && path.starts_with(root) {
        links_below_root(Some(root), path)?
    } else {
        vec![Conflict::OutsideRoot { path: path.to_owned() }]
    };
    if conflicts.is_empty() { Ok(()) } else { Err(PkiError::InstallRefused { conflicts }) }
}

fn links_below_root(root: Option<&Path>, directory: &Path) -> Result<Vec<Conflict>, PkiError> {
    let Some(root) = root else { return Ok(Vec::new()) };
    let mut path = root.to_owned();
    for part in directory.strip_prefix(root).into_iter().flat_map(Path::components) {
        path.push(part);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => return Ok(vec![Conflict::LinkBelowRoot { path }]),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(PkiError::io("look at", &path)(error)),
        }
    }
    Ok(Vec::new())
}

/// `None` when there is no such directory.
fn list(directory: &Path) -> Result<Option<Vec<PathBuf>>, PkiError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PkiError::io("read", directory)(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    paths.map(Some).map_err(PkiError::io("read", directory))
}

#[expect(clippy::ptr_arg, reason = "the signature that `filter` wants")]
fn is_foreign_pair(path: &PathBuf) -> bool {
    let is_ours = FILES.iter().any(|(name, _)| path.file_name() == Some(OsStr::new(name)));
    !is_ours && path.extension().is_some_and(|suffix| suffix == "cert" || suffix == "key")
}

fn change(path: &Path, mode: u32, contents: &[u8], record: &Record) -> Result<Result<Change, Conflict>, PkiError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(Change::Create)),
        Err(error) => return Err(PkiError::io("look at", path)(error)),
    };
    if !metadata.is_file() {
        return Ok(Err(Conflict::NotAFile { path: path.to_owned() }));
    }
    let present = fs::read(path).map_err(PkiError::io("read", path))?;
    let old = Fingerprint::of(&present);
    if present == contents {
        let is_loose = mode == SECRET && metadata.mode() & 0o077 != 0;
        return Ok(Ok(if is_loose { Change::Tighten } else { Change::AlreadySo }));
    }
    let ours = record.is_ours(path, old);
    Ok(if ours { Ok(Change::Replace { old }) } else { Err(Conflict::Foreign { path: path.to_owned() }) })
}

fn record_writes(plan: &Plan) -> Result<(), PkiError> {
    let append = |step: &Step| {
        record::append(
            &plan.record,
            plan.host.as_str(),
            Owner::Engine(plan.engine),
            &step.path,
            Fingerprint::of(&step.contents),
        )
    };
    plan.writes().try_for_each(append)
}

/// A directory that is new appears whole, in one rename.
fn publish_directory(plan: &Plan) -> Result<(), PkiError> {
    let directory = &plan.directory;
    let parent = directory.parent().unwrap_or(directory);
    files::create_dir(parent, PUBLIC_DIR)?;
    let staging = parent.join(format!(".portcullis.{}.tmp", files::random_hex()?));
    let filled = fill(&staging, plan);
    let renamed = filled.and_then(|()| {
        fs::rename(&staging, directory).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                PkiError::ChangedMeanwhile { path: directory.clone() }
            }
            _ => PkiError::io("write", directory)(error),
        })
    });
    if renamed.is_err() {
        // The error that is on its way says more than a failure to tidy up would.
        let _ = fs::remove_dir_all(&staging);
    }
    renamed?;
    files::sync_dir(parent)
}

/// Nobody looks into the staging directory until it has its name, and nobody else may before the modes are right.
fn fill(staging: &Path, plan: &Plan) -> Result<(), PkiError> {
    fs::DirBuilder::new().mode(0o700).create(staging).map_err(PkiError::io("make the directory", staging))?;
    for step in &plan.steps {
        let target = staging.join(step.path.file_name().unwrap_or_default());
        files::write_new(&target, &step.contents, step.mode)?;
    }
    files::adopt_dir(staging, PUBLIC_DIR)
}

/// Everything is written and synced beside its target first; then the renames follow one another closely.
fn publish_files(plan: &Plan) -> Result<(), PkiError> {
    let stage = |step: &Step| match step.change {
        Change::Create | Change::Replace { .. } => Staged::write(&step.path, &step.contents, step.mode).map(Some),
        Change::AlreadySo | Change::Tighten => Ok(None),
    };
    let staged = plan.steps.iter().map(stage).collect::<Result<Vec<_>, _>>()?;
    plan.steps.iter().try_for_each(refuse_if_changed)?;
    let renamed: HashSet<&Path> = plan.writes().map(|step| step.path.as_path()).collect();
    for (step, staged) in plan.steps.iter().zip(staged) {
        match (staged, step.change) {
            (Some(staged), Change::Create) => staged.publish_new().map_err(|error| meanwhile(error, &step.path))?,
            (Some(staged), _) => staged.publish()?,
            (None, Change::Tighten) => fs::set_permissions(&step.path, fs::Permissions::from_mode(step.mode))
                .map_err(PkiError::io("set the mode of", &step.path))?,
            (None, _) => {}
        }
    }
    if renamed.is_empty() { Ok(()) } else { files::sync_dir(&plan.directory) }
}

fn refuse_if_changed(step: &Step) -> Result<(), PkiError> {
    let expected = match step.change {
        Change::Create => return Ok(()),
        Change::Replace { old } => old,
        Change::AlreadySo | Change::Tighten => Fingerprint::of(&step.contents),
    };
    let present = fs::read(&step.path).map_err(PkiError::io("read", &step.path))?;
    if Fingerprint::of(&present) == expected {
        Ok(())
    } else {
        Err(PkiError::ChangedMeanwhile { path: step.path.clone() })
    }
}

fn meanwhile(error: PkiError, path: &Path) -> PkiError {
    match error {
        PkiError::Exists { .. } => PkiError::ChangedMeanwhile { path: path.to_owned() },
        error => error,
    }
}
