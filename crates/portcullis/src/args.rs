//! What may be typed. Pure words: nothing here looks at the environment or at files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Parser, Subcommand, ValueEnum};
use portcullis_client::LayoutName;
use portcullis_oci::{Reference, RegistryHost};
use portcullis_pki::{ClientName, KeyAlgorithm, ServerName};

use crate::place::{DeletePlace, RepositoryPlace};

/// Mutual TLS for container registries, whole: registry, certificates, client directories and diagnosis.
#[derive(Debug, Parser)]
#[command(
    name = "portcullis",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make everything that is missing, then serve: CAs, server certificate, config, policy, an admin client
    Up(UpArgs),
    /// Serve with a config file
    Serve(ServeArgs),
    /// Make and show certificates
    #[command(subcommand)]
    Cert(CertCommand),
    /// Say whom the registry trusts
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Put a client's certificate where engines read it
    Install(InstallArgs),
    /// Copy an image from a registry into an OCI layout directory
    Pull(PullArgs),
    /// Copy an image from an OCI layout directory to a registry
    Push(PushArgs),
    /// Copy an image from one registry to another, or from one repository to another
    Copy(CopyArgs),
    /// List a repository's tags
    Tags(TagsArgs),
    /// Print a manifest, exactly as the registry has it
    Manifest(ManifestArgs),
    /// Delete a tag, or a manifest with all its tags
    Delete(DeleteArgs),
    /// Ask the running server about itself
    Status(AskArgs),
    /// Have the running server read trust, policy and certificate again
    Reload(AskArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct HomeArgs {
    /// Where everything is kept [default: /var/lib/portcullis as root, else $XDG_DATA_HOME/portcullis]
    #[arg(long, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    /// Where the images are kept; a volume of registry:2 or registry:3 can be given here [default: HOME/data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where to listen [default: [::]:5443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// A name or address that clients type; may be given again. On an existing home it is added to the certificate
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) names: Vec<ServerName>,
    /// Log as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Check config, trust, policy and certificate, and do not serve
    #[arg(long)]
    pub(crate) check: bool,
    /// Log as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make a certificate
    #[command(subcommand)]
    New(CertNew),
    /// Show what is in certificate files
    Show(CertShowArgs),
    /// Let a client in no longer: all its certificates, or one by serial number or fingerprint
    Revoke(CertRevokeArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertNew {
    /// For a client: makes HOME/pki/clients/NAME, in the shape of a certs.d host directory
    Client(NewClientArgs),
    /// For the server, with the names it has and those given
    Server(NewServerArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct NewClientArgs {
    /// The client's name, 1 to 64 of A-Z a-z 0-9 . _ -
    pub(crate) name: ClientName,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    /// The kind of key: p256, p384, rsa4096 or ed25519
    #[arg(long, default_value = "p256")]
    pub(crate) alg: KeyAlgorithm,
    /// How long it is valid
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub(crate) days: u16,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NewServerArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    /// A name or address to add; may be given again
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) names: Vec<ServerName>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CertRevokeArgs {
    /// The client's name, or a certificate's serial number or SHA-256 fingerprint
    #[arg(value_name = "NAME|SERIAL|FINGERPRINT")]
    pub(crate) target: String,
    /// Why, for whoever reads the deny list later
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CertShowArgs {
    /// Certificate files, or directories of them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Trust a certificate: as a pin (exactly it) or as a CA (whom it signs)
    Add(TrustAddArgs),
    /// List whom the registry trusts
    List(TrustListArgs),
    /// Trust it no longer
    Remove(TrustRemoveArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct TrustAddArgs {
    /// The certificate, PEM
    pub(crate) file: PathBuf,
    /// What it is trusted as; without it, a self-signed certificate that is no CA of ours becomes a pin
    #[arg(long = "as", value_enum)]
    pub(crate) role: Option<RoleWord>,
    /// Its name in rules; a pin's identity is pin:NAME [default: the file's name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TrustListArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TrustRemoveArgs {
    /// Its name, as `trust list` shows it
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// `--as`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleWord {
    /// Everybody whom it signs is trusted
    Ca,
    /// Exactly this certificate is trusted
    Pin,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// The registry as it is typed in image names: HOST or HOST:PORT
    pub(crate) host: RegistryHost,
    /// The client's directory with ca.crt, client.cert and client.key
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// Whose directory; without it, those of the engines found on this machine
    #[arg(long, value_enum)]
    pub(crate) engine: Option<EngineWord>,
    /// Another root, such as a mounted image
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `--engine` of `install`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineWord {
    /// Docker Engine
    Docker,
    /// Podman, skopeo, buildah, CRI-O
    Podman,
    /// Both
    All,
}

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

#[derive(Debug, clap::Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn each_side_of_a_copy_has_its_directory() {
        let words =
            ["portcullis", "copy", "a.test/x:1", "b.test/y:1", "--certs-dir", "/certs", "--src-cert-dir", "/src"];
        let Command::Copy(args) = Args::try_parse_from(words).unwrap().command else { panic!("not a copy") };
        let [source, target] = [&args.src_cert_dir, &args.dest_cert_dir].map(|dir| args.client(dir.as_deref()));
        assert_eq!((source.certs_dir, source.cert_dir), (None, Some("/src".into())));
        assert_eq!((target.certs_dir, target.cert_dir), (Some("/certs".into()), None));
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }
}
