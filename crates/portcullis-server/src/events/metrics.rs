//! The counters, and the OpenMetrics page that `/metrics` answers with.
//!
//! No label ever carries a repository, an identity or anything else a peer chose: the number of series is fixed.

mod gc;

use std::fmt;

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use time::{Duration, OffsetDateTime};

use self::gc::GcCounters;
use crate::generation::Generation;
use crate::status::{self, Inside};

/// <https://prometheus.io/docs/specs/om/open_metrics_spec/#text-format>
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const DAY: f64 = 86_400.0;

/// What has been counted since the start. Each is one atomic addition.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    handshakes: Family<HandshakeLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    pub(crate) connections_refused: Counter,
    pub(crate) bodies_cut: Counter,
    pub(crate) traffic: Traffic,
    pub(crate) reloads_accepted: Counter,
    pub(crate) reloads_refused: Counter,
    pub(crate) gc: GcCounters,
}

/// Bytes of HTTP, after decryption.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

/// How a handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandshakeResult {
    Accepted,
    /// With the alert of this name.
    Refused(&'static str),
    /// The client does not trust the server's certificate.
    RefusedByClient,
    /// The client went away in the middle.
    BrokenOff,
    /// `handshake_timeout`.
    TimedOut,
    PlainHttp,
    /// Bytes that are no TLS, or no version and suite in common.
    ProtocolError,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HandshakeLabels {
    result: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    status: u16,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Whose {
    of: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Within {
    within: &'static str,
}

impl HandshakeResult {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused(alert) => alert,
            Self::RefusedByClient => "refused_by_client",
            Self::BrokenOff => "broken_off",
            Self::TimedOut => "timed_out",
            Self::PlainHttp => "plain_http",
            Self::ProtocolError => "protocol_error",
        }
    }
}

impl Counters {
    pub(crate) fn handshake(&self, result: HandshakeResult) {
        self.handshakes.get_or_create(&HandshakeLabels { result: result.as_str() }).inc();
    }

    pub(crate) fn request(&self, endpoint: &'static str, status: StatusCode) {
        self.requests.get_or_create(&RequestLabels { endpoint, status: status.as_u16() }).inc();
    }

    fn register(&self, page: &mut Registry) {
        page.register(
            "handshakes",
            "TLS handshakes by result: accepted, the alert sent, or what else ended them",
            self.handshakes.clone(),
        );
        page.register("requests", "Requests by endpoint of the distribution API and status", self.requests.clone());
        page.register(
            "connections_refused",
            "Connections closed at once: too many, in all or from one address",
            self.connections_refused.clone(),
        );
        page.register(
            "bodies_cut",
            "Answers cut in the middle because their peer lost the right to them",
            self.bodies_cut.clone(),
        );
        let traffic = &self.traffic;
        page.register_with_unit("received", "HTTP received, after decryption", Unit::Bytes, traffic.received.clone());
        page.register_with_unit("sent", "HTTP sent, before encryption", Unit::Bytes, traffic.sent.clone());
        let reloads = "Trust generations put in force after the first";
        page.register("trust_reloads", reloads, self.reloads_accepted.clone());
        let refused = "Times that changed files were refused and the generation before stayed in force";
        page.register("trust_reloads_refused", refused, self.reloads_refused.clone());
        self.gc.register(page);
    }
}

/// The whole page: what was counted, and what is so at this moment.
pub(crate) fn page(inside: &Inside) -> Result<String, fmt::Error> {
    let mut page = Registry::with_prefix("portcullis");
    let version = Version { version: env!("CARGO_PKG_VERSION") };
    page.register("build", "The server's version", Info::new(version));
    gauge(&mut page, "start_time_seconds", "When the server started, Unix time", inside.since.unix_timestamp());
    inside.events.counters.register(&mut page);
    gauge(&mut page, "connections", "Connections open now", inside.slots.count());
    let given_up: Counter = Counter::default();
    given_up.inc_by(inside.slots.given_up());
    page.register("connections_given_up", "Connections closed to make room: stalled, or without a request", given_up);
    register_trust(&mut page, inside);
    register_clients(&mut page, inside);
    register_store(&mut page, inside);
    let audit = inside.events.audit.counts();
    page.register("audit_lines", "Audit lines handed over to be written", audit.told.clone());
    page.register(
        "audit_dropped",
        "Audit lines that were lost: the queue was full, or a write failed",
        audit.dropped.clone(),
    );
    let mut written = String::new();
    text::encode(&mut written, &page)?;
    Ok(written)
}

fn register_trust(page: &mut Registry, inside: &Inside) {
    let generation = inside.generations.current();
    gauge(page, "trust_generation", "The number of the trust generation in force", generation.number);
    let refused = usize::from(!inside.generations.refused().is_empty());
    gauge(page, "trust_stale", "1 while the files on disk are refused and an older generation is in force", refused);
    let days: Family<Whose, Gauge<f64, std::sync::atomic::AtomicU64>> = Family::default();
    for (of, not_after) in ends(&generation) {
        let left = (not_after - OffsetDateTime::now_utc()).as_seconds_f64() / DAY;
        days.get_or_create(&Whose { of }).set(left);
    }
    page.register(
        "days_left",
        "Days until the end of the server's certificate, and of the client CA and the revocation list that end first",
        days,
    );
}

/// The end of what the server itself rests on.
fn ends(generation: &Generation) -> impl Iterator<Item = (&'static str, OffsetDateTime)> {
    let own = generation.tls.chain().iter().map(|certificate| certificate.facts().not_after).min();
    let cas = generation.tls.trust().certificates().filter(|(by, _)| matches!(by, portcullis_tls::TrustedBy::Ca(_)));
    let ca = cas.map(|(_, certificate)| certificate.facts().not_after).min();
    let crl = generation.tls.trust().crls().map(|crl| crl.list.next_update()).min();
    let all = [("server_certificate", own), ("client_ca", ca), ("crl", crl)];
    all.into_iter().filter_map(|(of, end)| end.map(|end| (of, end)))
}

fn register_clients(page: &mut Registry, inside: &Inside) {
    const TIMES: [(&str, Duration); 3] =
        [("1d", Duration::days(1)), ("7d", Duration::days(7)), ("30d", Duration::days(30))];
    let (counts, all) = inside.events.clients.ending_within(TIMES.map(|(_, time)| time));
    let ending: Family<Within, Gauge> = Family::default();
    for ((within, _), count) in TIMES.iter().zip(counts) {
        ending.get_or_create(&Within { within }).set(whole(count));
    }
    page.register("clients_ending", "Client certificates of the last 7 days that end within this time", ending);
    gauge(page, "clients", "Client certificates seen in the last 7 days", all);
}

fn register_store(page: &mut Registry, inside: &Inside) {
    let health = inside.store.health();
    let read_only = usize::from(health.read_only.is_some());
    gauge(page, "store_read_only", "1 while the disk takes no writes", read_only);
    gauge(page, "uploads_open", "Uploads begun and not ended", health.open_uploads);
    let damaged: Counter = Counter::default();
    damaged.inc_by(health.damaged);
    page.register("store_damaged", "Damaged links and manifests met, treated as absent", damaged);
    let gc = inside.collector.status();
    gauge(page, "gc_running", "1 while garbage is collected", usize::from(gc.running.is_some()));
    gauge(
        page,
        "gc_paused",
        "1 while no collection may begin: portcullis gc --pause",
        usize::from(gc.paused.is_some()),
    );
    gauge(page, "warnings", "What portcullis status calls degraded, in number", status::degraded(inside).len());
    gauge(page, "ready", "1 while /readyz answers 200", usize::from(status::not_ready(inside).is_empty()));
}

fn gauge(page: &mut Registry, name: &str, help: &str, value: impl TryInto<i64>) {
    let gauge: Gauge = Gauge::default();
    gauge.set(whole(value));
    page.register(name, help, gauge);
}

fn whole(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
