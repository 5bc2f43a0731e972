//! Where everything lies: the only code that spells a path or a key of the store.
//!
//! ```text
//! <data>/docker/registry/v2/                        CNCF Distribution's own tree, 0755 and 0644
//!   blobs/<algorithm>/<first two hex>/<hex>/data
//!   repositories/<name>/
//!     _layers/<algorithm>/<hex>/link
//!     _manifests/revisions/<algorithm>/<hex>/link
//!     _manifests/tags/<tag>/current/link            (Distribution also has index/ beside current/: never written here)
//! <data>/portcullis/                                ours, 0700
//!   lock                                            who owns the directory: flock, and JSON for people
//!   damaged/<algorithm>/<hex>                       bytes that did not have their digest, for a person to look at
//!   tmp/                                            emptied at every start
//!   uploads/<uuid>/data                             the bytes so far
//!   uploads/<uuid>/state                            JSON: whose it is, and how far it got
//!   gc/pause                                        until when nothing is collected, in seconds since 1970
//!   trash/<seconds since 1970>/<algorithm>-<hex>    blobs that were collected then, kept for a while
//! ```
//!
//! A link holds the digest as text, `sha256:…`, with no newline. Must not know how anything is read or written.

use portcullis_oci::{Algorithm, Digest, RepositoryName, Tag, UploadId};

/// The file that is locked by the process that owns the directory.
pub(crate) const LOCK: &str = "portcullis/lock";
/// Temporaries of every kind.
pub(crate) const TMP: &str = "portcullis/tmp";
/// One directory for each open upload.
pub(crate) const UPLOADS: &str = "portcullis/uploads";
/// One directory for each second in which blobs were retired.
pub(crate) const TRASH: &str = "portcullis/trash";

const OURS: &str = "portcullis";
const BLOBS: &str = "docker/registry/v2/blobs";
const REPOSITORIES: &str = "docker/registry/v2/repositories";

/// The longest link that is read: a sha512 digest has 135 bytes.
pub(crate) const MAX_LINK_BYTES: u64 = 256;

/// The name of one stored object: a path relative to `<data>`, or a key in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(String);

/// A place that holds objects, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefix(String);

impl Key {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Prefix {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that was listed in this place, as a place.
    pub(crate) fn below(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0))
    }
}

pub(crate) fn blob_data(digest: &Digest) -> Key {
    let hex = digest.hex();
    Key([BLOBS, "/", digest.algorithm().as_str(), "/", &hex[..2], "/", &hex, "/data"].concat())
}

/// Two hex digits for each part of the blobs of one algorithm.
pub(crate) fn blobs(algorithm: Algorithm) -> Prefix {
    Prefix(format!("{BLOBS}/{algorithm}"))
}

/// All blobs and manifests of one algorithm whose hex digits begin with these two: their names are the hex digits.
pub(crate) fn blobs_that_begin_with(algorithm: Algorithm, digits: u8) -> Prefix {
    Prefix(format!("{BLOBS}/{algorithm}/{digits:02x}"))
}

/// Where a check of the store moves bytes that do not have the digest they lay under.
pub(crate) fn damaged(digest: &Digest) -> Key {
    Key(format!("{OURS}/damaged/{}/{}", digest.algorithm(), digest.hex()))
}

pub(crate) fn layer_link(repository: &RepositoryName, digest: &Digest) -> Key {
    link_of_digest(repository, "_layers", digest)
}

/// The same for a digest as a manifest names it, of an algorithm that may not be known here. `None`: it is no digest
/// (image-spec "Digests") whose parts could be directories.
pub(crate) fn layer_link_of(repository: &RepositoryName, digest: &str) -> Option<Key> {
    let (algorithm, hex) = digest.split_once(':')?;
    let is_part = |text: &str| (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_part(algorithm) && is_part(hex))
        .then(|| Key(format!("{REPOSITORIES}/{repository}/_layers/{algorithm}/{hex}/link")))
}

/// The hex names of a repository's blobs of one algorithm.
pub(crate) fn layers(repository: &RepositoryName, algorithm: Algorithm) -> Prefix {
    Prefix(format!("{REPOSITORIES}/{repository}/_layers/{algorithm}"))
}

/// Where a repository's links lie by algorithm.
pub(crate) fn algorithms(repository: &RepositoryName) -> [Prefix; 2] {
    ["_layers", "_manifests/revisions"].map(|place| Prefix(format!("{REPOSITORIES}/{repository}/{place}")))
}

pub(crate) fn revision_link(repository: &RepositoryName, digest: &Digest) -> Key {
    link_of_digest(repository, "_manifests/revisions", digest)
}

/// The hex names of a repository's manifests of one algorithm.
pub(crate) fn revisions(repository: &RepositoryName, algorithm: Algorithm) -> Prefix {
    Prefix(format!("{REPOSITORIES}/{repository}/_manifests/revisions/{algorithm}"))
}

pub(crate) fn tag_link(repository: &RepositoryName, tag: &Tag) -> Key {
    Key([REPOSITORIES, "/", repository.as_str(), "/_manifests/tags/", tag.as_str(), "/current/link"].concat())
}

/// All of one tag: `current/` and whatever `index/` Distribution has left beside it.
pub(crate) fn tag(repository: &RepositoryName, tag: &Tag) -> Prefix {
    Prefix(format!("{REPOSITORIES}/{repository}/_manifests/tags/{tag}"))
}

pub(crate) fn tags(repository: &RepositoryName) -> Prefix {
    Prefix(format!("{REPOSITORIES}/{repository}/_manifests/tags"))
}

/// The places of which at least one holds something when the repository exists.
pub(crate) fn marks_of_repository(repository: &RepositoryName) -> [Prefix; 2] {
    ["_manifests", "_layers"].map(|mark| Prefix(format!("{REPOSITORIES}/{repository}/{mark}")))
}

/// Whether a listed name is the very name that lies there: bytes that are no UTF-8 are listed with U+FFFD in their
/// place, which nothing of the store's ever has.
pub(crate) fn is_spelled(name: &str) -> bool {
    !name.contains(char::REPLACEMENT_CHARACTER)
}

/// Whether a directory of a repository is its own, and not another repository below it.
pub(crate) fn is_part_of_repository(name: &str) -> bool {
    matches!(name, "_layers" | "_manifests" | "_uploads")
}

/// What lies below some leading components of repository names; the empty path is the root of them all.
pub(crate) fn repositories_below(path: &str) -> Prefix {
    if path.is_empty() { Prefix(REPOSITORIES.to_owned()) } else { Prefix(format!("{REPOSITORIES}/{path}")) }
}

/// The time until which nothing is collected.
pub(crate) fn pause() -> Key {
    Key(format!("{OURS}/gc/pause"))
}

pub(crate) fn upload(id: &UploadId) -> String {
    format!("{UPLOADS}/{id}")
}

/// The bytes of an upload whose directory is `upload`, wherever that has been moved.
pub(crate) fn upload_data(upload: &str) -> String {
    format!("{upload}/data")
}

/// The state beside them.
pub(crate) fn upload_state(upload: &str) -> String {
    format!("{upload}/state")
}

/// Where what was retired at one time lies.
pub(crate) fn trash(seconds: u64) -> String {
    format!("{TRASH}/{seconds}")
}

/// Where the data of a blob lies after it was retired. The time is in the name, and so in the one rename: a
/// modification time would have to be synced, or a power cut could make everything in the trash look old.
pub(crate) fn retired(blob_data: &Key, seconds: u64) -> String {
    let mut above = blob_data.0.rsplit('/').skip(1);
    let (hex, algorithm) = (above.next().unwrap_or_default(), above.nth(1).unwrap_or_default());
    format!("{}/{algorithm}-{hex}", trash(seconds))
}

/// A temporary: `number` is used once in the life of a process.
pub(crate) fn temporary(number: u64) -> String {
    format!("{TMP}/{number}")
}

/// Written for nearly every request: without formatting.
fn link_of_digest(repository: &RepositoryName, place: &str, digest: &Digest) -> Key {
    let (algorithm, hex) = (digest.algorithm().as_str(), digest.hex());
    Key([REPOSITORIES, "/", repository.as_str(), "/", place, "/", algorithm, "/", &hex, "/link"].concat())
}

/// The mode a directory is made with.
pub(crate) fn directory_mode(path: &str) -> u32 {
    if path == OURS || path.starts_with("portcullis/") { 0o700 } else { 0o755 }
}

/// The directory that holds `path`; the data directory itself is the empty path.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_distribution() {
        let repository: RepositoryName = "team/app".parse().unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"");
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(blob_data(&digest).as_str(), format!("docker/registry/v2/blobs/sha256/e3/{hex}/data"));
        assert_eq!(
            layer_link(&repository, &digest).as_str(),
            format!("docker/registry/v2/repositories/team/app/_layers/sha256/{hex}/link")
        );
        assert_eq!(
            revision_link(&repository, &digest).as_str(),
            format!("docker/registry/v2/repositories/team/app/_manifests/revisions/sha256/{hex}/link")
        );
        assert_eq!(
            tag_link(&repository, &"1.0".parse().unwrap()).as_str(),
            "docker/registry/v2/repositories/team/app/_manifests/tags/1.0/current/link"
        );
    }

    #[test]
    fn a_retired_blob_is_named_by_its_digest_and_the_time() {
        let digest = Digest::of(Algorithm::Sha512, b"");
        let retired = retired(&blob_data(&digest), 1_764_000_000);
        assert_eq!(retired, format!("portcullis/trash/1764000000/sha512-{}", digest.hex()));
    }

    #[test]
    fn only_our_own_directories_are_private() {
        for ours in ["portcullis", TMP, UPLOADS, TRASH] {
            assert_eq!(directory_mode(ours), 0o700, "{ours}");
        }
        for theirs in ["docker", BLOBS, "docker/registry/v2/repositories/portcullis"] {
            assert_eq!(directory_mode(theirs), 0o755, "{theirs}");
        }
    }

    #[test]
    fn the_parent_of_a_top_directory_is_the_data_directory() {
        assert_eq!(parent("docker"), "");
        assert_eq!(parent(LOCK), "portcullis");
    }
}
