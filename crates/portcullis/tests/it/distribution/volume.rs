//! What a data directory must hold, kept beside every push and deletion, and where it lies in there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use portcullis_oci::{Algorithm, Digest};
use portcullis_testkit::image::{Blob, Image};
use serde_json::{Value, json};

use super::api::{Api, Request};

const TREE: &str = "docker/registry/v2";

/// All that was pushed and not deleted, by repository, and what was deleted.
#[derive(Default)]
pub(crate) struct Volume {
    blobs: BTreeMap<(String, Digest), Vec<u8>>,
    manifests: BTreeMap<(String, Digest), Blob>,
    tags: BTreeMap<(String, String), Digest>,
    gone: BTreeSet<(String, String)>,
    /// Tags whose manifests only one of the registries can read: listed by both.
    unreadable: BTreeSet<(String, String)>,
}

impl Volume {
    #[track_caller]
    pub(crate) fn push_blob(&mut self, api: &Api<'_>, repository: &str, with: Algorithm, bytes: &[u8]) -> Digest {
        let digest = Digest::of(with, bytes);
        let begun = api.one(Request::post(&format!("/v2/{repository}/blobs/uploads/")));
        let location = begun.expect(202).header("location").unwrap();
        let and = if location.contains('?') { '&' } else { '?' };
        let finish = format!("{location}{and}digest={digest}");
        api.one(Request::put(&finish, "application/octet-stream", bytes)).expect(201);
        self.blobs.insert((repository.to_owned(), digest), bytes.to_owned());
        digest
    }

    #[track_caller]
    pub(crate) fn mount(&mut self, api: &Api<'_>, from: &str, to: &str, blob: &Blob) {
        let path = format!("/v2/{to}/blobs/uploads/?mount={}&from={from}", blob.digest);
        api.one(Request::post(&path)).expect(201);
        self.blobs.insert((to.to_owned(), blob.digest), blob.bytes.clone());
    }

    /// By each tag, or by digest if there is none.
    #[track_caller]
    pub(crate) fn push_manifest(&mut self, api: &Api<'_>, repository: &str, manifest: &Blob, tags: &[&str]) {
        let by_digest = manifest.digest.to_string();
        let references = if tags.is_empty() { &[by_digest.as_str()] } else { tags };
        for reference in references {
            let answer = api.one(Request::put_manifest(repository, reference, manifest));
            assert_eq!(answer.expect(201).header("docker-content-digest"), Some(by_digest.clone()));
        }
        self.expect_manifest(repository, manifest, tags);
    }

    #[track_caller]
    pub(crate) fn push_image(&mut self, api: &Api<'_>, repository: &str, image: &Image, tags: &[&str]) {
        for blob in image.blobs() {
            self.push_blob(api, repository, Algorithm::Sha256, &blob.bytes);
        }
        self.push_manifest(api, repository, &image.manifest, tags);
    }

    /// An image that was pushed otherwise.
    pub(crate) fn expect_image(&mut self, repository: &str, image: &Image, tags: &[&str]) {
        for blob in image.blobs() {
            self.blobs.insert((repository.to_owned(), blob.digest), blob.bytes.clone());
        }
        self.expect_manifest(repository, &image.manifest, tags);
    }

    /// With every tag that points to it.
    #[track_caller]
    pub(crate) fn delete_manifest(&mut self, api: &Api<'_>, repository: &str, manifest: &Blob) {
        let digest = manifest.digest.to_string();
        api.delete(&format!("/v2/{repository}/manifests/{digest}")).expect(202);
        self.manifests.remove(&(repository.to_owned(), manifest.digest)).unwrap();
        let pointing = |(key, target): (&(String, String), &Digest)| {
            (key.0 == repository && *target == manifest.digest).then(|| key.clone())
        };
        let tags: Vec<_> = self.tags.iter().filter_map(pointing).collect();
        for tag in tags {
            self.tags.remove(&tag);
            self.gone.insert(tag);
        }
        self.gone.insert((repository.to_owned(), digest));
        // Its own blobs may be collected from now on, and need not be.
        self.blobs.retain(|(at, blob), _| {
            at != repository
                || !names(manifest, blob)
                || self.manifests.iter().any(|((at, _), other)| at == repository && names(other, blob))
        });
    }

    /// Distribution 2.8 cannot.
    #[track_caller]
    pub(crate) fn delete_tag(&mut self, api: &Api<'_>, repository: &str, tag: &str) {
        api.delete(&format!("/v2/{repository}/manifests/{tag}")).expect(202);
        let key = (repository.to_owned(), tag.to_owned());
        self.tags.remove(&key).unwrap();
        self.gone.insert(key);
    }

    /// What the tag points to.
    pub(crate) fn tagged(&self, repository: &str, tag: &str) -> Digest {
        self.tags[&(repository.to_owned(), tag.to_owned())]
    }

    /// The tag is there, and what it points to is looked at elsewhere.
    pub(crate) fn expect_unreadable(&mut self, repository: &str, tag: &str) {
        self.unreadable.insert((repository.to_owned(), tag.to_owned()));
    }

    /// It was there, and a collector has taken it.
    pub(crate) fn lose_blob(&mut self, repository: &str, digest: &Digest) {
        self.blobs.remove(&(repository.to_owned(), *digest)).unwrap();
    }

    /// The same for a manifest without a tag.
    pub(crate) fn lose_manifest(&mut self, repository: &str, manifest: &Blob) {
        self.manifests.remove(&(repository.to_owned(), manifest.digest)).unwrap();
        self.gone.insert((repository.to_owned(), manifest.digest.to_string()));
    }

    /// Compares everything with what the registry answers.
    #[track_caller]
    pub(crate) fn check(&self, api: &Api<'_>) {
        self.check_manifests(api);
        self.check_blobs(api);
        self.check_lists(api);
        let paths: Vec<_> = self.gone.iter().map(|(at, reference)| format!("/v2/{at}/manifests/{reference}")).collect();
        let requests: Vec<_> = paths.iter().map(|path| Request::get(path)).collect();
        for (path, answer) in paths.iter().zip(api.send(&requests)) {
            assert_eq!(answer.status, 404, "{path} was deleted");
        }
    }

    fn check_manifests(&self, api: &Api<'_>) {
        let by_digest = self.manifests.iter().map(|((at, digest), manifest)| (at, digest.to_string(), manifest));
        let tagged = |(at, tag): &(String, String), digest: &Digest| {
            self.manifests.get(&(at.clone(), *digest)).unwrap_or_else(|| panic!("{at}:{tag}"))
        };
        let by_tag = self.tags.iter().map(|(key, digest)| (&key.0, key.1.clone(), tagged(key, digest)));
        let all: Vec<_> = by_digest.chain(by_tag).collect();
        let path = |at: &str, reference: &str| format!("/v2/{at}/manifests/{reference}");
        let requests: Vec<_> = all.iter().map(|(at, reference, _)| Request::get(&path(at, reference))).collect();
        for ((at, reference, manifest), answer) in all.iter().zip(api.send(&requests)) {
            let path = path(at, reference);
            assert_eq!(answer.status, 200, "{path}");
            assert!(answer.body == manifest.bytes, "{path} has other bytes");
            assert_eq!(answer.header("docker-content-digest"), Some(manifest.digest.to_string()), "{path}");
            assert_eq!(answer.header("content-type").as_ref(), Some(&manifest.media_type), "{path}");
        }
    }

    fn check_blobs(&self, api: &Api<'_>) {
        let path = |(at, digest): &(String, Digest)| format!("/v2/{at}/blobs/{digest}");
        let requests: Vec<_> =
            self.blobs.keys().map(path).flat_map(|path| [Request::get(&path), Request::head(&path)]).collect();
        let answers = api.send(&requests);
        for ((key, bytes), answers) in self.blobs.iter().zip(answers.chunks(2)) {
            let path = path(key);
            assert_eq!([answers[0].status, answers[1].status], [200, 200], "{path}");
            assert!(answers[0].body == *bytes, "{path} has other bytes");
            assert_eq!(answers[1].header("content-length"), Some(bytes.len().to_string()), "{path}");
        }
    }

    /// The catalog, and the tags of every repository that has or had a manifest. Distribution does not sort tags, and
    /// has null for none.
    fn check_lists(&self, api: &Api<'_>) {
        let with_manifests = self.manifests.keys().map(|(at, _)| at).chain(self.gone.iter().map(|(at, _)| at));
        let tagged: BTreeSet<&String> = with_manifests.collect();
        let all: BTreeSet<&String> = self.blobs.keys().map(|(at, _)| at).chain(tagged.iter().copied()).collect();
        let listed = json_of(&api.get("/v2/_catalog").expect(200).body);
        assert_eq!(listed["repositories"], json!(all));
        let requests: Vec<_> = tagged.iter().map(|at| Request::get(&format!("/v2/{at}/tags/list"))).collect();
        for (at, answer) in tagged.into_iter().zip(api.send(&requests)) {
            let listed = json_of(&answer.expect(200).body);
            let listed: BTreeSet<&str> =
                listed["tags"].as_array().into_iter().flatten().map(|tag| tag.as_str().unwrap()).collect();
            let expected = self.tags.keys().chain(&self.unreadable).filter(|(repository, _)| repository == at);
            assert_eq!(listed, expected.map(|(_, tag)| tag.as_str()).collect(), "tags of {at}");
        }
    }

    fn expect_manifest(&mut self, repository: &str, manifest: &Blob, tags: &[&str]) {
        let at = |text: &str| (repository.to_owned(), text.to_owned());
        self.manifests.insert((repository.to_owned(), manifest.digest), manifest.clone());
        self.gone.remove(&at(&manifest.digest.to_string()));
        for tag in tags {
            self.tags.insert(at(tag), manifest.digest);
            self.gone.remove(&at(tag));
        }
    }
}

/// `…/<algorithm>/<hex>/link` below a repository's `_layers` or `_manifests/revisions`.
pub(crate) fn link(data: &Path, below: &str, digest: &Digest) -> PathBuf {
    data.join(TREE).join("repositories").join(below).join(digest.algorithm().as_str()).join(digest.hex()).join("link")
}

/// Relative to the data directory.
pub(crate) fn tag_link(repository: &str, tag: &str) -> PathBuf {
    Path::new(TREE).join("repositories").join(repository).join("_manifests/tags").join(tag).join("current/link")
}

/// Where the bytes of a blob or manifest are.
pub(crate) fn data(data: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    data.join(TREE).join("blobs").join(digest.algorithm().as_str()).join(&hex[..2]).join(&hex).join("data")
}

/// Makes a file and the directories above it.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn names(manifest: &Blob, blob: &Digest) -> bool {
    String::from_utf8_lossy(&manifest.bytes).contains(&blob.to_string())
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}
