//! What a check of the store can find: facts in fields, no text. Whoever shows them knows the words.

use portcullis_oci::{Algorithm, Digest, RepositoryName, Tag};
use serde::{Deserialize, Serialize};

/// One thing that was found, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The file or directory, relative to the data directory.
    pub path: String,
    /// The repository it lies in; none for what lies among the blobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryName>,
    /// What was found.
    #[serde(flatten)]
    pub fact: Fact,
    /// Who refers to it: of the first 1,000 damaged blobs and manifests, the first 100 each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<User>,
    /// What was done about it, where a repair was asked for and something could be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Repaired>,
}

/// Either kind of finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fact {
    /// Something is wrong with it.
    Damage(Damage),
    /// It is whole, and CNCF Distribution could not keep or serve it.
    Unfit(Unfit),
}

/// What can be wrong with something stored. All of it is treated as absent until it is repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Damage {
    /// The bytes of a blob or manifest are not those of its digest.
    BlobCorrupt {
        /// The digest it lies under.
        digest: Digest,
        /// The digest of its bytes.
        actual: Digest,
        /// How many there are.
        size: u64,
    },
    /// The disk does not give the bytes of a blob or manifest.
    BlobUnreadable {
        /// The digest it lies under.
        digest: Digest,
        /// What the kernel said.
        reason: String,
    },
    /// The disk does not give the text of a link.
    LinkUnreadable {
        /// What the kernel said.
        reason: String,
    },
    /// A link was made and never filled.
    LinkEmpty,
    /// A link holds something else than a digest.
    LinkGarbled {
        /// What it holds, as far as it is text.
        text: String,
    },
    /// A link named after one digest holds another of the same algorithm.
    LinkMismatched {
        /// The digest that it is named after.
        digest: Digest,
        /// The digest that it holds.
        target: Digest,
    },
    /// A revision link leads to data that is not there.
    LinkDangling {
        /// The digest without data.
        target: Digest,
    },
    /// A tag's directory holds no current link.
    TagWithoutLink {
        /// The tag.
        tag: Tag,
    },
    /// A tag leads to a manifest that the repository does not have.
    TagDangling {
        /// The tag.
        tag: Tag,
        /// The digest that it holds.
        target: Digest,
    },
    /// A manifest has its digest and cannot be understood.
    ManifestUnreadable {
        /// The manifest.
        manifest: Digest,
        /// Why not.
        reason: String,
    },
    /// A manifest names a config or layer that the repository does not have.
    BlobMissing {
        /// The manifest.
        manifest: Digest,
        /// The config or layer.
        blob: Digest,
        /// What is missing of it.
        missing: Missing,
    },
    /// An index lists a manifest that the repository does not have. Registries take such an index, so this alone is no
    /// damage: see [`Finding::is_note`].
    ChildMissing {
        /// The index.
        manifest: Digest,
        /// The manifest that it lists.
        child: Digest,
    },
    /// Links under a digest algorithm that is not known here.
    UnknownAlgorithm {
        /// The name of the directory.
        algorithm: String,
        /// How many names it holds, counted to 1,000.
        names: usize,
    },
}

/// What is missing of a blob that a manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// The repository's link to it, while its data is there.
    Link,
    /// Its data.
    Data,
}

/// Why CNCF Distribution cannot keep or serve what is whole (observed with 2.8.2; sources of 2.8.2 and 3.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Unfit {
    /// It knows four media types; for any other it answers 500, and its collector stops at it.
    MediaType {
        /// The manifest.
        manifest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// Docker's schema 1: the same, except for 2.x with `compatibility.schema1.enabled`.
    Schema1 {
        /// The manifest.
        manifest: Digest,
    },
    /// It cannot read the manifest's JSON into its own types: the same.
    Json {
        /// The manifest.
        manifest: Digest,
        /// Where it fails.
        field: String,
    },
    /// Its data lies under another algorithm than its manifest names it by. Its collector knows only the name in the
    /// manifest and removes the data.
    Alias {
        /// The manifest.
        manifest: Digest,
        /// As the manifest names it; the algorithm may be one that is not known here.
        blob: String,
        /// Where its data lies.
        target: Digest,
    },
    /// A manifest with a subject and without a tag: `garbage-collect --delete-untagged` removes it.
    UntaggedReferrer {
        /// The manifest.
        manifest: Digest,
        /// Its subject.
        subject: String,
    },
}

/// Something that refers to what was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct User {
    /// Where it is.
    pub repository: RepositoryName,
    /// What it is.
    #[serde(flatten)]
    pub by: By,
}

/// How something refers to a digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// A tag points to it.
    Tag(Tag),
    /// A manifest names it.
    Manifest(Digest),
    /// The repository has a link to it.
    Link(Digest),
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Repaired {
    /// The damaged bytes lie here now, relative to the data directory: a push, or a copy put in their old place, makes
    /// everything that refers to them whole again.
    MovedAside {
        /// Where.
        to: String,
    },
    /// The data was found in the trash, had its digest, and is in its place again.
    BroughtBack,
    /// The repository's link was written again.
    Linked,
}

impl Finding {
    /// Worth knowing and no damage.
    pub fn is_note(&self) -> bool {
        matches!(self.fact, Fact::Damage(Damage::ChildMissing { .. }))
    }

    /// What a repair has taken from the trash.
    pub(super) fn brought_back(&self) -> Option<Digest> {
        let digest = self.corrupt().or_else(|| self.missing());
        digest.filter(|_| matches!(self.repaired, Some(Repaired::BroughtBack)))
    }

    /// The corrupt blob that a repair has moved aside.
    pub(super) fn moved_aside(&self) -> Option<Digest> {
        self.corrupt().filter(|_| matches!(self.repaired, Some(Repaired::MovedAside { .. })))
    }

    /// The data whose absence is all that this finding says, and that no repair has brought.
    pub(super) fn lacked(&self) -> Option<Digest> {
        self.missing().filter(|_| self.repaired.is_none())
    }

    fn corrupt(&self) -> Option<Digest> {
        match &self.fact {
            Fact::Damage(Damage::BlobCorrupt { digest, .. }) => Some(*digest),
            _ => None,
        }
    }

    fn missing(&self) -> Option<Digest> {
        match &self.fact {
            Fact::Damage(Damage::LinkDangling { target: digest }) => Some(*digest),
            Fact::Damage(Damage::BlobMissing { blob, missing: Missing::Data, .. }) => Some(*blob),
            _ => None,
        }
    }

    /// The blob or manifest whose users belong to this finding.
    pub(super) fn subject(&self) -> Option<Digest> {
        match &self.fact {
            Fact::Damage(Damage::BlobCorrupt { digest, .. } | Damage::BlobUnreadable { digest, .. }) => Some(*digest),
            Fact::Damage(
                Damage::BlobMissing { manifest, .. }
                | Damage::ManifestUnreadable { manifest, .. }
                | Damage::ChildMissing { manifest, .. },
            ) => Some(*manifest),
            Fact::Damage(Damage::LinkDangling { target }) => Some(*target),
            Fact::Damage(_) | Fact::Unfit(_) => None,
        }
    }
}

impl From<Damage> for Fact {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

impl From<Unfit> for Fact {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

/// An algorithm as a directory is named after it.
pub(super) fn known(name: &str) -> Option<Algorithm> {
    name.parse().ok()
}
