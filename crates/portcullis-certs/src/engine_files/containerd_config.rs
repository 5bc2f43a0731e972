//! containerd's `config.toml`: where the CRI plugin is told to look for certificate directories.

use super::NotTaken;
use super::tree::{Node, not_taken};
use std::path::PathBuf;

/// What `config.toml` says about registries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerdConfig {
    /// `registry.config_path` as it is written, with its line.
    pub config_path: Option<(u32, String)>,
    /// The line of `registry.mirrors` or `registry.configs`, which exclude `config_path`.
    pub old_tables: Option<u32>,
    /// The line of a registry table of a plugin that this configuration's version does not have.
    pub misplaced: Option<u32>,
    /// `use_local_image_pull`.
    pub local_pull: bool,
}

/// The plugin that pulls: of `version = 2` and before, and of `version = 3` (containerd 2.x).
const PLUGINS: [&str; 2] = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"];

impl ContainerdConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// What keeps containerd from starting.
    ///
    /// ```
    /// use portcullis_certs::engine_files::ContainerdConfig;
    /// let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
    /// let read = ContainerdConfig::parse(text.as_bytes())?;
    /// assert_eq!(read.config_path, Some((3, "/etc/containerd/certs.d".to_owned())));
    /// # Ok::<(), portcullis_certs::engine_files::NotTaken>(())
    /// ```
    pub fn parse(bytes: &[u8]) -> Result<Self, NotTaken> {
        let text = std::str::from_utf8(bytes).map_err(|_| not_taken(1, "is not UTF-8 text"))?;
        let tree = Node::toml(text)?;
        let [old, new] = PLUGINS.map(|plugin| tree.at(&["plugins", plugin, "registry"]));
        // containerd 2.x migrates a file of version 2, and takes one of version 3 as it is.
        let is_v3 = is_version_3(text);
        let (used, unused) = if is_v3 { (new, old) } else { (old, new) };
        let config_path = used.and_then(|table| table.get("config_path"));
        let config_path = config_path.map(|node| Ok((node.line, node.text("config_path")?.to_owned()))).transpose()?;
        let old_tables = used.and_then(|table| table.get("mirrors").or(table.get("configs"))).map(|node| node.line);
        let local = tree.at(&["plugins", PLUGINS[1], "use_local_image_pull"]);
        let local_pull = local.map_or(Ok(false), |node| node.truth("use_local_image_pull"))?;
        let misplaced = unused.and_then(|table| table.get("config_path")).map(|node| node.line);
        Ok(Self { config_path, old_tables, misplaced, local_pull })
    }

    /// `config_path` as the list it is meant to be.
    pub fn paths(&self) -> Vec<PathBuf> {
        let text = self.config_path.as_ref().map_or("", |(_, text)| text.as_str());
        text.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect()
    }
}

/// `version = 3` is a number, and the tree keeps none.
fn is_version_3(text: &str) -> bool {
    let line = |line: &str| line.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    let top = text.lines().take_while(|line| !line.trim_start().starts_with('['));
    top.filter_map(line).any(|(key, value)| key == "version" && value.starts_with('3'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ContainerdConfig {
        ContainerdConfig::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn each_version_has_its_plugin() {
        let table = |plugin: &str| format!("[plugins.\"{plugin}\".registry]\nconfig_path = \"/a:/b\"\n");
        let [old, new] = PLUGINS.map(table);
        let old_file = parse(&format!("version = 2\n{old}"));
        assert_eq!(old_file.paths(), [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!((old_file.config_path.unwrap().0, old_file.misplaced), (3, None));
        let new_file = parse(&format!("version = 3\n{new}"));
        assert_eq!(new_file.paths().len(), 2);
        let wrong = parse(&format!("version = 3\n{old}"));
        assert_eq!((wrong.config_path, wrong.misplaced), (None, Some(3)));
    }

    #[test]
    fn what_excludes_it() {
        let text = "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"x\"]\nendpoint = [\"https://y\"]\n";
        let read = parse(text);
        assert_eq!((read.old_tables, read.config_path.clone(), read.paths().len()), (Some(1), None, 0));
        assert!(parse("[plugins.\"io.containerd.cri.v1.images\"]\nuse_local_image_pull = true\n").local_pull);
        assert!(ContainerdConfig::parse(b"version = ").is_err());
    }
}
