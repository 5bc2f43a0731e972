//! Speaking to the server that runs with a home.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use portcullis_server::Config;
use portcullis_server::admin::{self, AdminError, Reloaded};

use crate::home::Home;
use crate::output;

/// Where the server of this home is spoken to.
pub(crate) fn socket(home: &Home) -> anyhow::Result<PathBuf> {
    home.config()?.admin_socket.context("config.toml has admin_socket = \"off\": a running server cannot be asked")
}

/// Runs one question.
pub(crate) fn ask<T>(question: impl Future<Output = Result<T, AdminError>>) -> anyhow::Result<T> {
    Ok(answer(question)??)
}

fn answer<T>(question: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(question))
}

/// After a file was written: puts it in force where a server runs, and says so.
///
/// # Errors
/// The server refused the files, with every problem; they are written all the same.
pub(crate) fn put_in_force(home: &Home) -> anyhow::Result<String> {
    match reloaded(home.config()?.admin_socket.as_deref())? {
        Outcome::Said(text) => Ok(text),
        Outcome::Answered(Reloaded { generation, problems, .. }) if problems.is_empty() => {
            Ok(format!("in force: generation {generation}"))
        }
        Outcome::Answered(Reloaded { generation, problems, .. }) => bail!(
            "written, but not in force: the server refuses the files and stays with generation {generation}\n  {}",
            problems.join("\n  ")
        ),
    }
}

/// The same for a restriction, which is in force even when the rest of the files is refused.
///
/// # Errors
/// The restriction itself is not in force.
pub(crate) fn put_restriction_in_force(config: &Config) -> anyhow::Result<String> {
    match reloaded(config.admin_socket.as_deref())? {
        Outcome::Said(text) => Ok(text),
        Outcome::Answered(Reloaded { generation, problems, deny_in_force: true }) => {
            for problem in problems {
                output::warning(&format!("refused, and not in force: {problem}"));
            }
            Ok(format!("in force: generation {generation}"))
        }
        Outcome::Answered(Reloaded { problems, .. }) => {
            bail!("written, but not in force\n  {}", problems.join("\n  "))
        }
    }
}

enum Outcome {
    Answered(Reloaded),
    /// There is no server to ask.
    Said(String),
}

fn reloaded(socket: Option<&Path>) -> anyhow::Result<Outcome> {
    let Some(socket) = socket else {
        return Ok(Outcome::Said("written; a running server sees it within a second".to_owned()));
    };
    match answer(admin::reload(socket))? {
        Ok(reloaded) => Ok(Outcome::Answered(reloaded)),
        Err(AdminError::NotRunning { .. }) => Ok(Outcome::Said("written; in force at the next start".to_owned())),
        Err(error) => Err(error).context("written, but perhaps not in force"),
    }
}
