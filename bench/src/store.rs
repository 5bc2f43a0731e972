//! Stores that would take hours to push: written as files, in the layout of CNCF Distribution that all registries of this
//! benchmark share.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use crate::content::{Content, Image};

/// Older than any grace.
const AGE: Duration = Duration::from_hours(3);

/// A data directory that is being filled, and read by nobody yet.
#[derive(Debug)]
pub(crate) struct Seed {
    root: PathBuf,
}

impl Seed {
    pub(crate) fn at(data: &Path) -> Self {
        Self { root: data.join("docker/registry/v2") }
    }

    /// The bytes of the image, which repositories link to.
    pub(crate) fn content(&self, image: &Image) -> anyhow::Result<()> {
        image.blobs.iter().chain([&image.manifest]).try_for_each(|content| self.blob(content))
    }

    /// A repository that has the image under one tag.
    pub(crate) fn repository(&self, name: &str, tag: &str, image: &Image) -> anyhow::Result<()> {
        for blob in &image.blobs {
            self.layer_link(name, &blob.digest)?;
        }
        let revision = format!("{}/link", of_digest(&image.manifest.digest));
        self.file(&format!("repositories/{name}/_manifests/revisions/{revision}"), image.manifest.digest.as_bytes())?;
        self.tag(name, tag, image)
    }

    /// One more tag of it.
    pub(crate) fn tag(&self, name: &str, tag: &str, image: &Image) -> anyhow::Result<()> {
        let path = format!("repositories/{name}/_manifests/tags/{tag}/current/link");
        self.file(&path, image.manifest.digest.as_bytes()).map(drop)
    }

    /// A blob of the repository that no manifest names.
    pub(crate) fn garbage(&self, name: &str, content: &Content) -> anyhow::Result<()> {
        self.blob(content)?;
        self.layer_link(name, &content.digest)
    }

    /// Waits until the disk has all of it: a store that is found like this was not written a moment ago, and a start that
    /// makes sure of that would be measured with the writing.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.root)?)?)
    }

    fn blob(&self, content: &Content) -> anyhow::Result<()> {
        let hex = content.digest.trim_start_matches("sha256:");
        self.file(&format!("blobs/sha256/{}/{hex}/data", &hex[..2]), &content.bytes).map(drop)
    }

    fn layer_link(&self, name: &str, digest: &str) -> anyhow::Result<()> {
        let path = format!("repositories/{name}/_layers/{}/link", of_digest(digest));
        self.file(&path, digest.as_bytes())?.set_modified(SystemTime::now() - AGE)?;
        Ok(())
    }

    fn file(&self, path: &str, bytes: &[u8]) -> anyhow::Result<File> {
        let path = self.root.join(path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        file.write_all(bytes)?;
        Ok(file)
    }
}

fn of_digest(digest: &str) -> String {
    digest.replacen(':', "/", 1)
}
