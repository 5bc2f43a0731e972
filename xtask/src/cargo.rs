//! Cargo, started from inside `cargo run`.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// `cargo` in `root`, with the environment a shell would give it.
///
/// `cargo run` adds `CARGO_PKG_*` and `CARGO_MANIFEST_*` of xtask itself. Build scripts watch them (ring's does), so
/// that each change between `cargo test` and `cargo xtask test` would build half the tree again.
pub(crate) fn command(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs the command with the terminal as it is; an exit code other than 0 is an error that quotes the command.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = quoted(command);
    println!("$ {line}");
    let status = command.status().with_context(|| format!("`{line}` did not start"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Runs the command and returns its standard output as text.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = quoted(command);
    let output = command.output().with_context(|| format!("`{line}` did not start"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed what is not UTF-8"))
}

/// Whether `cargo NAME` exists: components of the toolchain are programs of their own.
pub(crate) fn has_subcommand(root: &Path, name: &str) -> bool {
    let mut command = command(root);
    command.args([name, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// As a person would type it. For reading only: no argument we pass needs quotes.
fn quoted(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
