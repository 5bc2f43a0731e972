//! Foreign bytes as engines' configuration files. Each body is a plain function for a fuzzer to call; the corpora under
//! `tests/corpus/` are replayed.

use portcullis_certs::engine_files::{BuildkitdToml, ContainerdConfig, HostsToml, NotTaken, RegistriesYaml};
use proptest::prelude::*;
use std::fs;
use std::path::Path;

/// A reason to refuse a file has a line that the file has.
fn check_refusal(data: &[u8], refused: &NotTaken) {
    let lines = data.split(|&b| b == b'\n').count();
    assert!(refused.line >= 1 && refused.line as usize <= lines, "line {} of {lines}", refused.line);
    assert!(!refused.reason.is_empty());
}

/// containerd's `hosts.toml`.
fn hosts_toml(data: &[u8]) {
    match HostsToml::parse(data, Path::new("/d")) {
        Ok(read) => assert!(read.entries.iter().flat_map(|entry| &entry.files.roots).all(|path| path.is_absolute())),
        Err(refused) => check_refusal(data, &refused),
    }
}

/// containerd's `config.toml`.
fn containerd_config(data: &[u8]) {
    match ContainerdConfig::parse(data) {
        Ok(read) => assert!(read.paths().iter().all(|path| !path.as_os_str().is_empty())),
        Err(refused) => check_refusal(data, &refused),
    }
}

/// BuildKit's `buildkitd.toml`.
fn buildkitd_toml(data: &[u8]) {
    match BuildkitdToml::parse(data) {
        Ok(read) => assert!(read.registries.iter().all(|registry| read.registry(&registry.host).is_some())),
        Err(refused) => check_refusal(data, &refused),
    }
}

/// k3s' `registries.yaml`.
fn registries_yaml(data: &[u8]) {
    match RegistriesYaml::parse(data) {
        Ok(read) => assert!(read.configs.iter().all(|(host, _)| read.config(host).is_some())),
        Err(refused) => check_refusal(data, &refused),
    }
}

type Body = fn(&[u8]);

const BODIES: [(&str, Body); 4] = [
    ("hosts_toml", hosts_toml),
    ("containerd_config", containerd_config),
    ("buildkitd_toml", buildkitd_toml),
    ("registries_yaml", registries_yaml),
];

#[test]
fn the_corpora_are_read() {
    for (name, body) in BODIES {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
        let files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "{name}");
        for file in files {
            body(&fs::read(&file).unwrap());
        }
    }
}

/// Lines of such files in any order, which random bytes would never hit.
fn config_like() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("[host.\"https://m.test\"]"),
        Just("[registry.\"r.test\"]"),
        Just("[[registry.\"r.test\".keypair]]"),
        Just("[plugins.\"io.containerd.grpc.v1.cri\".registry]"),
        Just("config_path = \"/a::/b\""),
        Just("version = 3"),
        Just("ca = [\"a\", 'b']"),
        Just("client = [[\"c\", \"k\"], \"both\"]"),
        Just("skip_verify = true"),
        Just("key = \"k\""),
        Just("configs:"),
        Just("  r.test:"),
        Just("    tls: {ca_file: a, insecure_skip_verify: yes}"),
        Just("    tls: &x"),
        Just("  - *x"),
        Just("---"),
        Just("\t"),
        Just("[[[[[[[["),
        Just("{{{{{{{{"),
        Just("? !!map |"),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n").into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_as_configuration(data in prop::collection::vec(any::<u8>(), 0..512)) {
        for (_, body) in BODIES {
            body(&data);
        }
    }

    #[test]
    fn any_lines_as_configuration(data in config_like()) {
        for (_, body) in BODIES {
            body(&data);
        }
    }
}
