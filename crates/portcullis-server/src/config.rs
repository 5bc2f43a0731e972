//! The server's configuration: a TOML file becomes a [`Config`] in which nothing is left to check.
//!
//! Each default is stated once, in [`Config::defaults`], and [`TEMPLATE`] shows them all; a test holds the two
//! together. Must not open any of the files it names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_tls::ClientAuth;

use crate::document::{Problem, Problems, Table};
use crate::events::audit::AuditTo;

/// The file that `portcullis up` writes: every key with its default, as a comment.
pub const TEMPLATE: &str = r#"# Portcullis. Every key is shown with its default; paths are relative to this file.

# listen = "[::]:5443"            # the registry: mutual TLS only
# probe = "127.0.0.1:5444"        # /livez, /readyz and /metrics, without certificates; "off" for none
# admin_socket = "run/admin.sock" # `portcullis status` and `reload`; "off" for none

[tls]
# certificate = "pki/server/server.crt" # the server's certificate, then its intermediates
# key = "pki/server/server.key"
# trust = "trust"                       # cas/, pins/ and deny: whom the server trusts
# client_auth = "require" # or "explain": whoever may not come in is told why; "optional": none is anonymous

[access]
# policy = "policy.toml" # who may do what; a missing file is an error, never "everybody"

[storage]
# data = "data"       # CNCF Distribution's layout: a volume of registry:2 or registry:3 can stand here
# reserve = "1 GiB"   # pushes are refused (507) when less than this is free
# lock_wait = "30s"   # how long a start waits for another process to let go of the data
# upload_expiry = "24h" # an upload that nobody goes on with for so long is thrown away

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
# drain_timeout = "30s"       # how long a stop waits for requests under way
"#;

/// A configuration that was checked. All paths are absolute or relative to the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
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
    /// Where the audit goes.
    pub audit: AuditTo,
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
    /// What a stop waits for requests under way.
    pub drain_timeout: Duration,
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
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// What holds where the file is silent; `home` is the directory of the file.
    pub fn defaults(home: &Path) -> Self {
        Self {
            listen: SocketAddr::from(([0_u16; 8], 5443)),
            probe: Some(SocketAddr::from(([127, 0, 0, 1], 5444))),
            admin_socket: Some(home.join("run/admin.sock")),
            certificate: home.join("pki/server/server.crt"),
            key: home.join("pki/server/server.key"),
            trust: home.join("trust"),
            client_auth: ClientAuth::Require,
            policy: home.join("policy.toml"),
            data: home.join("data"),
            reserve: 1 << 30,
            lock_wait: Duration::from_secs(30),
            upload_expiry: Duration::from_hours(24),
            audit: AuditTo::Off,
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
        let home = path.parent().unwrap_or(Path::new(""));
        let mut config = Self::defaults(home);
        let (mut root, mut problems) = Problems::read(path, text);
        config.read_addresses(&mut root, &mut problems, home);
        let mut tls = root.table(&mut problems, "tls");
        set_path(&mut config.certificate, &mut tls, &mut problems, "certificate", home);
        set_path(&mut config.key, &mut tls, &mut problems, "key", home);
        set_path(&mut config.trust, &mut tls, &mut problems, "trust", home);
        set(&mut config.client_auth, tls.parsed(&mut problems, "client_auth", CLIENT_AUTH, client_auth));
        tls.finish(&mut problems, &["certificate", "key", "trust", "client_auth"]);
        let mut access = root.table(&mut problems, "access");
        set_path(&mut config.policy, &mut access, &mut problems, "policy", home);
        access.finish(&mut problems, &["policy"]);
        let mut storage = root.table(&mut problems, "storage");
        set_path(&mut config.data, &mut storage, &mut problems, "data", home);
        set(&mut config.reserve, storage.size(&mut problems, "reserve"));
        set(&mut config.lock_wait, storage.duration(&mut problems, "lock_wait"));
        set(&mut config.upload_expiry, storage.deadline(&mut problems, "upload_expiry"));
        storage.finish(&mut problems, &["data", "reserve", "lock_wait", "upload_expiry"]);
        let mut audit = root.table(&mut problems, "audit");
        config.read_audit(&mut audit, &mut problems, home);
        audit.finish(&mut problems, &["file"]);
        config.limits.read(root.table(&mut problems, "limits"), &mut problems);
        root.finish(&mut problems, &["listen", "probe", "admin_socket", "tls", "access", "storage", "audit", "limits"]);
        match problems.into_found() {
            found if found.is_empty() => Ok(config),
            found => Err(found),
        }
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
            "drain_timeout",
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
        assert_eq!(uncommented.matches(" = ").count(), 23, "a key without its line in the template");
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
        let config = Config::parse(Path::new("c.toml"), "probe = \"off\"\nadmin_socket = \"off\"").expect("fine");
        assert_eq!((config.probe, config.admin_socket), (None, None));
    }
}
