//! An OCI image layout (image-spec v1.1 "image-layout"): `oci-layout`, `index.json`, `blobs/<algorithm>/<hex>`.
//!
//! Source of a push and sink of a pull. All calls block. Every path below the directory is built from a parsed digest or
//! is a constant, so nothing that a registry or an index says can lead out of it. Must not know HTTP.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use portcullis_oci::{Algorithm, Descriptor, Digest, Tag, manifest};
use serde_json::{Map, Value, json};

use crate::error::{BlobFault, ClientError, LayoutFault};
use crate::temporary::{Temporary, sync_directory};

mod write;

pub use write::BlobWriter;
use write::write_whole;

pub(crate) const MARKER: &str = "oci-layout";
pub(crate) const INDEX: &str = "index.json";
pub(crate) const BLOBS: &str = "blobs";

/// All that `oci-layout` ever says.
pub(crate) const VERSION_1: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// The annotation that holds an image's tag (image-spec "annotations").
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation that holds an image's name in full (containerd `images/annotations.go`; `docker save` has it too).
pub(crate) const FULL_NAME: &str = "io.containerd.image.name";

/// The largest `index.json` taken: some ten thousand images.
pub(crate) const MAX_INDEX: u64 = 16 * 1024 * 1024;

/// A layout directory that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutDir {
    root: PathBuf,
}

/// `DIR` or `DIR:TAG`, as typed. The text after the last colon is a tag unless it holds a `/`; a directory with a colon
/// in its name is written with a `/` at its end.
///
/// ```
/// let name: portcullis_client::LayoutName = "out/app:1.2".parse()?;
/// assert_eq!((name.directory.to_str(), name.tag.as_ref().map(|tag| tag.as_str())), (Some("out/app"), Some("1.2")));
/// # Ok::<(), portcullis_client::ClientError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutName {
    /// The directory.
    pub directory: PathBuf,
    /// The image in it.
    pub tag: Option<Tag>,
}

impl std::str::FromStr for LayoutName {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ClientError::LayoutName { text: text.to_owned() };
        let (directory, tag) = match text.rsplit_once(':') {
            Some((directory, tag)) if !tag.contains('/') => (directory, Some(tag.parse().map_err(|_| invalid())?)),
            _ => (text, None),
        };
        if directory.is_empty() {
            return Err(invalid());
        }
        Ok(Self { directory: directory.into(), tag })
    }
}

impl LayoutDir {
    /// Opens a layout.
    ///
    /// # Errors
    /// [`ClientError::Layout`] when `oci-layout` is missing or of another version.
    pub fn open(root: &Path) -> Result<Self, ClientError> {
        let layout = Self { root: root.to_owned() };
        match layout.marker()? {
            Some(()) => Ok(layout),
            None => Err(ClientError::layout(root, LayoutFault::NoMarker)),
        }
    }

    /// Opens a layout, or makes one in a new or empty directory.
    ///
    /// # Errors
    /// [`LayoutFault::NotEmpty`] when the directory holds other things.
    pub fn create(root: &Path) -> Result<Self, ClientError> {
        let layout = Self { root: root.to_owned() };
        fs::create_dir_all(root).map_err(ClientError::io("make", root))?;
        if layout.marker()?.is_some() {
            return Ok(layout);
        }
        let mut entries = fs::read_dir(root).map_err(ClientError::io("read", root))?;
        if entries.next().is_some() {
            return Err(ClientError::layout(root, LayoutFault::NotEmpty));
        }
        let blobs = root.join(BLOBS);
        fs::create_dir_all(&blobs).map_err(ClientError::io("make", &blobs))?;
        write_whole(root, INDEX, empty_index().to_string().as_bytes())?;
        // Last: with it the directory is a layout.
        write_whole(root, MARKER, VERSION_1.as_bytes())?;
        Ok(layout)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The images that `index.json` lists, in its order.
    pub fn images(&self) -> Result<Vec<Descriptor>, ClientError> {
        let index = self.index()?;
        listed_images(&Value::Object(index)).map_err(|error| self.unreadable(INDEX, &error))
    }

    /// The image with this tag; without one, the only image.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTag`] and [`ClientError::TagNeeded`], which list the tags there are.
    pub fn image(&self, tag: Option<&Tag>) -> Result<Descriptor, ClientError> {
        let images = self.images()?;
        let available: Vec<String> = images.iter().filter_map(ref_name).map(str::to_owned).collect();
        let path = || self.root.clone();
        let matching: Vec<&Descriptor> = match tag {
            Some(tag) => images.iter().filter(|image| ref_name(image) == Some(tag.as_str())).collect(),
            None => images.iter().collect(),
        };
        match (matching.as_slice(), tag) {
            // One image under several tags is one image.
            ([image, rest @ ..], _) if rest.iter().all(|other| other.digest == image.digest) => Ok((*image).clone()),
            ([], None) => Err(ClientError::layout(&self.root, LayoutFault::Empty)),
            ([], Some(tag)) => Err(ClientError::NoSuchTag { path: path(), tag: tag.clone(), available }),
            (several, _) => Err(ClientError::TagNeeded { path: path(), count: several.len(), available }),
        }
    }

    /// Lists an image in `index.json`, under a tag or only by its digest. An image that had the tag before loses its
    /// place; everything else in the file stays as it is. Two processes at once wait for each other.
    pub fn set_image(&self, image: &Descriptor, tag: Option<&Tag>) -> Result<(), ClientError> {
        let marker = self.root.join(MARKER);
        // Held until it is dropped at the end.
        let _lock = lock(&marker).map_err(ClientError::io("lock", &marker))?;
        let mut index = self.index()?;
        let mut entry = serde_json::to_value(image).map_err(|error| self.unreadable(INDEX, &error))?;
        if let Some(tag) = tag {
            entry["annotations"][REF_NAME] = json!(tag.as_str());
        }
        let manifests = index.entry("manifests").or_insert(Value::Null);
        let mut images = match manifests.take() {
            Value::Array(images) => images,
            Value::Null => Vec::new(),
            _ => {
                let reason = "`manifests` is not a list".to_owned();
                return Err(ClientError::layout(&self.root, LayoutFault::Unreadable { file: INDEX, reason }));
            }
        };
        images.retain(|listed| !is_replaced(listed, image, tag));
        images.push(entry);
        *manifests = Value::Array(images);
        self.sync_blobs()?;
        write_whole(&self.root, INDEX, Value::Object(index).to_string().as_bytes())
    }

    /// Whether a blob is there with the size that its descriptor says. Its digest was verified when it was written.
    pub fn has_blob(&self, descriptor: &Descriptor) -> bool {
        fs::metadata(self.blob_path(&descriptor.digest))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == descriptor.size)
    }

    /// Opens a blob for reading, after a look at its size.
    ///
    /// # Errors
    /// [`ClientError::LayoutBlob`] when it is missing or has another size.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<File, ClientError> {
        let path = self.blob_path(&descriptor.digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ClientError::blob(&self.root, &descriptor.digest, BlobFault::Missing));
            }
            opened => opened.map_err(ClientError::io("open", &path))?,
        };
        let actual = file.metadata().map_err(ClientError::io("read", &path))?.len();
        if actual != descriptor.size {
            let fault = BlobFault::Size { expected: descriptor.size, actual };
            return Err(ClientError::blob(&self.root, &descriptor.digest, fault));
        }
        Ok(file)
    }

    /// Reads a manifest of at most 4 MiB whole, and verifies it.
    ///
    /// # Errors
    /// [`ClientError::LayoutBlob`] when it is missing or not what its descriptor says.
    pub fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, ClientError> {
        let file = self.open_blob(descriptor)?;
        let path = self.blob_path(&descriptor.digest);
        let mut bytes = Vec::new();
        let limit = manifest::MAX_BYTES as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(ClientError::io("read", &path))?;
        if bytes.len() > manifest::MAX_BYTES {
            let source = portcullis_oci::ManifestError::TooLarge { bytes: bytes.len() };
            return Err(ClientError::Manifest { name: descriptor.digest.to_string(), source });
        }
        if Digest::of(descriptor.digest.algorithm(), &bytes) != descriptor.digest {
            return Err(ClientError::blob(&self.root, &descriptor.digest, BlobFault::Damaged));
        }
        Ok(bytes.into())
    }

    /// Begins to write a blob.
    pub fn create_blob(&self, descriptor: &Descriptor) -> Result<BlobWriter, ClientError> {
        BlobWriter::create(&self.root, &self.blob_path(&descriptor.digest), descriptor)
    }

    /// As [`LayoutDir::has_blob`]; what an earlier attempt has left of a blob that is there goes.
    pub(crate) fn keeps_blob(&self, descriptor: &Descriptor) -> bool {
        let there = self.has_blob(descriptor);
        if there {
            Temporary::remove_part(&self.root, &descriptor.digest);
        }
        there
    }

    /// Goes on with what an earlier attempt has left of a blob, which is read first, for as long as `wanted`, or begins.
    pub(crate) fn resume_blob(
        &self,
        descriptor: &Descriptor,
        wanted: impl Fn() -> bool,
    ) -> Result<BlobWriter, ClientError> {
        BlobWriter::resume(&self.root, &self.blob_path(&descriptor.digest), descriptor, wanted)
    }

    /// Writes a small blob, a manifest, whole.
    pub fn put_blob(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), ClientError> {
        let mut writer = self.create_blob(descriptor)?;
        writer.write(bytes)?;
        writer.commit()
    }

    /// `blobs/<algorithm>/<hex>` of a blob, whether or not it is there.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(BLOBS).join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// `None` when there is no marker.
    fn marker(&self) -> Result<Option<()>, ClientError> {
        let path = self.root.join(MARKER);
        let bytes = match read_bounded(&path, 4096) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(ClientError::io("read", &path))?,
        };
        check_version(&bytes).map(Some).map_err(|fault| ClientError::layout(&self.root, fault))
    }

    fn index(&self) -> Result<Map<String, Value>, ClientError> {
        let path = self.root.join(INDEX);
        let bytes = match read_bounded(&path, MAX_INDEX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty_index_map()),
            read => read.map_err(ClientError::io("read", &path))?,
        };
        serde_json::from_slice(&bytes).map_err(|error| self.unreadable(INDEX, &error))
    }

    /// The names of the blobs are durable before the index speaks of them.
    fn sync_blobs(&self) -> Result<(), ClientError> {
        let blobs = self.root.join(BLOBS);
        for directory in Algorithm::ALL.map(|algorithm| blobs.join(algorithm.as_str())) {
            if directory.exists() {
                sync_directory(&directory)?;
            }
        }
        sync_directory(&blobs)
    }

    fn unreadable(&self, file: &'static str, error: &serde_json::Error) -> ClientError {
        ClientError::layout(&self.root, LayoutFault::Unreadable { file, reason: error.to_string() })
    }
}

/// The version that `oci-layout` states must be the one there is.
pub(crate) fn check_version(marker: &[u8]) -> Result<(), LayoutFault> {
    let unreadable = |error: serde_json::Error| LayoutFault::Unreadable { file: MARKER, reason: error.to_string() };
    let marker: Value = serde_json::from_slice(marker).map_err(unreadable)?;
    // image-spec 1.1 still writes 1.0.0; nothing else was ever defined.
    match marker.get("imageLayoutVersion").and_then(Value::as_str) {
        Some("1.0.0") => Ok(()),
        version => Err(LayoutFault::Version { version: version.unwrap_or_default().to_owned() }),
    }
}

/// What an `index.json` lists. Go writes an empty list as null.
pub(crate) fn listed_images(index: &Value) -> Result<Vec<Descriptor>, serde_json::Error> {
    let manifests = index.get("manifests").cloned().unwrap_or(Value::Null);
    let images: Option<Vec<Descriptor>> = serde_json::from_value(manifests)?;
    Ok(images.unwrap_or_default())
}

/// What an image of a layout is called: its tag, and the name in full that Docker and containerd add.
pub(crate) fn names_of(image: &Descriptor) -> Vec<String> {
    [FULL_NAME, REF_NAME].iter().filter_map(|key| image.annotations.get(*key).cloned()).collect()
}

/// The tag that an image has in a layout.
fn ref_name(image: &Descriptor) -> Option<&str> {
    image.annotations.get(REF_NAME).map(String::as_str)
}

/// Whether an entry of the index gives way to `image`: it has its tag, or is the same and has no name at all.
fn is_replaced(listed: &Value, image: &Descriptor, tag: Option<&Tag>) -> bool {
    let name = listed.get("annotations").and_then(|annotations| annotations.get(REF_NAME)).and_then(Value::as_str);
    let same = listed.get("digest").and_then(Value::as_str) == Some(image.digest.to_string().as_str());
    match (name, tag) {
        (Some(name), Some(tag)) => name == tag.as_str(),
        (None, _) => same,
        (Some(_), None) => false,
    }
}

pub(crate) fn empty_index() -> Value {
    Value::Object(empty_index_map())
}

fn empty_index_map() -> Map<String, Value> {
    let fields = [
        ("schemaVersion", json!(2)),
        ("mediaType", json!(portcullis_oci::media::OCI_IMAGE_INDEX)),
        ("manifests", json!([])),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// One writer of an index at a time. It takes milliseconds, so whoever holds the lock for longer hangs.
pub(crate) fn lock(marker: &Path) -> io::Result<File> {
    const PAUSE: Duration = Duration::from_millis(50);
    const ATTEMPTS: u32 = 600;
    let file = File::open(marker)?;
    for _ in 0..ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "another process has held it for 30 seconds"))
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
