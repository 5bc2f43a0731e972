//! What an engine will do with a registry's files: the same tree, each engine's verdict. Reads files, opens no socket.
//!
//! The files are read by the one reader of certificate directories ([`read_host_certs`](crate::read_host_certs)) under the
//! engine's profile; here its findings become what the engine does and says. A prediction is as good as the rows it rests
//! on: it names the version they were asked for, and [`Checked`] says whether a test has seen the engine do it.

mod certs_d;
mod configured;
mod go;
mod hosts;
mod insecure;
mod words;

use crate::finding::Finding;
use crate::profile::{Checked, Elsewhere, EngineProfile, Ipv6, Known, Layout, Reload, Row};
use crate::version::{Version, Versions};
use crate::x509::Certificate;
use portcullis_oci::RegistryHost;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

pub use go::{CertificateRequest, Choice, Skipped, TlsVersion};

/// The machine and the engine a prediction is about. Start from [`Situation::here`] and change what is known.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// What stands for `/`.
    pub root: &'a Path,
    /// Whose engine it is.
    pub user: EngineUser<'a>,
    /// The engine's version where it was found; `None`: the profile's newest is assumed.
    pub version: Option<Version>,
    /// Where it looks.
    pub places: Places<'a>,
    /// The addresses that the registry's name resolves to here; empty: not known, and none is loopback.
    pub addresses: &'a [IpAddr],
    /// `insecure-registries` of the engine: hosts, `host:port`s and address ranges.
    pub insecure_registries: &'a [String],
    /// What time it is.
    pub now: OffsetDateTime,
}

/// Whose engine it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineUser<'a> {
    /// The machine's: root, with this `$HOME` where the engine asks for one.
    Root {
        /// `$HOME`, taken below [`Situation::root`].
        home: Option<&'a Path>,
    },
    /// A user's own.
    Rootless {
        /// `$HOME`, taken below [`Situation::root`].
        home: &'a Path,
        /// `$XDG_CONFIG_HOME` where it is set.
        config_home: Option<&'a Path>,
    },
}

/// Where an engine looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places<'a> {
    /// Where it looks by itself.
    Own,
    /// In these directories, or with these configuration files: containerd's `config_path`, `ctr --hosts-dir`, `buildkitd --config`.
    Roots(&'a [PathBuf]),
    /// In this directory, which is the host's own: `--cert-dir` of Podman and skopeo.
    HostDirectory(&'a Path),
}

impl<'a> Situation<'a> {
    /// The machine below `root`, with root's own engines of no known version.
    pub fn here(root: &'a Path, now: OffsetDateTime) -> Self {
        Self {
            root,
            user: EngineUser::Root { home: Some(Path::new("/root")) },
            version: None,
            places: Places::Own,
            addresses: &[],
            insecure_registries: &[],
            now,
        }
    }
}

/// What one engine does with one registry's files.
#[derive(Debug, Clone)]
pub struct Prediction {
    /// The engine's rules, of the version that was found or assumed.
    pub profile: EngineProfile,
    /// Whether the version was found; otherwise [`EngineProfile::assumed`] was assumed.
    pub version_found: bool,
    /// Every place that is looked at, in order.
    pub tried: Vec<Tried>,
    /// What it will talk to and with what, in the order in which it tries; the registry itself last.
    pub endpoints: Vec<Endpoint>,
    /// What happens before a connection is made.
    pub outcome: Outcome,
    /// The row that decided the outcome, where one row did.
    pub row: Option<(Versions, Known)>,
    /// Everything the reader noticed, with the severities of this engine.
    pub findings: Vec<Finding>,
}

/// One place that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The directory or file.
    pub path: PathBuf,
    /// What came of it.
    pub look: Look,
}

/// What came of looking at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It is not there.
    Missing,
    /// It is the one that counts.
    Taken,
    /// It is there, and an earlier one counts.
    Masked,
    /// It cannot be looked at, and the next one is.
    PassedOver(io::ErrorKind),
    /// It cannot be looked at, and that is the end.
    Refused(io::ErrorKind),
}

/// What an engine talks to, and with what.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `host[:port]` of the URL.
    pub authority: String,
    /// How.
    pub scheme: Scheme,
    /// Whether pulls go there.
    pub pulls: bool,
    /// Whether pushes go there.
    pub pushes: bool,
    /// Whether the server's certificate is verified.
    pub verifies: bool,
    /// Whether the system's roots count too.
    pub system_roots: bool,
    /// The roots of the files, in the order they were read.
    pub roots: Vec<LoadedRoot>,
    /// The pairs, in the order in which a Go client looks for one that fits.
    pub pairs: Vec<LoadedPair>,
}

/// The scheme of an endpoint's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTPS only.
    Https,
    /// HTTPS, and HTTP where the server does not speak TLS.
    HttpsThenHttp,
    /// HTTP only: no certificate plays a part.
    Http,
}

/// A root that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedRoot {
    /// The file it is from.
    pub path: PathBuf,
    /// The certificate.
    pub certificate: Certificate,
}

/// A pair that was loaded. Never holds the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedPair {
    /// The certificate's file.
    pub cert_path: PathBuf,
    /// The key's file; the certificate's own when it holds both.
    pub key_path: PathBuf,
    /// The client's certificate, then what else is sent with it.
    pub chain: Vec<Certificate>,
}

/// What happens before a connection is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The files are loaded: see [`Prediction::endpoints`].
    Loaded,
    /// There are no files for this host: the system's roots, no client certificate.
    NoFiles,
    /// The engine does not look at the files of this host.
    NotRead(UnreadReason),
    /// The operation fails, in the engine's own words.
    Fails {
        /// The file or directory at which it stops.
        at: PathBuf,
        /// What it says: a part of its message that does not depend on where it runs.
        text: String,
    },
    /// The registry cannot be named to it: no file is looked for.
    NotAReference {
        /// What it says.
        text: &'static str,
    },
    /// The operation waits for ever: a FIFO in place of a file.
    Hangs {
        /// The FIFO.
        at: PathBuf,
    },
    /// It depends on what could not be read here.
    CannotTell {
        /// What could not be read.
        at: PathBuf,
    },
}

/// Why an engine does not look at the files of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnreadReason {
    /// The registry is on loopback, which counts as insecure: by name, or by this address.
    Loopback(IpAddr),
    /// This entry of `insecure-registries`.
    Insecure(String),
    /// Docker Hub has no directory.
    DockerHub,
    /// HTTP is spoken to it.
    PlainHttp,
    /// containerd is not told where certificate directories are.
    NoConfigPath,
}

/// What `profile`'s engine makes of the files for `host`.
///
/// ```
/// use portcullis_certs::{EngineProfile, Outcome, Situation, predict};
/// # let root = tempfile::tempdir()?;
/// # let now = time::OffsetDateTime::UNIX_EPOCH;
/// let directory = root.path().join("etc/docker/certs.d/registry.test:5443");
/// std::fs::create_dir_all(&directory)?;
/// std::fs::write(directory.join("client.key"), "a key without its certificate")?;
///
/// let situation = Situation::here(root.path(), now);
/// let docker = predict(&EngineProfile::DOCKER, &situation, &"registry.test:5443".parse()?);
/// let Outcome::Fails { text, .. } = docker.outcome else { panic!("Docker stops there") };
/// assert_eq!(text, "missing client certificate client.cert for key client.key");
///
/// let docs = predict(&EngineProfile::DOCKER_DOCS, &situation, &"registry.test:5443".parse()?);
/// assert_eq!(docs.outcome, Outcome::Loaded);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn predict(profile: &EngineProfile, situation: &Situation<'_>, host: &RegistryHost) -> Prediction {
    let profile = profile.at(situation.version.unwrap_or(profile.assumed));
    let blank = Prediction {
        profile,
        version_found: situation.version.is_some(),
        tried: Vec::new(),
        endpoints: Vec::new(),
        outcome: Outcome::NoFiles,
        row: None,
        findings: Vec::new(),
    };
    let refuses_ipv6 = Row::at(profile.ipv6, profile.assumed).filter(|row| row.holds == Ipv6::Refused);
    if let Some(row) = refuses_ipv6.filter(|_| host.as_str().starts_with('[')) {
        let outcome = Outcome::NotAReference { text: "invalid reference format" };
        return Prediction { outcome, row: Some((row.versions, row.known)), ..blank };
    }
    match profile.layout {
        Layout::HostDirectories => certs_d::predict(blank, situation, host),
        Layout::HostsToml { .. } => hosts::predict(blank, situation, host),
        Layout::BuildkitdToml => configured::buildkit(blank, situation, host),
        Layout::RegistriesYaml => configured::k3s(blank, situation, host),
    }
}

impl Endpoint {
    /// HTTPS with the system's roots and no client certificate.
    fn of(authority: &str) -> Self {
        Self {
            authority: authority.to_owned(),
            scheme: Scheme::Https,
            pulls: true,
            pushes: true,
            verifies: true,
            system_roots: true,
            roots: Vec::new(),
            pairs: Vec::new(),
        }
    }
}

impl Prediction {
    /// The directory or file that counts.
    pub fn taken(&self) -> Option<&Path> {
        self.tried.iter().find(|tried| tried.look == Look::Taken).map(|tried| tried.path.as_path())
    }

    /// Those that are there and do not count, because of [`Prediction::taken`].
    pub fn masked(&self) -> impl Iterator<Item = &Path> {
        self.tried.iter().filter(|tried| tried.look == Look::Masked).map(|tried| tried.path.as_path())
    }

    /// Where the registry itself is spoken to: the last endpoint. `None` when nothing is.
    pub fn registry(&self) -> Option<&Endpoint> {
        self.endpoints.last()
    }

    /// Which version the rows were asked for, and how sure they are: for the report.
    ///
    /// `Docker Engine 29.0.0 (assumed)`, `Podman, skopeo, buildah, CRI-O 4.3.1`; then whether a test has run it.
    pub fn basis(&self) -> String {
        let assumed = if self.version_found { "" } else { " (assumed)" };
        let checked = match self.profile.checked {
            Checked::Observed(program) => format!("the rules are checked against {program}"),
            Checked::TableOnly => "the rules are from its source, no test has run it".to_owned(),
        };
        format!("{} {}{assumed}; {checked}", self.profile.title, self.profile.assumed)
    }

    /// Whose files count for the hosts that the registry sends to, and for a proxy.
    pub fn elsewhere(&self) -> Elsewhere {
        Row::at(self.profile.elsewhere, self.profile.assumed).map_or(Elsewhere::Registrys, |row| row.holds)
    }

    /// When a change of the files counts.
    pub fn reload(&self) -> Reload {
        Row::at(self.profile.reload, self.profile.assumed).map_or(Reload::EachOperation, |row| row.holds)
    }
}
