//! Rights: the only maker of [`Permit`]s. A handler's arguments are the proof that its caller may do what it does.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use portcullis_oci::RepositoryName;
use portcullis_tls::{Refusal, RefusedPeer};
use time::OffsetDateTime;

use crate::config::Mode;
use crate::peer::{Peer, Standing};
use crate::policy::{Action, Caller};
use crate::reason::Reason;

/// The right to read a repository.
#[derive(Debug)]
pub(crate) enum Pull {}
/// The right to write to a repository.
#[derive(Debug)]
pub(crate) enum Push {}
/// The right to remove from a repository.
#[derive(Debug)]
pub(crate) enum Delete {}

/// One of the three rights.
pub(crate) trait Right {
    const ACTION: Action;
}

/// The right `A` in one repository, given to one peer under the verdict of this moment.
#[derive(Debug)]
pub(crate) struct Permit<A> {
    repository: RepositoryName,
    peer: Arc<Peer>,
    right: PhantomData<A>,
}

/// A permit made after the request's body had arrived: what writes for good demands one, since a body can take hours.
#[derive(Debug)]
pub(crate) struct AfterBody<A>(Permit<A>);

/// Why there is no permit.
#[derive(Debug)]
pub(crate) enum Denied {
    /// The peer is no longer trusted at all.
    Refused {
        reason: Reason,
        /// With the line or the pin that decided: for the log, never for the peer.
        refusal: Refusal,
    },
    /// No rule allows it.
    NotAllowed { reason: Reason, action: Action, repository: RepositoryName },
    /// The rules allow it, and `storage.mode` nobody.
    ReadOnly,
}

impl Right for Pull {
    const ACTION: Action = Action::Pull;
}

impl Right for Push {
    const ACTION: Action = Action::Push;
}

impl Right for Delete {
    const ACTION: Action = Action::Delete;
}

/// Whether there can be a [`Permit<Pull>`](Permit) for any repository below `path`: a list need not look further where
/// there is none.
pub(crate) fn pull_reaches_below(peer: &Peer, path: &RepositoryName) -> bool {
    peer.now().is_ok_and(|now| now.generation.policy.reaches_below(&now.caller, Action::Pull, path))
}

impl<A: Right> Permit<A> {
    /// Asks the policy in force.
    pub(crate) fn ask(peer: &Arc<Peer>, repository: RepositoryName) -> Result<Self, Denied> {
        check::<A>(peer, &repository)?;
        Ok(Self { repository, peer: Arc::clone(peer), right: PhantomData })
    }

    /// Asks again, now that the body is here.
    pub(crate) fn after_body(self) -> Result<AfterBody<A>, Denied> {
        check::<A>(&self.peer, &self.repository)?;
        Ok(AfterBody(self))
    }

    /// Whether it still holds: asked while a body streams.
    pub(crate) fn check(&self) -> Result<(), Denied> {
        check::<A>(&self.peer, &self.repository)
    }

    pub(crate) fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// Whose it is, for the log.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What an upload session belongs to: this very certificate, or all without one, who know its random name only.
    pub(crate) fn owner(&self) -> Result<String, Denied> {
        Ok(match &self.peer.now()?.caller {
            Caller::Trusted(identity) => identity.fingerprint().to_string(),
            Caller::Anonymous => "anonymous".to_owned(),
        })
    }
}

impl<A: Right> AfterBody<A> {
    pub(crate) fn repository(&self) -> &RepositoryName {
        self.0.repository()
    }
}

impl Denied {
    /// What is wrong with the peer; nothing is, where nobody may.
    pub(crate) const fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Refused { reason, .. } | Self::NotAllowed { reason, .. } => Some(reason),
            Self::ReadOnly => None,
        }
    }

    /// The same with the line or the pin that decided, which the peer is not told.
    pub(crate) fn for_the_operator(&self) -> String {
        match self {
            Self::Refused { refusal, .. } => refusal.to_string(),
            Self::NotAllowed { .. } | Self::ReadOnly => self.to_string(),
        }
    }
}

impl From<Box<RefusedPeer>> for Denied {
    fn from(peer: Box<RefusedPeer>) -> Self {
        Self::Refused { reason: Reason::refused(&peer, OffsetDateTime::now_utc()), refusal: peer.refusal }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { reason, .. } | Self::NotAllowed { reason, .. } => reason.fmt(f),
            Self::ReadOnly => f.write_str(
                "the registry is read-only for now: pulls go on, nothing can be pushed or deleted; who runs it can \
                 change `mode` under [storage] in config.toml",
            ),
        }
    }
}

fn check<A: Right>(peer: &Peer, repository: &RepositoryName) -> Result<(), Denied> {
    let now = peer.now()?;
    let Standing { generation, caller, .. } = now.as_ref();
    match generation.policy.allows(caller, A::ACTION, repository) {
        Some(_) if A::ACTION != Action::Pull && generation.mode == Mode::ReadOnly => Err(Denied::ReadOnly),
        Some(_) => Ok(()),
        None => Err(Denied::NotAllowed {
            reason: Reason::not_allowed(caller, A::ACTION, repository),
            action: A::ACTION,
            repository: repository.clone(),
        }),
    }
}
