//! Foreign bytes as engines' configuration files: the fuzzers' bodies, replayed over their corpora.

use proptest::prelude::*;
use std::fs;
use std::path::Path;

#[path = "../../../../fuzz/bodies/buildkitd_toml.rs"]
mod buildkitd_toml;
#[path = "../../../../fuzz/bodies/containerd_config.rs"]
mod containerd_config;
#[path = "../../../../fuzz/bodies/hosts_toml.rs"]
mod hosts_toml;
#[path = "../../../../fuzz/bodies/refusal.rs"]
mod refusal;
#[path = "../../../../fuzz/bodies/registries_conf.rs"]
mod registries_conf;
#[path = "../../../../fuzz/bodies/registries_yaml.rs"]
mod registries_yaml;

type Body = fn(&[u8]);

const BODIES: [(&str, Body); 5] = [
    ("hosts_toml", hosts_toml::run),
    ("containerd_config", containerd_config::run),
    ("buildkitd_toml", buildkitd_toml::run),
    ("registries_conf", registries_conf::run),
    ("registries_yaml", registries_yaml::run),
];

#[test]
fn the_corpora_are_read() {
    for (name, body) in BODIES {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
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
        Just("[[registry]]"),
        Just("[[registry.mirror]]"),
        Just("prefix = \"r.test/team\""),
        Just("prefix = \"*.test\""),
        Just("location = \"m.test:5000/x\""),
        Just("blocked = true"),
        Just("[registries.block]"),
        Just("registries = [\"r.test\"]"),
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
