//! Adds a registry to a configuration file that is somebody else's, as text: comments and order stay, and what was added is
//! one block, so that it can be taken out again. The result is read back, and refused if anything else changed.

use super::tree::{Node, Value};
use super::{BuildkitdToml, HostsToml, NotTaken, RegistriesYaml, TlsFiles};
use std::fmt::Write as _;
use std::path::Path;

/// A file with a registry added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The whole new text.
    pub text: String,
    /// The lines that were added; they stand in `text` exactly once.
    pub block: String,
}

/// Why a registry was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditRefused {
    /// The file is not one that the engine takes.
    #[error("the file is broken already, {0}")]
    Broken(#[from] NotTaken),
    /// The registry has an entry with other files.
    #[error("line {line} has an entry for {host} already")]
    Present {
        /// The registry.
        host: String,
        /// The entry's line.
        line: u32,
    },
    /// It is written in a way that cannot be added to by adding lines.
    #[error("the file is written in a way to which no lines can be added safely")]
    Shape,
}

/// `[registry."host"]` at the end of a `buildkitd.toml`. `None`: it is there with these files.
///
/// ```
/// use portcullis_certs::engine_files::{BuildkitdToml, TlsFiles, edit};
/// let files = TlsFiles { roots: vec!["/c/ca.crt".into()], pairs: vec![("/c/c.cert".into(), "/c/c.key".into())] };
/// let edited = edit::buildkitd_toml("debug = true # mine\n", "r.test:5000", &files)?.unwrap();
/// assert!(edited.text.starts_with("debug = true # mine\n"));
/// assert_eq!(BuildkitdToml::parse(edited.text.as_bytes()).unwrap().registry("r.test:5000").unwrap().files, files);
/// assert_eq!(edit::without(&edited.text, &edited.block).as_deref(), Some("debug = true # mine\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The file is broken, or has another entry for this host.
pub fn buildkitd_toml(text: &str, host: &str, files: &TlsFiles) -> Result<Option<Edited>, EditRefused> {
    let read = BuildkitdToml::parse(text.as_bytes())?;
    if let Some(registry) = read.registry(host) {
        let same = registry.files == *files && registry.insecure != Some(true) && registry.http != Some(true);
        let refused = EditRefused::Present { host: host.to_owned(), line: registry.line };
        return if same { Ok(None) } else { Err(refused) };
    }
    let key = quoted(host);
    let mut block = format!("\n# {host}, by portcullis install\n[registry.{key}]\n");
    let roots: Vec<String> = files.roots.iter().map(|path| quoted_path(path)).collect();
    let _ = writeln!(block, "  ca = [{}]", roots.join(", "));
    for (cert, of_key) in &files.pairs {
        let (cert, of_key) = (quoted_path(cert), quoted_path(of_key));
        let _ = writeln!(block, "  [[registry.{key}.keypair]]\n    key = {of_key}\n    cert = {cert}");
    }
    let old = Node::toml(text)?;
    let edited = appended(text, block);
    let new = Node::toml(&edited.text)?;
    let only_added = same_but(&old, &new, &["registry", host]);
    if only_added { Ok(Some(edited)) } else { Err(EditRefused::Shape) }
}

/// `ca` and `client` for the registry itself in a `hosts.toml`, whose directory has the files. `None`: they are there.
///
/// # Errors
/// The file is broken, or names other files.
pub fn hosts_toml(text: &str, files: &TlsFiles) -> Result<Option<Edited>, EditRefused> {
    let read = HostsToml::parse(text.as_bytes(), Path::new(""))?;
    let own = read.entries.last().ok_or(EditRefused::Shape)?;
    if own.files == *files {
        return Ok(None);
    }
    if !own.files.is_empty() {
        return Err(EditRefused::Present { host: "the registry itself".to_owned(), line: own.line });
    }
    let roots: Vec<String> = files.roots.iter().map(|path| quoted_path(path)).collect();
    let mut block = format!("# by portcullis install\nca = [{}]\n", roots.join(", "));
    for (cert, key) in &files.pairs {
        let _ = writeln!(block, "client = [[{}, {}]]", quoted_path(cert), quoted_path(key));
    }
    let old = Node::toml(text)?;
    let edited = Edited { text: format!("{block}{text}"), block };
    let new = Node::toml(&edited.text)?;
    let without = |node: &Node| {
        let kept = node.entries().iter().filter(|(key, _)| key != "ca" && key != "client");
        kept.map(|(key, node)| (key.clone(), node.clone())).collect::<Vec<_>>()
    };
    if same_entries(&without(&old), &without(&new)) { Ok(Some(edited)) } else { Err(EditRefused::Shape) }
}

/// `configs: "host": tls:` in a `registries.yaml`. `None`: it is there with these files.
///
/// # Errors
/// The file is broken, has another entry for this host, or its `configs` is not written in lines.
pub fn registries_yaml(text: &str, host: &str, files: &TlsFiles) -> Result<Option<Edited>, EditRefused> {
    let read = RegistriesYaml::parse(text.as_bytes())?;
    let pair = files.pairs.first();
    if let Some(tls) = read.config(host) {
        let same = tls.ca_file.as_ref() == files.roots.first()
            && tls.cert_file.as_ref() == pair.map(|(cert, _)| cert)
            && tls.key_file.as_ref() == pair.map(|(_, key)| key)
            && !tls.skip_verify;
        let refused = EditRefused::Present { host: host.to_owned(), line: tls.line };
        return if same { Ok(None) } else { Err(refused) };
    }
    let old = Node::yaml(text)?;
    let configs = old.get("configs");
    let indent = configs.and_then(|node| node.entries().first()).map_or(2, |(_, child)| indent_of(text, child.line));
    let block = yaml_block(host, files, indent);
    let edited = match configs {
        None => appended(text, format!("configs:\n{block}")),
        Some(node) => inserted(text, node.line, block).ok_or(EditRefused::Shape)?,
    };
    let new = Node::yaml(&edited.text).map_err(|_| EditRefused::Shape)?;
    if same_but(&old, &new, &["configs", host]) { Ok(Some(edited)) } else { Err(EditRefused::Shape) }
}

/// The text without a block that was added; `None` when it is not there exactly once.
pub fn without(text: &str, block: &str) -> Option<String> {
    let (before, after) = text.split_once(block)?;
    (!block.is_empty() && !after.contains(block)).then(|| format!("{before}{after}"))
}

fn yaml_block(host: &str, files: &TlsFiles, indent: usize) -> String {
    let (one, two, three) = (" ".repeat(indent), " ".repeat(indent * 2), " ".repeat(indent * 3));
    let mut block = format!("{one}# by portcullis install\n{one}{}:\n{two}tls:\n", quoted(host));
    let pair = files.pairs.first();
    let named = [
        ("ca_file", files.roots.first()),
        ("cert_file", pair.map(|(cert, _)| cert)),
        ("key_file", pair.map(|(_, key)| key)),
    ];
    for (name, path) in named {
        if let Some(path) = path {
            let _ = writeln!(block, "{three}{name}: {}", quoted_path(path));
        }
    }
    block
}

/// The block at the end, on a line of its own.
fn appended(text: &str, block: String) -> Edited {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    Edited { text: format!("{text}{end}{block}"), block }
}

/// The block below a line, counted from 1, which ends in a colon.
fn inserted(text: &str, line: u32, block: String) -> Option<Edited> {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let at = usize::try_from(line).ok()?;
    let above = lines.get(at.checked_sub(1)?)?;
    let ends = above.ends_with('\n') && above.split('#').next().is_some_and(|code| code.trim_end().ends_with(':'));
    if !ends {
        return None;
    }
    lines.insert(at, &block);
    Some(Edited { text: lines.concat(), block })
}

fn indent_of(text: &str, line: u32) -> usize {
    let line = usize::try_from(line).ok().and_then(|line| text.lines().nth(line.saturating_sub(1))).unwrap_or_default();
    line.len() - line.trim_start_matches(' ').len()
}

/// Whether the two trees differ only in that the new one has something at this path of two keys.
fn same_but(old: &Node, new: &Node, path: &[&str; 2]) -> bool {
    let cut = |node: &Node| {
        let mut entries = Vec::new();
        for (key, value) in node.entries() {
            let mut value = value.clone();
            if key == path[0] {
                let kept = value.entries().iter().filter(|(key, _)| key != path[1]).cloned().collect::<Vec<_>>();
                if kept.is_empty() {
                    continue;
                }
                value.value = Value::Table(kept);
            }
            entries.push((key.clone(), value));
        }
        entries
    };
    new.at(path).is_some() && same_entries(&cut(old), &cut(new))
}

fn same_entries(old: &[(String, Node)], new: &[(String, Node)]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|((a, x), (b, y))| a == b && same(&x.value, &y.value))
}

fn same(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Text(a), Value::Text(b)) | (Value::Plain(a), Value::Plain(b)) => a == b,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(&a.value, &b.value))
        }
        (Value::Table(a), Value::Table(b)) => same_entries(a, b),
        // Numbers and dates stand in lines that were not touched.
        (Value::Other, Value::Other) => true,
        _ => false,
    }
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A string that is the same to TOML and YAML: both have JSON's escapes.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "r.test:5000";

    fn files() -> TlsFiles {
        TlsFiles { roots: vec!["/c/ca.crt".into()], pairs: vec![("/c/c.cert".into(), "/c/c.key".into())] }
    }

    #[test]
    fn registries_yaml_in_each_shape() {
        let shapes = [
            "",
            "# only a comment\n",
            "mirrors:\n  a:\n    endpoint: [\"https://b\"]\n",
            "configs:\n",
            "configs: # mine\n    other.test:   # keep\n        tls: {ca_file: /x}\nmirrors: {}\n",
            "mirrors: {}\nconfigs:\n  \"*\":\n    tls:\n      insecure_skip_verify: yes\n",
            "---\nmirrors: {}",
        ];
        for text in shapes {
            let edited = registries_yaml(text, HOST, &files()).unwrap().unwrap();
            let read = RegistriesYaml::parse(edited.text.as_bytes()).unwrap();
            let tls = read.config(HOST).unwrap();
            assert_eq!(
                (tls.ca_file.clone(), tls.key_file.clone()),
                (Some("/c/ca.crt".into()), Some("/c/c.key".into()))
            );
            assert_eq!(registries_yaml(&edited.text, HOST, &files()).unwrap(), None, "the second time it is there");
            assert_eq!(without(&edited.text, &edited.block).unwrap().trim_end(), text.trim_end());
            for comment in ["# only a comment", "# mine", "# keep"] {
                assert_eq!(edited.text.contains(comment), text.contains(comment), "{comment}");
            }
        }
    }

    #[test]
    fn what_cannot_be_added_to() {
        let refused = |text: &str| registries_yaml(text, HOST, &files()).unwrap_err();
        assert_eq!(refused("configs: {a: {}}\n"), EditRefused::Shape);
        assert_eq!(refused("configs: ~\n"), EditRefused::Shape);
        assert_eq!(refused("mirrors: {}\n...\n"), EditRefused::Shape);
        assert!(matches!(refused("configs:\n\t- a\n"), EditRefused::Broken(_)));
        let present = refused("configs:\n  r.test:5000:\n    tls: {ca_file: /other}\n");
        assert_eq!(present, EditRefused::Present { host: HOST.to_owned(), line: 2 });
        let toml = |text: &str| buildkitd_toml(text, HOST, &files()).unwrap_err();
        assert!(matches!(toml("[registry.\"r.test:5000\"]\nhttp = true\n"), EditRefused::Present { line: 1, .. }));
        assert!(matches!(toml("registry = {}\n"), EditRefused::Broken(_)), "an inline table is closed");
        assert!(matches!(toml("x = "), EditRefused::Broken(_)));
    }

    #[test]
    fn hosts_toml_of_somebody_else() {
        let text = "# theirs\nserver = \"https://r.test\"\n[host.\"https://m.test\"]\n  capabilities = [\"pull\"]\n";
        let edited = hosts_toml(text, &files()).unwrap().unwrap();
        assert!(edited.text.ends_with(text));
        let read = HostsToml::parse(edited.text.as_bytes(), Path::new("")).unwrap();
        assert_eq!(read.entries.last().unwrap().files, files());
        assert_eq!(hosts_toml(&edited.text, &files()).unwrap(), None);
        assert!(matches!(hosts_toml("ca = \"x\"\n", &files()), Err(EditRefused::Present { .. })));
    }

    #[test]
    fn odd_paths_are_quoted() {
        let odd = TlsFiles { roots: vec!["/a \"b\\c\u{7}/ca.crt".into()], pairs: vec![] };
        let edited = buildkitd_toml("", HOST, &odd).unwrap().unwrap();
        assert_eq!(BuildkitdToml::parse(edited.text.as_bytes()).unwrap().registry(HOST).unwrap().files, odd);
        let edited = registries_yaml("", HOST, &odd).unwrap().unwrap();
        let read = RegistriesYaml::parse(edited.text.as_bytes()).unwrap();
        assert_eq!(read.config(HOST).unwrap().ca_file, odd.roots.first().cloned());
    }

    #[test]
    fn a_block_is_taken_out_only_where_it_stands_once() {
        assert_eq!(without("a\nb\nc\n", "b\n").as_deref(), Some("a\nc\n"));
        assert_eq!(without("b\nb\n", "b\n"), None);
        assert_eq!(without("a\n", "b\n"), None);
        assert_eq!(without("a\n", ""), None);
    }
}
