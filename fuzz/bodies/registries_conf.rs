//! Podman's `registries.conf`: whatever it says of an image, the registry itself is asked last, and nothing is asked that
//! could not be typed.

use std::path::Path;

use portcullis_certs::engine_files::{MAX_MIRRORS, PullBy, RegistriesConf};

use super::refusal;

/// `bytes`: such a file.
pub(crate) fn run(bytes: &[u8]) {
    let (Ok(host), Ok(repository)) = ("r.test".parse(), "team/app".parse()) else { return };
    match RegistriesConf::parse(bytes, Path::new("/r.conf")) {
        Ok(read) => {
            for by in [PullBy::Tag, PullBy::Digest] {
                if let Ok(sources) = read.sources(&host, &repository, by) {
                    assert!((1..=MAX_MIRRORS + 1).contains(&sources.len()));
                }
            }
        }
        Err(refused) => refusal::check(bytes, &refused),
    }
}
