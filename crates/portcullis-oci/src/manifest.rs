//! Manifests: of which kind one is, and which digests it names.
//!
//! The bytes themselves are never rewritten: a manifest is stored and sent as it came, and this module reads the few
//! fields that a registry must understand. Must not know where a manifest is stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Digest, media};

/// The largest manifest taken, in bytes (the spec asks registries to take at least 4 MiB).
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// What a registry understands of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The body's `mediaType`, or the one that follows from its fields.
    pub media_type: String,
    /// The body's `artifactType`.
    pub artifact_type: Option<String>,
    /// The manifest that this one refers to.
    pub subject: Option<Descriptor>,
    /// The annotations of the manifest itself.
    pub annotations: BTreeMap<String, String>,
    /// What it names.
    pub content: Content,
}

/// The digests that a manifest names, by role.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one lives per request, none is kept in bulk")]
pub enum Content {
    /// One image or artifact.
    Image {
        /// The configuration.
        config: Descriptor,
        /// The layers, from the base up.
        layers: Vec<Descriptor>,
    },
    /// A list of manifests.
    Index {
        /// The manifests listed.
        manifests: Vec<Descriptor>,
    },
    /// Docker's schema 1: understood so that what it names stays alive.
    Schema1 {
        /// The layers named by `fsLayers`.
        layers: Vec<Digest>,
    },
}

/// A descriptor (image-spec "OCI Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of what is described.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where else it can be fetched from; a layer with urls need not be in the registry.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations of the descriptor.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// For which machine it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The type of the artifact described.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The content itself, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// A platform (image-spec "Image Index", `platform`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// GOARCH; empty where it is not said, as Go's readers have it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub architecture: String,
    /// GOOS; empty where it is not said.
    #[serde(default, deserialize_with = "null_as_default")]
    pub os: String,
    /// The variant of the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The version of the operating system.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// What the operating system must have, such as `win32k`.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
}

/// Why bytes are no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Larger than [`MAX_BYTES`].
    #[error("manifest has {bytes} bytes, at most {MAX_BYTES} are taken")]
    TooLarge {
        /// The size given.
        bytes: usize,
    },
    /// Not JSON, or a field of the wrong form.
    #[error("manifest is not readable: {0}")]
    Json(#[from] serde_json::Error),
    /// `schemaVersion` is neither 2 nor, with `fsLayers`, 1.
    #[error("manifest has schemaVersion {version:?}, 2 is expected")]
    SchemaVersion {
        /// The version given, if any.
        version: Option<u64>,
    },
    /// Neither an image nor an index, or both (CVE-2021-41190: one body, two readings).
    #[error("manifest must have either `config` and `layers` or `manifests`")]
    Ambiguous,
    /// The body's `mediaType` says something else than its fields.
    #[error("manifest says it is {media_type}, its fields say otherwise")]
    WrongFields {
        /// The body's `mediaType`.
        media_type: String,
    },
    /// The request's `Content-Type` is not the manifest's type.
    #[error("manifest is {media_type}, Content-Type says {content_type}")]
    ContentType {
        /// The manifest's type.
        media_type: String,
        /// The header.
        content_type: String,
    },
}

impl Manifest {
    /// Reads a manifest. `content_type` is the request's header where there is one: it must agree with the body.
    ///
    /// The type is the body's `mediaType`; where that is absent, an OCI index if there is `manifests` and an OCI image
    /// manifest if there is `config` or `layers`.
    ///
    /// # Errors
    /// Every way in which two readers could take the bytes for different things is an error.
    ///
    /// ```
    /// use portcullis_oci::{Content, Manifest};
    ///
    /// let manifest = Manifest::parse(br#"{"schemaVersion":2,"manifests":[]}"#, None)?;
    /// assert_eq!(manifest.media_type, "application/vnd.oci.image.index.v1+json");
    /// # Ok::<(), portcullis_oci::ManifestError>(())
    /// ```
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_BYTES {
            return Err(ManifestError::TooLarge { bytes: bytes.len() });
        }
        let raw: RawManifest = serde_json::from_slice(bytes)?;
        let manifest = raw.check()?;
        match content_type.map(media::essence) {
            Some(header) if !header.eq_ignore_ascii_case(&manifest.media_type) => {
                Err(ManifestError::ContentType { media_type: manifest.media_type, content_type: header.to_owned() })
            }
            _ => Ok(manifest),
        }
    }

    /// The blobs that must be in the repository before the manifest: config and layers, without those that say where
    /// else they are.
    pub fn required_blobs(&self) -> Vec<Digest> {
        match &self.content {
            Content::Schema1 { layers } => layers.clone(),
            Content::Image { .. } | Content::Index { .. } => {
                self.required_descriptors().map(|descriptor| descriptor.digest).collect()
            }
        }
    }

    /// The same with what is said of them. None for schema 1, which says nothing.
    pub fn required_descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, layers) = match &self.content {
            Content::Image { config, layers } => (Some(config), layers.as_slice()),
            Content::Index { .. } | Content::Schema1 { .. } => (None, &[][..]),
        };
        config.into_iter().chain(layers.iter().filter(|layer| layer.urls.is_empty()))
    }

    /// The manifests that an index lists.
    pub fn children(&self) -> &[Descriptor] {
        match &self.content {
            Content::Index { manifests } => manifests,
            Content::Image { .. } | Content::Schema1 { .. } => &[],
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<Vec<FsLayer>>,
    signatures: Option<serde::de::IgnoredAny>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer {
    blob_sum: Digest,
}

impl RawManifest {
    fn check(self) -> Result<Manifest, ManifestError> {
        let implied = match self.schema_version {
            // CNCF Distribution stores schema 1 without its signatures.
            Some(1) if self.fs_layers.is_some() && self.signatures.is_none() => media::DOCKER_SCHEMA1,
            Some(1) if self.fs_layers.is_some() => media::DOCKER_SCHEMA1_SIGNED,
            Some(2) if self.is_index() => media::OCI_IMAGE_INDEX,
            Some(2) => media::OCI_IMAGE_MANIFEST,
            version => return Err(ManifestError::SchemaVersion { version }),
        };
        let media_type = self.media_type.unwrap_or_else(|| implied.to_owned());
        let wrong = |media_type: &str| ManifestError::WrongFields { media_type: media_type.to_owned() };
        let content = match (self.fs_layers, self.manifests, self.config) {
            (Some(layers), None, None) if self.schema_version == Some(1) => {
                Content::Schema1 { layers: layers.into_iter().map(|layer| layer.blob_sum).collect() }
            }
            (None, Some(manifests), None) if self.layers.is_none() => Content::Index { manifests },
            (None, None, Some(config)) => Content::Image { config, layers: self.layers.unwrap_or_default() },
            // Go writes an empty list as null: the type then says what it is.
            (None, None, None) if self.layers.is_none() && is_index_type(&media_type) => {
                Content::Index { manifests: Vec::new() }
            }
            _ => return Err(ManifestError::Ambiguous),
        };
        let fits = match &content {
            Content::Image { .. } => !is_index_type(&media_type) && !is_schema1_type(&media_type),
            Content::Index { .. } => !is_image_type(&media_type) && !is_schema1_type(&media_type),
            Content::Schema1 { .. } => is_schema1_type(&media_type),
        };
        if !fits {
            return Err(wrong(&media_type));
        }
        Ok(Manifest {
            media_type,
            artifact_type: self.artifact_type,
            subject: self.subject,
            annotations: self.annotations.unwrap_or_default(),
            content,
        })
    }

    fn is_index(&self) -> bool {
        match self.media_type.as_deref() {
            Some(media_type) => is_index_type(media_type),
            None => self.manifests.is_some(),
        }
    }
}

fn is_index_type(media_type: &str) -> bool {
    matches!(media_type, media::OCI_IMAGE_INDEX | media::DOCKER_MANIFEST_LIST)
}

/// Go writes what is empty as null, and takes null for what is empty.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn is_image_type(media_type: &str) -> bool {
    matches!(media_type, media::OCI_IMAGE_MANIFEST | media::DOCKER_MANIFEST)
}

fn is_schema1_type(media_type: &str) -> bool {
    matches!(media_type, media::DOCKER_SCHEMA1 | media::DOCKER_SCHEMA1_SIGNED)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor() -> String {
        format!(r#"{{"mediaType":"application/x","digest":"{DIGEST}","size":0}}"#)
    }

    fn check(body: &str, content_type: Option<&str>) -> Result<String, String> {
        let body = body.replace("$D", &descriptor());
        Manifest::parse(body.as_bytes(), content_type)
            .map(|manifest| manifest.media_type)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_type_is_the_bodys_or_follows_from_its_fields() {
        let image = r#"{"schemaVersion":2,"config":$D,"layers":[$D]}"#;
        assert_eq!(check(image, None).as_deref(), Ok(media::OCI_IMAGE_MANIFEST));
        assert_eq!(
            check(image, Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8")).as_deref(),
            Ok(media::OCI_IMAGE_MANIFEST)
        );
        let docker =
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","config":$D,"layers":[]}}"#, media::DOCKER_MANIFEST);
        assert_eq!(check(&docker, Some(media::DOCKER_MANIFEST)).as_deref(), Ok(media::DOCKER_MANIFEST));
        let list = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":null}}"#, media::DOCKER_MANIFEST_LIST);
        assert_eq!(check(&list, None).as_deref(), Ok(media::DOCKER_MANIFEST_LIST));
        let schema1 = format!(r#"{{"schemaVersion":1,"name":"a","fsLayers":[{{"blobSum":"{DIGEST}"}}]}}"#);
        assert_eq!(check(&schema1, None).as_deref(), Ok(media::DOCKER_SCHEMA1));
        let signed = schema1.replace(r#""name""#, r#""signatures":[{}],"name""#);
        assert_eq!(check(&signed, None).as_deref(), Ok(media::DOCKER_SCHEMA1_SIGNED));
        let custom = r#"{"schemaVersion":2,"mediaType":"application/vnd.example+json","config":$D}"#;
        assert_eq!(check(custom, None).as_deref(), Ok("application/vnd.example+json"));
    }

    #[test]
    fn what_two_readers_could_take_for_different_things_is_refused() {
        let index = media::OCI_IMAGE_INDEX;
        for body in [
            "",
            "[]",
            "{}",
            r#"{"schemaVersion":2}"#,
            r#"{"config":$D,"layers":[]}"#,
            r#"{"schemaVersion":1,"config":$D}"#,
            r#"{"schemaVersion":2,"config":$D,"layers":[],"manifests":[]}"#,
            r#"{"schemaVersion":2,"layers":[$D]}"#,
            r#"{"schemaVersion":2,"config":$D,"config":$D}"#,
            r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:00"}]}"#,
            &format!(r#"{{"schemaVersion":2,"mediaType":"{index}","config":$D}}"#),
        ] {
            assert!(check(body, None).is_err(), "{body}");
        }
        let image = r#"{"schemaVersion":2,"config":$D,"layers":[]}"#;
        let error = check(image, Some(index)).expect_err("another type");
        assert!(error.contains(index), "{error}");
    }

    #[test]
    fn nulls_that_go_writes_are_empty() {
        let nulls = format!(
            r#"{{"mediaType":"application/x","digest":"{DIGEST}","size":0,"urls":null,"annotations":null,"platform":null}}"#
        );
        let body =
            format!(r#"{{"schemaVersion":2,"config":{nulls},"layers":[{nulls}],"annotations":null,"subject":null}}"#);
        let manifest = Manifest::parse(body.as_bytes(), None).expect("an image");
        assert_eq!(manifest.required_blobs().len(), 2, "without urls a layer must be here");
        for platform in ["{}", r#"{"os":null,"architecture":null}"#, r#"{"os":"linux"}"#] {
            let child = nulls.replace(r#""platform":null"#, &format!(r#""platform":{platform}"#));
            let index = format!(r#"{{"schemaVersion":2,"manifests":[{child}]}}"#);
            assert!(Manifest::parse(index.as_bytes(), None).is_ok(), "{index}");
        }
        let wrong = body.replace(r#""urls":null"#, r#""urls":0"#);
        assert!(Manifest::parse(wrong.as_bytes(), None).is_err(), "what is no list is no list");
    }

    #[test]
    fn foreign_layers_need_not_be_here() {
        let body = format!(
            r#"{{"schemaVersion":2,"config":$D,"layers":[{{"mediaType":"application/x","digest":"{DIGEST}","size":1,"urls":["https://x.test/"]}}]}}"#
        )
        .replace("$D", &descriptor());
        let manifest = Manifest::parse(body.as_bytes(), None).expect("an image");
        assert_eq!(manifest.required_blobs().len(), 1);
    }

    #[test]
    fn the_size_limit() {
        let pad = |bytes: usize| {
            let open = r#"{"schemaVersion":2,"manifests":[],"x":""#;
            format!("{open}{}\"}}", "x".repeat(bytes - open.len() - 2))
        };
        assert!(Manifest::parse(pad(MAX_BYTES).as_bytes(), None).is_ok());
        assert!(matches!(Manifest::parse(pad(MAX_BYTES + 1).as_bytes(), None), Err(ManifestError::TooLarge { .. })));
    }
}
