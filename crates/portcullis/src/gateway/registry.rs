//! The registry behind the gateway, under the identity that it takes at present. A gateway runs for months: certificates
//! are renewed and replaced beneath it, so the directory is read again now and then, and whenever the registry refuses.
//! Must not know what passes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_client::{Client, ClientError, ClientOptions};
use portcullis_oci::RegistryHost;

/// `GET /v2/`, with which engines begin, looks for the identity anew after so much time.
const FRESH: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct Registry {
    host: RegistryHost,
    options: ClientOptions,
    current: Mutex<Session>,
    /// One looks for an identity at a time; who waited takes what was found.
    connecting: tokio::sync::Mutex<()>,
}

/// The registry under one identity.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) client: Client,
    since: Instant,
}

impl Registry {
    /// Finds the identity that the registry takes, as every client command does.
    pub(crate) async fn connect(host: RegistryHost, options: ClientOptions) -> Result<Self, ClientError> {
        let client = Client::connect(&host, &options).await?;
        let current = Mutex::new(Session { client, since: Instant::now() });
        Ok(Self { host, options, current, connecting: tokio::sync::Mutex::default() })
    }

    pub(crate) fn host(&self) -> &RegistryHost {
        &self.host
    }

    /// The client in use.
    pub(crate) fn client(&self) -> Client {
        self.session().client
    }

    pub(super) fn session(&self) -> Session {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, looked for anew if that is long ago.
    pub(super) async fn fresh(&self) -> Result<Session, ClientError> {
        let session = self.session();
        if session.since.elapsed() < FRESH { Ok(session) } else { self.another(&session).await }
    }

    /// Reads the directory again and finds the identity that the registry takes now, unless somebody has done so since
    /// `before`.
    pub(super) async fn another(&self, before: &Session) -> Result<Session, ClientError> {
        let _turn = self.connecting.lock().await;
        let now = self.session();
        if now.since != before.since {
            return Ok(now);
        }
        let client = Client::connect(&self.host, &self.options).await?;
        if client.pair_used() != now.client.pair_used() {
            tracing::info!(host = %self.host, pair = client.pair_used(), "another client certificate is used from now on");
        }
        let session = Session { client, since: Instant::now() };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = session.clone();
        Ok(session)
    }
}
