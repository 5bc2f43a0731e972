//! Rights: the only maker of [`Permit`]s. A handler's arguments are the proof that its caller may do what it does.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use portcullis_oci::RepositoryName;
use portcullis_tls::Refusal;

use crate::peer::{Described, Peer};
use crate::policy::{Action, Caller};

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
    Refused(Refusal),
    /// No rule allows it.
    NotAllowed {
        /// The peer's own certificate, described.
        peer: String,
        action: Action,
        repository: RepositoryName,
    },
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

    /// What an upload session belongs to: this very certificate.
    pub(crate) fn owner(&self) -> Result<String, Denied> {
        let (_, accepted) = self.peer.now().map_err(Denied::Refused)?;
        Ok(accepted.identity().fingerprint().to_string())
    }
}

impl<A: Right> AfterBody<A> {
    pub(crate) fn repository(&self) -> &RepositoryName {
        self.0.repository()
    }
}

impl Denied {
    /// As [`Display`](fmt::Display), with the line or the pin that decided: what the peer is not told.
    pub(crate) fn for_the_operator(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.to_string(),
            Self::NotAllowed { .. } => self.to_string(),
        }
    }
}

impl fmt::Display for Denied {
    /// Describes the peer's own certificate and what to do; never rules or lists of CAs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Which line denies it, or which pin issued it, is the operator's to know.
            Self::Refused(Refusal::Denied { .. }) => f.write_str("the certificate is revoked"),
            Self::Refused(Refusal::IssuedByPin { .. }) => write!(f, "{}", Refusal::UnknownIssuer),
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::NotAllowed { peer, action, repository } => write!(
                f,
                "{peer} may not {} in {repository}; who runs this registry can allow it in policy.toml",
                action.as_str()
            ),
        }
    }
}

fn check<A: Right>(peer: &Peer, repository: &RepositoryName) -> Result<(), Denied> {
    let (generation, accepted) = peer.now().map_err(Denied::Refused)?;
    let identity = accepted.identity();
    let caller = Caller::Trusted(identity.clone());
    match generation.policy.allows(&caller, A::ACTION, repository) {
        Some(_) => Ok(()),
        None => Err(Denied::NotAllowed {
            peer: Described(identity).to_string(),
            action: A::ACTION,
            repository: repository.clone(),
        }),
    }
}
