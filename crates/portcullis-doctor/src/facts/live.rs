//! The registry as it is on the network: addresses, ports, handshakes with everything recorded, and what it answers.
//!
//! Every wait has a deadline, every input a bound. The connection that records takes any certificate, so nothing secret
//! goes over it: a client certificate is shown only to a server that an engine's own roots lead to.

mod contact;
mod http;

use portcullis_certs::{Certificate, EngineProfile, LoadedPair, Prediction, RegistryHost, pem};
use portcullis_client::Distrust;
use portcullis_oci::{Digest, Endpoint, ManifestReference};
use portcullis_tls::{OfferedVersions, Roots, TlsError, verify_server};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use time::OffsetDateTime;

use super::{EngineFacts, Target};

pub use contact::{Contact, ContactEnd, VersionTrial};
pub use http::Answer;

use contact::{Peer, contact};

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;
/// Pairs that are tried.
const MAX_PAIRS: usize = 16;
/// How long the resolver may take.
const RESOLVE: Duration = Duration::from_secs(5);

/// What came of asking.
#[derive(Debug, Clone)]
pub struct LiveFacts {
    /// The addresses, or why there are none.
    pub resolved: Result<Vec<IpAddr>, String>,
    /// Each address that was tried, and whether something listens there.
    pub connected: Vec<(SocketAddr, Result<(), io::ErrorKind>)>,
    /// The first conversation, without a client certificate.
    pub greeting: Option<Contact>,
    /// The first line that the port answers to plain HTTP, where it does not speak TLS.
    pub plain_http: Option<String>,
    /// Whether each version of TLS can be agreed on.
    pub versions: Vec<VersionTrial>,
    /// The verdict of the system's roots alone on the server's chain.
    pub by_system: Option<Result<(), Distrust>>,
    /// Each pair that an engine loads, presented by itself. Empty when nothing here trusts the server.
    pub pairs: Vec<PairTrial>,
    /// Where the registry sends clients for a token.
    pub token: Option<OtherHost>,
    /// Where the registry sends clients for blobs.
    pub redirect: Option<OtherHost>,
}

/// One pair, and what the registry said to it.
#[derive(Debug, Clone)]
pub struct PairTrial {
    /// The pair.
    pub pair: LoadedPair,
    /// The conversation; `None` when the key cannot be used.
    pub contact: Option<Contact>,
}

/// A host that the registry sends clients to.
#[derive(Debug, Clone)]
pub struct OtherHost {
    /// The host, as its certificate directory would be called.
    pub host: RegistryHost,
    /// What it showed, without a client certificate; `None`: it could not be reached.
    pub contact: Option<Contact>,
    /// The verdict of the system's roots alone.
    pub by_system: Option<Result<(), Distrust>>,
    /// What each engine makes of that host's own directory.
    pub predictions: Vec<(&'static EngineProfile, Prediction)>,
}

/// The addresses of a host, in a bounded time.
pub(super) fn resolve(host: &RegistryHost) -> Result<Vec<IpAddr>, String> {
    let (sender, receiver) = mpsc::channel();
    let name = (host.server_name().to_owned(), host.port_or_default());
    // The system's resolver cannot be interrupted: the thread is left to itself after the deadline.
    thread::spawn(move || {
        let found = name.to_socket_addrs().map(|all| all.map(|address| address.ip()).collect::<Vec<_>>());
        // Nobody listens any more when the deadline has passed.
        let _ = sender.send(found.map_err(|error| error.to_string()));
    });
    let mut found = receiver.recv_timeout(RESOLVE).unwrap_or_else(|_| Err("no answer within 5 s".to_owned()))?;
    found.dedup();
    Ok(found)
}

/// What each engine makes of another host's own directory.
pub(super) type PredictFor<'a> = dyn Fn(&RegistryHost) -> Vec<(&'static EngineProfile, Prediction)> + 'a;

/// Asks the registry, and the hosts it names.
pub(super) fn ask(
    target: &Target,
    engines: &[EngineFacts],
    resolved: Result<Vec<IpAddr>, String>,
    predict: &PredictFor<'_>,
    now: OffsetDateTime,
) -> LiveFacts {
    let mut live = LiveFacts {
        resolved,
        connected: Vec::new(),
        greeting: None,
        plain_http: None,
        versions: Vec::new(),
        by_system: None,
        pairs: Vec::new(),
        token: None,
        redirect: None,
    };
    let Some(peer) = connect(&target.host, &mut live) else { return live };
    let greeting = contact(&peer, OfferedVersions::Both, None, &base());
    if greeting.chain.is_empty() {
        live.plain_http = http::plain(&peer, &base());
    } else {
        live.by_system = Some(verdict(&greeting.chain, &[], Roots::Merge, &target.host, now));
        live.versions = contact::versions(&peer);
        if is_trusted(&greeting.chain, &live, engines, &target.host, now) {
            live.pairs = try_pairs(&peer, engines);
        }
        live.token = token_host(&greeting, &live.pairs).map(|host| other(host, predict, now));
        live.redirect = redirect_host(&peer, target, &live.pairs).map(|host| other(host, predict, now));
    }
    live.greeting = Some(greeting);
    live
}

/// The first address where something listens; all that were tried are written down.
fn connect(host: &RegistryHost, live: &mut LiveFacts) -> Option<Peer> {
    let addresses = live.resolved.as_ref().ok()?.clone();
    for ip in addresses.into_iter().take(MAX_ADDRESSES) {
        let peer = Peer::new(SocketAddr::new(ip, host.port_or_default()), host);
        let reached = peer.reach();
        live.connected.push((peer.address, reached));
        if reached.is_ok() {
            return Some(peer);
        }
    }
    None
}

/// Whether any engine's roots lead to the server: only then is a client certificate shown to it.
fn is_trusted(
    chain: &[Certificate],
    live: &LiveFacts,
    engines: &[EngineFacts],
    host: &RegistryHost,
    now: OffsetDateTime,
) -> bool {
    let by_system = matches!(live.by_system, Some(Ok(())));
    engines.iter().filter_map(|engine| engine.prediction.registry()).any(|endpoint| {
        let roots: Vec<Certificate> = endpoint.roots.iter().map(|root| root.certificate.clone()).collect();
        (endpoint.system_roots && by_system) || verdict(chain, &roots, Roots::Only, host, now).is_ok()
    })
}

fn try_pairs(peer: &Peer, engines: &[EngineFacts]) -> Vec<PairTrial> {
    let mut pairs: Vec<&LoadedPair> = Vec::new();
    for pair in engines.iter().filter_map(|engine| engine.prediction.registry()).flat_map(|endpoint| &endpoint.pairs) {
        if !pairs.iter().any(|known| known.cert_path == pair.cert_path) && pairs.len() < MAX_PAIRS {
            pairs.push(pair);
        }
    }
    thread::scope(|scope| {
        let trials: Vec<_> = pairs.iter().map(|pair| scope.spawn(|| try_pair(peer, pair))).collect();
        trials.into_iter().filter_map(|trial| trial.join().ok()).collect()
    })
}

fn try_pair(peer: &Peer, pair: &LoadedPair) -> PairTrial {
    let key = pem::read_private_key(&pair.key_path).ok();
    let contact = key.map(|key| contact(peer, OfferedVersions::Both, Some((&pair.chain, &key)), &base()));
    PairTrial { pair: pair.clone(), contact }
}

/// Another host, with the directory that each engine has for it.
fn other(host: RegistryHost, predict: &PredictFor<'_>, now: OffsetDateTime) -> OtherHost {
    let address = resolve(&host).ok().and_then(|all| all.into_iter().next());
    let peer = address.map(|ip| Peer::new(SocketAddr::new(ip, host.port_or_default()), &host));
    let reached = peer.filter(|peer| peer.reach().is_ok());
    let contact = reached.map(|peer| contact(&peer, OfferedVersions::Both, None, "/"));
    let shown = contact.as_ref().filter(|contact| !contact.chain.is_empty());
    let by_system = shown.map(|contact| verdict(&contact.chain, &[], Roots::Merge, &host, now));
    OtherHost { predictions: predict(&host), host, contact, by_system }
}

/// The verdict on a chain, with the roots of a directory or the system's.
pub(crate) fn verdict(
    chain: &[Certificate],
    roots: &[Certificate],
    which: Roots,
    host: &RegistryHost,
    now: OffsetDateTime,
) -> Result<(), Distrust> {
    let chain: Vec<_> = chain.iter().map(|certificate| certificate.der().clone()).collect();
    verify_server(&chain, roots, which, host.server_name(), now).map_err(|error| match error {
        TlsError::IssuedServer(rustls::Error::InvalidCertificate(reason)) => Distrust::of(&reason),
        other => Distrust::Other { reason: other.to_string() },
    })
}

fn base() -> String {
    Endpoint::Base.to_request().1
}

/// `Bearer realm="https://auth.test/token",…` of a 401.
fn token_host(greeting: &Contact, pairs: &[PairTrial]) -> Option<RegistryHost> {
    let contacts = pairs.iter().filter_map(|trial| trial.contact.as_ref()).chain([greeting]);
    contacts.filter_map(Contact::answer).find_map(Answer::token_host)
}

/// The host that a blob of the image lies on: the registry is asked for one, with the pair that it takes.
fn redirect_host(peer: &Peer, target: &Target, pairs: &[PairTrial]) -> Option<RegistryHost> {
    let repository = target.repository.clone()?;
    let tag = target.tag.clone().or_else(|| "latest".parse().ok())?;
    let accepted = pairs
        .iter()
        .find(|trial| trial.contact.as_ref().and_then(Contact::answer).is_some_and(|answer| answer.status == 200));
    let key = accepted.and_then(|trial| pem::read_private_key(&trial.pair.key_path).ok());
    let pair = accepted.zip(key.as_ref()).map(|(trial, key)| (trial.pair.chain.as_slice(), key));
    let reference = ManifestReference::Tag(tag);
    let manifest = Endpoint::GetManifest { repository: repository.clone(), reference }.to_request().1;
    let manifest = contact(peer, OfferedVersions::Both, pair, &manifest);
    let digest: Digest = manifest.answer().and_then(Answer::first_blob)?;
    let blob = Endpoint::GetBlob { repository, digest }.to_request().1;
    let blob = contact(peer, OfferedVersions::Both, pair, &blob);
    blob.answer()?.redirect_host().filter(|host| *host != peer.host)
}
