//! The registry: accept, TLS session, identity, permit, handler, answer.
//!
//! Owns the distribution API over mutual TLS, its policy, and what can be changed while it runs. It never mints a
//! certificate (it does not depend on `portcullis-pki`) and never opens a CA's key.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use portcullis_server::{Config, Server};
//!
//! let path = std::path::Path::new("/var/lib/portcullis/config.toml");
//! let config = Config::parse(path, &std::fs::read_to_string(path)?).map_err(|found| format!("{found:?}"))?;
//! let server = Server::open(config)?;
//! let listener = tokio::net::TcpListener::bind(server.config().listen).await?;
//! server.run(listener, async { let _ = tokio::time::sleep(std::time::Duration::from_secs(60)).await; }).await?;
//! # Ok(())
//! # }
//! ```

mod accept;
mod access;
pub mod admin;
mod api;
mod app;
mod body;
mod config;
mod connection;
mod crl_rules;
mod document;
mod error;
mod events;
mod exchange;
mod expiry;
pub mod gc;
mod generation;
mod lanes;
mod media_types;
mod peer;
mod policy;
mod probe;
mod question;
mod reason;
mod recent;
mod refusals;
mod reminders;
mod side;
mod slots;
mod status;
mod tag_rules;
mod turns;
mod watch;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use portcullis_store::{Store, StoreError, StoreOptions};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use config::{Config, Gc, Limits, MissingChildren, Mode, TEMPLATE};
pub use document::Problem;
pub use error::route_status;
pub use events::audit::AuditTo;
pub use events::clients::SeenClient;
pub use policy::{Action, Caller, Policy, RepositoryGlob, RuleVerdict};
pub use portcullis_tls::ClientAuth;
pub use question::{Answer, Question, TrustVerdict, ask};
pub use refusals::{PresentVerdict, SeenRefusal, Why};
pub use status::{CrlInForce, OwnCertificate, Status};
pub use tag_rules::TagRule;

use crate::accept::Shared;
use crate::app::App;
use crate::body::buffers::Buffers;
use crate::connection::windows::Windows;
use crate::events::Events;
use crate::events::audit::Audit;
use crate::generation::Generations;
use crate::media_types::MediaTypes;
use crate::recent::RecentBlobs;
use crate::slots::Slots;
use crate::status::Inside;
use crate::turns::Turns;

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Files of trust, policy or the server's certificate are not fit to be served with: nothing listens.
    #[error("the server cannot start:{}", lines(.problems))]
    Trust {
        /// Every problem, with file and line.
        problems: Vec<Problem>,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The probe's address is taken, or not this machine's.
    #[error(
        "cannot listen on {address} for probes: {source}; set `probe` in the config file to another address or \"off\""
    )]
    Probe {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The audit cannot be written.
    #[error(
        "the audit cannot be written to {to}: {source}; set `audit.file` in the config file to another path, \"stdout\" or \"off\""
    )]
    Audit {
        /// The file, or `stdout`.
        to: String,
        /// Why not.
        source: io::Error,
    },
    /// The thread that watches the files of trust cannot be started.
    #[error("the files of trust cannot be watched: {0}")]
    Watch(#[source] io::Error),
    /// The admin socket cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A server that is ready to run: its data locked, its trust loaded and checked.
#[derive(Debug)]
pub struct Server {
    config: Config,
    store: Store,
    generations: Arc<Generations>,
}

/// A running server's ear for signals.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Generations>);

impl Server {
    /// Loads trust, policy and the server's certificate, then opens the data directory, waiting for its lock.
    ///
    /// # Errors
    /// [`ServerError::Trust`] with every problem; nothing was opened then. [`ServerError::Audit`] where the audit shall
    /// go to standard output, which is the program's to give: [`Server::open_with_output`].
    pub fn open(config: Config) -> Result<Self, ServerError> {
        Self::open_with(config, None)
    }

    /// As [`Server::open`]; `output` is where an audit to `"stdout"` goes.
    ///
    /// # Errors
    /// As [`Server::open`].
    pub fn open_with_output(config: Config, output: Box<dyn io::Write + Send>) -> Result<Self, ServerError> {
        Self::open_with(config, Some(output))
    }

    fn open_with(config: Config, output: Option<Box<dyn io::Write + Send>>) -> Result<Self, ServerError> {
        let generations = Generations::start(&config).map_err(|problems| ServerError::Trust { problems })?;
        let store = open_store(&config)?;
        let events = Arc::new(Events::new(open_audit(&config.audit, output)?));
        let generations = generations.telling(events);
        // The lock may have been waited for, and somebody be denied since. What is refused is in the log.
        let _ = generations.refresh();
        Ok(Self { config, store, generations: Arc::new(generations) })
    }

    /// Loads and checks everything a start would, without touching the data. What comes back is worth knowing and keeps
    /// nothing from starting, such as a rule for a CA that does not exist.
    ///
    /// # Errors
    /// [`ServerError::Trust`] with every problem.
    pub fn check(config: &Config) -> Result<Vec<Problem>, ServerError> {
        let generations = Generations::start(config).map_err(|problems| ServerError::Trust { problems })?;
        Ok(question::findings(config, &generations.current()))
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// For a reload by signal.
    pub fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.generations))
    }

    /// Serves on `listener` until `shutdown` is done, then lets requests under way finish within `drain_timeout`. The
    /// probe and the admin socket are opened as the configuration says.
    ///
    /// # Errors
    /// The probe's address or the socket cannot be listened on.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let listen = listener.local_addr().unwrap_or(self.config.listen);
        let (slots, strangers) = slots_of(&self.config.limits);
        let events = Arc::clone(&self.generations.events);
        let (stopper, stop) = tokio::sync::watch::channel(false);
        let collector = gc::spawn(&self.store, &self.generations, self.config.gc.interval, &stop);
        let inside = Arc::new(Inside {
            listen,
            generations: Arc::clone(&self.generations),
            store: self.store.clone(),
            collector,
            slots: Arc::clone(&slots),
            events: Arc::clone(&events),
            since: OffsetDateTime::now_utc(),
        });
        // Keeps the data directory's lock until the socket is gone: a server that waits for it makes its own.
        let store = self.store.clone();
        let generations = Arc::clone(&self.generations);
        tokio::spawn(expiry::run(store.clone(), generations, self.config.upload_expiry, stop.clone()));
        watch::start(Arc::clone(&self.generations), stop.clone()).map_err(ServerError::Watch)?;
        tokio::spawn(reminders::run(Arc::clone(&self.generations), stop.clone()));
        if let Some(address) = self.config.probe {
            let probe = TcpListener::bind(address).await;
            let probe = probe.map_err(|source| ServerError::Probe { address, source })?;
            tokio::spawn(probe::run(probe, Arc::clone(&inside), stop.clone()));
        }
        if let Some(path) = &self.config.admin_socket {
            let socket = admin::bind(path).map_err(|source| ServerError::Socket { path: path.clone(), source })?;
            tokio::spawn(admin::run(socket, inside, stop.clone()));
        }
        let app = App {
            store: self.store,
            recent: RecentBlobs::default(),
            buffers: Buffers::default(),
            windows: Windows::default(),
            media_types: MediaTypes::default(),
            events: Arc::clone(&events),
            port: listen.port(),
            requests: Arc::new(Semaphore::new(self.config.limits.requests)),
            readings: Arc::new(Semaphore::new(api::referrers::READINGS)),
            missing_children: self.config.missing_children,
            limits: self.config.limits,
        };
        let shared = Shared {
            handshakes: Turns::new(app.limits.handshakes),
            app: Arc::new(app),
            generations: self.generations,
            slots,
            strangers,
            client_auth: self.config.client_auth,
        };
        let accepting = accept::run(listener, Arc::new(shared), stop);
        let stopping = async {
            shutdown.await;
            tracing::info!("stopping: requests under way are finished first");
            // Nobody listens only when everything has ended already.
            let _ = stopper.send(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = accepting => {}
            () = stopping => {}
        }
        if let Some(path) = &self.config.admin_socket {
            // Left over it would do no harm: the next start replaces it.
            let _ = std::fs::remove_file(path);
        }
        drop(store);
        // Blocks for a moment, and only where somebody wants the lines.
        let _ = tokio::task::spawn_blocking(move || events.audit.close()).await;
        Ok(())
    }
}

impl Handle {
    /// Reads trust, policy and the server's certificate again and puts them in force; returns the generation's number.
    /// Blocks on files.
    ///
    /// # Errors
    /// Every problem; the generation before stays in force.
    pub fn reload(&self) -> Result<u64, Vec<Problem>> {
        self.0.reload()
    }
}

/// Opens a server with `config` and runs it on `listener` until `shutdown` is done.
///
/// # Errors
/// As [`Server::open`] and [`Server::run`].
pub async fn run(listener: TcpListener, config: Config, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
    Server::open(config)?.run(listener, shutdown).await
}

/// For those who are let in, and for those who are not.
fn slots_of(limits: &Limits) -> (Arc<Slots>, Arc<Slots>) {
    // As many as the default gives one address of the connections: a sixteenth.
    let handshakes_per_address = (limits.handshakes / 16).max(1);
    let slots = Slots::with_quiet_limit(
        limits.connections,
        limits.connections_per_address,
        handshakes_per_address,
        limits.idle_connections,
    );
    let strangers = Slots::new(limits.strangers, (limits.strangers / 4).max(1), handshakes_per_address);
    (slots, strangers)
}

fn open_store(config: &Config) -> Result<Store, StoreError> {
    let options = StoreOptions {
        lock_wait: config.lock_wait,
        socket: config.admin_socket.clone(),
        reserve: config.reserve,
        open_uploads: config.limits.open_uploads,
        cache_bytes: config.limits.caches,
        immutable: tag_rules::immutable(&config.immutable),
        grace: config.gc.grace,
        trash: config.gc.trash,
        untagged: config.gc.untagged,
        ..StoreOptions::default()
    };
    Store::open(&config.data, &options)
}

fn open_audit(to: &AuditTo, output: Option<Box<dyn io::Write + Send>>) -> Result<Audit, ServerError> {
    let audit = match (to, output) {
        (AuditTo::Off, _) => Ok(Audit::default()),
        (AuditTo::File(path), _) => Audit::to_file(path.clone()),
        (AuditTo::Stdout, Some(output)) => Audit::to_output(output),
        (AuditTo::Stdout, None) => Err(io::Error::other("this program gives the server no standard output")),
    };
    let to = || match to {
        AuditTo::File(path) => path.display().to_string(),
        AuditTo::Stdout | AuditTo::Off => "stdout".to_owned(),
    };
    audit.map_err(|source| ServerError::Audit { to: to(), source })
}

fn lines(problems: &[Problem]) -> impl fmt::Display {
    problems.iter().map(|problem| format!("\n  {problem}")).collect::<String>()
}
