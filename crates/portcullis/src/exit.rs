//! The exit codes and what they mean. Scripts rely on them: they do not change.

use std::process::ExitCode;

use portcullis_client::ClientError;

/// It failed; nothing further is known.
const FAILED: u8 = 1;
/// The words, or a configuration file, were wrong.
pub(crate) const USAGE: u8 = 2;
/// The peer refused us.
const REFUSED: u8 = 3;

/// The check found something.
const FOUND: u8 = 4;

/// What a check found, in short: the report itself is the result, and was printed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Found(pub(crate) String);

/// What a peer that lets us in under no identity has been found to do: the report was printed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

/// A configuration file that cannot be used: wrong usage, not a failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misconfigured(pub(crate) String);

/// A signal ended the command; what was begun is taken back or can be gone on with.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: {hint}")]
pub(crate) struct Interrupted {
    /// 2 or 15; shells say 128 and the signal's number.
    pub(crate) signal: u8,
    /// How to go on.
    pub(crate) hint: &'static str,
}

/// 0 done; 1 failed; 2 wrong usage or configuration; 3 the peer refused us; 4 the check found something; 130 and
/// 143 interrupted by SIGINT and SIGTERM.
pub(crate) fn code_of(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<Misconfigured>().is_some() {
        return ExitCode::from(USAGE);
    }
    if error.downcast_ref::<Found>().is_some() {
        return ExitCode::from(FOUND);
    }
    if error.downcast_ref::<Refused>().is_some() {
        return ExitCode::from(REFUSED);
    }
    if let Some(Interrupted { signal, .. }) = error.downcast_ref() {
        return ExitCode::from(128 + signal);
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Hosts { .. }) => ExitCode::from(USAGE),
        Some(error) if error.is_refusal() => ExitCode::from(REFUSED),
        _ => ExitCode::from(FAILED),
    }
}
