//! The socket over which a running server is spoken to: HTTP and JSON on a Unix socket, never TCP. Both ends are here,
//! so that they cannot drift.
//!
//! The directory is 0700, the socket 0600, and the peer's uid must be the server's or root.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use portcullis_certs::Fingerprint;
use portcullis_store::fsck::{Outcome, Step};
use portcullis_store::{Removal, Store};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::error::Chain;
use crate::events::clients::SeenClient;
use crate::gc::{GcStarted, GcStatus};
use crate::refusals::Why;
use crate::side::{self, Bounds};
use crate::status::{self, Inside, Status};
use crate::watch::apart;

const LIFE: Duration = Duration::from_secs(30);
const BOUNDS: Bounds = Bounds { connections: 16, life: LIFE };
/// Ten thousand clients, with names of all the length they may have.
const MAX_ANSWER: usize = 32 << 20;

/// A step of a check names at most a thousand digests and two hundred repositories.
const MAX_ASK: usize = 1 << 20;

const STATUS: &str = "/status";
const RELOAD: &str = "/reload";
const CLIENTS: &str = "/clients";
/// Followed by a fingerprint.
const WHY: &str = "/why/";
const FSCK: &str = "/fsck";
const GC: &str = "/gc";
const GC_DRY_RUN: &str = "/gc/dry-run";
const GC_PAUSE: &str = "/gc/pause";

/// The answer to `reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The generation in force: a new one, or the one before where the files were refused.
    pub generation: u64,
    /// Why the files were refused; empty when they are in force.
    pub problems: Vec<String>,
    /// Whether every restriction is in force, even when the rest is refused: the deny list, wherever it can be read, and that
    /// nobody is trusted by a file that is gone.
    pub deny_in_force: bool,
}

/// Why a running server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens: no server runs with this home.
    #[error("no server is running with {}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket is another user's.
    #[error("{} belongs to another user: ask as that user or as root", socket.display())]
    NotAllowed {
        /// The socket.
        socket: PathBuf,
    },
    /// The server could not do it.
    #[error("the server at {} cannot do this: {reason}", socket.display())]
    Failed {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The conversation failed.
    #[error("the server at {} did not answer: {reason}", socket.display())]
    NoAnswer {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// Asks the server behind `socket` about itself.
///
/// # Errors
/// [`AdminError::NotRunning`] when there is none.
pub async fn status(socket: &Path) -> Result<Status, AdminError> {
    ask(socket, Method::GET, STATUS, Vec::new()).await
}

/// Asks the server behind `socket` for the clients it let in within 7 days, since its start at most: whose certificate
/// ends next stands first.
///
/// # Errors
/// [`AdminError::NotRunning`] when there is none.
pub async fn clients(socket: &Path) -> Result<Vec<SeenClient>, AdminError> {
    ask(socket, Method::GET, CLIENTS, Vec::new()).await
}

/// Has the server behind `socket` read its trust, policy and certificate again.
///
/// # Errors
/// [`AdminError::NotRunning`] when there is none. Refused files are no error here: see [`Reloaded::problems`].
pub async fn reload(socket: &Path) -> Result<Reloaded, AdminError> {
    ask(socket, Method::POST, RELOAD, Vec::new()).await
}

/// Asks the server behind `socket` why it refused a certificate of late, and what it makes of it now.
///
/// # Errors
/// [`AdminError::NotRunning`] when there is none.
pub async fn why(socket: &Path, fingerprint: Fingerprint) -> Result<Why, AdminError> {
    ask(socket, Method::GET, &format!("{WHY}{fingerprint}"), Vec::new()).await
}

/// Has the server behind `socket` make one step of a check of its store.
///
/// # Errors
/// [`AdminError::NotRunning`] when there is none, [`AdminError::Failed`] when its disk fails.
pub async fn fsck(socket: &Path, step: &Step) -> Result<Outcome, AdminError> {
    // Plain data of texts and numbers always serialises.
    let step = serde_json::to_vec(step).unwrap_or_default();
    let outcome: Result<Outcome, String> = ask(socket, Method::POST, FSCK, step).await?;
    outcome.map_err(|reason| AdminError::Failed { socket: socket.to_owned(), reason })
}

/// Has the server behind `socket` begin a garbage collection, unless one runs already.
///
/// # Errors
/// [`AdminError::NotRunning`] when there is no server.
pub async fn start_gc(socket: &Path, removal: Removal) -> Result<GcStarted, AdminError> {
    let path = if removal == Removal::DryRun { GC_DRY_RUN } else { GC };
    ask(socket, Method::POST, path, Vec::new()).await
}

/// Asks the server behind `socket` for its garbage collections.
///
/// # Errors
/// [`AdminError::NotRunning`] when there is no server.
pub async fn gc(socket: &Path) -> Result<GcStatus, AdminError> {
    ask(socket, Method::GET, GC, Vec::new()).await
}

/// Has the server behind `socket` begin no collection for `time`, a week at most; zero ends the pause. The one under way
/// ends after its present step: [`GcStatus::running`] says when it has. The pause outlives the server.
///
/// # Errors
/// [`AdminError::NotRunning`] when there is no server; [`AdminError::Failed`] when the pause cannot be written: it holds
/// until the server stops then.
pub async fn pause_gc(socket: &Path, time: Duration) -> Result<GcStatus, AdminError> {
    let paused: Result<GcStatus, String> =
        ask(socket, Method::POST, GC_PAUSE, time.as_secs().to_string().into_bytes()).await?;
    paused.map_err(|reason| AdminError::Failed { socket: socket.to_owned(), reason })
}

async fn ask<T: for<'de> Deserialize<'de>>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<T, AdminError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => AdminError::NotAllowed { socket: socket.to_owned() },
        _ => AdminError::NotRunning { socket: socket.to_owned() },
    })?;
    let failed = |reason: String| AdminError::NoAnswer { socket: socket.to_owned(), reason };
    let conversation = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(HOST, "admin").body(Full::<Bytes>::from(body));
        let response = sender.send_request(request.map_err(|error| error.to_string())?).await;
        let response = response.map_err(|error| error.to_string())?;
        if response.status() == StatusCode::FORBIDDEN {
            return Err("it refuses this user".to_owned());
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
        connection.abort();
        serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
    };
    match tokio::time::timeout(LIFE, conversation).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(failed(format!("no answer within {} s", LIFE.as_secs()))),
    }
}

/// Binds the socket. A socket that is left over from a server that was killed is replaced: the store's lock says that
/// there is no other server.
pub(crate) fn bind(socket: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = socket.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        check_private(directory)?;
    }
    match fs::symlink_metadata(socket) {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(socket)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is no socket")),
        Err(_) => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A directory that others use (`/run`) is not ours to close to them, and no place for the socket.
fn check_private(directory: &Path) -> io::Result<()> {
    let mode = fs::metadata(directory)?.permissions().mode() & 0o7777;
    let others = mode & 0o077;
    if others == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "its directory {} has mode {mode:04o} and must be its owner's alone: chmod 0700, or name a directory of its own in `admin_socket`",
        directory.display()
    )))
}

/// Answers until `stop` turns true.
pub(crate) async fn run(listener: UnixListener, inside: Arc<Inside>, stop: watch::Receiver<bool>) {
    let answerer = |stream: &UnixStream| {
        let (inside, allowed) = (Arc::clone(&inside), is_allowed(stream));
        move |request| answer(Arc::clone(&inside), allowed, request)
    };
    side::run(listener, BOUNDS, stop, answerer).await;
}

/// The server's own uid, or root.
fn is_allowed(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw())
}

async fn answer(inside: Arc<Inside>, allowed: bool, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match (allowed, request.method(), request.uri().path()) {
        (false, _, _) => empty(StatusCode::FORBIDDEN),
        (true, &Method::GET, STATUS) => json(&status::read(&inside)),
        (true, &Method::GET, CLIENTS) => json(&inside.events.clients.list()),
        (true, &Method::GET, GC) => json(&inside.collector.status()),
        (true, &Method::POST, GC) => json(&inside.collector.start(Removal::Real)),
        (true, &Method::POST, GC_DRY_RUN) => json(&inside.collector.start(Removal::DryRun)),
        (true, &Method::POST, GC_PAUSE) => match read_json::<u64>(request).await {
            Some(seconds) => {
                let pause = move || inside.collector.pause(Duration::from_secs(seconds));
                let paused = tokio::task::spawn_blocking(pause).await;
                paused.map_or_else(
                    |_| empty(StatusCode::INTERNAL_SERVER_ERROR),
                    |paused| json(&paused.map_err(|error| Chain(&error).to_string())),
                )
            }
            None => empty(StatusCode::BAD_REQUEST),
        },
        (true, &Method::POST, RELOAD) => match apart(move || reload_now(&inside)).await {
            Ok(reloaded) => json(&reloaded),
            Err(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
        },
        (true, &Method::POST, FSCK) => match fsck_step(&inside.store, request).await {
            Some(outcome) => json(&outcome),
            None => empty(StatusCode::BAD_REQUEST),
        },
        (true, &Method::GET, path) => match path.strip_prefix(WHY).map(str::parse::<Fingerprint>) {
            Some(Ok(fingerprint)) => json(&inside.events.refusals.why(fingerprint, &inside.generations.current())),
            Some(Err(_)) => empty(StatusCode::BAD_REQUEST),
            None => empty(StatusCode::NOT_FOUND),
        },
        _ => empty(StatusCode::NOT_FOUND),
    }
}

/// `None`: the body is something else, or too large.
async fn read_json<T: for<'de> Deserialize<'de>>(request: Request<Incoming>) -> Option<T> {
    let body = Limited::new(request.into_body(), MAX_ASK).collect().await.ok()?.to_bytes();
    serde_json::from_slice(&body).ok()
}

/// `None`: that was no step.
async fn fsck_step(store: &Store, request: Request<Incoming>) -> Option<Result<Outcome, String>> {
    let step: Step = read_json(request).await?;
    let store = store.clone();
    let done = tokio::task::spawn_blocking(move || store.fsck_step(&step)).await;
    Some(match done {
        Ok(outcome) => outcome.map_err(|error| Chain(&error).to_string()),
        Err(error) => Err(error.to_string()),
    })
}

fn reload_now(inside: &Inside) -> Reloaded {
    let problems = inside.generations.refresh().err().unwrap_or_default();
    Reloaded {
        generation: inside.generations.current().number,
        problems: problems.iter().map(ToString::to_string).collect(),
        // A generation that was accepted has the whole list: only a refused one needs a look at the files.
        deny_in_force: problems.is_empty() || inside.generations.deny_in_force(),
    }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    // Plain structs of texts and numbers always serialise.
    let mut response = Response::new(Full::from(serde_json::to_vec(value).unwrap_or_default()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
