//! Speaking to the server that runs with a home.

use std::path::PathBuf;

use anyhow::{Context, bail};
use portcullis_server::admin::{self, AdminError, Reloaded};

use crate::home::Home;

/// Where the server of this home is spoken to.
pub(crate) fn socket(home: &Home) -> anyhow::Result<PathBuf> {
    home.config()?.admin_socket.context("config.toml has admin_socket = \"off\": a running server cannot be asked")
}

/// Runs one question.
pub(crate) fn ask<T>(question: impl Future<Output = Result<T, AdminError>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(question)?)
}

/// After a file was written: puts it in force where a server runs, and says so.
///
/// # Errors
/// The server refused the files, with every problem; they are written all the same.
pub(crate) fn put_in_force(home: &Home) -> anyhow::Result<String> {
    let Some(socket) = home.config()?.admin_socket else {
        return Ok("written; a running server reads it at SIGHUP or at its next start".to_owned());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(admin::reload(&socket)) {
        Ok(Reloaded { generation, problems }) if problems.is_empty() => {
            Ok(format!("in force: generation {generation}"))
        }
        Ok(Reloaded { generation, problems }) => {
            bail!(
                "written, but not in force: the server refuses the files and stays with generation {generation}\n  {}",
                problems.join("\n  ")
            )
        }
        Err(AdminError::NotRunning { .. }) => Ok("written; in force at the next start".to_owned()),
        Err(error) => Err(error).context("written, but perhaps not in force"),
    }
}
