//! From the manifest that a reference stands for to the one that is wanted of it: the image for one machine, where only
//! that is asked for. Must not know what becomes of it.

use bytes::BytesMut;
use portcullis_oci::{Descriptor, ManifestReference, RepositoryName, manifest};

use crate::choice::{Platforms, Step};
use crate::error::ProtocolFault;
use crate::manifests::FetchedManifest;
use crate::progress::Progress;
use crate::{Client, ClientError};

/// Goes down from `root` in a registry.
pub(crate) async fn select(
    client: &Client,
    repository: &RepositoryName,
    root: FetchedManifest,
    platforms: &Platforms,
    progress: &Progress,
) -> Result<FetchedManifest, ClientError> {
    let mut image = root;
    for depth in 0.. {
        match platforms.step(&image.manifest, depth)? {
            Step::Take => break,
            Step::Descend(child) => {
                let reference = ManifestReference::Digest(child.digest);
                image = client.manifest_telling(repository, &reference, progress).await?;
            }
            Step::Ask(config) => {
                platforms.check_config(&small_blob(client, repository, &config).await?)?;
                break;
            }
        }
    }
    Ok(image)
}

/// A config, whole and verified.
pub(crate) async fn small_blob(
    client: &Client,
    repository: &RepositoryName,
    blob: &Descriptor,
) -> Result<BytesMut, ClientError> {
    if blob.size > manifest::MAX_BYTES as u64 {
        return Err(ClientError::Protocol {
            host: client.host().clone(),
            request: format!("GET of config {}", blob.digest),
            fault: ProtocolFault::TooLong { limit: manifest::MAX_BYTES as u64 },
        });
    }
    let mut reader = client.blob(repository, blob, &Progress::none()).await?;
    let mut bytes = BytesMut::new();
    while let Some(piece) = reader.chunk().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
