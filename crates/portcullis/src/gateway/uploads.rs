//! The uploads under way: for each the name that the gateway gave it, and where the registry wants it to go on. Where
//! that is, is the registry's business (distribution spec end-4a: "the location MUST NOT be assembled by the client"), and
//! so no word of an upload's address that comes from a program on this machine is ever sent on.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_client::UploadLocation;
use portcullis_oci::{RepositoryName, UploadId};
use uuid::Uuid;

/// So many are remembered; past it the one goes that was left alone for longest.
const MAX: usize = 1024;
/// After so much time without a request an upload is forgotten, as registries do.
const LIFE: Duration = Duration::from_hours(24);

#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<HashMap<UploadId, Upload>>);

#[derive(Debug)]
struct Upload {
    repository: RepositoryName,
    location: UploadLocation,
    used: Instant,
}

impl Uploads {
    /// A name for a new upload.
    pub(super) fn begin(&self, repository: &RepositoryName, location: UploadLocation) -> UploadId {
        let id = UploadId::from_bytes(*Uuid::new_v4().as_bytes());
        let now = Instant::now();
        let mut uploads = self.lock();
        uploads.retain(|_, upload| now.duration_since(upload.used) < LIFE);
        if uploads.len() >= MAX {
            let oldest = uploads.iter().min_by_key(|(_, upload)| upload.used).map(|(id, _)| *id);
            oldest.and_then(|id| uploads.remove(&id));
        }
        uploads.insert(id, Upload { repository: repository.clone(), location, used: now });
        id
    }

    /// Where this upload of this repository goes on.
    pub(super) fn find(&self, repository: &RepositoryName, id: &UploadId) -> Option<UploadLocation> {
        let mut uploads = self.lock();
        let upload = uploads.get_mut(id).filter(|upload| upload.repository == *repository)?;
        upload.used = Instant::now();
        Some(upload.location.clone())
    }

    /// The registry's latest word on it.
    pub(super) fn moved(&self, id: &UploadId, location: UploadLocation) {
        if let Some(upload) = self.lock().get_mut(id) {
            upload.location = location;
        }
    }

    /// It is finished or given up.
    pub(super) fn end(&self, id: &UploadId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadId, Upload>> {
        // The map is whole after every single call on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
