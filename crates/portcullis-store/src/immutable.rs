//! Tags that never change once they are set. Which ones is the caller's to say; that they stay is seen to here, where
//! the repository's lock is held.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use portcullis_oci::{Digest, Manifest, ManifestReference, RepositoryName, Tag};

use crate::error::StoreError;
use crate::journal::Change;
use crate::layout;
use crate::store::Store;

type Rule = dyn Fn(&RepositoryName, &Tag) -> Option<String> + Send + Sync;

/// Says of a tag by which rule it is immutable; by default none is.
#[derive(Clone)]
pub struct ImmutableTags(Arc<Rule>);

impl ImmutableTags {
    /// `rule` gives the text of the rule that holds for the tag, if one does.
    pub fn new(rule: impl Fn(&RepositoryName, &Tag) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(rule))
    }

    fn rule(&self, repository: &RepositoryName, tag: &Tag) -> Option<String> {
        (self.0)(repository, tag)
    }
}

impl Default for ImmutableTags {
    fn default() -> Self {
        Self::new(|_, _| None)
    }
}

impl fmt::Debug for ImmutableTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImmutableTags")
    }
}

impl Store {
    /// Refuses when the tag is immutable and points to something else than `digest`; with `None`, to anything. The
    /// caller holds the repository's lock.
    pub(crate) fn check_tag_may_change(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: Option<&Digest>,
    ) -> Result<(), StoreError> {
        let Some(rule) = self.inner.immutable.rule(repository, tag) else { return Ok(()) };
        match self.inner.read_link(&layout::tag_link(repository, tag))? {
            Some(present) if digest != Some(&present) => {
                Err(StoreError::TagImmutable { tag: tag.clone(), digest: Box::new(present), rule })
            }
            _ => Ok(()),
        }
    }

    /// Refuses when an immutable tag points to the manifest or, through indexes, needs it. Reads the manifests of all
    /// immutable tags of the repository, and holds no lock.
    pub(crate) fn check_manifest_may_go(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), StoreError> {
        let mut refusal = None;
        let mut seen = HashSet::new();
        self.inner.scan_tags(repository, |tag| {
            let Some(rule) = self.inner.immutable.rule(repository, &tag) else { return Ok(true) };
            let Some(present) = self.inner.read_link(&layout::tag_link(repository, &tag))? else { return Ok(true) };
            if self.needs(repository, present, digest, &mut seen)? {
                refusal = Some(StoreError::TagImmutable { tag, digest: Box::new(present), rule });
            }
            Ok(refusal.is_none())
        })?;
        refusal.map_or(Ok(()), Err)
    }

    /// Whether what was written while the tags were read may matter to that check: an immutable tag was set, or something
    /// was put that reaches the manifest.
    pub(crate) fn may_need(
        &self,
        repository: &RepositoryName,
        changes: &[Change],
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        for change in changes {
            let Change::Put(put) = change else { continue };
            let is_fixed = put.tags.iter().any(|tag| self.inner.immutable.rule(repository, tag).is_some());
            let lists_some = put.manifest.as_ref().is_none_or(|manifest| !manifest.children().is_empty());
            if is_fixed || (lists_some && self.needs(repository, put.digest, digest, &mut HashSet::new())?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the manifest `from` is `wanted`, or lists it. What is in `seen` was looked at and does not.
    fn needs(
        &self,
        repository: &RepositoryName,
        from: Digest,
        wanted: &Digest,
        seen: &mut HashSet<Digest>,
    ) -> Result<bool, StoreError> {
        let mut rest = vec![from];
        while let Some(digest) = rest.pop() {
            if digest == *wanted {
                return Ok(true);
            }
            if !seen.insert(digest) {
                continue;
            }
            let stored = self.inner.find_manifest(repository, &ManifestReference::Digest(digest))?;
            let manifest = stored.and_then(|stored| Manifest::parse(&stored.bytes, None).ok());
            rest.extend(manifest.iter().flat_map(Manifest::children).map(|child| child.digest));
        }
        Ok(false)
    }
}
