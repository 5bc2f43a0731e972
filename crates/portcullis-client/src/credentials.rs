//! Whose user name and password, or token, goes to a registry: given by the caller, or found where Docker and Podman
//! keep them. Must not know what a registry asks for.

use std::path::PathBuf;

use portcullis_oci::{RegistryHost, RepositoryName};

use crate::error::ClientError;
use crate::secret::Secret;

mod entry;
mod files;
mod helper;
mod login;

pub use files::{AuthFileFault, AuthFiles, AuthOrder};
pub use helper::HelperFault;
pub use login::{Kept, forget, keep};

/// What a registry, or its token server, is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// For Basic, and for the token server.
    Password {
        /// The user name.
        username: String,
        /// The password, or an access token that takes its place.
        password: Secret,
    },
    /// A refresh token of OAuth 2 (`identitytoken` in auth files): the token server gives tokens for it.
    IdentityToken(Secret),
    /// A token for the registry itself (`registrytoken` in auth files), sent as it is.
    RegistryToken(Secret),
}

/// Where credentials come from. Nothing is looked up before a registry asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// There are none: a token server is asked anonymously.
    Anonymous,
    /// These, for the registry that is connected to, and for no other.
    Given(Credential),
    /// Those of the user, from auth files and credential helpers.
    Files(AuthFiles),
}

impl Default for Credentials {
    /// The user's, in the order that Docker's client looks for them.
    fn default() -> Self {
        Self::Files(AuthFiles::of_the_user(AuthOrder::DockerFirst))
    }
}

impl Credentials {
    /// Those for a registry; `repository` is what containers' auth files may have an entry of its own for.
    pub(crate) async fn find(
        &self,
        host: &RegistryHost,
        repository: Option<&RepositoryName>,
    ) -> Result<Option<Credential>, ClientError> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Given(credential) => Ok(Some(credential.clone())),
            Self::Files(files) => files.find(host, repository).await,
        }
    }

    /// Whether there may be some for the registry, or for one of its repositories. Runs no helper.
    pub(crate) async fn may_have(&self, host: &RegistryHost) -> Result<bool, ClientError> {
        match self {
            Self::Anonymous => Ok(false),
            Self::Given(_) => Ok(true),
            Self::Files(files) => files.may_have(host).await,
        }
    }
}

impl ClientError {
    fn auth_file(path: impl Into<PathBuf>, fault: AuthFileFault) -> Self {
        Self::AuthFile { path: path.into(), fault }
    }
}
