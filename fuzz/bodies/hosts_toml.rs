//! containerd's `hosts.toml`: what is read of it can be opened from anywhere.

use std::path::Path;

use portcullis_certs::engine_files::HostsToml;

use super::refusal;

/// `bytes`: such a file.
pub(crate) fn run(bytes: &[u8]) {
    match HostsToml::parse(bytes, Path::new("/d")) {
        Ok(read) => assert!(read.entries.iter().flat_map(|entry| &entry.files.roots).all(|path| path.is_absolute())),
        Err(refused) => refusal::check(bytes, &refused),
    }
}
