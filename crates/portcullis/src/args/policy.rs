//! The words of `policy`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use portcullis_oci::RepositoryName;

use super::HomeArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say whether a certificate may do something, and which line of the policy says so
    Check(PolicyCheckArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct PolicyCheckArgs {
    /// The certificate, with its chain after it as it would be presented, PEM
    #[arg(long, value_name = "FILE", required_unless_present = "anonymous")]
    pub(crate) cert: Option<PathBuf>,
    /// Ask for whoever shows no certificate
    #[arg(long, conflicts_with = "cert")]
    pub(crate) anonymous: bool,
    /// What it would do
    #[arg(value_enum)]
    pub(crate) action: ActionWord,
    /// Where: a repository's name, without the registry's
    pub(crate) repository: RepositoryName,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a rule can allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ActionWord {
    /// Read manifests, blobs and tags
    Pull,
    /// Write them
    Push,
    /// Remove them
    Delete,
}
