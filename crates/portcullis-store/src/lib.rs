//! Content-addressed storage in CNCF Distribution's layout, durable. Knows no HTTP, TLS or identity.
//!
//! A volume of `registry:2` or `registry:3` opens as it is, and can go back. Every call blocks: an async server makes
//! them on its blocking pool. What is acknowledged is durable, and what is absent or damaged reads as `None`.
//!
//! [`Store`] is the way in: [blobs](Store::open_blob), [uploads](Store::start_upload),
//! [manifests](Store::put_manifest), [tags](Store::tags).

mod store;

mod blob;
mod collect;
mod commit;
pub mod fsck;
mod immutable;
mod journal;
mod manifest;
mod pause;
mod promise;
mod referrers;
mod tag;
mod upload;
mod users;

mod at_hand;
mod backend;
mod durable;
mod early;
mod layout;
mod legacy;
mod link;
mod local;
mod lock;
mod lru;
mod tag_names;

mod disk;

mod error;

#[cfg(test)]
mod tests;

pub use blob::Blob;
pub use collect::{Collected, Collection, Held, Listed, Obstacle, Removal, Tally};
pub use error::{SpaceLimit, StoreError};
pub use immutable::ImmutableTags;
pub use manifest::StoredManifest;
pub use referrers::{ReferrersPage, ReferrersQuery};
pub use store::{Health, Putting, Store, StoreOptions};
pub use upload::Upload;
