//! `cargo xtask bench`: builds what ships and what measures it, and hands the words over.

use std::path::Path;

use crate::cargo;

pub(crate) fn run(root: &Path, words: &[String]) -> anyhow::Result<bool> {
    // In one build, so that both lie in the same directory: `bench` measures its neighbour.
    cargo::run(cargo::command(root).args(["build", "--release", "--locked", "-p", "portcullis", "-p", "bench"]))?;
    cargo::run(
        cargo::command(root).args(["run", "--release", "--locked", "--quiet", "-p", "bench", "--"]).args(words),
    )?;
    Ok(true)
}
