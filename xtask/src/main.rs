//! The project's chores: `cargo xtask COMMAND`. Words in, exit code out; each command is a module of its own.
//!
//! Knows the repository and the tools around it, and none of the project's own crates: it must start at once, also
//! when they do not compile.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what a chore prints is its result")]

mod args;
mod test;

mod audit;
mod bench;
mod limbo;
mod packages;
mod tidy;

mod cargo;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use args::Command;

/// Everything went well.
const DONE: u8 = 0;
/// Something was found, or could not be run.
const FAILED: u8 = 1;
/// The command line is wrong.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match args::parse(env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("xtask: {error:#}\n\n{}", args::HELP);
            return ExitCode::from(WRONG_USAGE);
        }
    };
    match run(&command) {
        Ok(true) => ExitCode::from(DONE),
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// `false`: the command ran, and what it found is printed. `Err`: it could not do its work.
fn run(command: &Command) -> anyhow::Result<bool> {
    let root = repository_root()?;
    match command {
        Command::Test(options) => Ok(test::run(&root, options)),
        Command::Tidy => tidy::run(&root),
        Command::Audit => audit::run(&root),
        Command::Limbo => limbo::run(&root),
        Command::Bench(words) => bench::run(&root, words),
        Command::Help => {
            println!("{}", args::HELP);
            Ok(true)
        }
    }
}

/// Found at run time: a path compiled in would be wrong once a cached build serves another clone.
fn repository_root() -> anyhow::Result<PathBuf> {
    let here = env::current_dir().context("the working directory cannot be read")?;
    here.ancestors()
        .find(|dir| dir.join("xtask/Cargo.toml").is_file())
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not inside the repository: cd there first", here.display()))
}
