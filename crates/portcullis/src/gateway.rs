//! A registry behind mutual TLS, on this machine's loopback in plain HTTP: for engines and tools that present no client
//! certificate. A connection is let in by its user (`peer_user`), a request by what it asks (`rules`), and is sent on by
//! `forward` under the identity that `registry` keeps.
//!
//! Loopback is no boundary: every user, container and web page on the machine reaches it. Must not know the command line,
//! nor print.

mod connection;
mod exchange;
mod forward;
mod head;
mod listen;
mod peer_user;
mod refusal;
mod registry;
mod rules;
mod uploads;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub(crate) use listen::{Listener, Openness, Place};
pub(crate) use registry::Registry;
pub(crate) use rules::Rules;

use connection::Peer;
use listen::Arrival;
use peer_user::{Unknown, User};
use refusal::Refusal;
use uploads::Uploads;

/// Who is not let in is told why, so many at once; the others are closed without a word.
const TURNED_AWAY: usize = 16;
/// How long they are listened to.
const TURNED_AWAY_TIME: Duration = Duration::from_secs(5);
/// How long requests under way may take to end when the gateway stops.
const DRAIN_TIME: Duration = Duration::from_secs(30);
/// After an error of `accept`, which is the machine's trouble and not the peer's.
const PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Gateway {
    registry: Registry,
    rules: Rules,
    uploads: Uploads,
    connections: usize,
    stall: Duration,
}

/// Places for the two kinds of connections.
struct Places {
    let_in: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
}

impl Gateway {
    /// So many `connections` at once, each with one request; `stall` is how long a program may send or take nothing.
    pub(crate) fn new(registry: Registry, rules: Rules, connections: usize, stall: Duration) -> Self {
        Self { registry, rules, uploads: Uploads::default(), connections, stall }
    }

    /// Serves until `stopped` is done; requests under way may then end.
    pub(crate) async fn serve(self, listener: Listener, stopped: impl Future<Output = ()>) {
        let gateway = Arc::new(self);
        let places = Places {
            let_in: Arc::new(Semaphore::new(gateway.connections)),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
        };
        let (stopping, stop) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                () = &mut stopped => break,
                // What has ended is forgotten.
                Some(_) = tasks.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok(arrival) => gateway.begin(arrival, &places, &stop, &mut tasks),
                    Err(error) => {
                        tracing::debug!(%error, "no connection");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
        // Whoever comes now finds nobody, and does not wait.
        drop(listener);
        stopping.send_replace(true);
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIME, ended).await.is_err() {
            tracing::warn!("requests that did not end within {} s are cut", DRAIN_TIME.as_secs());
        }
    }

    fn begin(
        self: &Arc<Self>,
        arrival: Arrival,
        places: &Places,
        stop: &watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
    ) {
        let Arrival { stream, address, entrance, user } = arrival;
        let peer = Peer { address, user: user.as_ref().and_then(|user| user.as_ref().ok().copied()) };
        let allowed = user.map_or(Ok(()), check_user);
        let place = allowed.and_then(|()| {
            let place = Arc::clone(&places.let_in).try_acquire_owned();
            place.map_err(|_| Refusal::TooManyConnections(self.connections))
        });
        match place {
            Ok(place) => {
                let (gateway, stop) = (Arc::clone(self), stop.clone());
                tasks.spawn(async move {
                    connection::serve(stream, peer, entrance, gateway, stop).await;
                    drop(place);
                });
            }
            Err(refusal) => {
                let Ok(place) = Arc::clone(&places.turned_away).try_acquire_owned() else { return };
                tasks.spawn(async move {
                    connection::turn_away(stream, peer, refusal, TURNED_AWAY_TIME).await;
                    drop(place);
                });
            }
        }
    }
}

/// Ours, or root, who could be us anyway.
fn check_user(user: Result<User, Unknown>) -> Result<(), Refusal> {
    match user? {
        user if user == User::ours() || user == User::ROOT => Ok(()),
        other => Err(Refusal::ForeignUser(other.number())),
    }
}
