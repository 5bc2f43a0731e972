//! The server's configuration: a TOML file becomes a [`Config`] in which nothing is left to check.
//!
//! Each default is stated once, in [`Config::defaults`], and [`TEMPLATE`] shows them all; a test holds the two
//! together. Must not open any of the files it names.

mod gc;
#[cfg(test)]
mod page;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_oci::manifest;
use portcullis_tls::ClientAuth;

pub use self::gc::Gc;
use crate::document::{Problem, Problems, Table, parse_size};
use crate::events::audit::AuditTo;
use crate::tag_rules::TagRule;

/// The file that `portcullis up` writes: every key with its default, as a comment.
pub const TEMPLATE: &str = r#"# Portcullis. Every key is shown with its default; paths are relative to this file.

# listen = "[::]:5443"            # the registry: mutual TLS only
# probe = "127.0.0.1:5444"        # /livez, /readyz and /metrics, without certificates; "off" for none
# admin_socket = "run/admin.sock" # `portcullis status` and `reload`; "off" for none

[tls]
# certificate = "pki/server/server.crt" # the server's certificate, then its intermediates
# key = "pki/server/server.key"
# trust = "trust"                       # cas/, pins/, crls/ and deny: whom the server trusts
# state = "state"                       # what was ever denied, kept apart from trust; written by the server
# client_auth = "require" # or "explain": whoever may not come in is told why; "optional": none is anonymous

[access]
# policy = "policy.toml" # who may do what; a missing file is an error, never "everybody"

[storage]
# data = "data"       # CNCF Distribution's layout: a volume of registry:2 or registry:3 can stand here
# reserve = "1 GiB"   # pushes are refused (507) when less than this is free
# lock_wait = "30s"   # how long a start waits for another process to let go of the data
# upload_expiry = "24h" # an upload that nobody goes on with for so long is thrown away
# mode = "read-write" # "read-only": pulls go on, pushes and deletes are refused; taken over by `portcullis reload`
# immutable = []      # tags that never change once they are set, such as "release/**:v*"
# missing_children = "accept" # an index whose manifests are not all in the repository: "accept" or "refuse"

[gc]
# interval = "24h"  # how often what no manifest names is collected, while everything goes on; "off" for never
# grace = "1h"      # what a push needs from its layers to its manifest: nothing younger is collected
# trash = "24h"     # how long collected blobs can still be brought back; not at all while less than `reserve` is free
# untagged = false  # whether manifests go too that no tag, no index and no subject keeps

[audit]
# file = "off" # one JSON line per decision: a file, "stdout", or "off"

[limits]
# connections = 4096
# connections_per_address = 256
# idle_connections = 1024     # without a request; past it the one that is idle for longest is closed
# strangers = 64              # at once, a quarter from one address, that are told why they are not let in ("explain")
# handshakes = 256            # at once, a sixteenth from one address; the next ones wait within handshake_timeout
# handshake_timeout = "10s"
# header_timeout = "30s"      # from the first byte of a request to its last header
# idle_timeout = "2m"         # a connection without a request
# body_timeout = "60s"        # a body that does not move, in either direction
# body_rate = "1 KiB"         # the least that a sender makes each second, on the average of each body_timeout
# drain_timeout = "30s"       # how long a stop waits for requests under way
# requests = 1024             # under way at once; the next ones wait, then get 429
# request_wait = "5s"
# blob = "100 GiB"            # the largest blob
# manifest = "4 MiB"          # the largest manifest; engines read no larger ones
# open_uploads = 1024
# disk_threads = 64           # threads that may wait for the disk
# caches = "32 MiB"           # all caches together
"#;

/// What may be done with the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All that the policy allows.
    ReadWrite,
    /// Pulls only.
    ReadOnly,
}

impl Mode {
    /// The word in the config file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
        }
    }
}

/// What becomes of an index that names manifests that are not in its repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingChildren {
    /// It is taken: they may come later, or live elsewhere.
    Accept,
    /// It is refused, and they are named.
    Refuse,
}

/// A configuration that was checked. All paths are absolute or relative to the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file itself: read again at a reload, for [`Config::mode`].
    pub file: PathBuf,
    /// Where the registry listens.
    pub listen: SocketAddr,
    /// Where the probes listen, without TLS; `None`: nowhere.
    pub probe: Option<SocketAddr>,
    /// Where the server is spoken to; `None`: nowhere.
    pub admin_socket: Option<PathBuf>,
    /// The server's chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The trust directory.
    pub trust: PathBuf,
    /// Where what was ever denied is remembered.
    pub state: PathBuf,
    /// What is asked of clients in the handshake.
    pub client_auth: ClientAuth,
    /// The policy file.
    pub policy: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// Bytes that stay free on its file system.
    pub reserve: u64,
    /// How long a start waits for the data directory's lock.
    pub lock_wait: Duration,
    /// After how long an abandoned upload is thrown away.
    pub upload_expiry: Duration,
    /// Garbage collection.
    pub gc: Gc,
    /// Where the audit goes.
    pub audit: AuditTo,
    /// Whether anything may be written. The one key that a reload takes over.
    pub mode: Mode,
    /// Tags that never change once they are set.
    pub immutable: Vec<TagRule>,
    /// What becomes of an index that names what is not there.
    pub missing_children: MissingChildren,
    /// The bounds.
    pub limits: Limits,
}

/// The server's bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_address: usize,
    /// Connections at once that have no request under way.
    pub idle_connections: usize,
    /// Connections at once of peers that are told why they are not let in; one address may have a quarter of them.
    pub strangers: usize,
    /// Handshakes at once; one address may have a sixteenth of them.
    pub handshakes: usize,
    /// A whole handshake, waiting for its turn included.
    pub handshake_timeout: Duration,
    /// The head of a request.
    pub header_timeout: Duration,
    /// A connection without a request.
    pub idle_timeout: Duration,
    /// A body that does not move.
    pub body_timeout: Duration,
    /// The least that a sender makes each second, in bytes, on the average of each `body_timeout`.
    pub body_rate: u64,
    /// What a stop waits for requests under way.
    pub drain_timeout: Duration,
    /// Requests under way at once.
    pub requests: usize,
    /// What one more waits for its turn.
    pub request_wait: Duration,
    /// The largest blob, in bytes.
    pub blob: u64,
    /// The largest manifest, in bytes; never above [`manifest::MAX_BYTES`].
    pub manifest: usize,
    /// Uploads that may be open at once.
    pub open_uploads: usize,
    /// Threads that may wait for the disk: whoever makes the runtime gives it so many for blocking work.
    pub disk_threads: usize,
    /// All caches together, in bytes.
    pub caches: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 256,
            idle_connections: 1024,
            strangers: 64,
            handshakes: 256,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(2),
            body_timeout: Duration::from_mins(1),
            body_rate: 1024,
            drain_timeout: Duration::from_secs(30),
            requests: 1024,
            request_wait: Duration::from_secs(5),
            blob: 100 << 30,
            manifest: manifest::MAX_BYTES,
            open_uploads: 1024,
            disk_threads: 64,
            caches: 32 << 20,
        }
    }
}

impl Config {
    /// What holds where the file is silent; `home` is the directory of the file.
    pub fn defaults(home: &Path) -> Self {
        Self {
            file: home.join("config.toml"),
            listen: SocketAddr::from(([0_u16; 8], 5443)),
            probe: Some(SocketAddr::from(([127, 0, 0, 1], 5444))),
            admin_socket: Some(home.join("run/admin.sock")),
            certificate: home.join("pki/server/server.crt"),
            key: home.join("pki/server/server.key"),
            trust: home.join("trust"),
            state: home.join("state"),
            client_auth: ClientAuth::Require,
            policy: home.join("policy.toml"),
            data: home.join("data"),
            reserve: 1 << 30,
            lock_wait: Duration::from_secs(30),
            upload_expiry: Duration::from_hours(24),
            gc: Gc::default(),
            audit: AuditTo::Off,
            mode: Mode::ReadWrite,
            immutable: Vec::new(),
            missing_children: MissingChildren::Accept,
            limits: Limits::default(),
        }
    }

    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// Every problem in it, with its line.
    ///
    /// ```
    /// use std::path::Path;
    /// use portcullis_server::Config;
    ///
    /// let problems = Config::parse(Path::new("config.toml"), "lisen = 'x'\nprobe = 5").unwrap_err();
    /// let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    /// assert_eq!(lines[0], "config.toml:1: unknown key `lisen`; did you mean `listen`?");
    /// assert_eq!(lines[1], "config.toml:2: `probe` must be a text in quotes");
    /// ```
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        match Self::parse_leniently(path, text) {
            (config, problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(problems),
        }
    }

    /// As [`parse`](Self::parse), with the default for what cannot be read, and every problem: for who must find the trust
    /// directory of a file with a mistake elsewhere. Never for a server.
    pub fn parse_leniently(path: &Path, text: &str) -> (Self, Vec<Problem>) {
        let home = path.parent().unwrap_or(Path::new(""));
        let mut config = Self { file: path.to_owned(), ..Self::defaults(home) };
        let (mut root, mut problems) = Problems::read(path, text);
        config.read_addresses(&mut root, &mut problems, home);
        let mut tls = root.table(&mut problems, "tls");
        set_path(&mut config.certificate, &mut tls, &mut problems, "certificate", home);
        set_path(&mut config.key, &mut tls, &mut problems, "key", home);
        set_path(&mut config.trust, &mut tls, &mut problems, "trust", home);
        set_path(&mut config.state, &mut tls, &mut problems, "state", home);
        set(&mut config.client_auth, tls.parsed(&mut problems, "client_auth", CLIENT_AUTH, client_auth));
        tls.finish(&mut problems, &["certificate", "key", "trust", "state", "client_auth"]);
        let mut access = root.table(&mut problems, "access");
        set_path(&mut config.policy, &mut access, &mut problems, "policy", home);
        access.finish(&mut problems, &["policy"]);
        let storage = root.table(&mut problems, "storage");
        config.read_storage(storage, &mut problems, home);
        config.gc.read(root.table(&mut problems, "gc"), &mut problems);
        let mut audit = root.table(&mut problems, "audit");
        config.read_audit(&mut audit, &mut problems, home);
        audit.finish(&mut problems, &["file"]);
        config.limits.read(root.table(&mut problems, "limits"), &mut problems);
        root.finish(
            &mut problems,
            &["listen", "probe", "admin_socket", "tls", "access", "storage", "gc", "audit", "limits"],
        );
        (config, problems.into_found())
    }

    fn read_addresses(&mut self, root: &mut Table<'_>, problems: &mut Problems<'_>, home: &Path) {
        const ADDRESS: &str = "an address and a port, such as \"[::]:5443\" or \"10.0.0.1:5443\"";
        set(&mut self.listen, root.parsed(problems, "listen", ADDRESS, |text| text.parse().ok()));
        let probe = root.parsed(problems, "probe", "an address and a port, or \"off\"", |text| match text {
            "off" => Some(None),
            text => text.parse().ok().map(Some),
        });
        set(&mut self.probe, probe);
        if let Some(socket) = root.string(problems, "admin_socket") {
            self.admin_socket = (socket.value != "off").then(|| home.join(socket.value));
        }
    }

    fn read_audit(&mut self, audit: &mut Table<'_>, problems: &mut Problems<'_>, home: &Path) {
        let to = audit.parsed(problems, "file", "a path, \"stdout\" or \"off\"", |text| match text {
            "" => None,
            "off" => Some(AuditTo::Off),
            "stdout" => Some(AuditTo::Stdout),
            path => Some(AuditTo::File(home.join(path))),
        });
        set(&mut self.audit, to);
    }
}

const CLIENT_AUTH: &str = "\"require\", \"explain\" or \"optional\"";

fn client_auth(word: &str) -> Option<ClientAuth> {
    match word {
        "require" => Some(ClientAuth::Require),
        "explain" => Some(ClientAuth::Explain),
        "optional" => Some(ClientAuth::Optional),
        _ => None,
    }
}

impl Config {
    fn read_storage(&mut self, mut table: Table<'_>, problems: &mut Problems<'_>, home: &Path) {
        set_path(&mut self.data, &mut table, problems, "data", home);
        set(&mut self.reserve, table.size(problems, "reserve"));
        set(&mut self.lock_wait, table.duration(problems, "lock_wait"));
        set(&mut self.upload_expiry, table.deadline(problems, "upload_expiry"));
        let mode = |text: &str| [Mode::ReadWrite, Mode::ReadOnly].into_iter().find(|mode| mode.as_str() == text);
        set(&mut self.mode, table.parsed(problems, "mode", "\"read-write\" or \"read-only\"", mode));
        if let Some(texts) = table.strings(problems, "immutable") {
            for text in &texts.value {
                match TagRule::parse(text) {
                    Some(rule) => self.immutable.push(rule),
                    None => problems.at(texts.line, format!("{text:?} in `immutable` is no pattern of tags: write repositories, a colon and tags, such as \"release/**:v*\"")),
                }
            }
        }
        let children = |text: &str| match text {
            "accept" => Some(MissingChildren::Accept),
            "refuse" => Some(MissingChildren::Refuse),
            _ => None,
        };
        let children = table.parsed(problems, "missing_children", "\"accept\" or \"refuse\"", children);
        set(&mut self.missing_children, children);
        let known = ["data", "reserve", "lock_wait", "upload_expiry", "mode", "immutable", "missing_children"];
        table.finish(problems, &known);
    }
}

impl Limits {
    fn read(&mut self, mut table: Table<'_>, problems: &mut Problems<'_>) {
        set(&mut self.connections, table.number(problems, "connections"));
        set(&mut self.connections_per_address, table.number(problems, "connections_per_address"));
        set(&mut self.strangers, table.number(problems, "strangers"));
        set(&mut self.idle_connections, table.number(problems, "idle_connections"));
        set(&mut self.handshakes, table.number(problems, "handshakes"));
        set(&mut self.handshake_timeout, table.deadline(problems, "handshake_timeout"));
        set(&mut self.header_timeout, table.deadline(problems, "header_timeout"));
        set(&mut self.idle_timeout, table.deadline(problems, "idle_timeout"));
        set(&mut self.body_timeout, table.deadline(problems, "body_timeout"));
        set(&mut self.drain_timeout, table.duration(problems, "drain_timeout"));
        set(&mut self.body_rate, table.size(problems, "body_rate"));
        set(&mut self.requests, table.number(problems, "requests"));
        set(&mut self.request_wait, table.duration(problems, "request_wait"));
        set(&mut self.blob, table.size(problems, "blob"));
        let size = |text: &str| parse_size(text).and_then(|size| usize::try_from(size).ok());
        let fits = |text: &str| size(text).filter(|size| (1..=manifest::MAX_BYTES).contains(size));
        let wanted = "a size of at most \"4 MiB\": engines read no larger manifests";
        set(&mut self.manifest, table.parsed(problems, "manifest", wanted, fits));
        set(&mut self.open_uploads, table.number(problems, "open_uploads"));
        set(&mut self.disk_threads, table.number(problems, "disk_threads"));
        set(&mut self.caches, table.parsed(problems, "caches", "a size such as \"32 MiB\"", size));
        let known = [
            "connections",
            "connections_per_address",
            "idle_connections",
            "strangers",
            "handshakes",
            "handshake_timeout",
            "header_timeout",
            "idle_timeout",
            "body_timeout",
            "body_rate",
            "drain_timeout",
            "requests",
            "request_wait",
            "blob",
            "manifest",
            "open_uploads",
            "disk_threads",
            "caches",
        ];
        table.finish(problems, &known);
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn set_path(field: &mut PathBuf, table: &mut Table<'_>, problems: &mut Problems<'_>, key: &str, home: &Path) {
    if let Some(text) = table.string(problems, key) {
        if text.value.is_empty() {
            problems.at(text.line, format!("`{key}` is empty, must be a path"));
        }
        *field = home.join(text.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A default changed in one place only would make the file that people read a lie.
    #[test]
    fn the_template_shows_every_default() {
        let path = Path::new("/home/config.toml");
        let uncommented: String = TEMPLATE
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.contains(" = ") => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let defaults = Config::defaults(Path::new("/home"));
        assert_eq!(Config::parse(path, &uncommented), Ok(defaults.clone()));
        assert_eq!(Config::parse(path, TEMPLATE), Ok(defaults));
        assert_eq!(uncommented.matches(" = ").count(), 39, "a key without its line in the template");
    }

    #[test]
    fn all_problems_at_once() {
        let text =
            "listen = \"here\"\nx = 1\n[limits]\nconnections = 0\nidle_timeout = \"soon\"\n[storage]\nreserve = 5\n";
        let found = Config::parse(Path::new("c.toml"), text).expect_err("wrong");
        let lines: Vec<_> = found.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [Some(1), Some(2), Some(4), Some(5), Some(7)], "{found:#?}");
    }

    #[test]
    fn broken_toml_names_its_line() {
        let found = Config::parse(Path::new("c.toml"), "listen = \"[::]:1\"\nprobe = = 3\nunknown_key = 1\n")
            .expect_err("broken");
        assert!(found.iter().any(|problem| problem.line == Some(2)), "{found:?}");
        assert!(found.iter().any(|problem| problem.message.contains("unknown_key")), "{found:?}");
    }

    #[test]
    fn off_is_off() {
        let (config, problems) =
            Config::parse_leniently(Path::new("/h/c.toml"), "lisen = 1\n[tls]\ntrust = \"elsewhere\"");
        assert_eq!((config.trust.as_path(), problems.len()), (Path::new("/h/elsewhere"), 1));
        let config = Config::parse(Path::new("c.toml"), "probe = \"off\"\nadmin_socket = \"off\"").expect("fine");
        assert_eq!((config.probe, config.admin_socket), (None, None));
        let config = Config::parse(Path::new("c.toml"), "[gc]\ninterval = \"off\"").expect("fine");
        assert_eq!(config.gc, Gc { interval: None, ..Gc::default() });
    }

    #[test]
    fn the_times_of_garbage_collection_have_a_lower_bound() {
        let parse = |text: &str| Config::parse(Path::new("c.toml"), &format!("[gc]\n{text}"));
        let least = parse("interval = \"1m\"\ngrace = \"60s\"\ntrash = \"0s\"\nuntagged = true").expect("at the limit");
        let minute = Duration::from_mins(1);
        assert_eq!(least.gc, Gc { interval: Some(minute), grace: minute, trash: Duration::ZERO, untagged: true });
        let found =
            parse("interval = \"59s\"\ngrace = \"59999ms\"\ntrash = \"off\"\nuntagged = 1").expect_err("past it");
        assert_eq!(found.iter().map(|problem| problem.line).collect::<Vec<_>>(), [2, 3, 4, 5].map(Some), "{found:?}");
    }
}
