//! Which images of an index a transfer takes: all, or the one for a machine. Must not know where manifests come from.

use portcullis_oci::{Content, Descriptor, Manifest, PlatformChoice, media};
use serde::Deserialize;

use crate::ClientError;
use crate::transfer::{MAX_DEPTH, PARALLEL};

/// What a transfer takes, and how much of it at a time.
///
/// ```
/// use portcullis_client::{Platforms, TransferOptions};
///
/// let options = TransferOptions { platforms: Platforms::One("linux/arm64".parse()?), ..TransferOptions::default() };
/// assert_eq!(options.parallel, portcullis_client::PARALLEL);
/// # Ok::<(), portcullis_oci::InvalidPlatform>(())
/// ```
#[derive(Clone, Debug)]
pub struct TransferOptions {
    /// Which images of an index; all by default.
    pub platforms: Platforms,
    /// Whether signatures and the like go along; they do not by default.
    pub referrers: Referrers,
    /// How many blobs are under way at a time, 1 at least; [`crate::PARALLEL`] by default.
    pub parallel: usize,
}

/// Which images of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Platforms {
    /// The index itself, with everything it lists.
    #[default]
    All,
    /// The image for this machine; an image that is not in an index must be for it too.
    One(PlatformChoice),
    /// As `One`, and an image that is not in an index is taken whatever it is for.
    Preferred(PlatformChoice),
}

/// Manifests that have one of the transferred ones for their subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Referrers {
    /// They stay where they are.
    #[default]
    Left,
    /// They go along, and so do their own.
    Taken,
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self { platforms: Platforms::All, referrers: Referrers::Left, parallel: PARALLEL }
    }
}

/// What to do with a manifest that is to stand for the image.
pub(crate) enum Step {
    /// It is the one.
    Take,
    /// This child of it is.
    Descend(Descriptor),
    /// It is the one if its config says so.
    Ask(Descriptor),
}

impl Platforms {
    /// Where to go from `manifest`, which was met at `depth`.
    pub(crate) fn step(&self, manifest: &Manifest, depth: usize) -> Result<Step, ClientError> {
        let (Self::One(choice) | Self::Preferred(choice)) = self else { return Ok(Step::Take) };
        match &manifest.content {
            Content::Index { manifests } => {
                let offered = || manifests.iter().filter_map(|child| Some((child.platform.as_ref()?, child)));
                if let Some(child) = choice.best(offered()).filter(|_| depth < MAX_DEPTH) {
                    return Ok(Step::Descend(child.clone()));
                }
                let available = offered().map(|(platform, _)| platform.to_string()).collect();
                Err(ClientError::NoPlatform { wanted: choice.to_string(), available })
            }
            Content::Image { config, .. } if matches!(self, Self::One(_)) && is_image_config(config) => {
                Ok(Step::Ask(config.clone()))
            }
            Content::Image { .. } | Content::Schema1 { .. } => Ok(Step::Take),
        }
    }

    /// Whether an image with this config is for the machine.
    pub(crate) fn check_config(&self, config: &[u8]) -> Result<(), ClientError> {
        let Self::One(choice) = self else { return Ok(()) };
        let available = match serde_json::from_slice::<Machine>(config) {
            Ok(Machine(platform)) if choice.rank(&platform).is_some() => return Ok(()),
            Ok(Machine(platform)) => vec![platform.to_string()],
            Err(_) => Vec::new(),
        };
        Err(ClientError::NoPlatform { wanted: choice.to_string(), available })
    }
}

/// A config says what it is for in the same words as an index.
#[derive(Deserialize)]
#[serde(transparent)]
struct Machine(portcullis_oci::Platform);

/// An artifact's config says nothing about machines.
pub(crate) fn is_image_config(config: &Descriptor) -> bool {
    [media::OCI_IMAGE_CONFIG, media::DOCKER_IMAGE_CONFIG].contains(&media::essence(&config.media_type))
}
