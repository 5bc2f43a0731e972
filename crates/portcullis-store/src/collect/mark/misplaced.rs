//! Manifests that lie among the layers: Distribution 2.1.0 linked them there, and whoever pushes one as a blob does.
//!
//! Whatever can be read as a manifest counts as one for what it names, also where nobody is served it as such.

use portcullis_oci::{Content, Digest, Manifest, manifest};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::marks::{Marks, Shorts};
use super::super::{MAX_TOLD, Obstacle};
use super::{Mark, weight};
use crate::backend::Object;
use crate::error::StoreError;
use crate::layout;
use crate::store::Inner;

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Misplaced {
    /// Those that could be read.
    read: Shorts,
    /// Those whose links never go: schema 1, and what a tag points to.
    staying: Shorts,
    /// What may be one and cannot be read, and why: it is none if manifests name it as a blob.
    doubts: Vec<(Digest, String)>,
}

/// How something among the layers reads.
enum Read {
    Layer,
    Manifest(Box<Manifest>),
    /// It may be a manifest, and cannot be read or understood.
    Doubtful(String),
}

/// The one field that nothing but a manifest of schema 1 has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Schema1Mark {
    fs_layers: Option<IgnoredAny>,
}

impl Misplaced {
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.read.has(digest)
    }

    pub(super) fn stays(&self, digest: &Digest) -> bool {
        self.staying.has(digest)
    }

    pub(super) fn len(&self) -> usize {
        self.read.len() + self.staying.len()
    }
}

impl Mark {
    /// Marks what a manifest among the layers names, whatever the age of its link and whoever names it.
    pub(super) fn look_for_manifest(
        &mut self,
        inner: &Inner,
        name: &Digest,
        marks: &mut Marks,
    ) -> Result<(), StoreError> {
        let is_tagged = self.tagged.has(name);
        let key = layout::layer_link(&self.repository, name);
        if is_tagged && inner.backend.stat(&key)?.is_none() {
            return Ok(());
        }
        let target = inner.peek_link(&key)?.filter(|target| target == name || target.algorithm() != name.algorithm());
        let read = match target {
            Some(target) => read(inner, &target, is_tagged),
            None => Read::Doubtful("its link holds no digest, or that of something else".to_owned()),
        };
        if matches!((&read, target, is_tagged), (Read::Layer, _, false) | (_, None, false)) {
            return Ok(());
        }
        // What is also linked where it belongs is looked at there.
        if inner.backend.stat(&layout::revision_link(&self.repository, name))?.is_some() {
            return Ok(());
        }
        match read {
            Read::Layer => {}
            Read::Doubtful(why) => self.doubt(*name, why),
            Read::Manifest(manifest) => {
                self.misplaced.read.add(name);
                if is_tagged || matches!(manifest.content, Content::Schema1 { .. }) {
                    self.misplaced.staying.add(name);
                }
                marks.add(name);
                self.keep_what_is_named(&manifest, marks);
                if inner.untagged {
                    let subject = manifest.subject.as_ref().map(|subject| &subject.digest);
                    let children = manifest.children().iter().map(|child| &child.digest);
                    self.graph.add(name, subject, children, weight(&manifest), true);
                }
            }
        }
        Ok(())
    }

    /// What manifests name as a blob, and nothing as a manifest, is a blob.
    pub(super) fn settle_doubts(&mut self) {
        let is_blob = |digest: &Digest| {
            self.named.blobs.has(digest) && !self.named.children.has(digest) && !self.tagged.has(digest)
        };
        let mut doubts = std::mem::take(&mut self.misplaced.doubts);
        doubts.retain(|(digest, _)| !is_blob(digest));
        for (digest, why) in doubts {
            self.hold(Obstacle::Manifest(digest, why));
        }
    }

    fn doubt(&mut self, name: Digest, why: String) {
        if self.misplaced.doubts.len() < MAX_TOLD {
            self.misplaced.doubts.push((name, why));
        } else {
            self.hold(Obstacle::Manifest(name, why));
        }
    }
}

/// A layer is not read to find out that it is no manifest: more than its first byte only where that could begin one, or
/// where a tag says that it is one.
fn read(inner: &Inner, target: &Digest, is_tagged: bool) -> Read {
    let doubtful = |why: &str| if is_tagged { Read::Doubtful(why.to_owned()) } else { Read::Layer };
    let object = match inner.backend.open(&layout::blob_data(target)) {
        Ok(Some(object)) => object,
        Ok(None) => return doubtful("its bytes are missing"),
        Err(error) => return Read::Doubtful(error.to_string()),
    };
    if object.size() > manifest::MAX_BYTES as u64 {
        return doubtful("it is larger than any manifest");
    }
    match read_whole(object.as_ref(), is_tagged) {
        Ok(Some(bytes)) => understand(target, &bytes, is_tagged),
        Ok(None) => Read::Layer,
        Err(error) => Read::Doubtful(error.to_string()),
    }
}

/// `None`: its first byte begins no manifest.
fn read_whole(object: &dyn Object, is_tagged: bool) -> Result<Option<Vec<u8>>, StoreError> {
    let mut first = [0];
    let is_empty = object.read_at(&mut first, 0)? == 0;
    let begins_one = !is_empty && (first[0] == b'{' || first[0].is_ascii_whitespace());
    if !begins_one && !is_tagged {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(object.size()).unwrap_or(manifest::MAX_BYTES)];
    let len = object.read_at(&mut bytes, 0)?;
    bytes.truncate(len);
    Ok(Some(bytes))
}

fn understand(target: &Digest, bytes: &[u8], is_tagged: bool) -> Read {
    if Digest::of(target.algorithm(), bytes) != *target {
        return Read::Doubtful("its bytes are damaged".to_owned());
    }
    match Manifest::parse(bytes, None) {
        Ok(manifest) => Read::Manifest(Box::new(manifest)),
        Err(error) if is_tagged || has_schema1_mark(bytes) => Read::Doubtful(error.to_string()),
        Err(_) => Read::Layer,
    }
}

fn has_schema1_mark(bytes: &[u8]) -> bool {
    serde_json::from_slice(bytes).is_ok_and(|mark: Schema1Mark| mark.fs_layers.is_some())
}
