//! containerd's `config.toml`: the directories it names are names.

use portcullis_certs::engine_files::ContainerdConfig;

use super::refusal;

/// `bytes`: such a file.
pub(crate) fn run(bytes: &[u8]) {
    match ContainerdConfig::parse(bytes) {
        Ok(read) => assert!(read.paths().iter().all(|path| !path.as_os_str().is_empty())),
        Err(refused) => refusal::check(bytes, &refused),
    }
}
