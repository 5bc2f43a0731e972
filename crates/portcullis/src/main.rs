//! The binary: words in, exit code out. Each command is a file in `cmd/`; only `output.rs` prints.

mod args;
mod cmd;
mod exit;
mod gateway;
mod home;
mod listen;
mod names;
mod output;
mod place;
mod signals;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::cmd::Asked;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return output::usage(error),
    };
    portcullis_tls::install_default_provider();
    let asked = Asked::by(&args.command);
    match run(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = asked.advise(error);
            output::error(&error);
            exit::code_of(&error)
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => cmd::up::run(&args),
        Command::Serve(args) => cmd::serve::run(&args),
        Command::Cert(args) => cmd::cert::run(args),
        Command::Trust(args) => cmd::trust::run(args),
        Command::Policy(command) => cmd::policy::run(command),
        Command::Config(args) => cmd::config::run(args),
        Command::Install(args) => cmd::install::run(&args),
        Command::Convert(args) => cmd::convert::run(&args),
        Command::Uninstall(args) => cmd::uninstall::run(&args),
        Command::Doctor(args) => cmd::doctor::run(&args),
        Command::Explain(args) => cmd::explain::run(&args),
        Command::Login(args) => cmd::login::run(&args),
        Command::Logout(args) => cmd::login::run_logout(&args),
        Command::Pull(args) => cmd::pull::run(&args),
        Command::Push(args) => cmd::push::run(&args),
        Command::Copy(args) => cmd::copy::run(&args),
        Command::Catalog(args) => cmd::catalog::run(&args),
        Command::Tags(args) => cmd::tags::run(&args),
        Command::Manifest(args) => cmd::manifest::run(&args),
        Command::Referrers(args) => cmd::referrers::run(&args),
        Command::Diff(args) => cmd::diff::run(&args),
        Command::Delete(args) => cmd::delete::run(&args),
        Command::Gateway(args) => cmd::gateway::run(&args),
        Command::Maintain(args) => cmd::maintain::run(&args),
        Command::Gc(args) => cmd::gc::run(&args),
        Command::Status(args) => cmd::status::run(&args),
        Command::Fsck(args) => cmd::fsck::run(&args),
        Command::Reload(args) => cmd::reload::run(&args),
    }
}
