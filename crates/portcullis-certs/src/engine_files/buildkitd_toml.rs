//! BuildKit's `buildkitd.toml`: `util/resolver/config/config.go`. Unknown keys are passed over, as there.

use super::tree::{Node, Value, not_taken};
use super::{NotTaken, TlsFiles};
use std::path::PathBuf;

/// The registries of a `buildkitd.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildkitdToml {
    /// `[registry."…"]` in the order of the file.
    pub registries: Vec<BuildkitRegistry>,
}

/// One `[registry."host"]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildkitRegistry {
    /// The host, as it is written.
    pub host: String,
    /// The line it starts in.
    pub line: u32,
    /// `ca` and `keypair`.
    pub files: TlsFiles,
    /// `tlsconfigdir`: directories of certificate files, without a level for the host.
    pub directories: Vec<PathBuf>,
    /// `insecure` where it is given.
    pub insecure: Option<bool>,
    /// `http` where it is given.
    pub http: Option<bool>,
    /// `mirrors`: hosts, each with its own entry.
    pub mirrors: Vec<String>,
}

impl BuildkitdToml {
    /// Reads the file.
    ///
    /// # Errors
    /// What keeps `buildkitd` from starting.
    ///
    /// ```
    /// use portcullis_certs::engine_files::BuildkitdToml;
    /// let text = "[registry.\"r.test:5000\"]\nca = [\"/c/ca.crt\"]\n[[registry.\"r.test:5000\".keypair]]\nkey = \"k\"\ncert = \"c\"\n";
    /// let read = BuildkitdToml::parse(text.as_bytes())?;
    /// assert_eq!(read.registry("r.test:5000").map(|registry| registry.files.pairs.len()), Some(1));
    /// # Ok::<(), portcullis_certs::engine_files::NotTaken>(())
    /// ```
    pub fn parse(bytes: &[u8]) -> Result<Self, NotTaken> {
        let text = std::str::from_utf8(bytes).map_err(|_| not_taken(1, "is not UTF-8 text"))?;
        let tree = Node::toml(text)?;
        let Some(table) = tree.get("registry") else { return Ok(Self { registries: Vec::new() }) };
        if !matches!(table.value, Value::Table(_)) {
            return Err(table.wrong("registry", "a table"));
        }
        let registries = table.entries().iter().map(|(host, node)| registry(host, node)).collect::<Result<_, _>>()?;
        Ok(Self { registries })
    }

    /// The entry of a host: byte for byte, with its port.
    pub fn registry(&self, host: &str) -> Option<&BuildkitRegistry> {
        self.registries.iter().find(|registry| registry.host == host)
    }
}

fn registry(host: &str, node: &Node) -> Result<BuildkitRegistry, NotTaken> {
    if !matches!(node.value, Value::Table(_)) {
        return Err(node.wrong(host, "a table"));
    }
    let texts = |name: &str| node.get(name).map_or(Ok(Vec::new()), |node| node.texts(name));
    let truth = |name: &str| node.get(name).map(|node| node.truth(name)).transpose();
    let paths = |name: &str| Ok(texts(name)?.into_iter().map(PathBuf::from).collect::<Vec<_>>());
    let pairs = match node.get("keypair") {
        None => Vec::new(),
        Some(Node { value: Value::List(items), .. }) => items.iter().map(keypair).collect::<Result<_, _>>()?,
        Some(other) => return Err(other.wrong("keypair", "a list of tables: [[registry.\"…\".keypair]]")),
    };
    Ok(BuildkitRegistry {
        host: host.to_owned(),
        line: node.line,
        files: TlsFiles { roots: paths("ca")?, pairs },
        directories: paths("tlsconfigdir")?,
        insecure: truth("insecure")?,
        http: truth("http")?,
        mirrors: texts("mirrors")?.into_iter().map(str::to_owned).collect(),
    })
}

fn keypair(node: &Node) -> Result<(PathBuf, PathBuf), NotTaken> {
    if !matches!(node.value, Value::Table(_)) {
        return Err(node.wrong("keypair", "a list of tables: [[registry.\"…\".keypair]]"));
    }
    let path = |name: &str| node.get(name).map_or(Ok(PathBuf::new()), |node| node.text(name).map(PathBuf::from));
    Ok((path("cert")?, path("key")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BuildkitdToml, NotTaken> {
        BuildkitdToml::parse(text.as_bytes())
    }

    #[test]
    fn everything_of_an_entry() {
        let text = "debug = true\n[registry.\"docker.io\"]\nmirrors = [\"m.test\"]\nhttp = false\n\
                    [registry.\"m.test\"]\nca = [\"a\", \"b\"]\ninsecure = true\ntlsconfigdir = [\"/d\"]\n\
                    [[registry.\"m.test\".keypair]]\nkey = \"k1\"\ncert = \"c1\"\n[[registry.\"m.test\".keypair]]\nkey=\"k2\"\n";
        let read = parse(text).unwrap();
        let mirror = read.registry("m.test").unwrap();
        assert_eq!((mirror.line, mirror.insecure, mirror.http), (5, Some(true), None));
        assert_eq!(mirror.files.roots.len(), 2);
        assert_eq!(mirror.files.pairs, [("c1".into(), "k1".into()), ("".into(), "k2".into())]);
        assert_eq!(read.registry("docker.io").unwrap().mirrors, ["m.test"]);
        assert!(read.registry("m.test:443").is_none(), "the port is part of the name");
        assert!(parse("").unwrap().registries.is_empty());
    }

    #[test]
    fn what_buildkitd_does_not_start_with() {
        let cases = [
            ("[registry.\"h\"]\nca = \"a.crt\"", 2),
            ("[registry.\"h\"]\nkeypair = [\"c\", \"k\"]\ninsecure = 1", 2),
            ("[registry.\"h\".keypair]\nkey = \"k\"", 1),
            ("registry = []", 1),
            ("[registry]\nh = 1", 2),
            ("[registry.\"h\"]\nca = [1]", 2),
            ("[registry.h\n", 1),
        ];
        for (text, line) in cases {
            assert_eq!(parse(text).map(|_| 0).unwrap_err().line, line, "{text}");
        }
    }
}
