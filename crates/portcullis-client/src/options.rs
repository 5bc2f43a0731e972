//! What a caller chooses before connecting. Plain values with defaults; knows nothing of the network.

use std::path::PathBuf;
use std::time::Duration;

use portcullis_certs::{CertsLocation, EngineProfile};
use portcullis_tls::Roots;

use crate::credentials::Credentials;

/// How to reach a registry.
///
/// ```
/// use portcullis_client::{CertsChoice, ClientOptions, Location};
///
/// let options = ClientOptions {
///     certs: CertsChoice { location: Location::Root("/etc/docker/certs.d".into()), ..CertsChoice::default() },
///     ..ClientOptions::default()
/// };
/// assert_eq!(options.timeouts.connect.as_secs(), 10);
/// ```
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Which certificate directory is read, and how.
    pub certs: CertsChoice,
    /// How the directory's roots and the system's go together; merged by default.
    pub roots: Roots,
    /// Whether the registry is spoken to over TLS; it is, by default, on loopback too.
    pub transport: Transport,
    /// What a registry is shown that wants more than a certificate; by default what the user's auth files have.
    pub credentials: Credentials,
    /// The deadlines.
    pub timeouts: Timeouts,
    /// How often a request is repeated, and a blob goes on.
    pub retries: Retries,
    /// How many bytes of a blob are sent in one request. A larger one is sent in chunks of so many, each of which the
    /// registry keeps when the connection breaks later. 256 MiB: a registry may write each to its disk before it answers.
    /// After a break it is [`crate::CAREFUL_CHUNK`] at most.
    pub chunk: u64,
}

/// Which certificate directory is read, and as which engine would read it.
#[derive(Clone, Debug)]
pub struct CertsChoice {
    /// The engine whose rules hold; Docker's page by default.
    pub profile: EngineProfile,
    /// Where the directory is; where the engine looks for it by default.
    pub location: Location,
}

/// How a registry is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// HTTPS, and nothing else: no fallback, no exception for loopback.
    #[default]
    Tls,
    /// HTTP without TLS: everybody on the way reads and changes what is sent, credentials too. No certificate directory is
    /// read. Redirects and token servers may then be plain as well.
    PlainHttp,
}

/// Where a registry's certificate directory is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Location {
    /// The profile's own list of places.
    #[default]
    Search,
    /// `DIR/<host[:port]>/`.
    Root(PathBuf),
    /// This is the registry's directory itself. Other hosts, such as the target of a redirect, never use it: theirs is
    /// looked for in the profile's places.
    HostDirectory(PathBuf),
}

/// Deadlines. No wait is without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name lookup, TCP and TLS together. 10 s.
    pub connect: Duration,
    /// From a connection to the head of the answer. 30 s.
    pub header: Duration,
    /// Between two pieces of a body, in either direction. 60 s.
    pub idle: Duration,
    /// From the last byte of an upload or a manifest to the answer: the registry makes it durable meanwhile, and one
    /// that keeps its blobs in an object store copies the whole blob then. 300 s.
    pub commit: Duration,
}

/// How often, after which pause and for how long a request is repeated, or a blob goes on, when the connection breaks or
/// the answer is 429 or one of 500, 502, 503 and 504. A deletion never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Repetitions after the first attempt. 3. Those of a blob count anew when 8 MiB of it have come or gone.
    pub limit: u32,
    /// The first pause; each further one doubles, and up to half is taken off at random. 500 ms.
    pub pause: Duration,
    /// The longest pause, also where `Retry-After` asks for more. 30 s.
    pub max_pause: Duration,
    /// How long after the first failure another repetition may begin; for a blob, after the first since 8 MiB of it have
    /// come or gone. What is under way then ends by its own deadlines. 5 minutes.
    pub total: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            certs: CertsChoice::default(),
            roots: Roots::Merge,
            transport: Transport::Tls,
            credentials: Credentials::default(),
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            chunk: 256 * 1024 * 1024,
        }
    }
}

impl Default for CertsChoice {
    fn default() -> Self {
        Self { profile: EngineProfile::DOCKER_DOCS, location: Location::Search }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            header: Duration::from_secs(30),
            idle: Duration::from_mins(1),
            commit: Duration::from_mins(5),
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        let (pause, max_pause) = (Duration::from_millis(500), Duration::from_secs(30));
        Self { limit: 3, pause, max_pause, total: Duration::from_mins(5) }
    }
}

impl ClientOptions {
    /// The same for a host that the registry sent us to: its certificates come from its own directory.
    pub(crate) fn for_another_host(&self) -> Self {
        let certs = CertsChoice { profile: self.certs.profile, location: self.certs.location.of_others() };
        // A credential is the registry's. Whatever else the host wants is not given.
        Self { certs, credentials: Credentials::Anonymous, ..self.clone() }
    }
}

impl Location {
    /// The same for another host.
    pub(crate) fn of_others(&self) -> Self {
        match self {
            Self::HostDirectory(_) => Self::Search,
            other => other.clone(),
        }
    }

    pub(crate) fn as_certs_location(&self) -> CertsLocation<'_> {
        match self {
            Self::Search => CertsLocation::Search,
            Self::Root(root) => CertsLocation::Root(root),
            Self::HostDirectory(directory) => CertsLocation::HostDirectory(directory),
        }
    }
}

impl Retries {
    /// The pause before repetition number `number` (from 1), or what `Retry-After` asked for.
    pub(crate) fn pause_before(&self, number: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.pause.saturating_mul(1 << number.saturating_sub(1).min(16));
        asked.unwrap_or_else(|| doubled.mul_f64(jitter())).min(self.max_pause)
    }
}

/// Between 0.5 and 1: clients that were cut off together shall not come back together.
fn jitter() -> f64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The keys of a fresh `RandomState` are random; no other source of chance is needed for this.
    let random = std::hash::RandomState::new().build_hasher().finish();
    let unit = f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    0.5 + unit / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        let retries = Retries::default();
        let within = |pause: Duration, millis: std::ops::RangeInclusive<u128>| millis.contains(&pause.as_millis());
        assert!(within(retries.pause_before(1, None), 250..=500));
        assert!(within(retries.pause_before(3, None), 1_000..=2_000));
        assert_eq!(retries.pause_before(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(retries.pause_before(1, Some(Duration::from_hours(24))), retries.max_pause);
        assert!(retries.pause_before(u32::MAX, None) <= retries.max_pause);
    }

    #[test]
    fn a_hosts_own_directory_is_no_other_hosts() {
        let mut options = ClientOptions::default();
        options.certs.location = Location::HostDirectory("/x".into());
        assert_eq!(options.for_another_host().certs.location, Location::Search);
        options.certs.location = Location::Root("/x".into());
        assert_eq!(options.for_another_host().certs.location, Location::Root("/x".into()));
    }
}
