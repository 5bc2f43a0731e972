//! Words of the commands that are a registry's client.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use portcullis_client::LayoutName;
use portcullis_oci::Reference;

use crate::place::{DeletePlace, RepositoryPlace};

#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// The image: HOST[:PORT]/NAME[:TAG][@DIGEST]
    pub(crate) reference: Reference,
    /// Where to: oci:DIR or oci:DIR:TAG
    #[arg(long, value_name = "oci:DIR")]
    pub(crate) to: OciPlace,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PushArgs {
    /// Where from: oci:DIR or oci:DIR:TAG
    pub(crate) from: OciPlace,
    /// The image's new name: HOST[:PORT]/NAME[:TAG]
    pub(crate) reference: Reference,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CopyArgs {
    /// The image: HOST[:PORT]/NAME[:TAG][@DIGEST]
    pub(crate) from: Reference,
    /// Its new name: HOST[:PORT]/NAME[:TAG]
    pub(crate) to: Reference,
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
            quiet: self.quiet,
        }
    }
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
    /// Print nothing but the result
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// `--engine` of client commands
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileWord {
    /// As Docker's page on client certificates says
    DockerDocs,
    /// As Podman and skopeo do
    Podman,
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

/// `oci:DIR[:TAG]`
#[derive(Debug, Clone)]
pub(crate) struct OciPlace(pub(crate) LayoutName);

impl FromStr for OciPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(name) = text.strip_prefix("oci:") else {
            return Err(format!("{text:?} is no place for an image: write oci:DIR for an OCI layout directory"));
        };
        name.parse().map(Self).map_err(|error: portcullis_client::ClientError| error.to_string())
    }
}
