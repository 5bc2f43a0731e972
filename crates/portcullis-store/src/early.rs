//! Bytes of a growing file, brought to the disk while more come: the sync at the end then has little to wait for.
//!
//! It is only ahead of that one, and never in its place. A sync that fails here is told once, and the kernel may have
//! dropped what it should have written: whoever hears of it must not rely on the file again.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::disk::Disk;
use crate::durable::Durable;
use crate::error::StoreError;

/// The early syncs of one file, one at a time, each on a thread of its own.
#[derive(Debug, Default)]
pub(crate) struct EarlySync {
    /// Bytes written since the last one began.
    waiting: u64,
    running: Option<JoinHandle<Result<(), StoreError>>>,
}

impl EarlySync {
    /// Notes that so many bytes more were written, and begins a sync when it is worth one. `failed` is called on its thread.
    pub(crate) fn wrote<D: Disk>(
        &mut self,
        bytes: u64,
        durable: &Arc<Durable<D>>,
        (file, path): (&Arc<D::File>, &str),
        failed: impl FnOnce() + Send + 'static,
    ) -> Result<(), StoreError> {
        self.waiting += bytes;
        let is_running = self.running.as_ref().is_some_and(|running| !running.is_finished());
        if self.waiting < durable.disk().early_sync_step() || is_running {
            return Ok(());
        }
        self.settle()?;
        let (durable, file, path) = (Arc::clone(durable), Arc::clone(file), path.to_owned());
        let sync = move || durable.sync_data(&file, &path).inspect_err(|_| failed());
        // Without a thread the sync at the end does it all.
        self.running = thread::Builder::new().name("early sync".to_owned()).spawn(sync).ok();
        self.waiting = 0;
        Ok(())
    }

    /// Waits for the one that runs.
    pub(crate) fn settle(&mut self) -> Result<(), StoreError> {
        match self.running.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(synced)) => synced,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}
