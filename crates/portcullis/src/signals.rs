//! Signals: SIGTERM and SIGINT stop, SIGHUP reloads.

use portcullis_server::Handle;
use tokio::signal::unix::{SignalKind, signal};

/// Done at the first SIGTERM or SIGINT.
///
/// # Errors
/// The signals cannot be listened to.
pub(crate) fn stopped() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Reloads at each SIGHUP. What is refused is in the log; the generation before stays in force.
///
/// # Errors
/// The signal cannot be listened to.
pub(crate) fn reload_on_hangup(handle: Handle) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let handle = handle.clone();
            // Reads files. The outcome is logged there.
            let _ = tokio::task::spawn_blocking(move || handle.reload()).await;
        }
    });
    Ok(())
}
