//! Words of `trust`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::HomeArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// Trust a certificate: as a pin (exactly it) or as a CA (whom it signs)
    Add(TrustAddArgs),
    /// List whom the registry trusts
    List(TrustListArgs),
    /// Trust it no longer
    Remove(TrustRemoveArgs),
    /// Take back what was denied: from the deny list, and from what is remembered of it
    Forgive(TrustForgiveArgs),
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

#[derive(Debug, clap::Args)]
pub(crate) struct TrustForgiveArgs {
    /// The entry as it stands in the deny list, or crl:NAME for a CA whose older revocation list shall count again
    pub(crate) entry: String,
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
