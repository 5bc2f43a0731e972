//! The engines' configuration files, as far as they decide about certificates. Bounded reading; what does not parse is kept
//! as text with its error, never as an empty configuration.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use portcullis_certs::engine_files::RegistriesConf;
use portcullis_certs::{Finding, RegistriesPlace, read_registries_conf};
use serde_json::Value;
use time::OffsetDateTime;

/// No configuration file comes near it.
const LIMIT: u64 = 1 << 20;

/// Files of one directory of drop-ins or builders.
const MAX_FILES: usize = 64;

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

impl TextFile {
    /// The first line (from 1) that has this in it.
    pub fn line_of(&self, needle: &str) -> Option<u32> {
        let index = self.text.lines().position(|line| line.contains(needle))?;
        u32::try_from(index + 1).ok()
    }
}

/// Docker Engine's `daemon.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerConfig {
    /// The file; `None` when there is none.
    pub file: Option<TextFile>,
    /// Why it is no JSON object.
    pub error: Option<String>,
    /// `insecure-registries`.
    pub insecure_registries: Vec<String>,
    /// `features.containerd-snapshotter`.
    pub containerd_store: Option<bool>,
}

/// A builder of buildx in a container: it has copies of the certificates from when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// When it was made or last changed.
    pub changed: OffsetDateTime,
}

/// All configuration files.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Docker's.
    pub docker: DockerConfig,
    /// containerd's own file.
    pub containerd: Option<TextFile>,
    /// `registries.conf` with its drop-ins, as Podman reads them.
    pub registries: RegistriesConf,
    /// Why they cannot be read.
    pub unread_registries: Option<Finding>,
    /// `hosts.toml` of the directories that count or might.
    pub hosts_toml: Vec<TextFile>,
    /// buildx' builders of the docker-container kind.
    pub builders: Vec<Builder>,
}

/// Reads them below `root`; a user's own below `home` there.
pub(super) fn read(root: &Path, home: Option<&Path>) -> Config {
    let (registries, unread_registries) = match read_registries_conf(RegistriesPlace::SearchBelow { root, home }) {
        Ok(read) => (read, None),
        Err(finding) => (RegistriesConf::default(), Some(*finding)),
    };
    let home = home.map(|home| super::below(root, home));
    Config {
        docker: docker(&root.join("etc/docker/daemon.json")),
        containerd: read_text(&root.join("etc/containerd/config.toml")),
        registries,
        unread_registries,
        hosts_toml: Vec::new(),
        builders: home.map(|home| builders(&home.join(".docker/buildx/instances"))).unwrap_or_default(),
    }
}

/// containerd's files in these host directories.
pub(super) fn hosts_toml(directories: &[PathBuf]) -> Vec<TextFile> {
    directories.iter().filter_map(|path| read_text(&path.join("hosts.toml"))).collect()
}

/// The text of a regular file of at most 1 MiB; what is not UTF-8 in it is replaced.
pub(super) fn read_text(path: &Path) -> Option<TextFile> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
    Some(TextFile { path: path.to_owned(), text: String::from_utf8_lossy(&bytes).into_owned() })
}

fn docker(path: &Path) -> DockerConfig {
    let Some(file) = read_text(path) else { return DockerConfig::default() };
    let value: Value = match serde_json::from_str(&file.text) {
        Ok(value) => value,
        Err(error) => {
            return DockerConfig { file: Some(file), error: Some(error.to_string()), ..DockerConfig::default() };
        }
    };
    let list = value["insecure-registries"].as_array().map(Vec::as_slice).unwrap_or_default();
    DockerConfig {
        file: Some(file),
        error: None,
        insecure_registries: list.iter().filter_map(|entry| entry.as_str().map(str::to_owned)).collect(),
        containerd_store: value["features"]["containerd-snapshotter"].as_bool(),
    }
}

fn builders(directory: &Path) -> Vec<Builder> {
    let read = |path: PathBuf| {
        let file = read_text(&path)?;
        let value: Value = serde_json::from_str(&file.text).ok()?;
        let changed = OffsetDateTime::from(fs::metadata(&path).ok()?.modified().ok()?);
        let name = path.file_name()?.to_str()?.to_owned();
        (value["Driver"].as_str()? == "docker-container").then_some(Builder { name, path, changed })
    };
    sorted(directory).into_iter().filter_map(read).collect()
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.take(MAX_FILES).filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_json_that_does_not_parse_is_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.json");
        fs::write(
            &path,
            r#"{"insecure-registries": ["r.test:5000", "10.0.0.0/8"], "features": {"containerd-snapshotter": true}}"#,
        )
        .unwrap();
        let read = docker(&path);
        assert_eq!(read.insecure_registries, ["r.test:5000", "10.0.0.0/8"]);
        assert_eq!((read.containerd_store, read.error), (Some(true), None));
        fs::write(&path, "{,}").unwrap();
        assert!(docker(&path).error.is_some());
        assert_eq!(docker(&dir.path().join("none")), DockerConfig::default());
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "x".repeat(usize::try_from(LIMIT).unwrap() + 1)).unwrap();
        assert_eq!(read_text(&path).unwrap().text.len() as u64, LIMIT);
        assert_eq!(read_text(dir.path()), None);
    }
}
