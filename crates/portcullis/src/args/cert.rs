//! Words of `cert`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Subcommand;
use portcullis_pki::{ClientName, KeyAlgorithm, ServerName};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::HomeArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make a certificate
    #[command(subcommand)]
    New(CertNew),
    /// Show what is in certificate files
    Show(CertShowArgs),
    /// Say what is wrong with certificate files, or with directories of them
    Lint(CertLintArgs),
    /// Make new certificates for clients, with the keys they have
    Renew(CertRenewArgs),
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
    /// Revoke everything the client NAME was issued before this moment (RFC 3339), listed or not; `*` stands for any part
    #[arg(long, value_name = "TIME")]
    pub(crate) before: Option<Moment>,
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

#[derive(Debug, clap::Args)]
pub(crate) struct CertLintArgs {
    /// Certificate files, or host directories of certs.d
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["names", "all"])))]
pub(crate) struct CertRenewArgs {
    /// The clients
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<ClientName>,
    /// Every client of which a third of the certificate's life is left, or less
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// A moment, as in `2026-01-02T03:04:05Z`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(pub(crate) OffsetDateTime);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        OffsetDateTime::parse(text, &Rfc3339)
            .map(Self)
            .map_err(|_| format!("{text:?} is no moment: write it like 2026-01-02T03:04:05Z"))
    }
}
