//! Words of the commands that are a registry's client.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use portcullis_certs::ShellCommand;
use portcullis_client::{ArchiveName, ClientError, LayoutName, PARALLEL, Platforms, Referrers, TransferOptions};
use portcullis_oci::{PlatformChoice, Reference, RegistryHost, Tag};

use crate::cmd::Audience;
use crate::exit::Misconfigured;
use crate::place::{DeletePlace, RepositoryPlace};

#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// The image: HOST[:PORT]/NAME[:TAG][@DIGEST]
    pub(crate) reference: Reference,
    /// Where to: oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME:TAG]; FILE may be `-`, standard output
    #[arg(long, value_name = "PLACE")]
    pub(crate) to: ImagePlace,
    #[command(flatten)]
    pub(crate) part: PartArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// Where from: oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME:TAG]; FILE may be `-`, standard input
    #[arg(value_name = "PLACE")]
    pub(crate) from: ImagePlace,
    /// The image's new name: HOST[:PORT]/NAME[:TAG]
    pub(crate) reference: Reference,
    #[command(flatten)]
    pub(crate) part: PartArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Which part of an image is transferred.
#[derive(Debug, clap::Args)]
pub(crate) struct PartArgs {
    /// Only the image for this machine: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<PlatformChoice>,
    /// The whole index, for every machine; the default but for docker-archive, which holds one
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Signatures, attestations and the like that refer to the image as well
    #[arg(long)]
    referrers: bool,
    /// How many blobs are transferred at a time
    #[arg(long, value_name = "N", default_value_t = PARALLEL as u8, value_parser = clap::value_parser!(u8).range(1..=16))]
    parallel: u8,
    /// Look at everything and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print events, one JSON object per line
    #[arg(long)]
    json: bool,
}

impl PartArgs {
    /// Where an index may go.
    pub(crate) fn options(&self) -> TransferOptions {
        TransferOptions {
            platforms: self.platform.clone().map_or(Platforms::All, Platforms::One),
            referrers: if self.referrers { Referrers::Taken } else { Referrers::Left },
            parallel: usize::from(self.parallel),
        }
    }

    /// Events and an archive do not both go to standard output.
    pub(crate) fn refuse_events(&self) -> Result<(), Misconfigured> {
        if self.json {
            let what = "standard output cannot take both the archive and the events of --json";
            return Err(Misconfigured(format!("{what}: leave out --json, or name a file")));
        }
        Ok(())
    }

    /// Who is told what happens.
    pub(crate) fn audience(&self, quiet: bool) -> Audience {
        Audience::of(quiet, self.json)
    }

    /// Where one image may go: that for this machine, unless another is named.
    pub(crate) fn options_for_one(&self) -> Result<TransferOptions, Misconfigured> {
        if self.all_platforms || self.referrers {
            let what = "a docker archive holds one image for one machine";
            return Err(Misconfigured(format!(
                "{what}: write oci-archive:FILE, or leave out --all-platforms and --referrers"
            )));
        }
        let here = || Platforms::Preferred(PlatformChoice::here());
        let platforms = self.platform.clone().map_or_else(here, Platforms::One);
        Ok(TransferOptions { platforms, ..self.options() })
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct CopyArgs {
    /// The image: HOST[:PORT]/NAME[:TAG][@DIGEST]
    pub(crate) from: Reference,
    /// Its new name: HOST[:PORT]/NAME[:TAG]
    pub(crate) to: Reference,
    #[command(flatten)]
    pub(crate) part: PartArgs,
    /// Read certificates as this engine does
    #[arg(long, value_enum, default_value = "docker-docs")]
    engine: ProfileWord,
    /// Another root of certificate directories, for both: DIR/<host[:port]>/ is read
    #[arg(long, value_name = "DIR")]
    certs_dir: Option<PathBuf>,
    /// The certificate directory itself of the registry copied from
    #[arg(long, value_name = "DIR")]
    pub(crate) src_cert_dir: Option<PathBuf>,
    /// The certificate directory itself of the registry copied to
    #[arg(long, value_name = "DIR")]
    pub(crate) dest_cert_dir: Option<PathBuf>,
    /// Which roots the registries' certificates may come from
    #[arg(long, value_enum, default_value = "merge")]
    roots: RootsWord,
    /// The file with user names and passwords [default: Docker's and Podman's, or $REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Speak HTTP without TLS, loopback or not: everybody on the way can read and change what is sent
    #[arg(long)]
    plain_http: bool,
    /// Print nothing but the digest
    #[arg(long, short)]
    quiet: bool,
}

impl CopyArgs {
    /// How one of the two is reached; its own directory goes before the common root.
    pub(crate) fn client(&self, cert_dir: Option<&Path>) -> ClientArgs {
        ClientArgs {
            engine: self.engine,
            certs_dir: if cert_dir.is_some() { None } else { self.certs_dir.clone() },
            cert_dir: cert_dir.map(Path::to_owned),
            roots: self.roots,
            authfile: self.authfile.clone(),
            plain_http: self.plain_http,
            quiet: self.quiet,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct CatalogArgs {
    /// The registry: HOST[:PORT]
    pub(crate) host: RegistryHost,
    /// As a JSON list
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReferrersArgs {
    /// The image: HOST[:PORT]/NAME[:TAG][@DIGEST]
    pub(crate) reference: Reference,
    /// Only those of this type, such as application/vnd.dev.sigstore.bundle.v0.3+json
    #[arg(long, value_name = "TYPE")]
    pub(crate) artifact_type: Option<String>,
    /// As a JSON list of descriptors
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// One image: HOST[:PORT]/NAME[:TAG][@DIGEST]
    pub(crate) first: Reference,
    /// The other image
    pub(crate) second: Reference,
    /// Only the images for this machine: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<PlatformChoice>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TagsArgs {
    /// The repository: HOST[:PORT]/NAME
    pub(crate) repository: RepositoryPlace,
    /// As a JSON list
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ManifestArgs {
    /// The image: HOST[:PORT]/NAME[:TAG][@DIGEST]
    pub(crate) reference: Reference,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// What to delete: HOST[:PORT]/NAME:TAG for the tag alone, HOST[:PORT]/NAME@DIGEST for the manifest and its tags
    #[arg(value_name = "REFERENCE")]
    pub(crate) place: DeletePlace,
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// How a registry is reached.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientArgs {
    /// Read certificates as this engine does
    #[arg(long, value_enum, default_value = "docker-docs")]
    pub(crate) engine: ProfileWord,
    /// Another root of certificate directories: DIR/<host[:port]>/ is read
    #[arg(long, value_name = "DIR", conflicts_with = "cert_dir")]
    pub(crate) certs_dir: Option<PathBuf>,
    /// The registry's certificate directory itself
    #[arg(long, value_name = "DIR")]
    pub(crate) cert_dir: Option<PathBuf>,
    /// Which roots the registry's certificate may come from
    #[arg(long, value_enum, default_value = "merge")]
    pub(crate) roots: RootsWord,
    /// The file with user names and passwords [default: Docker's and Podman's, or $REGISTRY_AUTH_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    /// Speak HTTP without TLS, loopback or not: everybody on the way can read and change what is sent
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// Print nothing but the result
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl ClientArgs {
    /// What stands for them in a command that reaches the registry in the same way.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut option = |name: &str, value: OsString| words.extend([name.into(), value]);
        if self.engine != ProfileWord::DockerDocs {
            option("--engine", word(&self.engine));
        }
        let paths = [("--certs-dir", &self.certs_dir), ("--cert-dir", &self.cert_dir), ("--authfile", &self.authfile)];
        for (name, path) in paths {
            if let Some(path) = path {
                option(name, ShellCommand::operand(path));
            }
        }
        if self.roots != RootsWord::Merge {
            option("--roots", word(&self.roots));
        }
        if self.plain_http {
            words.push("--plain-http".into());
        }
        words
    }
}

/// A value as it is typed.
fn word(value: &impl ValueEnum) -> OsString {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default().into()
}

/// `--engine` of client commands
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileWord {
    /// As Docker's page on client certificates says
    DockerDocs,
    /// As Podman and skopeo do: registries.conf, and its mirrors for pulls
    Podman,
    /// As containerd does: hosts.toml, and its mirrors for pulls
    Containerd,
}

/// `--roots`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RootsWord {
    /// The directory's and the system's
    Merge,
    /// The directory's alone
    Only,
    /// The system's only when the directory has none
    Fallback,
}

/// An image on this machine, named as skopeo names it
#[derive(Debug, Clone)]
pub(crate) enum ImagePlace {
    /// `oci:DIR[:TAG]`
    Layout(LayoutName),
    /// `oci-archive:FILE[:TAG]`
    OciArchive { file: FileWord, tag: Option<Tag> },
    /// `docker-archive:FILE[:NAME[:TAG]]`
    DockerArchive { file: FileWord, name: Option<ArchiveName> },
}

/// An archive's file
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileWord {
    /// Its path
    Path(PathBuf),
    /// `-`: standard input or output
    Standard,
}

impl From<PathBuf> for FileWord {
    fn from(path: PathBuf) -> Self {
        if path == Path::new("-") { Self::Standard } else { Self::Path(path) }
    }
}

impl fmt::Display for FileWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Standard => f.write_str("-"),
        }
    }
}

impl ImagePlace {
    /// Whether it is standard input or output.
    pub(crate) fn is_stream(&self) -> bool {
        match self {
            Self::Layout(_) => false,
            Self::OciArchive { file, .. } | Self::DockerArchive { file, .. } => *file == FileWord::Standard,
        }
    }
}

impl fmt::Display for ImagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |tag: &Option<Tag>| tag.as_ref().map(ToString::to_string);
        let (kind, file, name) = match self {
            Self::Layout(LayoutName { directory, tag }) => ("oci", directory.display().to_string(), shown(tag)),
            Self::OciArchive { file, tag } => ("oci-archive", file.to_string(), shown(tag)),
            Self::DockerArchive { file, name } => {
                ("docker-archive", file.to_string(), name.as_ref().map(ToString::to_string))
            }
        };
        write!(f, "{kind}:{file}")?;
        name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

impl FromStr for ImagePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = |error: ClientError| error.to_string();
        match text.split_once(':') {
            Some(("oci", name)) => name.parse().map(Self::Layout).map_err(shown),
            Some(("oci-archive", name)) => {
                let LayoutName { directory, tag } = name.parse().map_err(shown)?;
                Ok(Self::OciArchive { file: directory.into(), tag })
            }
            // A name may hold colons, so the file may not.
            Some(("docker-archive", name)) => {
                let (file, name) = name.split_once(':').map_or((name, None), |(file, name)| (file, Some(name)));
                if file.is_empty() {
                    return Err(format!("{text:?} names no file"));
                }
                let name = name.map(str::parse).transpose().map_err(shown)?;
                Ok(Self::DockerArchive { file: PathBuf::from(file).into(), name })
            }
            _ => Err(format!(
                "{text:?} is no place for an image: write oci:DIR for an OCI layout directory, oci-archive:FILE for one in a tar, or docker-archive:FILE for what `docker load` takes"
            )),
        }
    }
}
