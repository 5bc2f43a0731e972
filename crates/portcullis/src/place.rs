//! What `tags` and `delete` are pointed at: less than a reference, or one with nothing implied.

use std::fmt;
use std::str::FromStr;

use portcullis_oci::{InvalidReference, ManifestReference, Reference, RegistryHost, RepositoryName};

/// Why a text is no such place.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct InvalidPlace {
    reason: String,
    /// What to write for a short name.
    pub(crate) full_name: Option<String>,
}

/// `HOST/REPO`, without a tag or digest
#[derive(Debug, Clone)]
pub(crate) struct RepositoryPlace {
    pub(crate) host: RegistryHost,
    pub(crate) repository: RepositoryName,
}

impl FromStr for RepositoryPlace {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let repository_alone = |full: &Reference| format!("{}/{}", full.host, full.repository);
        let parsed = text.parse().map_err(|error| InvalidPlace::of(&error, repository_alone));
        let Reference { host, repository, tag, digest } = parsed?;
        if tag.is_some() || digest.is_some() {
            let reason = format!("{text} names one image: write the repository alone, {host}/{repository}");
            return Err(reason.into());
        }
        Ok(Self { host, repository })
    }
}

/// `HOST/REPO:TAG` or `HOST/REPO@DIGEST`, and nothing left to guess
#[derive(Debug, Clone)]
pub(crate) struct DeletePlace {
    pub(crate) host: RegistryHost,
    pub(crate) repository: RepositoryName,
    pub(crate) manifest: ManifestReference,
}

impl FromStr for DeletePlace {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        // No `latest` here: what is deleted is what was typed.
        let parsed = text.parse().map_err(|error| InvalidPlace::of(&error, Reference::to_string));
        let Reference { host, repository, tag, digest } = parsed?;
        let place = format!("{host}/{repository}");
        let manifest = match (tag, digest) {
            (Some(tag), None) => ManifestReference::Tag(tag),
            (None, Some(digest)) => ManifestReference::Digest(digest),
            (None, None) => {
                return Err(format!("{text} names a whole repository: write {place}:TAG, or {place}@DIGEST").into());
            }
            (Some(tag), Some(digest)) => {
                return Err(format!(
                    "{text} names a tag and a digest: write {place}:{tag} for the tag alone, {place}@{digest} for the manifest with all its tags"
                )
                .into());
            }
        };
        Ok(Self { host, repository, manifest })
    }
}

impl fmt::Display for DeletePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = if matches!(self.manifest, ManifestReference::Tag(_)) { ':' } else { '@' };
        write!(f, "{}/{}{before}{}", self.host, self.repository, self.manifest)
    }
}

impl InvalidPlace {
    fn of(error: &InvalidReference, full_name: impl Fn(&Reference) -> String) -> Self {
        match error {
            InvalidReference::ShortName { text, full } => {
                let full = full_name(full);
                Self { reason: InvalidReference::short_name_text(text, &full), full_name: Some(full) }
            }
            other => other.to_string().into(),
        }
    }
}

impl From<String> for InvalidPlace {
    fn from(reason: String) -> Self {
        Self { reason, full_name: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_leaves_nothing_to_guess() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for good in ["registry.test:5443/a/b:1".to_owned(), format!("registry.test/a@{digest}")] {
            assert_eq!(good.parse::<DeletePlace>().unwrap().to_string(), good);
        }
        for (bad, reason) in [
            ("registry.test:5443/a/b".to_owned(), "registry.test:5443/a/b:TAG"),
            (format!("registry.test/a:1@{digest}"), "registry.test/a:1 for the tag alone"),
            ("a/b:1".to_owned(), "which to an engine is docker.io/a/b:1"),
            ("A:1".to_owned(), "does not name a registry"),
        ] {
            let error = bad.parse::<DeletePlace>().unwrap_err().to_string();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }

    #[test]
    fn tags_are_a_repositorys() {
        let place: RepositoryPlace = "registry.test:5443/a/b".parse().unwrap();
        assert_eq!((place.host.as_str(), place.repository.as_str()), ("registry.test:5443", "a/b"));
        let error = "registry.test:5443/a/b:1".parse::<RepositoryPlace>().unwrap_err().to_string();
        assert!(error.contains("write the repository alone, registry.test:5443/a/b"), "{error}");
        for (short, full) in [("alpine:3", "docker.io/library/alpine"), ("a/b", "docker.io/a/b")] {
            assert_eq!(short.parse::<RepositoryPlace>().unwrap_err().full_name.as_deref(), Some(full));
        }
    }
}
