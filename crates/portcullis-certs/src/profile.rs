//! Engine profiles: how each engine reads certificates, as data.
//!
//! A profile says where an engine looks, how bad each fault is to it and in which words it says so; the readers are one piece
//! of code for all of them. Each row says for which versions it holds and how that is known. The rows are in `engines`.

mod engines;

use crate::fault::Fault;
use crate::file;
use crate::finding::Severity;
use crate::version::{Version, Versions};
use portcullis_oci::RegistryHost;
use std::fmt;
use std::path::{Path, PathBuf};

/// How one engine reads certificate directories and the files that stand for them.
///
/// [`EngineProfile::ALL`] has every engine; [`predict`](crate::predict) says what one makes of a machine's files.
#[derive(Debug, Clone, Copy)]
pub struct EngineProfile {
    /// The name on the command line: `docker-docs`, `podman`.
    pub name: &'static str,
    /// The engine in a sentence: `Docker Engine (containerd image store)`.
    pub title: &'static str,
    /// Where the engine looks, in order, when it runs for the machine.
    pub roots: &'static [SearchRoot],
    /// Where it looks when it runs without root; the same as `roots` for engines that make no difference.
    pub rootless_roots: &'static [SearchRoot],
    /// How a registry's files are found and which files those are.
    pub layout: Layout,
    /// How the engine takes each fault that engines differ in.
    pub rules: Rules,
    /// The engine's own words.
    pub texts: Texts,
    /// What it does with a registry on this machine's loopback.
    pub loopback: &'static [Row<Loopback>],
    /// What becomes of the files when the registry is configured as insecure.
    pub insecure: &'static [Row<Insecure>],
    /// What it does for Docker Hub.
    pub hub: &'static [Row<Hub>],
    /// What it makes of a directory whose name ends like a file's.
    pub subdirectories: &'static [Row<Subdirectories>],
    /// Whether an image's name may have an IPv6 address in brackets.
    pub ipv6: &'static [Row<Ipv6>],
    /// Whether the roots it reads are added to the system's.
    pub system_roots: &'static [Row<SystemRoots>],
    /// Whose files count for the hosts that the registry sends to.
    pub elsewhere: &'static [Row<Elsewhere>],
    /// When a changed file counts.
    pub reload: &'static [Row<Reload>],
    /// Who reads the files: what *we* may not read says nothing about a daemon of root's.
    pub reader: ReadBy,
    /// How the predictions of this profile are checked.
    pub checked: Checked,
    /// The version that is assumed where none was found: the newest that the rows were read for.
    pub assumed: Version,
}

/// A directory that holds one directory per registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchRoot {
    /// Relative to `$HOME`; left out when there is none.
    Home(&'static str),
    /// Relative to `$XDG_CONFIG_HOME`, which is `$HOME/.config` when it is unset.
    ConfigHome(&'static str),
    /// An absolute path.
    System(&'static str),
}

/// How a registry's files are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `<root>/<host[:port]>/` with `*.crt`, `*.cert` and `*.key`.
    HostDirectories,
    /// containerd's: `<root>/<host>_<port>_/`, then `<root>/<host:port>/`, then `<root>/_default/`, each with `hosts.toml` or the certificate files.
    HostsToml {
        /// Whether `:443` is added to a host without port, and the bare host tried last (nerdctl).
        port_443_first: bool,
    },
    /// One TOML file, `[registry."host"]`.
    BuildkitdToml,
    /// One YAML file, `configs: host: tls:`, from which hosts.toml files are made.
    RegistriesYaml,
}

/// One row of a profile: what holds, for which versions, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<T> {
    /// What holds.
    pub holds: T,
    /// The versions it holds for.
    pub versions: Versions,
    /// How it is known.
    pub known: Known,
}

/// How bad a fault is. What an engine ignores in silence is a warning: the file is there and not used.
pub type Rule = Row<Severity>;

/// How a row is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The documentation says so.
    Documented(&'static str),
    /// Seen in this version.
    Observed(&'static str),
    /// Read in the source at this commit.
    FromSource(&'static str),
    /// Nothing to know: a choice of ours where the documentation is silent, and why.
    Chosen(&'static str),
}

/// The faults in which engines differ. All others are as bad to every engine.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The host's directory exists and may not be listed.
    pub unreadable_directory: &'static [Rule],
    /// A `.cert` without `.key`. [`Severity::Note`]: the key is looked for in the `.cert` itself.
    pub missing_key: &'static [Rule],
    /// A `.key` without `.cert`.
    pub orphan_key: &'static [Rule],
    /// A `.crt` without one usable certificate.
    pub useless_root: &'static [Rule],
    /// One bad block among good ones in a `.crt`.
    pub bad_block: &'static [Rule],
    /// A `.crt` that is a directory, FIFO or device, or may not be read.
    pub root_not_a_file: &'static [Rule],
    /// A `.crt` that is a symbolic link to nothing.
    pub dangling_root: &'static [Rule],
}

/// An engine's own words. To be filled in: `{cert}` and `{key}`, file names; `{path}`, the file it is about; `{pair}`, the path of
/// the pair's certificate; `{error}`, what Go says.
#[derive(Debug, Clone, Copy)]
pub struct Texts {
    /// A `.cert` without `.key`.
    pub missing_key: &'static [Row<&'static str>],
    /// A `.key` without `.cert`.
    pub orphan_key: &'static [Row<&'static str>],
    /// A `.crt` that cannot be opened or read.
    pub unreadable_root: &'static [Row<&'static str>],
    /// A `.crt` without one usable certificate, where that is an error.
    pub useless_root: &'static [Row<&'static str>],
    /// A file of a pair that cannot be opened or read.
    pub unreadable_pair: &'static [Row<&'static str>],
    /// A pair that Go's `crypto/tls` does not take; `{error}` is its own text.
    pub bad_pair: &'static [Row<&'static str>],
}

/// What an engine does with a registry on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// Nothing special.
    AsAnyOther,
    /// As a registry that is configured as insecure: 127.0.0.0/8, also when a name resolves to it.
    InsecureIpv4,
    /// The same with `::1`.
    Insecure,
    /// The files are read and the server is not verified; plain HTTP where it does not speak TLS. Only the literal `localhost` and addresses.
    NotVerified,
    /// The files are read, and HTTP is spoken unless configured otherwise. Only the literal `localhost` and addresses.
    PlainHttp,
}

/// What becomes of the files of a registry that is configured as insecure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insecure {
    /// The directory is not looked at: no root and no client certificate.
    NotRead,
    /// They are read and pairs are presented; the server is not verified.
    Read,
}

/// Which directory an engine reads for Docker Hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hub {
    /// None.
    NotRead,
    /// The one of this name.
    Directory(&'static str),
}

/// What an engine makes of a directory that is called like a certificate file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subdirectories {
    /// It tries to read it, which fails.
    Read,
    /// It passes over it.
    Skipped,
}

/// What an engine makes of `[fd00::1]:5000/image`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6 {
    /// It asks there; the directory has the brackets too.
    Taken,
    /// It says `invalid reference format`.
    Refused,
}

/// What the roots of the files are added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemRoots {
    /// The system's.
    Merged,
    /// Nothing: one `.crt` replaces all of the system's.
    Replaced,
}

/// Whose files count for a host that the registry sends to (a token server, a store of blobs), and for a proxy that speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    /// The registry's: its roots are trusted for the other host, and its pairs are presented there.
    Registrys,
    /// Those of that host's own directory.
    Own,
}

/// When a changed file counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// At the next pull or push.
    EachOperation,
    /// What it names counts at the next operation, the configuration file itself when the engine is started again.
    ConfigAtStart {
        /// What to type to start it again.
        restart: &'static str,
    },
}

/// Who reads an engine's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBy {
    /// A daemon, which is root unless it runs rootless.
    Daemon,
    /// Whoever types the command.
    Caller,
}

/// How the predictions of a profile are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// Against this program, by the tests of this project.
    Observed(&'static str),
    /// Against the source and our own tables only: no test has run the engine.
    TableOnly,
}

impl EngineProfile {
    /// Every engine, `docker-docs` first.
    pub const ALL: [&'static Self; 8] = [
        &Self::DOCKER_DOCS,
        &Self::DOCKER,
        &Self::DOCKER_CONTAINERD,
        &Self::PODMAN,
        &Self::CONTAINERD,
        &Self::NERDCTL,
        &Self::BUILDKIT,
        &Self::K3S,
    ];

    /// The profile with this name.
    ///
    /// ```
    /// # use portcullis_certs::EngineProfile;
    /// assert_eq!(EngineProfile::named("podman").map(|profile| profile.title), Some("Podman, skopeo, buildah, CRI-O"));
    /// assert!(EngineProfile::named("rkt").is_none());
    /// ```
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.into_iter().find(|profile| profile.name == name)
    }

    /// The name of the host's directory in a root: the first of those that are tried.
    ///
    /// Byte for byte as typed: no lower-casing, no default port added or taken away, brackets kept (moby `registry.go:23-31`,
    /// containers/image `docker_client.go:175`, containerd `hosts.go:293-313`).
    ///
    /// ```
    /// # use portcullis_certs::EngineProfile;
    /// assert_eq!(EngineProfile::PODMAN.directory_name(&"[fd00::1]:5000".parse()?), "[fd00::1]:5000");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn directory_name(&self, host: &RegistryHost) -> String {
        host.as_str().to_owned()
    }

    /// The names that are tried in each root, in order.
    ///
    /// ```
    /// # use portcullis_certs::EngineProfile;
    /// let names = EngineProfile::CONTAINERD.directory_names(&"r.test:5000".parse()?);
    /// assert_eq!(names, ["r.test_5000_", "r.test:5000", "_default"]);
    /// let names = EngineProfile::NERDCTL.directory_names(&"r.test".parse()?);
    /// assert_eq!(names, ["r.test_443_", "r.test:443", "_default", "r.test", "_default"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn directory_names(&self, host: &RegistryHost) -> Vec<String> {
        match self.layout {
            Layout::HostsToml { port_443_first: false } => containerd_names(host.as_str()),
            Layout::HostsToml { port_443_first: true } => match host.port() {
                None => [containerd_names(&format!("{host}:443")), containerd_names(host.as_str())].concat(),
                Some(443) => [containerd_names(host.as_str()), containerd_names(host.host())].concat(),
                Some(_) => containerd_names(host.as_str()),
            },
            _ => vec![host.as_str().to_owned()],
        }
    }

    /// The directories that hold host directories, in the order they are tried, below `root` (`/` on a running
    /// system) and for a user whose home is `home`.
    pub fn search_roots(&self, root: &Path, home: Option<&Path>) -> Vec<PathBuf> {
        search(self.roots, root, home, None)
    }

    /// As [`EngineProfile::search_roots`], of an engine that runs without root.
    pub fn rootless_search_roots(&self, root: &Path, home: &Path, config_home: Option<&Path>) -> Vec<PathBuf> {
        search(self.rootless_roots, root, Some(home), config_home)
    }

    /// How bad a fault of the host's directory itself is.
    pub(crate) fn for_directory(&self, fault: &Fault) -> Severity {
        match fault {
            Fault::DirectoryUnreadable { error: std::io::ErrorKind::PermissionDenied } => {
                self.severity(self.rules.unreadable_directory)
            }
            _ => Severity::Fatal,
        }
    }

    /// How bad a fault of a `.crt` is; `useless` when the file gave no certificate.
    pub(crate) fn for_root(&self, fault: &Fault, useless: bool) -> Severity {
        self.severity(match fault {
            Fault::NotAFile | Fault::Unreadable { .. } => self.rules.root_not_a_file,
            Fault::DanglingLink => self.rules.dangling_root,
            _ if useless => self.rules.useless_root,
            _ => self.rules.bad_block,
        })
    }

    /// The profile of this version.
    #[must_use]
    pub fn at(&self, version: Version) -> Self {
        Self { assumed: version, ..*self }
    }

    /// Whether a file is skipped because it is a real directory; a link to one is not.
    pub(crate) fn passes_over(&self, path: &Path) -> bool {
        let skips = Row::at(self.subdirectories, self.assumed).is_some_and(|row| row.holds == Subdirectories::Skipped);
        skips && path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
    }

    /// What a rule says about the version that is assumed.
    pub(crate) fn severity(&self, rules: &'static [Rule]) -> Severity {
        Row::at(rules, self.assumed).map_or(Severity::Fatal, |row| row.holds)
    }
}

impl<T> Row<T> {
    /// The row that holds for a version; the newest when none does.
    pub fn at(rows: &'static [Self], version: Version) -> Option<&'static Self> {
        rows.iter().find(|row| row.versions.holds(version)).or(rows.last())
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Documented(page) => write!(f, "documented in {page}"),
            Self::Observed(version) => write!(f, "observed {version}"),
            Self::FromSource(commit) => write!(f, "from source {commit}"),
            Self::Chosen(why) => write!(f, "chosen: {why}"),
        }
    }
}

fn search(places: &[SearchRoot], root: &Path, home: Option<&Path>, config_home: Option<&Path>) -> Vec<PathBuf> {
    let below = |absolute: &Path| file::below(root, absolute);
    let config = config_home.map(Path::to_owned).or_else(|| home.map(|home| home.join(".config")));
    let place = |place: &SearchRoot| match place {
        SearchRoot::Home(relative) => home.map(|home| below(&home.join(relative))),
        SearchRoot::ConfigHome(relative) => config.as_ref().map(|config| below(&config.join(relative))),
        SearchRoot::System(absolute) => Some(below(Path::new(absolute))),
    };
    places.iter().filter_map(place).collect()
}

/// containerd `hosts.go` `hostDirectory` and `config_unix.go` `hostPaths`: the last colon, even that of an IPv6 address without port.
fn containerd_names(host: &str) -> Vec<String> {
    let other = host.rfind(':').filter(|&at| at > 0).map(|at| {
        let (name, port) = (host.get(..at).unwrap_or_default(), host.get(at + 1..).unwrap_or_default());
        format!("{name}_{port}_")
    });
    other.into_iter().chain([host.to_owned(), "_default".to_owned()]).collect()
}

#[cfg(test)]
mod tests;
