//! The handlers, one file per noun of the API. Each takes the permit that proves its caller may, works on the blocking
//! pool, and answers. Must not know certificates, policies or paths on disk.

pub(crate) mod base;
pub(crate) mod blobs;
pub(crate) mod catalog;
pub(crate) mod manifests;
pub(crate) mod referrers;
pub(crate) mod tags;
pub(crate) mod uploads;

use portcullis_store::{Store, StoreError};

use crate::error::ApiError;

/// Runs one store operation where it may block.
async fn blocking<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let store = store.clone();
    Ok(tokio::task::spawn_blocking(move || work(&store)).await??)
}
