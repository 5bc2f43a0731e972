//! Every key of Distribution's configuration (`configuration/configuration.go` of 2.8.2 and 3.1.1), and what it means
//! here. A key that is not in the table is not one of Distribution's either.

/// What becomes of a key, and of all below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// It says something that is said here, too.
    Maps(Setting),
    /// It is not needed here, for this reason.
    Needless(&'static str),
    /// There is no such thing here; what to do instead.
    Missing(&'static str),
}

/// What is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    Version,
    Address,
    Net,
    Host,
    Prefix,
    DrainTimeout,
    Certificate,
    Key,
    ClientCas,
    ClientAuth,
    MinimumTls,
    ProbeAddress,
    DataDirectory,
    DeleteEnabled,
    ReadOnly,
    PurgeAge,
    LogFormatter,
}

use Rule::{Maps, Missing, Needless};

/// By path; the longest one that fits decides.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("version", Maps(Setting::Version)),
    ("loglevel", LOG_LEVEL),
    ("log.level", LOG_LEVEL),
    ("log.formatter", Maps(Setting::LogFormatter)),
    ("log", Missing("there is one log, on stderr; fields, hooks and a caller cannot be added to it")),
    ("http.addr", Maps(Setting::Address)),
    ("http.net", Maps(Setting::Net)),
    ("http.host", Maps(Setting::Host)),
    ("http.prefix", Maps(Setting::Prefix)),
    ("http.secret", Needless("an upload belongs to the certificate that began it; nothing is signed")),
    ("http.relativeurls", Needless("Location is always relative")),
    ("http.draintimeout", Maps(Setting::DrainTimeout)),
    ("http.headers", Missing("no header can be added; there is no page for a browser to protect")),
    ("http.http2", Missing("HTTP/2 and HTTP/1.1 are always offered, the client chooses")),
    ("http.h2c", Missing("nothing is served without TLS")),
    ("http.tls.certificate", Maps(Setting::Certificate)),
    ("http.tls.key", Maps(Setting::Key)),
    ("http.tls.clientcas", Maps(Setting::ClientCas)),
    ("http.tls.clientauth", Maps(Setting::ClientAuth)),
    ("http.tls.minimumtls", Maps(Setting::MinimumTls)),
    ("http.tls.ciphersuites", Missing("TLS 1.3 and TLS 1.2 with ECDHE and AEAD, which cannot be changed")),
    (
        "http.tls.letsencrypt",
        Missing(
            "point `certificate` and `key` of [tls] to the files of an ACME client: a renewed certificate is served at once",
        ),
    ),
    ("http.tls.renewcertificateinterval", Needless("a changed certificate is seen within a second")),
    ("http.debug.addr", Maps(Setting::ProbeAddress)),
    ("http.debug.prometheus", Needless("/metrics is always at the probe listener")),
    ("http.debug", Missing("there is no pprof")),
    ("storage.filesystem.rootdirectory", Maps(Setting::DataDirectory)),
    ("storage.filesystem.maxthreads", Needless("disk work has a pool of its own")),
    ("storage.filesystem", Maps(Setting::DataDirectory)),
    ("storage.delete.enabled", Maps(Setting::DeleteEnabled)),
    ("storage.delete", Maps(Setting::DeleteEnabled)),
    ("storage.cache", Needless("what is cached is bounded and checked against the files; there is nothing to set up")),
    ("storage.redirect", Needless("a client is never redirected: that would leave mutual TLS")),
    ("storage.tag", Needless("tags are looked up without a limit to set")),
    ("storage.maintenance.readonly", Maps(Setting::ReadOnly)),
    ("storage.maintenance.uploadpurging.age", Maps(Setting::PurgeAge)),
    (
        "storage.maintenance.uploadpurging",
        Needless("abandoned uploads always go after `upload_expiry`; how often is looked follows from it"),
    ),
    ("storage.inmemory", Missing("images are kept in a directory: `data` of [storage]")),
    ("storage.s3", BUCKET),
    ("storage.gcs", BUCKET),
    ("storage.azure", BUCKET),
    ("storage.swift", BUCKET),
    ("storage.oss", BUCKET),
    (
        "auth.htpasswd",
        Missing(
            "there are no passwords: make each user a certificate (portcullis cert new client NAME), and say in policy.toml who may do what",
        ),
    ),
    (
        "auth.token",
        Missing(
            "there are no tokens: make each client a certificate (portcullis cert new client NAME), and say in policy.toml who may do what",
        ),
    ),
    ("auth", Missing("who may do what is said in policy.toml, by certificate")),
    ("middleware", Missing("nothing can be put between a request and the store")),
    ("reporting", Missing("nothing is sent to anybody: the log has it")),
    ("notifications", Missing("no events are sent: follow the log")),
    ("redis", Needless("there is nothing that several processes share")),
    ("health.storagedriver", Needless("/readyz of the probe listener says when the disk fails")),
    (
        "health",
        Missing("/readyz of the probe listener speaks of the registry alone; let your monitoring look at the rest"),
    ),
    ("catalog", Missing("a page has at most 1,000 names")),
    ("tags", Missing("a page has at most 1,000 names")),
    (
        "proxy",
        Missing(
            "there is no pull-through cache: keep Distribution for that, or fill the registry with `portcullis copy`",
        ),
    ),
    ("compatibility", Needless("schema 1 that is there is served; new one is not taken")),
    (
        "validation",
        Missing(
            "a manifest's config and layers must be there, layers with urls need not; urls and platforms are not looked at",
        ),
    ),
    ("policy", Missing("repositories have no classes")),
];

const LOG_LEVEL: Rule = Missing("set the environment variable PORTCULLIS_LOG to error, warn, info or debug");
const BUCKET: Rule = Missing(
    "object stores are not supported yet: copy the bucket into a directory, with the tool of its maker, and serve that",
);

/// The rule for a path, and whether it is for exactly this path.
pub(super) fn of(path: &str) -> Option<(Rule, bool)> {
    let exact = RULES.iter().find(|(key, _)| *key == path).map(|(_, rule)| (*rule, true));
    let above = || {
        let fits = |(key, _): &&(&str, Rule)| path.strip_prefix(*key).is_some_and(|rest| rest.starts_with('.'));
        RULES.iter().filter(fits).max_by_key(|(key, _)| key.len()).map(|(_, rule)| (*rule, false))
    };
    exact.or_else(above)
}

/// Whether some rule is for something below this path.
pub(super) fn goes_deeper(path: &str) -> bool {
    RULES.iter().any(|(key, _)| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}
