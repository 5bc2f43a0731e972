//! BuildKit's `buildkitd.toml`: each registry in it is found by its name.

use portcullis_certs::engine_files::BuildkitdToml;

use super::refusal;

/// `bytes`: such a file.
pub(crate) fn run(bytes: &[u8]) {
    match BuildkitdToml::parse(bytes) {
        Ok(read) => assert!(read.registries.iter().all(|registry| read.registry(&registry.host).is_some())),
        Err(refused) => refusal::check(bytes, &refused),
    }
}
