//! What pull, push and copy have in common: the walk over what an image names, and the bounded parallelism. Must not know
//! in which direction anything goes.

use std::collections::{HashMap, HashSet};

use portcullis_oci::{Content, Descriptor, Digest, Manifest, ManifestReference, Reference, Tag, media};
use tokio::task::JoinSet;

use crate::progress::{Event, Progress};
use crate::{Client, ClientError};

/// How many blobs are transferred at a time, unless the caller says otherwise.
pub const PARALLEL: usize = 4;

/// How many manifests one image may lead to.
pub const MAX_MANIFESTS: usize = 4096;

/// How deep indexes may nest.
pub const MAX_DEPTH: usize = 8;

/// The walk over an image: which manifests come next, and which blobs were met. Each digest is met once.
#[derive(Default)]
pub(crate) struct Walk {
    waiting: Vec<(Descriptor, usize)>,
    seen: HashSet<Digest>,
    /// The image itself first.
    manifests: Vec<Entered>,
    pub(crate) blobs: Vec<Descriptor>,
    blobs_seen: HashSet<Digest>,
}

struct Entered {
    descriptor: Descriptor,
    children: Vec<Digest>,
}

/// What a descriptor in an index stands for, as far as its media type tells.
pub(crate) enum Kind {
    Manifest,
    /// A type that nobody knows: a manifest of a new kind, or, in the indexes of BuildKit's cache, a blob.
    Unknown,
}

impl Walk {
    /// Takes in a manifest at `depth`, and what it names.
    pub(crate) fn enter(
        &mut self,
        descriptor: Descriptor,
        manifest: Manifest,
        depth: usize,
    ) -> Result<(), ClientError> {
        if self.manifests.len() == MAX_MANIFESTS {
            return Err(ClientError::TooMany { limit: MAX_MANIFESTS, unit: "manifests" });
        }
        let digest = descriptor.digest;
        self.seen.insert(digest);
        let children = manifest.children().iter().map(|child| child.digest).collect();
        self.manifests.push(Entered { descriptor, children });
        match manifest.content {
            Content::Image { config, layers } => {
                std::iter::once(config).chain(layers).for_each(|blob| self.enter_blob(blob));
            }
            Content::Index { manifests } => {
                if depth == MAX_DEPTH && !manifests.is_empty() {
                    return Err(ClientError::TooMany { limit: MAX_DEPTH, unit: "levels" });
                }
                for child in manifests {
                    if self.seen.insert(child.digest) {
                        self.waiting.push((child, depth + 1));
                    }
                }
            }
            Content::Schema1 { .. } => return Err(ClientError::Schema1 { digest: Box::new(digest) }),
        }
        Ok(())
    }

    /// Takes in a blob.
    pub(crate) fn enter_blob(&mut self, blob: Descriptor) {
        if self.blobs_seen.insert(blob.digest) {
            self.blobs.push(blob);
        }
    }

    /// Says how many blobs there are, with how many bytes.
    pub(crate) fn tell_plan(&self, progress: &Progress) {
        let bytes = self.blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
        progress.tell(Event::Planned { blobs: self.blobs.len(), bytes });
    }

    /// How many manifests were met.
    pub(crate) fn count(&self) -> usize {
        self.manifests.len()
    }

    /// All manifests, each after everything that it lists. A manifest may be listed at several levels, so the order in
    /// which they were met is no help.
    pub(crate) fn children_first(&self) -> Vec<&Descriptor> {
        let place: HashMap<Digest, usize> =
            self.manifests.iter().enumerate().map(|(place, entered)| (entered.descriptor.digest, place)).collect();
        let mut ordered = Vec::new();
        let mut begun = HashSet::new();
        // The image itself, then what refers to it.
        for start in 0..self.manifests.len() {
            if begun.insert(start) {
                self.below(start, &place, &mut begun, &mut ordered);
            }
        }
        ordered
    }

    fn below<'a>(
        &'a self,
        start: usize,
        place: &HashMap<Digest, usize>,
        begun: &mut HashSet<usize>,
        ordered: &mut Vec<&'a Descriptor>,
    ) {
        // Places under way, each with how many of its children were looked at. A digest cannot contain itself: no cycles.
        let mut path = vec![(start, 0)];
        while let Some((at, looked_at)) = path.last_mut() {
            let entered = &self.manifests[*at];
            if let Some(child) = entered.children.get(*looked_at) {
                *looked_at += 1;
                // What was not entered is a blob.
                if let Some(child) = place.get(child).filter(|child| begun.insert(**child)) {
                    path.push((*child, 0));
                }
            } else {
                ordered.push(&entered.descriptor);
                path.pop();
            }
        }
    }

    /// Has a manifest looked at that no index lists: it refers to one that was met.
    /// Says whether it was not met before.
    pub(crate) fn wait_for(&mut self, referrer: Descriptor) -> bool {
        let is_new = self.seen.insert(referrer.digest);
        if is_new {
            self.waiting.push((referrer, 0));
        }
        is_new
    }

    /// Whether a manifest was met.
    pub(crate) fn has_met(&self, manifest: &Digest) -> bool {
        self.seen.contains(manifest)
    }

    /// The next descriptor of an index to look at, with its depth.
    pub(crate) fn next(&mut self) -> Option<(Descriptor, usize)> {
        self.waiting.pop()
    }
}

impl Kind {
    pub(crate) fn of(descriptor: &Descriptor) -> Self {
        let known = [media::DOCKER_SCHEMA1, media::DOCKER_SCHEMA1_SIGNED];
        let essence = media::essence(&descriptor.media_type);
        if media::MANIFESTS.contains(&essence) || known.contains(&essence) { Self::Manifest } else { Self::Unknown }
    }
}

/// The client must be the reference's registry's.
pub(crate) fn same_host(client: &Client, reference: &Reference) -> Result<(), ClientError> {
    if *client.host() == reference.host {
        return Ok(());
    }
    Err(ClientError::OtherHost { client: client.host().clone(), reference: reference.to_string() })
}

/// The tag that the image gets where it arrives: the reference's, also beside a digest; `latest` where it has neither.
pub(crate) fn tag_of(reference: &Reference) -> Option<Tag> {
    reference.tag.clone().or_else(|| match reference.manifest() {
        ManifestReference::Tag(tag) => Some(tag),
        ManifestReference::Digest(_) => None,
    })
}

/// Does the work for each item, `parallel` at a time. The first error stops the rest.
pub(crate) async fn each<T, R, F>(
    parallel: usize,
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> F,
) -> Result<Vec<R>, ClientError>
where
    R: Send + 'static,
    F: Future<Output = Result<R, ClientError>> + Send + 'static,
{
    let mut waiting = items.into_iter();
    let mut running = JoinSet::new();
    let mut results = Vec::new();
    loop {
        while running.len() < parallel.max(1)
            && let Some(item) = waiting.next()
        {
            running.spawn(work(item));
        }
        match running.join_next().await {
            None => return Ok(results),
            Some(Ok(Ok(result))) => results.push(result),
            Some(Ok(Err(error))) => {
                running.shutdown().await;
                return Err(error);
            }
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_oci::Algorithm;
    use serde_json::json;

    use super::*;

    fn descriptor(name: &str, media_type: &str) -> Descriptor {
        let digest = Digest::of(Algorithm::Sha256, name.as_bytes());
        serde_json::from_value(json!({"mediaType": media_type, "digest": digest, "size": name.len()})).unwrap()
    }

    fn index(children: &[&Descriptor]) -> Manifest {
        let body = json!({"schemaVersion": 2, "manifests": children});
        Manifest::parse(body.to_string().as_bytes(), None).unwrap()
    }

    #[test]
    fn what_is_met_twice_is_walked_once() {
        let mut walk = Walk::default();
        let (a, b) = (descriptor("a", media::OCI_IMAGE_MANIFEST), descriptor("b", media::OCI_IMAGE_INDEX));
        walk.enter(descriptor("root", media::OCI_IMAGE_INDEX), index(&[&a, &b, &a]), 0).unwrap();
        let mut next = Vec::new();
        while let Some((child, depth)) = walk.next() {
            assert_eq!(depth, 1);
            next.push(child.digest);
        }
        assert_eq!(next, [b.digest, a.digest]);
        walk.enter(b, index(&[&a]), 1).unwrap();
        assert!(walk.next().is_none());
    }

    #[test]
    fn children_come_first_wherever_they_are_listed() {
        let [root, a, b, c] = ["root", "a", "b", "c"].map(|name| descriptor(name, media::OCI_IMAGE_INDEX));
        let entries = [(&root, index(&[&a, &b, &c])), (&c, index(&[])), (&b, index(&[&c])), (&a, index(&[&b, &c]))];
        let mut walk = Walk::default();
        for (place, (descriptor, manifest)) in entries.into_iter().enumerate() {
            walk.enter(descriptor.clone(), manifest, usize::from(place > 0)).unwrap();
        }
        let order: Vec<_> = walk.children_first().iter().map(|descriptor| descriptor.digest).collect();
        assert_eq!(order, [c.digest, b.digest, a.digest, root.digest]);
    }

    #[test]
    fn nesting_is_bounded() {
        let mut walk = Walk::default();
        let child = descriptor("child", media::OCI_IMAGE_INDEX);
        let root = || descriptor("root", media::OCI_IMAGE_INDEX);
        assert!(walk.enter(root(), index(&[&child]), MAX_DEPTH - 1).is_ok());
        assert!(walk.enter(root(), index(&[]), MAX_DEPTH).is_ok());
        assert!(matches!(walk.enter(root(), index(&[&child]), MAX_DEPTH), Err(ClientError::TooMany { .. })));
    }
}
