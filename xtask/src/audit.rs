//! `cargo xtask audit`: what cargo-deny says of our dependencies, by the rules in `deny.toml`.
//!
//! Not a part of CI: it wants the advisory database of the day, and a new advisory must not fail an unrelated change.

use std::path::Path;

use anyhow::bail;

use crate::cargo;

pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    if !cargo::has_subcommand(root, "deny") {
        bail!("cargo-deny is not installed:\n  cargo install --locked cargo-deny");
    }
    let mut command = cargo::command(root);
    command.args(["deny", "--all-features", "check"]);
    cargo::run(&mut command)?;
    Ok(true)
}
