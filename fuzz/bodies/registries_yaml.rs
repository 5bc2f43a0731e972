//! k3s' `registries.yaml`: each host in it is found by its name.

use portcullis_certs::engine_files::RegistriesYaml;

use super::refusal;

/// `bytes`: such a file.
pub(crate) fn run(bytes: &[u8]) {
    match RegistriesYaml::parse(bytes) {
        Ok(read) => assert!(read.configs.iter().all(|(host, _)| read.config(host).is_some())),
        Err(refused) => refusal::check(bytes, &refused),
    }
}
