//! Throws away the uploads that nobody goes on with; in read-only mode and while collections are
//! paused none, so that the data can be copied.

use std::sync::Arc;
use std::time::Duration;

use portcullis_store::Store;
use tokio::sync::watch;

use crate::error::Chain;
use crate::gc::Stop;
use crate::generation::Generations;

/// Looks a few times within one `age`, at least once an hour, until `stop` turns true.
pub(crate) async fn run(store: Store, generations: Arc<Generations>, age: Duration, mut stop: watch::Receiver<bool>) {
    let period = (age / 4).clamp(Duration::from_millis(250), Duration::from_hours(1));
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(period) => {}
        }
        if Stop::now(&store, generations.current().mode).is_some() {
            continue;
        }
        let store = store.clone();
        match tokio::task::spawn_blocking(move || store.expire_uploads(age)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(uploads)) => tracing::info!(uploads, "abandoned uploads are thrown away"),
            Ok(Err(error)) => tracing::error!(error = %Chain(&error), "abandoned uploads cannot be thrown away"),
            // The runtime is ending.
            Err(_) => return,
        }
    }
}
