//! k3s' and RKE2's `registries.yaml`: wharfie `pkg/registries`. Unknown keys are passed over, as there.

use super::tree::{Node, Value, not_taken};
use super::{NotTaken, split_url};
use std::path::PathBuf;

/// The registries of a `registries.yaml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistriesYaml {
    /// `configs`, in the order of the file: each with its `tls`, where it has one.
    pub configs: Vec<(String, RegistryTls)>,
    /// `mirrors`: the registry, and its endpoints.
    pub mirrors: Vec<(String, Vec<String>)>,
}

/// `configs: HOST: tls:`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryTls {
    /// The line of the host.
    pub line: u32,
    /// Whether there is a `tls` at all.
    pub is_set: bool,
    /// `ca_file`.
    pub ca_file: Option<PathBuf>,
    /// `cert_file`.
    pub cert_file: Option<PathBuf>,
    /// `key_file`.
    pub key_file: Option<PathBuf>,
    /// `insecure_skip_verify`.
    pub skip_verify: bool,
}

impl RegistriesYaml {
    /// Reads the file.
    ///
    /// # Errors
    /// What keeps k3s from starting.
    ///
    /// ```
    /// use portcullis_certs::engine_files::RegistriesYaml;
    /// let text = "configs:\n  \"r.test:5000\":\n    tls:\n      ca_file: /c/ca.crt\n";
    /// let read = RegistriesYaml::parse(text.as_bytes())?;
    /// assert!(read.config("r.test:5000").is_some_and(|tls| tls.ca_file.is_some()));
    /// # Ok::<(), portcullis_certs::engine_files::NotTaken>(())
    /// ```
    pub fn parse(bytes: &[u8]) -> Result<Self, NotTaken> {
        let text = std::str::from_utf8(bytes).map_err(|_| not_taken(1, "is not UTF-8 text"))?;
        let tree = Node::yaml(text)?;
        if !matches!(tree.value, Value::Table(_)) && !tree.is_null() {
            return Err(tree.wrong("the file", "a mapping"));
        }
        let table = |name: &str| match tree.get(name) {
            None => Ok(&[][..]),
            Some(node) if node.is_null() => Ok(&[][..]),
            Some(node) if matches!(node.value, Value::Table(_)) => Ok(node.entries()),
            Some(node) => Err(node.wrong(name, "a mapping")),
        };
        let configs = table("configs")?.iter().map(|(host, node)| Ok((host.clone(), tls(host, node)?)));
        let mirrors = table("mirrors")?.iter().map(|(host, node)| Ok((host.clone(), endpoints(host, node)?)));
        Ok(Self { configs: configs.collect::<Result<_, _>>()?, mirrors: mirrors.collect::<Result<_, _>>()? })
    }

    /// The `tls` of a host: byte for byte, with its port.
    pub fn config(&self, host: &str) -> Option<&RegistryTls> {
        self.configs.iter().find(|(name, _)| name == host).map(|(_, tls)| tls)
    }

    /// Keys of `configs` with a scheme or a path: k3s makes a directory of that name, which is never looked for.
    pub fn with_scheme(&self) -> impl Iterator<Item = (u32, &str)> {
        let odd = self.configs.iter().filter(|(host, _)| split_url(host).is_some() || host.contains('/'));
        odd.map(|(host, tls)| (tls.line, host.as_str()))
    }
}

fn tls(host: &str, node: &Node) -> Result<RegistryTls, NotTaken> {
    let mut made = RegistryTls { line: node.line, ..RegistryTls::default() };
    if node.is_null() {
        return Ok(made);
    }
    if !matches!(node.value, Value::Table(_)) {
        return Err(node.wrong(host, "a mapping"));
    }
    let Some(tls) = node.get("tls").filter(|tls| !tls.is_null()) else { return Ok(made) };
    if !matches!(tls.value, Value::Table(_)) {
        return Err(tls.wrong("tls", "a mapping"));
    }
    made.is_set = true;
    let path = |name: &str| {
        let node = tls.get(name).filter(|node| !node.is_null());
        let text = node.map(|node| node.text(name)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()).map(PathBuf::from))
    };
    (made.ca_file, made.cert_file, made.key_file) = (path("ca_file")?, path("cert_file")?, path("key_file")?);
    made.skip_verify = tls.get("insecure_skip_verify").map_or(Ok(false), |node| node.truth("insecure_skip_verify"))?;
    Ok(made)
}

fn endpoints(host: &str, node: &Node) -> Result<Vec<String>, NotTaken> {
    match (&node.value, node.get("endpoint")) {
        (_, Some(list)) if !list.is_null() => Ok(list.texts("endpoint")?.into_iter().map(str::to_owned).collect()),
        (Value::Table(_), _) => Ok(Vec::new()),
        _ if node.is_null() => Ok(Vec::new()),
        _ => Err(node.wrong(host, "a mapping")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RegistriesYaml, NotTaken> {
        RegistriesYaml::parse(text.as_bytes())
    }

    #[test]
    fn configs_and_mirrors() {
        let text = "# a comment\nmirrors:\n  docker.io:\n    endpoint: [\"https://m.test\"]\n  x:\nconfigs:\n  m.test:\n    tls:\n      \
                    cert_file: /c\n      key_file: \"/k\"\n      insecure_skip_verify: yes\n  https://old.test:\n    auth: {}\n";
        let read = parse(text).unwrap();
        assert_eq!(
            read.mirrors,
            [("docker.io".to_owned(), vec!["https://m.test".to_owned()]), ("x".to_owned(), vec![])]
        );
        let tls = read.config("m.test").unwrap();
        assert_eq!((tls.line, tls.is_set, tls.skip_verify), (7, true, true));
        assert_eq!((tls.cert_file.clone(), tls.key_file.clone()), (Some("/c".into()), Some("/k".into())));
        assert_eq!(read.with_scheme().map(|(_, host)| host).collect::<Vec<_>>(), ["https://old.test"]);
        assert!(!read.config("https://old.test").unwrap().is_set);
        for empty in ["", "# nothing\n", "configs:\n", "configs: ~\nmirrors: {}\n"] {
            assert_eq!(parse(empty).unwrap(), RegistriesYaml::default(), "{empty:?}");
        }
    }

    #[test]
    fn what_k3s_does_not_start_with() {
        let cases = [
            ("configs: []\n", 1),
            ("configs:\n  h: x\n", 2),
            ("configs:\n  h:\n    tls: x\n", 3),
            ("configs:\n  h:\n    tls:\n      ca_file: [a]\n", 4),
            ("mirrors:\n  h:\n    endpoint: x\n", 3),
            ("configs:\n  h:\n    tls:\n      insecure_skip_verify: maybe\n", 4),
            ("- a\n", 1),
            ("a: b: c\n", 1),
        ];
        for (text, line) in cases {
            assert_eq!(parse(text).map(|_| 0).unwrap_err().line, line, "{text}");
        }
    }
}
