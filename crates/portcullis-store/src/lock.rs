//! One process owns a data directory: `flock` on its lock file, which also says who that is.
//!
//! The kernel lets go of the lock when the process ends, however it ends; the text stays and may be stale.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::disk::{Access, Disk};
use crate::durable::Durable;
use crate::error::StoreError;
use crate::layout::LOCK;

const POLL: Duration = Duration::from_millis(50);

/// What the lock file says of its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) boot_id: String,
}

/// The lock, held until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock<F> {
    _file: F,
    /// Who held it before, if the file could be read.
    pub(crate) previous: Option<Holder>,
}

/// Takes the lock, waiting at most `wait` for another process to let go of it.
pub(crate) fn take<D: Disk>(
    durable: &Durable<D>,
    root: &Path,
    holder: &Holder,
    wait: Duration,
) -> Result<Lock<D::File>, StoreError> {
    let disk = durable.disk();
    let deadline = Instant::now() + wait;
    let file = disk.open(LOCK, Access::CreateIfMissing).map_err(durable.fault("open", LOCK))?;
    while !disk.try_lock(&file).map_err(durable.fault("lock", LOCK))? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let holder = read(disk, &file);
            let (pid, socket) = holder.map_or((None, None), |holder| (Some(holder.pid), holder.socket));
            return Err(StoreError::Locked { path: root.join(LOCK), pid, socket });
        }
        thread::sleep(left.min(POLL));
    }
    let previous = read(disk, &file);
    let text = serde_json::to_vec(holder).unwrap_or_default();
    disk.cut(&file, 0).map_err(durable.fault("write", LOCK))?;
    durable.write_at(&file, LOCK, &text, 0)?;
    Ok(Lock { _file: file, previous })
}

/// What the file says; nothing if it is empty, half-written or not ours.
fn read<D: Disk>(disk: &D, file: &D::File) -> Option<Holder> {
    let mut text = [0; 8192];
    let len = disk.read_at(file, &mut text, 0).ok()?;
    serde_json::from_slice(&text[..len]).ok()
}
