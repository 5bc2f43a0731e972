//! The files of an archive beside the blobs: what makes it an OCI layout, and what makes Docker, Podman and skopeo take it
//! as `docker save`'s. An archive for Docker is both, as Docker's own are since version 25.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use portcullis_oci::{Content, Descriptor, Digest, Manifest, Reference, Tag};
use serde_json::{Value, json};

use super::SAVED;
use super::write::{ArchivePlan, blob_name};
use crate::choice::is_image_config;
use crate::error::ClientError;
use crate::layout::{FULL_NAME, INDEX, MARKER, REF_NAME, VERSION_1, empty_index};

/// An image's name in an archive of Docker's: `app:1`, `registry.test:5443/team/app:1`. Without a tag it is `latest`.
///
/// ```
/// let name: portcullis_client::ArchiveName = "registry.test:5443/team/app".parse()?;
/// assert_eq!(name.to_string(), "registry.test:5443/team/app:latest");
/// # Ok::<(), portcullis_client::ClientError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveName {
    repository: String,
    tag: Tag,
}

impl ArchiveName {
    /// The name that an image has in its registry, if it has a tag there.
    pub fn of(reference: &Reference) -> Option<Self> {
        let tag = crate::transfer::tag_of(reference)?;
        Some(Self { repository: format!("{}/{}", reference.host, reference.repository), tag })
    }

    /// Its tag.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }
}

impl FromStr for ArchiveName {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ClientError::ArchiveName { text: text.to_owned() };
        if let Some(name) = text.parse().ok().as_ref().and_then(Self::of) {
            return Ok(name);
        }
        // A name without a registry is one for Docker; any host will do to look at the rest of it.
        let short: Reference = format!("localhost/{text}").parse().map_err(|_| invalid())?;
        let tag = crate::transfer::tag_of(&short).ok_or_else(invalid)?;
        Ok(Self { repository: short.repository.to_string(), tag })
    }
}

impl fmt::Display for ArchiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

/// What an archive will hold: manifests, the image's own first, and the blobs that are there.
pub(crate) struct Contents<'a> {
    pub(crate) image: &'a Descriptor,
    /// Listed beside the image, without a name.
    pub(crate) referrers: &'a [Descriptor],
    pub(crate) manifests: &'a [(Descriptor, Bytes)],
    pub(crate) blobs: &'a [Descriptor],
}

impl Contents<'_> {
    /// An OCI layout; the image has this tag in it.
    pub(crate) fn oci(&self, tag: Option<&Tag>) -> ArchivePlan {
        let annotations: Vec<(&str, &str)> = tag.iter().map(|tag| (REF_NAME, tag.as_str())).collect();
        let mut plan = ArchivePlan::default();
        self.add_layout(&mut plan, &annotations);
        self.add_content(&mut plan);
        plan
    }

    /// The same with what Docker reads.
    ///
    /// # Errors
    /// [`ClientError::NotForDocker`] when the image is no single one that Docker could run.
    pub(crate) fn docker(&self, name: Option<&ArchiveName>) -> Result<ArchivePlan, ClientError> {
        let refused = |reason| ClientError::NotForDocker { digest: Box::new(self.image.digest), reason };
        let (_, bytes) = self.manifests.first().ok_or_else(|| refused("it has no manifest"))?;
        let parsed = Manifest::parse(bytes, None);
        let manifest =
            parsed.map_err(|source| ClientError::Manifest { name: self.image.digest.to_string(), source })?;
        let Content::Image { config, layers } = &manifest.content else { return Err(refused("it is an index")) };
        if !is_image_config(config) {
            return Err(refused("it is an artifact and no image"));
        }
        let is_there = |blob: &Descriptor| self.blobs.iter().any(|there| there.digest == blob.digest);
        if !layers.iter().all(is_there) {
            return Err(refused("one of its layers is fetched from elsewhere"));
        }
        let full = name.map(ToString::to_string);
        let mut annotations: Vec<(&str, &str)> = full.iter().map(|full| (FULL_NAME, full.as_str())).collect();
        annotations.extend(name.map(|name| (REF_NAME, name.tag().as_str())));
        let mut plan = ArchivePlan::default();
        self.add_layout(&mut plan, &annotations);
        let files: Vec<String> = layers.iter().map(|layer| blob_name(&layer.digest)).collect();
        let row = json!({"Config": blob_name(&config.digest), "RepoTags": full.as_slice(), "Layers": files});
        plan.add_file(SAVED, json!([row]).to_string().into_bytes());
        if let (Some(name), Some(top)) = (name, layers.last()) {
            plan.add_file("repositories", repositories(name, &top.digest).to_string().into_bytes());
        }
        self.add_content(&mut plan);
        Ok(plan)
    }

    fn add_layout(&self, plan: &mut ArchivePlan, annotations: &[(&str, &str)]) {
        let mut image = json!(self.image);
        for (key, value) in annotations {
            image["annotations"][*key] = json!(value);
        }
        let mut index = empty_index();
        let listed = std::iter::once(image).chain(self.referrers.iter().map(|referrer| json!(referrer)));
        index["manifests"] = Value::Array(listed.collect());
        plan.add_file(MARKER, VERSION_1.as_bytes().to_vec());
        plan.add_file(INDEX, index.to_string().into_bytes());
    }

    fn add_content(&self, plan: &mut ArchivePlan) {
        for (descriptor, bytes) in self.manifests {
            plan.add_manifest(&descriptor.digest, bytes.to_vec());
        }
        for blob in self.blobs {
            plan.add_blob(blob);
        }
    }
}

/// What Docker read before version 1.10: it names the top layer.
fn repositories(name: &ArchiveName, top: &Digest) -> Value {
    json!({name.repository.as_str(): {name.tag.as_str(): top.hex()}})
}
