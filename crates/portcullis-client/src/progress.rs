//! What happens during a pull, push or copy, as events. Who draws them, or whether, is the caller's business.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use portcullis_oci::{Digest, Tag};

/// Something happened. Digests tell blobs apart: up to four are under way at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A manifest was received or sent, whole.
    Manifest {
        /// Its digest.
        digest: Digest,
        /// Its media type, as the manifest has it (a peer's text).
        media_type: String,
        /// Its size in bytes.
        size: u64,
    },
    /// All blobs of the image are known.
    Planned {
        /// How many there are.
        blobs: usize,
        /// Their bytes in all.
        bytes: u64,
    },
    /// A blob's transfer begins, or begins anew: what moved of it before does not count.
    BlobStarted {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// The transfer of a blob that has just begun goes on where an earlier attempt has stopped.
    BlobResumed {
        /// The blob.
        digest: Digest,
        /// How many of its bytes need not move again.
        bytes: u64,
    },
    /// More of a blob went over the wire.
    BlobAdvanced {
        /// The blob.
        digest: Digest,
        /// How many bytes since the last event about it.
        bytes: u64,
    },
    /// A blob is there, whole and verified.
    BlobFinished {
        /// The blob.
        digest: Digest,
    },
    /// The other side had the blob already.
    BlobExists {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// The target took the blob over from another of its repositories; nothing was sent.
    BlobMounted {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A layer that is fetched from elsewhere (`urls`) and that this side does not have.
    BlobForeign {
        /// The blob.
        digest: Digest,
    },
    /// A request is repeated, or a blob goes on, after a pause.
    Retrying {
        /// Which request, for a person.
        request: String,
        /// Why, for a person; may hold a peer's text, escaped.
        reason: String,
        /// How long from now.
        pause: Duration,
    },
    /// The image has its name.
    Tagged {
        /// The name; `None` when it has none but its digest.
        tag: Option<Tag>,
        /// The manifest or index it stands for.
        digest: Digest,
    },
}

/// Where events go. Called from several tasks; must return at once.
#[derive(Clone)]
pub struct Progress(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl Progress {
    /// Hands every event to `sink`.
    ///
    /// ```
    /// let (sender, events) = std::sync::mpsc::channel();
    /// let progress = portcullis_client::Progress::new(move |event| drop(sender.send(event)));
    /// # drop((progress, events));
    /// ```
    pub fn new(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(sink)))
    }

    /// Nobody listens.
    pub const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn tell(&self, event: Event) {
        if let Some(sink) = &self.0 {
            sink(event);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Progress").field(&self.0.is_some()).finish()
    }
}
