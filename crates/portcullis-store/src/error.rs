//! Everything that can go wrong in the store, split by what the caller can do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use portcullis_oci::{Digest, Tag, UploadId};

/// Why the store could not do what it was asked. Absence is never an error: readers answer `None`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A disk call failed. The operation had no effect that anyone may rely on; the store goes on.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as an infinitive: `read`, `write`, `sync`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Another process owns this data directory.
    #[error("{} is in use{}: stop that process, or wait for it with `lock_wait`", path.display(), holder(*.pid, .socket.as_ref()))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, if the file says so.
        pid: Option<u32>,
        /// Where that process listens for commands.
        socket: Option<PathBuf>,
    },
    /// The disk, the quota or the part of it that `reserve` leaves free is used up.
    #[error("no space left in the store: {limit}")]
    NoSpace {
        /// What was reached.
        limit: SpaceLimit,
    },
    /// A sync failed and the probe that would end the read-only state fails too.
    #[error("the store is read-only since a sync failed ({reason}): check the disk and the kernel's log")]
    ReadOnly {
        /// What failed and what the kernel said, with the path.
        reason: String,
        /// What the kernel said, alone.
        cause: String,
    },
    /// A collection runs already: there is one at a time.
    #[error("a garbage collection runs already")]
    Collecting,
    /// No such upload in this repository for this owner.
    #[error("upload {id} is unknown")]
    UploadUnknown {
        /// The upload asked for.
        id: UploadId,
    },
    /// Another request is writing to this upload at the moment.
    #[error("upload {id} is being written by another request")]
    UploadBusy {
        /// The upload asked for.
        id: UploadId,
    },
    /// As many uploads are open as may be.
    #[error("{open} uploads are open, and no more may be: finish or cancel some, or raise `open_uploads`")]
    TooManyUploads {
        /// How many there are.
        open: usize,
    },
    /// A rule keeps the tag, and what it points to, as it is.
    #[error("tag {tag} is immutable by the rule {rule:?} and points to {digest}: it can neither be moved nor deleted")]
    TagImmutable {
        /// The tag.
        tag: Tag,
        /// What it points to.
        digest: Box<Digest>,
        /// The rule, as it is written.
        rule: String,
    },
    /// The blob cannot be taken out of the repository.
    #[error("blob {blob} is used by manifest {manifest} of this repository: delete that first")]
    BlobInUse {
        /// The blob.
        blob: Box<Digest>,
        /// A manifest that names it.
        manifest: Box<Digest>,
    },
    /// The bytes are not those that the digest names. Nothing of them was kept.
    #[error("content has digest {actual}, not {expected}")]
    DigestMismatch {
        /// What the caller named.
        expected: Box<Digest>,
        /// What the bytes have.
        actual: Box<Digest>,
    },
}

impl StoreError {
    /// What the kernel said when a disk call failed, alone: the path says where the data lies, which is not for everybody
    /// who may push. `None` for every other error.
    ///
    /// ```
    /// use portcullis_store::StoreError;
    ///
    /// let source = std::io::Error::from_raw_os_error(5);
    /// let error = StoreError::Io { action: "sync", path: "/srv/data/x".into(), source };
    /// assert_eq!(error.cause().as_deref(), Some("Input/output error (os error 5)"));
    /// ```
    pub fn cause(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } => Some(kernel_text(source)),
            Self::ReadOnly { cause, .. } => Some(cause.clone()),
            _ => None,
        }
    }
}

/// An error of the kernel in its own words; whatever else was put into one may hold a path.
pub(crate) fn kernel_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code).to_string(),
        None => error.kind().to_string(),
    }
}

/// What ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpaceLimit {
    /// The kernel refused a write.
    Disk,
    /// A write would have begun below [`StoreOptions::reserve`](crate::StoreOptions::reserve).
    Reserve {
        /// Bytes free on the disk.
        free: u64,
        /// Bytes that stay free.
        reserve: u64,
    },
}

impl fmt::Display for SpaceLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("the disk or its quota is full"),
            Self::Reserve { free, reserve } => write!(f, "{free} bytes are free and `reserve` keeps {reserve}"),
        }
    }
}

fn holder(pid: Option<u32>, socket: Option<&PathBuf>) -> String {
    let pid = pid.map(|pid| format!(" by process {pid}")).unwrap_or_default();
    let socket = socket.map(|socket| format!(" (socket {})", socket.display())).unwrap_or_default();
    pid + &socket
}
