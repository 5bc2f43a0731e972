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
/// The signal cannot be listened to, or no thread be started.
pub(crate) fn reload_on_hangup(handle: Handle) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (ask, asked) = std::sync::mpsc::channel();
    // Not one of the runtime's: those may all wait for a disk.
    std::thread::Builder::new().name("hangup".to_owned()).spawn(move || {
        for () in asked {
            // The outcome is logged there.
            let _ = handle.reload();
        }
    })?;
    tokio::spawn(async move { while hangup.recv().await.is_some() && ask.send(()).is_ok() {} });
    Ok(())
}
