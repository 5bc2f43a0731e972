//! What the user typed. No environment, no files.

use std::ffi::OsString;

use anyhow::{Context as _, bail};

use crate::test::{Options, Phase};

pub(crate) const HELP: &str = "\
Usage: cargo xtask COMMAND

  test [--allow-skip] [--long] [--only PHASE]... [-- ARGS]
         All that CI checks, in phases: packages, fmt, clippy, tidy, test.
         As root on Debian or Ubuntu the first one installs what the tests need, and says what.
         --allow-skip   a test that could not run here is no failure
         --long         the long versions of the crash and fault tests
         --only PHASE   this phase alone; may be repeated
         ARGS           go to `cargo test`, for example: -- -p portcullis-oci digest
  tidy   The rules of this repository that clippy cannot see, checked in a second.
  audit  Licences, advisories, duplicates and sources of all dependencies, by cargo-deny.
  limbo  Ask Go again for its verdicts on x509-limbo's certificates, which a test of ours is held beside. Wants Go
         (Debian: golang-go) and the cases in ../shared/testdata. No part of `test`.
  bench [--quick] [--peer NAME=ADDRESS:PORT]... [client]
         Measure the release build beside docker-registry and nginx: docs/performance.md. More: bench --help
  help   This text.";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Test(Options),
    Tidy,
    Audit,
    Limbo,
    /// The words are the benchmark's own.
    Bench(Vec<String>),
    Help,
}

pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Command> {
    let args: Vec<String> = args.into_iter().map(text).collect::<Result<_, _>>()?;
    let (command, rest) = args.split_first().context("a command is expected")?;
    match command.as_str() {
        "test" => test_options(rest).map(Command::Test),
        "tidy" => alone(Command::Tidy, rest),
        "audit" => alone(Command::Audit, rest),
        "limbo" => alone(Command::Limbo, rest),
        "bench" => Ok(Command::Bench(rest.to_vec())),
        "help" | "--help" | "-h" => Ok(Command::Help),
        other => bail!("there is no command {other:?}"),
    }
}

fn text(arg: OsString) -> anyhow::Result<String> {
    arg.into_string().map_err(|arg| anyhow::anyhow!("argument `{}` is not UTF-8", arg.display()))
}

fn alone(command: Command, rest: &[String]) -> anyhow::Result<Command> {
    match rest {
        [] => Ok(command),
        [help] if help == "--help" || help == "-h" => Ok(Command::Help),
        [first, ..] => bail!("argument {first:?} is not expected here"),
    }
}

fn test_options(rest: &[String]) -> anyhow::Result<Options> {
    let mut options = Options::default();
    let mut rest = rest.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--allow-skip" => options.allow_skip = true,
            "--long" => options.long = true,
            "--only" => options.only.push(phase(rest.next())?),
            "--" => options.cargo_args.extend(rest.by_ref().cloned()),
            other => bail!("argument {other:?} is not expected here: what `cargo test` is to see goes behind `--`"),
        }
    }
    Ok(options)
}

fn phase(name: Option<&String>) -> anyhow::Result<Phase> {
    let name = name.context("--only wants the name of a phase")?;
    let known = Phase::ALL.map(Phase::name).join(", ");
    Phase::ALL
        .into_iter()
        .find(|phase| phase.name() == name)
        .with_context(|| format!("there is no phase {name:?}: the phases are {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_command_is_known() {
        assert_eq!(parsed("tidy"), Ok(Command::Tidy));
        assert_eq!(parsed("audit"), Ok(Command::Audit));
        assert_eq!(parsed("limbo"), Ok(Command::Limbo));
        assert_eq!(
            parsed("bench --quick --only push"),
            Ok(Command::Bench(vec!["--quick".into(), "--only".into(), "push".into()]))
        );
        assert_eq!(parsed("help"), Ok(Command::Help));
        assert_eq!(parsed("test"), Ok(Command::Test(Options::default())));
    }

    #[test]
    fn all_behind_two_dashes_goes_to_cargo() {
        let expected = Options {
            allow_skip: true,
            long: true,
            only: vec![Phase::Tidy, Phase::Tests],
            cargo_args: vec!["-p".into(), "portcullis-oci".into(), "--long".into()],
        };
        let line = "test --allow-skip --only tidy --long --only test -- -p portcullis-oci --long";
        assert_eq!(parsed(line), Ok(Command::Test(expected)));
    }

    #[test]
    fn wrong_words_are_named() {
        for (line, named) in [
            ("", "a command is expected"),
            ("tset", "tset"),
            ("tidy --fix", "--fix"),
            ("test digest", "digest"),
            ("test --only", "--only"),
            ("test --only lint", "packages, fmt, clippy, tidy, test"),
        ] {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
