//! What of one repository must stay, and what is dead, found in bounded steps.
//!
//! Removes nothing. What it marks may be too much, where something changes meanwhile, and never too little.

use std::collections::{HashMap, HashSet, VecDeque};

use portcullis_oci::{Algorithm, Content, Digest, Manifest, RepositoryName, Tag};

use super::names::Names;
use super::{BATCH, Held, Marks, Obstacle};
use crate::error::StoreError;
use crate::layout;
use crate::store::Inner;

/// One repository under way.
#[derive(Debug)]
pub(super) struct Mark {
    repository: RepositoryName,
    stage: Stage,
    held: Vec<Held>,
    tagged: HashSet<Digest>,
    revisions: Vec<Revision>,
    /// What the manifests that stay name.
    named: HashSet<Digest>,
    dead_manifests: Vec<DeadManifest>,
    links: Vec<Link>,
    manifests: u64,
}

#[derive(Debug)]
enum Stage {
    Algorithms,
    Tags(Names),
    Revisions(VecDeque<(Algorithm, Names)>),
    Links(VecDeque<(Algorithm, Names)>),
}

/// A manifest that could be read.
#[derive(Debug)]
struct Revision {
    link: Link,
    /// It was made or asked for within the grace.
    young: bool,
    names: Vec<Digest>,
    children: Vec<Digest>,
    subject: Option<Digest>,
}

/// A link by its name, and the blob it resolves to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) name: Digest,
    pub(super) target: Digest,
}

/// A manifest that nothing keeps, with what it names.
#[derive(Debug)]
pub(super) struct DeadManifest {
    pub(super) link: Link,
    pub(super) subject: Option<Digest>,
    names: Vec<Digest>,
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
    pub(super) manifests: u64,
    pub(super) held: Vec<Held>,
}

impl Mark {
    pub(super) fn new(repository: RepositoryName) -> Self {
        Self {
            stage: Stage::Algorithms,
            repository,
            held: Vec::new(),
            tagged: HashSet::new(),
            revisions: Vec::new(),
            named: HashSet::new(),
            dead_manifests: Vec::new(),
            links: Vec::new(),
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
                    None => self.stage = Stage::Revisions(self.each_algorithm(layout::revisions)),
                },
                Stage::Revisions(rest) => match next_digest(rest, inner)? {
                    Some(digest) => self.look_at_revision(inner, digest, marks)?,
                    None => {
                        self.judge_manifests(inner, marks);
                        self.stage = Stage::Links(self.each_algorithm(layout::layers));
                    }
                },
                Stage::Links(rest) => match next_digest(rest, inner)? {
                    Some(name) => self.look_at_link(inner, name, marks)?,
                    None => return Ok(Some(self.verdict(marks))),
                },
            }
        }
        Ok(None)
    }

    /// Distribution takes digests of algorithms that nobody here knows: a link by such a name keeps what it resolves to,
    /// and a manifest by such a name could use anything.
    fn look_at_unknown_algorithms(&mut self, inner: &Inner, marks: &mut Marks) -> Result<(), StoreError> {
        let [layers, revisions] = layout::algorithms(&self.repository);
        for algorithm in unknown_algorithms(inner, &revisions)? {
            if !inner.backend.list(&revisions.below(&algorithm), None, 1)?.is_empty() {
                self.hold(Obstacle::Algorithm(algorithm));
            }
        }
        for algorithm in unknown_algorithms(inner, &layers)? {
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
            self.tagged.insert(digest);
        } else if inner.untagged && inner.backend.stat(&link)?.is_some() {
            self.hold(Obstacle::Tag(tag));
        }
        Ok(())
    }

    fn look_at_revision(&mut self, inner: &Inner, name: Digest, marks: &mut Marks) -> Result<(), StoreError> {
        let key = layout::revision_link(&self.repository, &name);
        // A name without a link is what Distribution, or a power cut, left of a manifest that was deleted.
        let Some(stamp) = inner.backend.stat(&key)? else { return Ok(()) };
        self.manifests += 1;
        let target = inner.read_link(&key)?;
        let read = match target {
            None => Err("its link holds no digest".to_owned()),
            Some(target) => match inner.manifest_data(&key, &target)? {
                None => Err("its bytes are missing or damaged".to_owned()),
                Some(bytes) => Manifest::parse(&bytes, None).map_err(|error| error.to_string()),
            },
        };
        match read {
            Ok(manifest) => self.revisions.push(Revision {
                link: Link { name, target: target.unwrap_or(name) },
                young: inner.is_young(stamp.written),
                names: names(&manifest),
                children: manifest.children().iter().map(|child| child.digest).collect(),
                subject: manifest.subject.as_ref().map(|subject| subject.digest),
            }),
            // It was deleted a moment ago.
            Err(_) if inner.backend.stat(&key)?.is_none() => {}
            Err(why) => {
                marks.extend([Some(name), target].iter().flatten());
                self.hold(Obstacle::Manifest(name, why));
            }
        }
        Ok(())
    }

    /// What the manifests that stay name stays too.
    fn judge_manifests(&mut self, inner: &Inner, marks: &mut Marks) {
        let revisions = std::mem::take(&mut self.revisions);
        let is_root = |one: &Revision| !inner.untagged || one.young || self.tagged.contains(&one.link.name);
        let living: HashSet<Digest> = reached(&revisions, is_root).into_iter().collect();
        let mut dead = HashMap::new();
        for revision in &revisions {
            if living.contains(&revision.link.name) {
                marks.extend([&revision.link.name, &revision.link.target]);
                marks.extend(&revision.names);
                self.named.extend(&revision.names);
            } else {
                let (link, subject, names) = (revision.link, revision.subject, revision.names.clone());
                dead.insert(link.name, DeadManifest { link, subject, names });
            }
        }
        // An index goes before what it lists and a subject before what refers to it: when somebody asks for one of them
        // meanwhile, it is not yet without its parts.
        let order = if dead.is_empty() { Vec::new() } else { reached(&revisions, |_| true) };
        self.dead_manifests = order.iter().rev().filter_map(|digest| dead.remove(digest)).collect();
    }

    fn look_at_link(&mut self, inner: &Inner, name: Digest, marks: &mut Marks) -> Result<(), StoreError> {
        let key = layout::layer_link(&self.repository, &name);
        let Some(stamp) = inner.backend.stat(&key)? else { return Ok(()) };
        let target = inner.read_link(&key)?;
        let link = Link { name, target: target.unwrap_or(name) };
        if target.is_none()
            && self.named.contains(&name)
            && inner.backend.stat(&layout::blob_data(&name))?.is_none()
            && inner.backend.stat(&key)?.is_some()
        {
            // One of Distribution's alias links: which blob it stands for nobody can say.
            self.hold(Obstacle::Link(name));
        }
        if !self.named.contains(&name) && !inner.is_young(stamp.written) {
            match self.names_of_misplaced(inner, &link)? {
                None => {
                    self.links.push(link);
                    return Ok(());
                }
                Some(names) => {
                    marks.extend(&names);
                    self.named.extend(names);
                }
            }
        }
        marks.add(&link.target);
        Ok(())
    }

    /// What a manifest names that Distribution 2.1.0 linked among the layers; `None` for a layer.
    fn names_of_misplaced(&self, inner: &Inner, link: &Link) -> Result<Option<Vec<Digest>>, StoreError> {
        let first = inner.backend.read(&layout::blob_data(&link.target), 0..1)?.unwrap_or_default();
        if !first.first().is_some_and(|byte| *byte == b'{' || byte.is_ascii_whitespace()) {
            return Ok(None);
        }
        let bytes = inner.misplaced_manifest(&self.repository, &link.name)?;
        Ok(bytes.and_then(|bytes| Manifest::parse(&bytes, None).ok()).map(|manifest| names(&manifest)))
    }

    fn verdict(&mut self, marks: &mut Marks) -> Marked {
        // A manifest among the layers may name a link that was looked at before it.
        let links = std::mem::take(&mut self.links).into_iter();
        let (kept, dead): (Vec<Link>, Vec<Link>) = links.partition(|link| self.named.contains(&link.name));
        marks.extend(kept.iter().map(|link| &link.target));
        let mut dead = Dead {
            repository: self.repository.clone(),
            manifests: std::mem::take(&mut self.dead_manifests).into(),
            links: dead.into(),
        };
        if !self.held.is_empty() {
            dead.spare(marks);
        }
        Marked { dead, manifests: self.manifests, held: std::mem::take(&mut self.held) }
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

    fn hold(&mut self, obstacle: Obstacle) {
        if self.held.len() < super::MAX_TOLD {
            self.held.push(Held { repository: self.repository.clone(), obstacle });
        }
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
            marks.extend(&manifest.names);
        }
        for link in self.links.drain(..) {
            marks.add(&link.target);
        }
    }

    /// Leaves in place what does not fit into `room`. What a manifest names goes only together with it.
    pub(super) fn cut(&mut self, room: usize, marks: &mut Marks) -> bool {
        if self.len() <= room {
            return false;
        }
        let (mut manifests, mut links) = (VecDeque::new(), VecDeque::new());
        if self.manifests.len() <= room {
            links = self.links.split_off(room - self.manifests.len());
        } else {
            manifests = self.manifests.split_off(room);
            links.append(&mut self.links);
        }
        Self { repository: self.repository.clone(), manifests, links }.spare(marks);
        true
    }
}

impl Inner {
    /// Whether something may still be on its way to its manifest. A clock that was set back makes it younger.
    pub(super) fn is_young(&self, written: u64) -> bool {
        self.backend.now().saturating_sub(written) < self.grace.as_secs()
    }
}

/// The manifests that stay because of the roots: those, what an index among them lists, and what refers to a subject
/// among them. Whatever is reached through another comes before it.
fn reached(revisions: &[Revision], is_root: impl Fn(&Revision) -> bool) -> Vec<Digest> {
    let known: HashMap<&Digest, &Revision> = revisions.iter().map(|one| (&one.link.name, one)).collect();
    let mut referrers: HashMap<Digest, Vec<Digest>> = HashMap::new();
    for revision in revisions {
        if let Some(subject) = revision.subject {
            referrers.entry(subject).or_default().push(revision.link.name);
        }
    }
    let mut met = HashSet::new();
    let mut reached = Vec::new();
    let roots = revisions.iter().filter(|one| is_root(one));
    let mut rest: Vec<Visit> = roots.map(|one| Visit::Enter(one.link.name)).collect();
    while let Some(visit) = rest.pop() {
        match visit {
            Visit::Leave(digest) => reached.push(digest),
            Visit::Enter(digest) => {
                let Some(revision) = known.get(&digest).filter(|_| met.insert(digest)) else { continue };
                rest.push(Visit::Leave(digest));
                rest.extend(revision.children.iter().copied().map(Visit::Enter));
                rest.extend(referrers.get(&digest).into_iter().flatten().copied().map(Visit::Enter));
            }
        }
    }
    reached
}

/// Depth first without recursion: who pushes decides how deep indexes are nested.
enum Visit {
    Enter(Digest),
    Leave(Digest),
}

fn unknown_algorithms(inner: &Inner, place: &layout::Prefix) -> Result<Vec<String>, StoreError> {
    let mut names = inner.backend.list(place, None, BATCH)?;
    names.retain(|name| name.parse::<Algorithm>().is_err());
    Ok(names)
}

/// Everything that a manifest names, of any kind.
fn names(manifest: &Manifest) -> Vec<Digest> {
    let mut names = match &manifest.content {
        Content::Image { config, layers } => {
            std::iter::once(config).chain(layers).map(|descriptor| descriptor.digest).collect()
        }
        Content::Index { manifests } => manifests.iter().map(|descriptor| descriptor.digest).collect(),
        Content::Schema1 { layers } => layers.clone(),
    };
    names.extend(manifest.subject.as_ref().map(|subject| subject.digest));
    names
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

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::of(Algorithm::Sha256, &[number])
    }

    /// What has no room this time stays whole: links first, and what a manifest names never before the manifest.
    #[test]
    fn what_does_not_fit_into_a_round_is_marked() {
        let link = |number| Link { name: digest(number), target: digest(number) };
        for (room, manifests, links) in [(5, 2, 3), (4, 2, 2), (2, 2, 0), (1, 1, 0), (0, 0, 0)] {
            let mut dead = Dead {
                repository: "app".parse().unwrap(),
                manifests: (0..2)
                    .map(|number| DeadManifest { link: link(number), subject: None, names: vec![digest(10)] })
                    .collect(),
                links: (2..5).map(link).collect(),
            };
            let mut marks = Marks::default();
            assert_eq!(dead.cut(room, &mut marks), room < 5);
            assert_eq!((dead.manifests.len(), dead.links.len()), (manifests, links), "room for {room}");
            for number in 0..5 {
                let goes = dead.manifests.iter().map(|manifest| &manifest.link).chain(&dead.links);
                let goes = goes.into_iter().any(|link| link.name == digest(number));
                assert_eq!(marks.has(&digest(number)), !goes, "{number}, room for {room}");
            }
            assert_eq!(marks.has(&digest(10)), manifests < 2);
        }
    }
}
