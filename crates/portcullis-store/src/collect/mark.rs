//! What of one repository must stay, and what is dead, found in bounded steps and in bounded memory.
//!
//! Removes nothing. What it marks may be too much, where something changes meanwhile, and never too little.

mod graph;
mod misplaced;

use std::collections::VecDeque;

use portcullis_oci::{Algorithm, Content, Digest, Manifest, RepositoryName, Tag};

use self::graph::{Going, Graph};
use self::misplaced::Misplaced;
use super::marks::{Marks, Shorts, short};
use super::names::Names;
use super::{BATCH, Held, Obstacle};
use crate::backend::Stamp;
use crate::error::StoreError;
use crate::layout;
use crate::store::Inner;

/// How many names of a dead manifest weigh as much as one more thing that is remembered.
const NAMES_PER_WEIGHT: usize = 32;

/// One repository under way.
#[derive(Debug)]
pub(super) struct Mark {
    repository: RepositoryName,
    room: Room,
    stage: Stage,
    held: Vec<Held>,
    tagged: Shorts,
    misplaced: Misplaced,
    graph: Graph,
    going: Going,
    named: Named,
    dead: DeadOf,
    manifests: u64,
}

/// What looking at one repository may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Things found dead, by weight.
    pub(super) dead: usize,
    /// Digests that are known of it.
    pub(super) known: usize,
}

#[derive(Debug)]
enum Stage {
    Algorithms,
    Tags(Names),
    /// Layer links, for the manifests among them.
    Misplaced(VecDeque<(Algorithm, Names)>),
    /// Where untagged manifests go: which one keeps which.
    Graph(VecDeque<(Algorithm, Names)>),
    Revisions(VecDeque<(Algorithm, Names)>),
    Links(VecDeque<(Algorithm, Names)>),
}

/// What the manifests that stay name.
#[derive(Debug, Default)]
struct Named {
    /// As config or layer.
    blobs: Shorts,
    /// In an index.
    children: Shorts,
    subjects: Shorts,
}

/// What was found dead, by weight of what it takes to remember it.
#[derive(Debug, Default)]
struct DeadOf {
    /// With their turn.
    manifests: Vec<(usize, DeadManifest)>,
    links: VecDeque<Link>,
    weight: usize,
    /// There was no room for all of it.
    more: bool,
}

/// A manifest that could be read.
struct Revision {
    link: Link,
    /// It was made or asked for within the grace.
    young: bool,
    manifest: Manifest,
}

/// A link by its name, and the blob it resolves to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) name: Digest,
    pub(super) target: Digest,
}

/// A manifest that nothing keeps, with the first bytes of what it names.
#[derive(Debug)]
pub(super) struct DeadManifest {
    pub(super) link: Link,
    pub(super) subject: Option<Digest>,
    names: Vec<u64>,
}

/// What of one repository can go.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) repository: RepositoryName,
    pub(super) manifests: VecDeque<DeadManifest>,
    pub(super) links: VecDeque<Link>,
}

/// A repository that has been looked at.
#[derive(Debug)]
pub(super) struct Marked {
    pub(super) dead: Dead,
    /// What remembering it takes.
    pub(super) weight: usize,
    /// There was no room for all that is dead.
    pub(super) more: bool,
    pub(super) manifests: u64,
    pub(super) held: Vec<Held>,
}

impl Mark {
    pub(super) fn new(repository: RepositoryName, room: Room) -> Self {
        Self {
            stage: Stage::Algorithms,
            repository,
            room,
            held: Vec::new(),
            tagged: Shorts::default(),
            misplaced: Misplaced::default(),
            graph: Graph::default(),
            going: Going::default(),
            named: Named::default(),
            dead: DeadOf::default(),
            manifests: 0,
        }
    }

    /// Looks at a few more of the repository's names; the verdict when there are none left.
    pub(super) fn step(&mut self, inner: &Inner, marks: &mut Marks) -> Result<Option<Marked>, StoreError> {
        for _ in 0..BATCH {
            match &mut self.stage {
                Stage::Algorithms => {
                    self.look_at_unknown_algorithms(inner, marks)?;
                    self.stage = Stage::Tags(Names::below(layout::tags(&self.repository)));
                }
                Stage::Tags(names) => match names.next(inner)? {
                    Some(name) => self.look_at_tag(inner, &name, marks)?,
                    None => self.stage = Stage::Misplaced(self.each_algorithm(layout::layers)),
                },
                Stage::Misplaced(rest) => match next_digest(rest, inner)? {
                    Some(digest) => self.look_for_manifest(inner, &digest, marks)?,
                    None if inner.untagged => self.stage = Stage::Graph(self.each_algorithm(layout::revisions)),
                    None => self.stage = Stage::Revisions(self.each_algorithm(layout::revisions)),
                },
                Stage::Graph(rest) => match next_digest(rest, inner)? {
                    Some(digest) => self.look_at_relations(inner, &digest)?,
                    None => {
                        self.going = std::mem::take(&mut self.graph).going(self.room.dead);
                        self.dead.more = self.going.more;
                        self.stage = Stage::Revisions(self.each_algorithm(layout::revisions));
                    }
                },
                Stage::Revisions(rest) => match next_digest(rest, inner)? {
                    Some(digest) => self.look_at_revision(inner, &digest, marks)?,
                    None => {
                        self.settle_doubts();
                        self.stage = Stage::Links(self.each_algorithm(layout::layers));
                    }
                },
                Stage::Links(rest) => match next_digest(rest, inner)? {
                    Some(name) => self.look_at_link(inner, &name, marks)?,
                    None => return Ok(Some(self.verdict(marks))),
                },
            }
            self.check_room();
        }
        Ok(None)
    }

    /// Distribution takes digests of algorithms that nobody here knows: a link by such a name keeps what it resolves to,
    /// and a manifest by such a name could use anything. So could what has no name that can be spelled.
    fn look_at_unknown_algorithms(&mut self, inner: &Inner, marks: &mut Marks) -> Result<(), StoreError> {
        let [layers, revisions] = layout::algorithms(&self.repository);
        let unknown = |name: &String| name.parse::<Algorithm>().is_err();
        let mut names = Names::below(revisions.clone());
        while let Some(algorithm) = names.next(inner)? {
            let holds_some = || Ok(!inner.backend.list(&revisions.below(&algorithm), None, 1)?.is_empty());
            if unknown(&algorithm) && (!layout::is_spelled(&algorithm) || holds_some()?) {
                self.hold(Obstacle::Algorithm(algorithm));
            }
        }
        let mut names = Names::below(layers.clone());
        while let Some(algorithm) = names.next(inner)? {
            if !unknown(&algorithm) {
                continue;
            }
            if !layout::is_spelled(&algorithm) {
                self.hold(Obstacle::Algorithm(algorithm));
                continue;
            }
            let mut names = Names::below(layers.below(&algorithm));
            while let Some(hex) = names.next(inner)? {
                let link = layout::layer_link_of(&self.repository, &format!("{algorithm}:{hex}"));
                let target = link.map(|link| inner.read_link(&link)).transpose()?.flatten();
                marks.extend(&target);
            }
        }
        Ok(())
    }

    fn look_at_tag(&mut self, inner: &Inner, name: &str, marks: &mut Marks) -> Result<(), StoreError> {
        let Ok(tag) = name.parse::<Tag>() else { return Ok(()) };
        let link = layout::tag_link(&self.repository, &tag);
        if let Some(digest) = inner.read_link(&link)? {
            marks.add(&digest);
            self.tagged.add(&digest);
        } else if inner.untagged && inner.backend.stat(&link)?.is_some() {
            self.hold(Obstacle::Tag(tag));
        }
        Ok(())
    }

    /// For a repository whose untagged manifests go: what cannot be read is told when all are looked at once more.
    fn look_at_relations(&mut self, inner: &Inner, name: &Digest) -> Result<(), StoreError> {
        let Some(stamp) = inner.backend.stat(&layout::revision_link(&self.repository, name))? else { return Ok(()) };
        let Ok(Revision { young, manifest, .. }) = self.read_revision(inner, name, stamp)? else { return Ok(()) };
        let subject = manifest.subject.as_ref().map(|subject| &subject.digest);
        let children = manifest.children().iter().map(|child| &child.digest);
        let is_root = young || self.tagged.has(name) || subject.is_some_and(|subject| self.misplaced.has(subject));
        self.graph.add(name, subject, children, weight(&manifest), is_root);
        Ok(())
    }

    fn look_at_revision(&mut self, inner: &Inner, name: &Digest, marks: &mut Marks) -> Result<(), StoreError> {
        let key = layout::revision_link(&self.repository, name);
        // A name without a link is what Distribution, or a power cut, left of a manifest that was deleted.
        let Some(stamp) = inner.backend.stat(&key)? else { return Ok(()) };
        self.manifests += 1;
        match self.read_revision(inner, name, stamp)? {
            Ok(revision) => match self.going.turn(name) {
                Some(turn) => self.dead.add_manifest(turn, &revision),
                None => {
                    marks.extend([&revision.link.name, &revision.link.target]);
                    self.keep_what_is_named(&revision.manifest, marks);
                }
            },
            // It was deleted a moment ago.
            Err(_) if inner.backend.stat(&key)?.is_none() => {}
            Err((target, why)) => {
                marks.extend([Some(*name), target].iter().flatten());
                self.hold(Obstacle::Manifest(*name, why));
            }
        }
        Ok(())
    }

    /// The manifest of a revision. An error: what its link holds, and why it cannot be read or understood.
    fn read_revision(
        &self,
        inner: &Inner,
        name: &Digest,
        stamp: Stamp,
    ) -> Result<Result<Revision, (Option<Digest>, String)>, StoreError> {
        let key = layout::revision_link(&self.repository, name);
        let Some(target) = inner.read_link(&key)? else {
            return Ok(Err((None, "its link holds no digest".to_owned())));
        };
        let failed = |why: String| Ok(Err((Some(target), why)));
        if target != *name && target.algorithm() == name.algorithm() {
            return failed("its link holds the digest of something else".to_owned());
        }
        let Some(bytes) = inner.manifest_data(&key, &target)? else {
            return failed("its bytes are missing or damaged".to_owned());
        };
        match Manifest::parse(&bytes, None) {
            Err(error) => failed(error.to_string()),
            Ok(manifest) => {
                let link = Link { name: *name, target };
                Ok(Ok(Revision { link, young: inner.is_young(stamp.written), manifest }))
            }
        }
    }

    fn keep_what_is_named(&mut self, manifest: &Manifest, marks: &mut Marks) {
        for (role, digest) in names(manifest) {
            marks.add(&digest);
            // Where nothing goes nobody asks.
            if self.held.is_empty() {
                self.named.of(role).add(&digest);
            }
        }
    }

    fn look_at_link(&mut self, inner: &Inner, name: &Digest, marks: &mut Marks) -> Result<(), StoreError> {
        let key = layout::layer_link(&self.repository, name);
        let Some(stamp) = inner.backend.stat(&key)? else { return Ok(()) };
        let target = inner.read_link(&key)?;
        let link = Link { name: *name, target: target.unwrap_or(*name) };
        let is_named = self.named.has(name);
        if target.is_none()
            && is_named
            && inner.backend.stat(&layout::blob_data(name))?.is_none()
            && inner.backend.stat(&key)?.is_some()
        {
            // One of Distribution's alias links: which blob it stands for nobody can say.
            self.hold(Obstacle::Link(*name));
        }
        if self.named.children.has(name)
            && !self.misplaced.has(name)
            && inner.backend.stat(&layout::revision_link(&self.repository, name))?.is_none()
        {
            let why = "an index lists it, it lies among the layers, and it cannot be read as a manifest";
            self.hold(Obstacle::Manifest(*name, why.to_owned()));
        }
        let stays = is_named || self.misplaced.stays(name) || inner.is_young(stamp.written);
        if stays || !self.held.is_empty() || !self.dead.add_link(link, self.room.dead) {
            marks.add(&link.target);
        }
        Ok(())
    }

    fn verdict(&mut self, marks: &mut Marks) -> Marked {
        let DeadOf { mut manifests, links, weight, more } = std::mem::take(&mut self.dead);
        manifests.sort_unstable_by_key(|(turn, _)| *turn);
        let manifests = manifests.into_iter().map(|(_, manifest)| manifest).collect();
        let mut dead = Dead { repository: self.repository.clone(), manifests, links };
        if !self.held.is_empty() {
            dead.spare(marks);
        }
        let weight = if dead.len() > 0 { weight } else { 0 };
        let held = std::mem::take(&mut self.held);
        Marked { dead, weight, more: more && held.is_empty(), manifests: self.manifests, held }
    }

    fn each_algorithm(
        &self,
        place: impl Fn(&RepositoryName, Algorithm) -> layout::Prefix,
    ) -> VecDeque<(Algorithm, Names)> {
        Algorithm::ALL
            .into_iter()
            .map(|algorithm| (algorithm, Names::below(place(&self.repository, algorithm))))
            .collect()
    }

    /// What is known of the repository has a bound. Past it nothing goes from there.
    fn check_room(&mut self) {
        let known = self.tagged.len() + self.misplaced.len() + self.graph.len() + self.named.len();
        if known > self.room.known {
            self.hold(Obstacle::TooMany(self.room.known));
            (self.graph, self.named) = (Graph::default(), Named::default());
            self.room.known = usize::MAX;
        }
    }

    fn hold(&mut self, obstacle: Obstacle) {
        if self.held.len() < super::MAX_TOLD {
            self.held.push(Held { repository: self.repository.clone(), obstacle });
        }
    }
}

impl Named {
    fn of(&mut self, role: Role) -> &mut Shorts {
        match role {
            Role::Blob => &mut self.blobs,
            Role::Child => &mut self.children,
            Role::Subject => &mut self.subjects,
        }
    }

    fn has(&self, digest: &Digest) -> bool {
        self.blobs.has(digest) || self.children.has(digest) || self.subjects.has(digest)
    }

    fn len(&self) -> usize {
        self.blobs.len() + self.children.len() + self.subjects.len()
    }
}

impl DeadOf {
    fn add_manifest(&mut self, turn: usize, revision: &Revision) {
        let Revision { link, manifest, .. } = revision;
        self.weight += weight(manifest);
        let names = names(manifest).map(|(_, digest)| short(&digest)).collect();
        let subject = manifest.subject.as_ref().map(|subject| subject.digest);
        self.manifests.push((turn, DeadManifest { link: *link, subject, names }));
    }

    /// `false`: there is no room for it.
    fn add_link(&mut self, link: Link, room: usize) -> bool {
        let fits = self.weight < room;
        if fits {
            self.weight += 1;
            self.links.push_back(link);
        } else {
            self.more = true;
        }
        fits
    }
}

impl Dead {
    pub(super) fn len(&self) -> usize {
        self.manifests.len() + self.links.len()
    }

    /// Leaves everything, and what it resolves to, in place.
    pub(super) fn spare(&mut self, marks: &mut Marks) {
        for manifest in self.manifests.drain(..) {
            marks.extend([&manifest.link.name, &manifest.link.target]);
            manifest.names.iter().for_each(|name| marks.insert(*name));
        }
        for link in self.links.drain(..) {
            marks.add(&link.target);
        }
    }
}

impl Inner {
    /// Whether something may still be on its way to its manifest. A clock that was set back makes it younger.
    pub(super) fn is_young(&self, written: u64) -> bool {
        self.backend.now().saturating_sub(written) < self.grace.as_secs()
    }
}

/// As what a manifest names something.
#[derive(Debug, Clone, Copy)]
enum Role {
    Blob,
    Child,
    Subject,
}

/// Everything that a manifest names, of any kind.
fn names(manifest: &Manifest) -> impl Iterator<Item = (Role, Digest)> + '_ {
    let (config, layers, fs_layers) = match &manifest.content {
        Content::Image { config, layers } => (Some(config), layers.as_slice(), &[][..]),
        Content::Index { .. } => (None, &[][..], &[][..]),
        Content::Schema1 { layers } => (None, &[][..], layers.as_slice()),
    };
    let blobs = config.into_iter().chain(layers).map(|blob| blob.digest).chain(fs_layers.iter().copied());
    let children = manifest.children().iter().map(|child| (Role::Child, child.digest));
    let subject = manifest.subject.iter().map(|subject| (Role::Subject, subject.digest));
    blobs.map(|blob| (Role::Blob, blob)).chain(children).chain(subject)
}

/// What remembering a dead manifest takes, in links.
fn weight(manifest: &Manifest) -> usize {
    1 + names(manifest).count() / NAMES_PER_WEIGHT
}

/// The next name that is a digest's.
fn next_digest(rest: &mut VecDeque<(Algorithm, Names)>, inner: &Inner) -> Result<Option<Digest>, StoreError> {
    while let Some((algorithm, names)) = rest.front_mut() {
        while let Some(hex) = names.next(inner)? {
            if let Ok(digest) = format!("{algorithm}:{hex}").parse() {
                return Ok(Some(digest));
            }
        }
        rest.pop_front();
    }
    Ok(None)
}
