//! `cargo xtask test`: all that CI checks, in phases. `.ci/run` runs exactly this.
//!
//! A failed phase does not hide what the next ones would find. Tests hear of us through two environment variables, and
//! tell us what they could not run: CONTRIBUTING.md, "Tests with real peers".

use std::env;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::{cargo, packages, tidy};

/// What was asked for; the default is all of it, as CI does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// A test that could not run here is no failure.
    pub(crate) allow_skip: bool,
    /// Sets `PORTCULLIS_TEST_LONG=1`.
    pub(crate) long: bool,
    /// Empty: all phases.
    pub(crate) only: Vec<Phase>,
    /// Handed to `cargo test`.
    pub(crate) cargo_args: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Packages,
    Format,
    Clippy,
    Tidy,
    Tests,
}

impl Phase {
    pub(crate) const ALL: [Phase; 5] = [Phase::Packages, Phase::Format, Phase::Clippy, Phase::Tidy, Phase::Tests];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Phase::Packages => "packages",
            Phase::Format => "fmt",
            Phase::Clippy => "clippy",
            Phase::Tidy => "tidy",
            Phase::Tests => "test",
        }
    }

    fn run(self, root: &Path, options: &Options) -> anyhow::Result<Outcome> {
        match self {
            Phase::Packages => packages::install_missing().map(|()| Outcome::Passed),
            Phase::Format => format(root),
            Phase::Clippy => clippy(root),
            Phase::Tidy => Ok(if tidy::run(root)? { Outcome::Passed } else { Outcome::Failed }),
            Phase::Tests => tests(root, options),
        }
    }
}

/// How a phase ended. Why it failed is printed by then.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped(Vec<Skip>),
}

/// A test that could not run on this machine.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Skip {
    name: String,
    reason: String,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {} ({})", self.name, self.reason)
    }
}

struct Timed {
    phase: Phase,
    outcome: Outcome,
    time: Duration,
}

pub(crate) fn run(root: &Path, options: &Options) -> bool {
    let mut done = Vec::new();
    for phase in Phase::ALL {
        if !options.only.is_empty() && !options.only.contains(&phase) {
            continue;
        }
        done.push(timed(phase, root, options));
        // Without a C compiler or with half a dockerd all that follows would fail for that one reason.
        if phase == Phase::Packages && done.iter().any(|timed| timed.outcome == Outcome::Failed) {
            break;
        }
    }
    print_summary(&done, options.allow_skip);
    done.iter().all(|timed| passes(&timed.outcome, options.allow_skip))
}

fn timed(phase: Phase, root: &Path, options: &Options) -> Timed {
    println!("\n== {} ==", phase.name());
    let started = Instant::now();
    let outcome = phase.run(root, options).unwrap_or_else(|error| {
        println!("{}: {error:#}", phase.name());
        Outcome::Failed
    });
    let time = started.elapsed();
    println!("== {}: {:.1} s", phase.name(), time.as_secs_f64());
    Timed { phase, outcome, time }
}

fn passes(outcome: &Outcome, allow_skip: bool) -> bool {
    match outcome {
        Outcome::Passed => true,
        Outcome::Failed => false,
        Outcome::Skipped(_) => allow_skip,
    }
}

fn print_summary(done: &[Timed], allow_skip: bool) {
    println!();
    for Timed { outcome, .. } in done {
        if let Outcome::Skipped(skips) = outcome {
            print_skips(skips);
            if !allow_skip {
                println!("a skipped test proves nothing: do what it names, or give --allow-skip");
            }
            println!();
        }
    }
    println!("{:<10} {:>9}  outcome", "phase", "time");
    for Timed { phase, outcome, time } in done {
        println!("{:<10} {:>7.1} s  {}", phase.name(), time.as_secs_f64(), in_words(outcome, allow_skip));
    }
}

fn print_skips(skips: &[Skip]) {
    for skip in skips {
        println!("{skip}");
    }
}

fn in_words(outcome: &Outcome, allow_skip: bool) -> String {
    match outcome {
        Outcome::Passed => "passed".into(),
        Outcome::Failed => "FAILED".into(),
        Outcome::Skipped(skips) if allow_skip => format!("passed, {} skipped", skips.len()),
        Outcome::Skipped(skips) => format!("FAILED: {} skipped", skips.len()),
    }
}

fn format(root: &Path) -> anyhow::Result<Outcome> {
    demand_component(root, "fmt", "rustfmt")?;
    cargo::run(cargo::command(root).args(["fmt", "--all", "--check"]))?;
    Ok(Outcome::Passed)
}

fn clippy(root: &Path) -> anyhow::Result<Outcome> {
    demand_component(root, "clippy", "clippy")?;
    let args = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    cargo::run(cargo::command(root).args(args))?;
    Ok(Outcome::Passed)
}

fn demand_component(root: &Path, subcommand: &str, component: &str) -> anyhow::Result<()> {
    if !cargo::has_subcommand(root, subcommand) {
        bail!("`cargo {subcommand}` is missing:\n  rustup component add {component}");
    }
    Ok(())
}

fn tests(root: &Path, options: &Options) -> anyhow::Result<Outcome> {
    let skips = SkipFile::create()?;
    let mut command = cargo::command(root);
    command.args(test_args(&options.cargo_args)).env("PORTCULLIS_TEST_SKIPS", &skips.0);
    if options.long {
        command.env("PORTCULLIS_TEST_LONG", "1");
    }
    let result = cargo::run(&mut command);
    let skips = skips.read()?;
    if let Err(error) = result {
        print_skips(&skips);
        return Err(error);
    }
    Ok(if skips.is_empty() { Outcome::Passed } else { Outcome::Skipped(skips) })
}

/// `--workspace` would silently win over a `-p` of the user.
fn test_args(extra: &[String]) -> Vec<String> {
    let own_choice = extra
        .iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| arg.starts_with("-p") || arg.starts_with("--package") || arg == "--manifest-path");
    let scope = (!own_choice).then_some("--workspace");
    let fixed = ["test", "--locked", "--no-fail-fast"].into_iter().chain(scope);
    fixed.map(String::from).chain(extra.iter().cloned()).collect()
}

/// The file to which each test that cannot run appends one line. Removed when dropped.
struct SkipFile(PathBuf);

impl SkipFile {
    fn create() -> anyhow::Result<SkipFile> {
        let path = env::temp_dir().join(format!("portcullis-test-skips-{}", process::id()));
        // A new file or an error: in a directory that all may write to, an existing one may be somebody's link.
        let created = OpenOptions::new().write(true).create_new(true).open(&path);
        created.with_context(|| format!("{} cannot be created", path.display()))?;
        Ok(SkipFile(path))
    }

    fn read(&self) -> anyhow::Result<Vec<Skip>> {
        let text = fs::read_to_string(&self.0).with_context(|| format!("{} cannot be read", self.0.display()))?;
        Ok(parse_skips(&text))
    }
}

impl Drop for SkipFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn parse_skips(text: &str) -> Vec<Skip> {
    let mut skips: Vec<Skip> = text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, reason) = line.split_once('\t').unwrap_or((line, "no reason given"));
            Skip { name: name.into(), reason: reason.into() }
        })
        .collect();
    skips.sort();
    skips
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_fails_the_run_unless_it_is_allowed() {
        let skipped = Outcome::Skipped(parse_skips("docker_page\tno root\n"));
        assert!(!passes(&skipped, false));
        assert!(passes(&skipped, true));
        assert!(!passes(&Outcome::Failed, true));
    }

    #[test]
    fn a_line_without_a_reason_is_still_a_skip() {
        let skips = parse_skips("b\tno root\n\na\n");
        let printed: Vec<String> = skips.iter().map(Skip::to_string).collect();
        assert_eq!(printed, ["skipped: a (no reason given)", "skipped: b (no root)"]);
    }

    #[test]
    fn a_package_chosen_by_the_user_replaces_the_workspace() {
        let args = |line: &str| test_args(&line.split_whitespace().map(String::from).collect::<Vec<_>>()).join(" ");
        assert_eq!(args(""), "test --locked --no-fail-fast --workspace");
        assert_eq!(args("-p xtask digest"), "test --locked --no-fail-fast -p xtask digest");
        assert_eq!(args("-- -p"), "test --locked --no-fail-fast --workspace -- -p");
    }

    #[test]
    fn the_skip_file_goes_away() {
        let file = SkipFile::create().expect("a file in the temporary directory");
        let path = file.0.clone();
        fs::write(&path, "name\treason\n").expect("written");
        assert_eq!(file.read().expect("read").len(), 1);
        drop(file);
        assert!(!path.exists());
    }
}
