//! The identity of a client: chosen on `GET /v2/`, looked at again on the first GET or HEAD of its first operation, and
//! fixed from then on, or from the first write. Must not know how an identity is judged.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::auth::Ask;
use crate::connect::{Candidates, Chosen, Probe};
use crate::refusal::Attempt;
use crate::session::{Repeat, Response, Session};
use crate::{Client, ClientError};

/// Whom a registry takes us for.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) candidates: Candidates,
    state: Mutex<State>,
    /// One task at a time may change it.
    turn: Semaphore,
}

#[derive(Debug)]
struct State {
    session: Arc<Session>,
    /// `None` once it is fixed.
    open: Option<Open>,
}

/// What is left to try, and what was tried.
#[derive(Clone, Debug)]
struct Open {
    place: usize,
    refused: Vec<Attempt>,
}

impl Identity {
    /// What `GET /v2/` has shown.
    pub(crate) fn new(candidates: Candidates, chosen: Chosen) -> (Self, Response) {
        let Chosen { session, place, response, refused } = chosen;
        let state = Mutex::new(State { session, open: Some(Open { place, refused }) });
        (Self { candidates, state, turn: Semaphore::new(1) }, response)
    }

    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.state().session)
    }

    /// Nothing changes the identity from now on: a write is about to be sent under it.
    pub(crate) async fn fix(&self) {
        if self.open().is_some() {
            // Whoever has the turn may be about to change it. Never closed.
            let _turn = self.turn.acquire().await;
            self.state().open = None;
        }
    }

    fn open(&self) -> Option<Open> {
        self.state().open.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every single assignment, so a panic elsewhere cannot have left it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// A GET or HEAD at the registry. When the first one is refused, the pairs after the present one are tried.
    pub(crate) async fn read_as_chosen(&self, ask: Ask<'_>) -> Result<Response, ClientError> {
        let identity = self.identity();
        if identity.open().is_some() {
            // Never closed.
            let _turn = identity.turn.acquire().await;
            if let Some(Open { place, refused }) = identity.open() {
                let present = Some(identity.session());
                let chosen = identity.candidates.choose(&Probe::First(self, ask), place, present, refused).await?;
                *identity.state() = State { session: chosen.session, open: None };
                return Ok(chosen.response);
            }
        }
        self.read_as_known(&identity.session(), &ask, Repeat::Passing).await
    }
}
