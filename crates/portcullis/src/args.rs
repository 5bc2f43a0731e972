//! What may be typed. Pure words: nothing here looks at the environment or at files.
//!
//! The list of commands is here; each group's words are in a file of its own.

mod cert;
mod config;
mod doctor;
mod fsck;
mod gateway;
mod install;
mod login;
mod policy;
mod serve;
mod transfer;
mod trust;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(crate) use cert::{
    CertCommand, CertLintArgs, CertNew, CertRenewArgs, CertRevokeArgs, CertShowArgs, NewClientArgs, NewServerArgs,
};
pub(crate) use config::{ConfigCommand, ConfigImportArgs};
pub(crate) use doctor::{DoctorArgs, ExplainArgs};
pub(crate) use fsck::{ForWord, FsckArgs};
pub(crate) use gateway::GatewayArgs;
pub(crate) use install::{ConvertArgs, EngineWord, InstallArgs, UninstallArgs};
pub(crate) use login::{LoginArgs, LogoutArgs};
pub(crate) use policy::{ActionWord, PolicyCheckArgs, PolicyCommand};
pub(crate) use serve::{AskArgs, GcArgs, MaintainArgs, ServeArgs, StatusArgs, UpArgs};
pub(crate) use transfer::{
    CatalogArgs, ClientArgs, CopyArgs, DeleteArgs, DiffArgs, FileWord, ImagePlace, ManifestArgs, ProfileWord, PullArgs,
    PushArgs, ReferrersArgs, RootsWord, TagsArgs,
};
pub(crate) use trust::{RoleWord, TrustAddArgs, TrustCommand, TrustForgiveArgs, TrustListArgs, TrustRemoveArgs};

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
    /// Ask who may do what
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Take over the configuration of another registry
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Put a client's certificate where engines read it
    Install(InstallArgs),
    /// Give one engine the certificate files that another has for a registry
    Convert(ConvertArgs),
    /// Take away what install wrote for a registry, and nothing else
    Uninstall(UninstallArgs),
    /// Say why engines do, or do not, use the certificates for a registry
    Doctor(DoctorArgs),
    /// Say what a code of the doctor's, or an engine's error text, means
    Explain(ExplainArgs),
    /// Keep a user name and password for a registry, where Docker and Podman keep theirs
    Login(LoginArgs),
    /// Take a registry's user name and password away again
    Logout(LogoutArgs),
    /// Copy an image from a registry into an OCI layout directory, or an archive for `docker load`
    Pull(PullArgs),
    /// Copy an image from an OCI layout directory, or an archive of `docker save`, to a registry
    Push(PushArgs),
    /// Copy an image from one registry to another, or from one repository to another
    Copy(CopyArgs),
    /// List the repositories that the registry shows to this identity
    Catalog(CatalogArgs),
    /// List a repository's tags
    Tags(TagsArgs),
    /// Print a manifest, exactly as the registry has it
    Manifest(ManifestArgs),
    /// List what refers to an image: signatures, attestations, SBOMs
    Referrers(ReferrersArgs),
    /// Say what two images differ in: machines, configs, layers, annotations
    Diff(DiffArgs),
    /// Delete a tag, or a manifest with all its tags
    Delete(DeleteArgs),
    /// Stand in for a registry on this machine's loopback, for programs without client certificates
    Gateway(GatewayArgs),
    /// Renew the server's certificate and the revocation list where they are due, for a timer beside `serve`
    Maintain(MaintainArgs),
    /// Collect garbage now: what no manifest names any more
    Gc(GcArgs),
    /// Ask the running server about itself
    Status(StatusArgs),
    /// Look at all that is stored: hash every blob, follow every link, say what is damaged
    Fsck(FsckArgs),
    /// Have the running server read trust, policy and certificate again
    Reload(AskArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct HomeArgs {
    /// Where everything is kept [default: /var/lib/portcullis as root, else $XDG_DATA_HOME/portcullis]
    #[arg(long, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
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

    /// A command that is printed reaches the registry in the same way.
    #[test]
    fn how_a_registry_is_reached_is_typed_again() {
        for options in [
            vec![],
            vec!["--engine", "podman", "--certs-dir", "/certs", "--authfile", "a.json", "--roots", "only"],
            vec!["--cert-dir", "certs dir", "--plain-http"],
        ] {
            let words = ["portcullis", "tags", "a.test/x"].into_iter().chain(options.iter().copied());
            let Command::Tags(args) = Args::try_parse_from(words).unwrap().command else { panic!("not tags") };
            assert_eq!(args.client.words(), options);
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }
}
