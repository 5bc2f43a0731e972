//! What is whole and CNCF Distribution could not keep or serve, read as it reads: with Go's JSON, whose types it names.
//!
//! From its sources, 2.8.2 and 3.1.1: `registry/storage/manifeststore.go` (four media types, else an error, which the
//! handler answers with 500), `garbagecollect.go` (every manifest is read, an error ends the run; the digests that
//! manifests name are marked as they are written there; all data under another name goes; `--delete-untagged`), and
//! `linkedblobstore.go` (the data of a push under any other algorithm lies under its sha256).

use portcullis_oci::{Algorithm, Digest, RepositoryName, manifest, media};
use serde_json::Value;

use super::finding::{By, Unfit};
use super::links::{Linked, digests, next_of};
use super::step::{Asking, NAMES, Outcome, Step};
use crate::error::StoreError;
use crate::layout;
use crate::store::Store;

/// What it can tell apart; an absent type is one of the last two.
const KNOWN: [&str; 4] =
    [media::DOCKER_MANIFEST, media::DOCKER_MANIFEST_LIST, media::OCI_IMAGE_MANIFEST, media::OCI_IMAGE_INDEX];

/// A manifest in its eyes.
struct Seen {
    /// `None`: it can be read.
    unfit: Option<Unfit>,
    /// The digests that its collector marks, as they are written.
    names: Vec<String>,
    subject: Option<String>,
}

impl Store {
    pub(super) fn check_revisions_for_distribution(
        &self,
        step: &Step,
        repository: &RepositoryName,
        algorithm: Algorithm,
        after: Option<&str>,
        outcome: &mut Outcome,
    ) -> Result<Option<String>, StoreError> {
        let names = self.inner.backend.list(&layout::revisions(repository, algorithm), after, NAMES)?;
        let mut read = 0;
        for digest in digests(algorithm, &names) {
            let link = layout::revision_link(repository, &digest);
            let Linked::Data { target, size } = self.inner.resolve(&link, &digest)? else { continue };
            let limit = manifest::MAX_BYTES as u64;
            let Ok(Some(bytes)) = self.inner.backend.read(&layout::blob_data(&target), 0..limit) else { continue };
            // What is damaged is another question.
            if Digest::of(target.algorithm(), &bytes) != target {
                continue;
            }
            outcome.counts.manifests += 1;
            let seen = Seen::of(&digest, &bytes);
            match step.asking {
                Asking::WhoNames => note_names(step, repository, &digest, &seen, outcome),
                Asking::Everything => self.report_unfit(repository, &digest, seen, outcome),
            }
            read += size;
            if read >= step.bytes || outcome.is_full() {
                return Ok(Some(digest.hex()));
            }
        }
        Ok(next_of(names))
    }

    fn report_unfit(&self, repository: &RepositoryName, digest: &Digest, seen: Seen, outcome: &mut Outcome) {
        let path = layout::revision_link(repository, digest).as_str().to_owned();
        for name in seen.names.iter().filter(|name| !name.starts_with("sha256:")) {
            let Some(link) = layout::layer_link_of(repository, name) else { continue };
            if let Ok(Some(target)) = self.inner.held_by(&link)
                && target.to_string() != *name
            {
                let path = link.as_str().to_owned();
                outcome.report(repository, path, Unfit::Alias { manifest: *digest, blob: name.clone(), target });
            }
        }
        if let Some(unfit) = seen.unfit {
            outcome.report(repository, path.clone(), unfit);
        }
        if let Some(subject) = seen.subject {
            // Taken back when a tag turns up that points to it.
            outcome.report(repository, path, Unfit::UntaggedReferrer { manifest: *digest, subject });
        }
    }
}

/// Its collector marks the manifest itself, too.
fn note_names(step: &Step, repository: &RepositoryName, digest: &Digest, seen: &Seen, outcome: &mut Outcome) {
    let named = seen.names.iter().filter_map(|name| name.parse().ok());
    for name in named.chain([*digest]) {
        outcome.note_user(step, &name, repository, || By::Manifest(*digest));
    }
}

impl Seen {
    fn of(digest: &Digest, bytes: &[u8]) -> Self {
        let json: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let list = |key: &str| json.get(key).and_then(Value::as_array).into_iter().flatten();
        let described = json.get("config").into_iter().chain(list("layers")).chain(list("manifests"));
        let names = described.filter_map(|named| text(named, "digest"));
        let names = names.chain(list("fsLayers").filter_map(|layer| text(layer, "blobSum"))).collect();
        let subject = json.get("subject").and_then(|subject| text(subject, "digest"));
        Self { unfit: unfit(*digest, &json), names, subject }
    }
}

/// Why it cannot read a manifest.
fn unfit(manifest: Digest, json: &Value) -> Option<Unfit> {
    if json.get("schemaVersion").and_then(Value::as_i64) == Some(1) {
        return Some(Unfit::Schema1 { manifest });
    }
    let media_type = json.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    if !media_type.is_empty() && !KNOWN.contains(&media_type) {
        return Some(Unfit::MediaType { manifest, media_type: media_type.to_owned() });
    }
    misread(json).map(|field| Unfit::Json { manifest, field })
}

/// A field whose value does not go into the type it has there (`distribution.Descriptor`, `manifestlist.PlatformSpec`)
/// and that this registry takes.
fn misread(json: &Value) -> Option<String> {
    let lists = ["layers", "manifests"];
    let entries = lists.iter().flat_map(|key| {
        let list = json.get(*key).and_then(Value::as_array);
        list.into_iter().flatten().enumerate().map(move |(at, entry)| (format!("{key}[{at}]"), entry))
    });
    let config = json.get("config").map(|config| ("config".to_owned(), config));
    config.into_iter().chain(entries).find_map(|(name, entry)| {
        let is_too_large = entry.get("size").is_some_and(|size| size.as_i64().is_none());
        let of = |key: &str| entry.get("platform").and_then(|platform| platform.get(key));
        let is_odd = |key: &str| {
            of(key).is_some_and(|list| {
                !list.is_null() && list.as_array().is_none_or(|all| !all.iter().all(Value::is_string))
            })
        };
        let field = match () {
            () if is_too_large => "size",
            () if is_odd("os.features") => "platform.os.features",
            () if is_odd("features") => "platform.features",
            () => return None,
        };
        Some(format!("{name}.{field}"))
    })
}
