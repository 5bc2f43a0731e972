//! The benchmark: the load generator and the peers' set-up, run by `cargo xtask bench`.
//!
//! Uses neither our server nor our client crate: what is measured is the program that ships, from outside. Timings are
//! results here, and no test anywhere rests on one.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what a benchmark prints is its result")]

mod args;
mod chart;
mod client;
mod content;
mod cores;
mod floor;
mod load;
mod operations;
mod peers;
mod proc;
mod results;
mod run;
mod store;
mod table;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};

use args::{Options, Subject};

fn main() -> ExitCode {
    let options = match args::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("bench: {error:#}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    // Both were built into the same directory.
    let this = std::env::current_exe().context("where this program lies is unknown")?;
    let portcullis = this.with_file_name("portcullis");
    let directory = this.ancestors().nth(2).context("this program lies in no target directory")?.join("bench");
    match options.subject {
        Subject::Help => println!("{}", args::HELP),
        Subject::Registries => registries(options, &directory, &portcullis)?,
        Subject::Client => client(options, &directory, &portcullis)?,
    }
    Ok(())
}

fn client(options: &Options, directory: &Path, portcullis: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = runtime.block_on(client::measure(options, directory, portcullis))?;
    print!("{text}");
    let to = options.save.clone().unwrap_or_else(|| directory.to_owned());
    fs::create_dir_all(&to)?;
    fs::write(to.join("client.txt"), text)?;
    println!("\nwritten: client.txt in {}", to.display());
    Ok(())
}

fn registries(options: &Options, directory: &Path, portcullis: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let results = runtime.block_on(run::registries(options, directory, portcullis))?;
    let text = table::text(&results);
    print!("{text}");
    let json = serde_json::to_string_pretty(&results.to_json())?;
    let to: PathBuf = options.save.clone().unwrap_or_else(|| directory.to_owned());
    fs::create_dir_all(&to)?;
    for (name, bytes) in
        [("results.txt", text), ("results.json", format!("{json}\n")), ("results.svg", chart::svg(&results))]
    {
        fs::write(to.join(name), bytes).with_context(|| format!("{name} cannot be written"))?;
    }
    println!("\nwritten: results.txt, results.json and results.svg in {}", to.display());
    ensure!(!results.ours_failed(), "Portcullis failed at something: see what was left out");
    Ok(())
}
