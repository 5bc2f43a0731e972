//! Bytes of a file that is being written, brought to the disk while more come: the sync at the end has little to do then.
//!
//! It is only ahead of that one, and never in its place: whoever gives the file its name syncs it.

use std::fs::File;
use std::io;
use std::thread::{self, JoinHandle};

/// Without, a pull took as long as its CPU *and* the disk. More often than this only costs flushes.
const STEP: u64 = 16 << 20;

/// The early syncs of one file, one at a time, each on a thread of its own.
#[derive(Debug, Default)]
pub(crate) struct EarlySync {
    /// Bytes written since the last one began.
    waiting: u64,
    running: Option<JoinHandle<io::Result<()>>>,
    has_failed: bool,
}

impl EarlySync {
    /// Notes that so many bytes more were written to `file`, and begins a sync when it is worth one.
    pub(crate) fn wrote(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        self.waiting += bytes;
        if self.waiting < STEP || self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return Ok(());
        }
        self.settle()?;
        // Without another descriptor or thread the sync at the end does it all.
        if let Ok(file) = file.try_clone() {
            self.running = thread::Builder::new().spawn(move || file.sync_data()).ok();
            self.waiting = 0;
        }
        Ok(())
    }

    /// Waits for the one that runs. The file is not to be relied on after an error: the kernel tells once that it has lost
    /// bytes, and a later sync succeeds.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        let ended = match self.running.take().map(JoinHandle::join) {
            _ if self.has_failed => Err(io::Error::other("an earlier sync of it has failed")),
            None => Ok(()),
            Some(Ok(synced)) => synced,
            Some(Err(_)) => Err(io::Error::other("the thread that synced it has panicked")),
        };
        self.has_failed = ended.is_err();
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn a_failure_is_told_again_and_again() {
        // A device that cannot be synced.
        let file = OpenOptions::new().write(true).open("/dev/null").unwrap();
        let mut early = EarlySync::default();
        early.wrote(&file, STEP - 1).unwrap();
        early.settle().unwrap();
        early.wrote(&file, 1).unwrap();
        early.settle().unwrap_err();
        early.settle().unwrap_err();
        early.wrote(&file, STEP).unwrap_err();
    }

    #[test]
    fn a_file_is_synced_again_and_again() {
        let file = tempfile::tempfile().unwrap();
        let mut early = EarlySync::default();
        for _ in 0..3 {
            early.wrote(&file, STEP).unwrap();
            assert!(early.running.is_some() && early.waiting == 0);
            early.settle().unwrap();
        }
    }
}
