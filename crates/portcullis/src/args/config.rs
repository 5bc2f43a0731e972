//! The words of `config`.

use std::path::PathBuf;

use clap::Subcommand;

use super::HomeArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Translate the configuration of CNCF Distribution (registry:2, registry:3): say what maps, what does not and why
    Import(ConfigImportArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ConfigImportArgs {
    /// Its configuration, such as /etc/docker/registry/config.yml
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) home: HomeArgs,
    /// Where the config.toml is written; a file that is there is left alone [default: it is printed]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
