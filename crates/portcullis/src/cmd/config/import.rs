//! Reads the file, prints or writes what it becomes, and says the rest.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use portcullis_pki::files;
use portcullis_server::Config;

use super::translate::{self, Translation};
use super::{report, yaml};
use crate::args::ConfigImportArgs;
use crate::exit::Misconfigured;
use crate::home::Home;
use crate::output;

/// Far above any such file.
const MAX_BYTES: u64 = 1 << 20;

pub(super) fn run(args: &ConfigImportArgs) -> anyhow::Result<()> {
    let home = Home::locate(args.home.home.as_deref())?;
    let file = std::path::absolute(&args.file).context("the working directory is gone")?;
    let translation = read(&file)?;
    let text = translation.config_toml();
    check(&text)?;
    for line in report::remarks(&args.file, &translation) {
        output::note(&line);
    }
    let written = match &args.output {
        Some(path) => {
            let path = std::path::absolute(path).context("the working directory is gone")?;
            ensure!(!path.exists(), "{} exists and is left alone: move it away, or name another file", path.display());
            files::write_new(&path, text.as_bytes(), files::PUBLIC)?;
            output::line(&format!("wrote {}", path.display()));
            Some(path)
        }
        None => {
            output::bytes(text.as_bytes())?;
            None
        }
    };
    for line in report::next(&home, &file, written.as_deref(), &translation) {
        output::note(&line);
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Translation> {
    let mut text = String::new();
    let mut open = || File::open(file)?.take(MAX_BYTES + 1).read_to_string(&mut text);
    open().with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(text.len() as u64 <= MAX_BYTES, "{} has more than 1 MiB: that is no configuration", file.display());
    let (translation, problems) = match yaml::parse(&text) {
        Ok(root) => {
            let mut translation = translate::translate(&root);
            let problems = std::mem::take(&mut translation.problems);
            (translation, problems)
        }
        Err(problems) => (Translation::default(), problems),
    };
    if problems.is_empty() {
        return Ok(translation);
    }
    let place = |problem: &yaml::Problem| format!("\n  {}:{}: {}", file.display(), problem.line, problem.text);
    let lines: String = problems.iter().map(place).collect();
    Err(Misconfigured(format!("{} cannot be translated:{lines}", file.display())).into())
}

/// What is written must be read by `serve`.
fn check(text: &str) -> anyhow::Result<()> {
    let Err(problems) = Config::parse(Path::new("config.toml"), text) else { return Ok(()) };
    let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    bail!("what this becomes is no configuration:{lines}")
}
