//! Which crate may depend on which. The table is the architecture; ARCHITECTURE.md tells it in words.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::Problem;

/// Manifests only: resolving would want every package of every platform to be downloaded first.
pub(super) const METADATA: [&str; 5] = ["metadata", "--format-version", "1", "--no-deps", "--offline"];

/// One crate of the workspace.
struct Row {
    name: &'static str,
    /// Crates of ours it may depend on, outside tests.
    may_use: &'static [&'static str],
    /// Crates of others that would break its "must not know".
    must_not_know: &'static [&'static str],
}

const HTTP: &[&str] = &["http", "http-body", "http-body-util", "hyper", "hyper-util", "reqwest"];
const HTTP_AND_TLS: &[&str] =
    &["http", "http-body", "http-body-util", "hyper", "hyper-util", "reqwest", "rustls", "tokio-rustls"];
const SOCKETS: &[&str] = &["hyper", "hyper-util", "reqwest", "rustls", "tokio", "tokio-rustls"];

/// Every arrow points down this list, so that there is no cycle.
const TABLE: &[Row] = &[
    Row {
        name: "portcullis",
        may_use: &[
            "portcullis-doctor",
            "portcullis-server",
            "portcullis-client",
            "portcullis-pki",
            "portcullis-store",
            "portcullis-tls",
            "portcullis-certs",
            "portcullis-oci",
        ],
        must_not_know: &[],
    },
    Row {
        name: "portcullis-doctor",
        may_use: &["portcullis-client", "portcullis-tls", "portcullis-certs", "portcullis-oci"],
        must_not_know: &[],
    },
    Row {
        // Never portcullis-pki: what serves cannot mint.
        name: "portcullis-server",
        may_use: &["portcullis-store", "portcullis-tls", "portcullis-certs", "portcullis-oci"],
        must_not_know: &[],
    },
    Row {
        name: "portcullis-client",
        may_use: &["portcullis-tls", "portcullis-certs", "portcullis-oci"],
        must_not_know: &[],
    },
    Row { name: "portcullis-pki", may_use: &["portcullis-tls", "portcullis-certs"], must_not_know: HTTP },
    Row { name: "portcullis-store", may_use: &["portcullis-oci"], must_not_know: HTTP_AND_TLS },
    Row { name: "portcullis-tls", may_use: &["portcullis-certs"], must_not_know: HTTP },
    Row { name: "portcullis-certs", may_use: &["portcullis-oci"], must_not_know: SOCKETS },
    Row { name: "portcullis-testkit", may_use: &["portcullis-oci"], must_not_know: SOCKETS },
    Row { name: "portcullis-oci", may_use: &[], must_not_know: SOCKETS },
    // Measures the program that ships, from outside.
    Row { name: "bench", may_use: &[], must_not_know: &[] },
    Row { name: "xtask", may_use: &[], must_not_know: SOCKETS },
];

/// Judges the output of `cargo metadata`.
pub(super) fn check(metadata: &str) -> anyhow::Result<Vec<Problem>> {
    let metadata: Value = serde_json::from_str(metadata).context("`cargo metadata` printed no JSON")?;
    let root = metadata["workspace_root"].as_str().context("`cargo metadata` names no workspace_root")?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` lists no packages")?;
    Ok(packages.iter().flat_map(|package| check_package(root, package)).collect())
}

fn check_package(root: &str, package: &Value) -> Vec<Problem> {
    let name = text(package, "name");
    let manifest = Path::new(text(package, "manifest_path"));
    let path = manifest.strip_prefix(root).unwrap_or(manifest).to_string_lossy();
    let Some(row) = TABLE.iter().find(|row| row.name == name) else {
        return vec![Problem::new(&path, 0, format!("{name} has no row in the table of xtask/src/tidy/edges.rs"))];
    };
    let dependencies = package["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    dependencies.iter().filter_map(|dependency| check_dependency(row, dependency, &path)).collect()
}

fn check_dependency(row: &Row, dependency: &Value, path: &str) -> Option<Problem> {
    let name = text(dependency, "name");
    if dependency["kind"].as_str() == Some("dev") {
        return None;
    }
    let is_ours = dependency["path"].is_string();
    if is_ours && !row.may_use.contains(&name) {
        let allowed = if row.may_use.is_empty() { "none of ours".into() } else { row.may_use.join(", ") };
        return Some(Problem::new(path, 0, format!("{} may not depend on {name}, only on {allowed}", row.name)));
    }
    let text = || format!("{} must not know what {name} is about (xtask/src/tidy/edges.rs)", row.name);
    row.must_not_know.contains(&name).then(|| Problem::new(path, 0, text()))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `dependencies`: name, `normal`, `dev` or `build`, and whether it is ours.
    fn problems(name: &str, dependencies: &[(&str, &str, bool)]) -> Vec<String> {
        let dependencies: Vec<Value> = dependencies
            .iter()
            .map(|(name, kind, is_ours)| {
                let kind = if *kind == "normal" { Value::Null } else { Value::from(*kind) };
                let path = if *is_ours { Value::from(format!("/r/crates/{name}")) } else { Value::Null };
                serde_json::json!({ "name": name, "kind": kind, "path": path })
            })
            .collect();
        let manifest_path = format!("/r/crates/{name}/Cargo.toml");
        let package = serde_json::json!({ "name": name, "manifest_path": manifest_path, "dependencies": dependencies });
        let metadata = serde_json::json!({ "workspace_root": "/r", "packages": [package] });
        check(&metadata.to_string()).unwrap().iter().map(Problem::to_string).collect()
    }

    #[test]
    fn every_arrow_of_the_table_points_down() {
        for (index, row) in TABLE.iter().enumerate() {
            for used in row.may_use {
                let at = TABLE.iter().position(|other| other.name == *used);
                assert!(at.is_some_and(|at| at > index), "{} -> {used}", row.name);
            }
        }
    }

    #[test]
    fn the_testkit_is_for_tests_only() {
        assert!(TABLE.iter().all(|row| !row.may_use.contains(&"portcullis-testkit")));
        assert_eq!(problems("portcullis-oci", &[("portcullis-testkit", "dev", true)]), [""; 0]);
        assert_eq!(problems("portcullis-oci", &[("portcullis-testkit", "build", true)]).len(), 1);
    }

    #[test]
    fn the_server_cannot_mint() {
        let found = problems("portcullis-server", &[("portcullis-pki", "normal", true), ("hyper", "normal", false)]);
        let expected = "portcullis-server may not depend on portcullis-pki, only on portcullis-store, portcullis-tls, \
                        portcullis-certs, portcullis-oci";
        assert_eq!(found, [format!("crates/portcullis-server/Cargo.toml: {expected}")]);
    }

    #[test]
    fn what_a_crate_must_not_know_is_refused() {
        assert_eq!(problems("portcullis-store", &[("rustls", "normal", false)]).len(), 1);
        assert_eq!(problems("portcullis-store", &[("rustls", "dev", false), ("bytes", "normal", false)]), [""; 0]);
    }

    #[test]
    fn a_new_crate_needs_a_row() {
        assert!(problems("portcullis-new", &[])[0].contains("has no row"));
    }

    #[test]
    fn output_that_is_no_metadata_is_an_error() {
        assert!(check("").is_err());
        assert!(check("{}").is_err());
    }
}
