//! Garbage collection: on its schedule, when somebody asks for it over the admin socket, and without a server.
//!
//! What is garbage the store knows; here are the times, one collection after the other, and the report that people and
//! scripts read.

mod running;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_oci::RepositoryName;
pub use portcullis_store::Removal;
use portcullis_store::{Collected, Listed, Obstacle, Store, StoreError, Tally};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;

use self::running::Running;
use crate::config::{Config, Mode};
use crate::error::Chain;
use crate::generation::Generations;
use crate::{ServerError, open_store, status};

/// The first collection comes so soon after a start, or sooner if the interval is shorter: a server that is started anew
/// every day must collect too.
const FIRST: Duration = Duration::from_mins(15);
/// How often the trash is looked into: when space gets short it is emptied at once.
const LOOK: Duration = Duration::from_mins(1);
/// The priority of a collection's thread: where it and a request want the same processor, the request comes first and a
/// third as much is left. Lower would let whoever waits for a lock of it wait for long.
const NICE: i32 = 5;

/// What one collection has done, or is doing. The keys are stable.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Counted from 1 in the life of a server.
    pub number: u64,
    /// Whether it only says what it would do.
    pub dry_run: bool,
    /// RFC 3339.
    pub begun: String,
    /// RFC 3339; `None` while it runs.
    pub ended: Option<String>,
    /// What it is doing, or did last.
    pub doing: String,
    /// Repositories looked at.
    pub repositories: u64,
    /// Manifests read.
    pub manifests: u64,
    /// Blobs looked at.
    pub blobs: u64,
    /// What was removed: its blobs lie in the trash. In a dry run: what would be.
    pub removed: GcCounts,
    /// What was removed from the trash, for good.
    pub purged: GcCounts,
    /// How many repositories nothing is removed from.
    pub repositories_held: u64,
    /// Why, the first thousand.
    pub held: Vec<GcHeld>,
    /// Directories among the repositories that are none: while there is one, no blob is removed.
    pub strangers: Vec<String>,
    /// In a dry run: what would be removed, the first thousand.
    pub listed: Vec<GcListed>,
    /// In a dry run: there is more than could be counted.
    pub more: bool,
    /// Why it ended early.
    pub failed: Option<String>,
    /// How it ended; `None` while it runs.
    #[serde(default)]
    pub result: Option<GcResult>,
}

/// How a collection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GcResult {
    /// It removed all that was garbage.
    Done,
    /// It went through, and something that is damaged or no repository kept it from removing all.
    Held,
    /// Somebody copies the data.
    Paused,
    /// `storage.mode` is `"read-only"`.
    ReadOnly,
    /// The server was stopped.
    ServerStopped,
    /// The disk, or the store.
    Failed,
}

impl GcResult {
    /// The word for it, in JSON and in `/metrics`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::ReadOnly => "read_only",
            Self::ServerStopped => "server_stopped",
            Self::Failed => "failed",
        }
    }
}

/// Why nothing is removed at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    ServerStops,
    /// In read-only mode nothing is removed, so that the data can be copied as it lies there.
    ReadOnly,
    /// For so many seconds more.
    Paused(u64),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerStops => f.write_str("the server stops"),
            Self::ReadOnly => f.write_str("storage.mode is \"read-only\": nothing is removed"),
            Self::Paused(seconds) => {
                write!(f, "collections are paused for another {seconds} s, while somebody copies the data")
            }
        }
    }
}

impl Stop {
    /// What holds for everything that is removed because it is old or unneeded, without a request: in this order, since
    /// the first is what an operator has to change first.
    pub(crate) fn now(store: &Store, mode: Mode) -> Option<Self> {
        if mode == Mode::ReadOnly {
            return Some(Self::ReadOnly);
        }
        paused(store).map(Self::Paused)
    }

    fn result(self) -> GcResult {
        match self {
            Self::ServerStops => GcResult::ServerStopped,
            Self::ReadOnly => GcResult::ReadOnly,
            Self::Paused(_) => GcResult::Paused,
        }
    }
}

/// A second that has begun counts.
fn paused(store: &Store) -> Option<u64> {
    store.paused().map(|left| left.as_secs().max(1))
}

/// Numbers of things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcCounts {
    /// Manifests.
    pub manifests: u64,
    /// Links of layers and configs in repositories.
    pub links: u64,
    /// Blobs, the bytes of manifests among them.
    pub blobs: u64,
    /// The bytes of those blobs.
    pub bytes: u64,
}

/// Something that stops every removal in its repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcHeld {
    /// The repository.
    pub repository: String,
    /// `manifest`, `link`, `tag`, `algorithm` or `size`.
    pub kind: String,
    /// The digest, the tag, the repository, or the algorithm, whose name may be any text.
    pub name: String,
    /// What is wrong with it. May hold text that a peer chose.
    pub reason: String,
}

/// Something that a dry run would remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcListed {
    /// `manifest`, `link` or `blob`.
    pub kind: String,
    /// The repository of a manifest or link.
    pub repository: Option<String>,
    /// The digest.
    pub digest: String,
    /// The bytes of a blob.
    pub bytes: Option<u64>,
}

/// What a server says of its collections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcStatus {
    /// The one under way.
    pub running: Option<GcReport>,
    /// The one that ended last.
    pub last: Option<GcReport>,
    /// For how many seconds none begins, because somebody makes a copy of the data.
    #[serde(default)]
    pub paused: Option<u64>,
}

/// The answer to whoever wants a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcStarted {
    /// The number of the collection under way.
    pub number: u64,
    /// Whether it began just now, as it was wanted; otherwise another one runs.
    pub begun: bool,
    /// None begins at the moment, for so many seconds.
    #[serde(default)]
    pub paused: Option<u64>,
}

/// The collections of one server.
#[derive(Debug)]
pub(crate) struct Collector {
    store: Store,
    generations: Arc<Generations>,
    stop: watch::Receiver<bool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    count: u64,
    status: GcStatus,
}

/// Collects without a server, in a data directory that no other process has; `progress` sees every step.
///
/// # Errors
/// [`portcullis_store::StoreError::Locked`] names the process that has it. A collection that ended early says so in its report.
pub fn collect(config: &Config, removal: Removal, progress: impl FnMut(&GcReport)) -> Result<GcReport, ServerError> {
    let store = open_store(&Config { lock_wait: Duration::ZERO, ..config.clone() })?;
    let report = GcReport::begin(1, removal);
    Ok(run_collection(&store, report, removal, progress, || match removal {
        Removal::Real => Stop::now(&store, config.mode),
        Removal::DryRun => None,
    }))
}

/// Pauses without a server, for the one that is started next too; zero ends the pause. The same data, and so the same
/// lock, as [`collect`]; returns the seconds left.
///
/// # Errors
/// [`portcullis_store::StoreError::Locked`] names the process that has it.
pub fn pause(config: &Config, time: Duration) -> Result<Option<u64>, ServerError> {
    let store = open_store(&Config { lock_wait: Duration::ZERO, ..config.clone() })?;
    set_pause(&store, time)?;
    Ok(paused(&store))
}

fn set_pause(store: &Store, time: Duration) -> Result<(), StoreError> {
    if time.is_zero() { store.resume() } else { store.pause(time) }
}

/// The collections of a server, on their schedule from now on.
pub(crate) fn spawn(
    store: &Store,
    generations: &Arc<Generations>,
    interval: Option<Duration>,
    stop: &watch::Receiver<bool>,
) -> Arc<Collector> {
    let collector = Arc::new(Collector {
        store: store.clone(),
        generations: Arc::clone(generations),
        stop: stop.clone(),
        state: Mutex::default(),
    });
    if let Some(seconds) = paused(store) {
        tracing::info!(
            seconds,
            "nothing is collected for so long: somebody copies the data, or `gc --resume` was forgotten"
        );
    }
    tokio::spawn(run(Arc::clone(&collector), interval));
    collector
}

/// Collects whenever `interval` is over, and keeps the trash empty enough, until the server stops.
async fn run(collector: Arc<Collector>, interval: Option<Duration>) {
    let mut stop = collector.stop.clone();
    let mut wait = interval.map(|interval| interval.min(FIRST));
    loop {
        let step = wait.unwrap_or(LOOK).min(LOOK);
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(step) => {}
        }
        wait = wait.map(|left| left.saturating_sub(step));
        if wait == Some(Duration::ZERO) {
            // One that was due in a pause comes soon after it.
            wait = if collector.start(Removal::Real).paused.is_some() { Some(LOOK) } else { interval };
        }
        let trash = Arc::clone(&collector);
        // Fails only when the runtime is ending.
        let _ = tokio::task::spawn_blocking(move || trash.purge()).await;
    }
}

impl Collector {
    pub(crate) fn status(&self) -> GcStatus {
        let state = self.state();
        GcStatus { paused: paused(&self.store), ..state.status.clone() }
    }

    /// Begins no collection for so long, a week at most, and ends the one under way after its present step; a server
    /// that is started anew keeps to it. Zero ends the pause. What removes nothing goes on. Writes to the disk.
    pub(crate) fn pause(&self, time: Duration) -> Result<GcStatus, StoreError> {
        set_pause(&self.store, time)?;
        Ok(self.status())
    }

    /// Begins a collection on a thread of its own, unless one runs.
    pub(crate) fn start(self: &Arc<Self>, removal: Removal) -> GcStarted {
        let mut state = self.state();
        if let Some(running) = &state.status.running {
            return GcStarted { number: running.number, begun: false, paused: None };
        }
        if let (Removal::Real, Some(paused)) = (removal, paused(&self.store)) {
            return GcStarted { number: state.count, begun: false, paused: Some(paused) };
        }
        state.count += 1;
        let report = GcReport::begin(state.count, removal);
        state.status.running = Some(report.clone());
        let (number, collector) = (state.count, Arc::clone(self));
        let begun = std::thread::Builder::new().name("gc".to_owned()).spawn(move || {
            // Linux has a priority for each thread. Where it is refused, the collection only is less polite.
            let _ = rustix::process::setpriority_process(None, NICE);
            collector.work(report, removal);
        });
        if let Err(error) = &begun {
            tracing::error!(%error, "no thread for a garbage collection");
            state.status.running = None;
        }
        GcStarted { number, begun: begun.is_ok(), paused: None }
    }

    fn work(&self, report: GcReport, removal: Removal) {
        let _running = Running(&self.state);
        let tell = |report: &GcReport| self.state().status.running = Some(report.clone());
        let begun = Instant::now();
        let report = run_collection(&self.store, report, removal, tell, || self.reason_to_stop(removal));
        self.generations.events.counters.gc.ended(&report, begun.elapsed());
        match &report.failed {
            Some(reason) => tracing::error!(reason, "the garbage collection ended early"),
            None => tracing::info!(
                dry_run = report.dry_run,
                manifests = report.removed.manifests,
                links = report.removed.links,
                blobs = report.removed.blobs,
                bytes = report.removed.bytes,
                purged_bytes = report.purged.bytes,
                repositories_held = report.repositories_held,
                "garbage collected"
            ),
        }
        let mut state = self.state();
        (state.status.running, state.status.last) = (None, Some(report));
    }

    fn purge(&self) {
        while self.reason_to_stop(Removal::Real).is_none() {
            match self.store.purge_trash() {
                Ok(Tally { blobs: 0, .. }) => return,
                Ok(purged) => {
                    self.generations.events.counters.gc.purged(purged.into());
                    tracing::info!(blobs = purged.blobs, bytes = purged.bytes, "removed from the trash for good");
                }
                Err(error) => return tracing::error!(error = %Chain(&error), "the trash cannot be emptied"),
            }
        }
    }

    fn reason_to_stop(&self, removal: Removal) -> Option<Stop> {
        if *self.stop.borrow() {
            return Some(Stop::ServerStops);
        }
        match removal {
            Removal::Real => Stop::now(&self.store, self.generations.current().mode),
            Removal::DryRun => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Only whole values are put in.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GcStatus {
    /// Without what a dry run lists.
    pub(crate) fn in_short(mut self) -> Self {
        for report in [&mut self.running, &mut self.last].into_iter().flatten() {
            report.listed.clear();
        }
        self
    }
}

fn run_collection(
    store: &Store,
    mut report: GcReport,
    removal: Removal,
    mut progress: impl FnMut(&GcReport),
    reason_to_stop: impl Fn() -> Option<Stop>,
) -> GcReport {
    let done = store.collect(removal).and_then(|mut collection| {
        loop {
            if let Some(reason) = reason_to_stop() {
                return Ok(Some(reason));
            }
            let goes_on = collection.step();
            report.fill(collection.so_far());
            progress(&report);
            if !goes_on? {
                return Ok(None);
            }
        }
    });
    (report.result, report.failed) = match done {
        Ok(Some(stop)) => (Some(stop.result()), Some(stop.to_string())),
        Ok(None) if report.repositories_held > 0 || !report.strangers.is_empty() => (Some(GcResult::Held), None),
        Ok(None) => (Some(GcResult::Done), None),
        Err(error) => (Some(GcResult::Failed), Some(Chain(&error).to_string())),
    };
    report.ended = Some(status::rfc3339(OffsetDateTime::now_utc()));
    report
}

impl GcReport {
    fn begin(number: u64, removal: Removal) -> Self {
        let begun = status::rfc3339(OffsetDateTime::now_utc());
        Self { number, dry_run: removal == Removal::DryRun, begun, ..Self::default() }
    }

    fn fill(&mut self, done: &Collected) {
        done.doing.clone_into(&mut self.doing);
        (self.repositories, self.manifests, self.blobs) = (done.repositories, done.manifests, done.blobs);
        (self.removed, self.purged) = (done.removed.into(), done.purged.into());
        (self.repositories_held, self.more) = (done.repositories_held, done.more);
        // These only grow within a round, and are read rarely.
        if self.held.len() != done.held.len() {
            self.held = done.held.iter().map(|held| GcHeld::new(&held.repository, &held.obstacle)).collect();
        }
        if self.strangers.len() != done.strangers.len() {
            self.strangers.clone_from(&done.strangers);
        }
        let known = self.listed.len();
        self.listed.extend(done.listed.iter().skip(known).map(GcListed::from));
    }
}

impl GcHeld {
    fn new(repository: &RepositoryName, obstacle: &Obstacle) -> Self {
        let (kind, name, reason) = match obstacle {
            Obstacle::Manifest(digest, why) => ("manifest", digest.to_string(), why.clone()),
            Obstacle::Link(digest) => {
                ("link", digest.to_string(), "it holds no digest, and no blob has its name".to_owned())
            }
            Obstacle::Algorithm(name) => {
                ("algorithm", name.clone(), "manifests have digests by it, and it is not known here".to_owned())
            }
            Obstacle::Tag(tag) => ("tag", tag.to_string(), "it holds no digest".to_owned()),
            Obstacle::TooMany(most) => (
                "size",
                repository.to_string(),
                format!("its tags and manifests name more than {most} different digests"),
            ),
        };
        Self { repository: repository.to_string(), kind: kind.to_owned(), name, reason }
    }
}

impl From<&Listed> for GcListed {
    fn from(listed: &Listed) -> Self {
        let (kind, repository, digest, bytes) = match listed {
            Listed::Manifest(repository, digest) => ("manifest", Some(repository.to_string()), digest, None),
            Listed::Link(repository, digest) => ("link", Some(repository.to_string()), digest, None),
            Listed::Blob(digest, bytes) => ("blob", None, digest, Some(*bytes)),
        };
        Self { kind: kind.to_owned(), repository, digest: digest.to_string(), bytes }
    }
}

impl From<Tally> for GcCounts {
    fn from(Tally { manifests, links, blobs, bytes }: Tally) -> Self {
        Self { manifests, links, blobs, bytes }
    }
}
