//! Where a check writes down how far it is, so that an interrupted one goes on.

use std::fs;
use std::path::{Path, PathBuf};

use portcullis_pki::files;
use portcullis_store::fsck::{Fsck, Purpose};
use serde::{Deserialize, Serialize};

use crate::home::Home;

/// The file of one home.
pub(super) struct Kept {
    path: PathBuf,
    data: PathBuf,
}

/// What it holds. Another version of this program begins anew: what it would look for may be more.
#[derive(Serialize, Deserialize)]
struct Contents<R> {
    version: String,
    data: PathBuf,
    run: R,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Kept {
    pub(super) fn of(home: &Home, data: &Path) -> Self {
        Self { path: home.root().join("run/fsck.json"), data: data.to_owned() }
    }

    /// A run for the same purpose and the same data; what cannot be read is none.
    pub(super) fn read(&self, purpose: Purpose) -> Option<Fsck> {
        let contents: Contents<Fsck> = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        let fits = contents.version == VERSION && contents.data == self.data && contents.run.purpose() == purpose;
        fits.then_some(contents.run)
    }

    pub(super) fn write(&self, run: &Fsck) -> anyhow::Result<()> {
        if let Some(directory) = self.path.parent() {
            files::create_dir(directory, files::PRIVATE_DIR)?;
        }
        let contents = Contents { version: VERSION.to_owned(), data: self.data.clone(), run };
        files::replace(&self.path, &serde_json::to_vec(&contents)?, 0o600)?;
        Ok(())
    }

    /// What stays of a run that ended would only make the next one shorter than it should be.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}
