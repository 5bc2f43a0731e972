//! `portcullis config import`: what becomes of the configuration of another registry.

mod import;
mod report;
mod rules;
mod translate;
mod yaml;

use crate::args::ConfigCommand;

pub(crate) fn run(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Import(args) => import::run(&args),
    }
}
