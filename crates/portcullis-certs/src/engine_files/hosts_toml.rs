//! containerd's `hosts.toml`: `core/remotes/docker/config/hosts.go` `parseHostsFile` and `parseHostConfig`.

use super::tree::{Node, Value, not_taken};
use super::{NotTaken, TlsFiles, absolute, split_url};
use crate::fault::Fault;
use crate::finding::{Finding, Severity};
use std::path::{Path, PathBuf};

/// A `hosts.toml`, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsToml {
    /// `[host."…"]` in the order of the file, then the entry of the file itself: its `server`, or the registry.
    pub entries: Vec<HostEntry>,
    /// Whether there is a table `host` at all; containerd before 2.0 takes no file without one.
    pub has_host_table: bool,
}

/// One entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostEntry {
    /// The line it starts in.
    pub line: u32,
    /// Scheme and `host[:port]` of its URL; `None`: the registry that was asked for.
    pub server: Option<(String, String)>,
    /// `ca` and `client`.
    pub files: TlsFiles,
    /// `skip_verify` where it is given.
    pub skip_verify: Option<bool>,
    /// The path below which it has the distribution API: `/v2`, after the path of its URL, or that path alone with
    /// `override_path`.
    pub path: String,
    /// Whether it says what a tag stands for.
    pub resolves: bool,
    /// Whether it gives content by digest.
    pub pulls: bool,
    /// Whether it takes pushes.
    pub pushes: bool,
    /// Lines of `client = ["CERT", "KEY"]`, which containerd reads as two files that hold both.
    pub combined: Vec<u32>,
    /// Lines of a pair with an empty name, which containerd reads as the directory itself.
    pub empty_names: Vec<u32>,
}

impl HostsToml {
    /// Reads the file as containerd 2 does; `directory` is where relative paths start.
    ///
    /// # Errors
    /// What makes containerd log an error and read the certificate files instead.
    ///
    /// ```
    /// use portcullis_certs::engine_files::HostsToml;
    /// let text = "server = \"https://r.test\"\nca = \"ca.crt\"\nclient = [[\"c.cert\", \"c.key\"]]\n";
    /// let read = HostsToml::parse(text.as_bytes(), "/etc/containerd/certs.d/r.test".as_ref())?;
    /// assert!(read.entries[0].files.roots[0].ends_with("r.test/ca.crt"));
    /// # Ok::<(), portcullis_certs::engine_files::NotTaken>(())
    /// ```
    pub fn parse(bytes: &[u8], directory: &Path) -> Result<Self, NotTaken> {
        let text = std::str::from_utf8(bytes).map_err(|_| not_taken(1, "is not UTF-8 text"))?;
        let tree = Node::toml(text)?;
        let host = tree.get("host");
        let mut entries = Vec::new();
        if let Some(host) = host {
            if !matches!(host.value, Value::Table(_)) {
                return Err(host.wrong("host", "a table"));
            }
            for (url, node) in host.entries() {
                entries.push(entry(Some(url), node, directory)?);
            }
        }
        let server = tree.get("server").map(|node| node.text("server")).transpose()?;
        entries.push(entry(server.filter(|server| !server.is_empty()), &tree, directory)?);
        Ok(Self { entries, has_host_table: host.is_some() })
    }
}

impl HostEntry {
    /// What containerd reads otherwise than it was meant; `path` is the file's own.
    pub(crate) fn warnings(&self, path: &Path) -> impl Iterator<Item = Finding> {
        let at = |lines: &[u32], fault: Fault| {
            let finding = |line: &u32| Finding::at(path, *line, Severity::Warning, fault.clone());
            lines.iter().map(finding).collect::<Vec<_>>()
        };
        at(&self.combined, Fault::CombinedPair).into_iter().chain(at(&self.empty_names, Fault::EmptyFileName))
    }
}

fn entry(server: Option<&str>, node: &Node, directory: &Path) -> Result<HostEntry, NotTaken> {
    let mut made = HostEntry { line: node.line, ..HostEntry::default() };
    let overridden = node.get("override_path").map(|node| node.truth("override_path")).transpose()?;
    let (named, path) = server.map(|server| parse_server(server, node)).transpose()?.unzip();
    made.server = named;
    made.path = api_path(path.as_deref().unwrap_or_default(), overridden == Some(true));
    (made.resolves, made.pulls, made.pushes) = node.get("capabilities").map_or(Ok((true, true, true)), capabilities)?;
    made.skip_verify = node.get("skip_verify").map(|node| node.truth("skip_verify")).transpose()?;
    if let Some(ca) = node.get("ca") {
        let names = match &ca.value {
            Value::Text(name) => vec![name.as_str()],
            _ => ca.texts("ca")?,
        };
        made.files.roots = names.into_iter().map(|name| absolute(directory, name)).collect();
    }
    if let Some(client) = node.get("client") {
        read_client(client, directory, &mut made)?;
    }
    if let Some(header) = node.get("header") {
        check_header(header)?;
    }
    Ok(made)
}

/// Scheme and authority, and the path.
type Server = ((String, String), String);

fn parse_server(server: &str, node: &Node) -> Result<Server, NotTaken> {
    let url = if server.starts_with("http") { server.to_owned() } else { format!("https://{server}") };
    let wrong = || not_taken(node.line, &format!("unable to parse server {server}"));
    let (scheme, authority, path) = split_url(&url).ok_or_else(wrong)?;
    let path = path.split(['?', '#']).next().unwrap_or_default();
    Ok(((scheme.to_owned(), authority.to_owned()), path.trim_end_matches('/').to_owned()))
}

/// `parseHostConfig`: `/v2` is added to what does not end in it.
fn api_path(path: &str, overridden: bool) -> String {
    if overridden || path.ends_with("/v2") { path.to_owned() } else { format!("{path}/v2") }
}

/// Whether it resolves, pulls and pushes; an empty list is none at all to us and all to containerd.
fn capabilities(node: &Node) -> Result<(bool, bool, bool), NotTaken> {
    let words = node.texts("capabilities")?;
    let words: Vec<String> = words.into_iter().map(str::to_ascii_lowercase).collect();
    if let Some(word) = words.iter().find(|word| !["pull", "resolve", "push", "referrers"].contains(&word.as_str())) {
        return Err(not_taken(node.line, &format!("unknown capability {word}")));
    }
    let has = |word: &str| words.is_empty() || words.iter().any(|other| other == word);
    Ok((has("resolve"), has("pull"), has("push")))
}

fn read_client(client: &Node, directory: &Path, made: &mut HostEntry) -> Result<(), NotTaken> {
    let both = |name: &str| (absolute(directory, name), absolute(directory, name));
    let items = match &client.value {
        Value::Text(name) => {
            made.files.pairs.push(both(name));
            return Ok(());
        }
        Value::List(items) => items,
        _ => return Err(client.wrong("client", "a string or a list")),
    };
    for item in items {
        match &item.value {
            Value::Text(name) => made.files.pairs.push(both(name)),
            Value::List(_) => made.files.pairs.push(pair(item, directory, &mut made.empty_names)?),
            _ => return Err(item.wrong("client", "a string or a pair of strings")),
        }
    }
    let bare = items.iter().filter(|item| matches!(item.value, Value::Text(_))).count();
    if bare == 2 && items.len() == 2 {
        made.combined.push(client.line);
    }
    Ok(())
}

fn pair(item: &Node, directory: &Path, empty: &mut Vec<u32>) -> Result<(PathBuf, PathBuf), NotTaken> {
    let names = item.texts("client")?;
    let [cert, key] = names[..] else {
        return Err(not_taken(item.line, &format!("invalid pair {names:?} for \"client\"")));
    };
    if cert.is_empty() || key.is_empty() {
        empty.push(item.line);
    }
    Ok((absolute(directory, cert), absolute(directory, key)))
}

fn check_header(header: &Node) -> Result<(), NotTaken> {
    for (name, node) in header.entries() {
        match &node.value {
            Value::Text(_) => {}
            Value::List(_) => drop(node.texts(name)?),
            _ => return Err(node.wrong(name, "a string or a list of strings")),
        }
    }
    if matches!(header.value, Value::Table(_)) { Ok(()) } else { Err(header.wrong("header", "a table")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HostsToml, NotTaken> {
        HostsToml::parse(text.as_bytes(), Path::new("/d"))
    }

    #[test]
    fn entries_in_order_and_the_files_own_last() {
        let text = "server = \"https://r.test:5000\"\nca = [\"a.crt\", \"/b.crt\"]\n[host.\"http://z:1\"]\n\
                    capabilities = [\"pull\", \"Resolve\"]\n[host.\"m.test/v2\"]\nskip_verify = true\nclient = \"both.pem\"\n";
        let read = parse(text).unwrap();
        assert!(read.has_host_table);
        let servers: Vec<_> = read.entries.iter().map(|entry| entry.server.clone().unwrap()).collect();
        let expected = [("http", "z:1"), ("https", "m.test"), ("https", "r.test:5000")];
        assert_eq!(servers, expected.map(|(scheme, host)| (scheme.to_owned(), host.to_owned())));
        assert_eq!(read.entries.iter().map(|entry| entry.line).collect::<Vec<_>>(), [3, 5, 1]);
        assert!(read.entries[0].pulls && !read.entries[0].pushes && read.entries[1].pushes);
        assert_eq!(read.entries[1].files.pairs, [("/d/both.pem".into(), "/d/both.pem".into())]);
        assert_eq!(read.entries[1].skip_verify, Some(true));
        assert_eq!(read.entries[2].files.roots, [PathBuf::from("/d/a.crt"), PathBuf::from("/b.crt")]);
    }

    #[test]
    fn the_forms_of_client() {
        let client = |value: &str| parse(&format!("client = {value}\n")).unwrap().entries.remove(0);
        let right = client("[[\"c.cert\", \"c.key\"]]");
        assert_eq!(right.files.pairs, [("/d/c.cert".into(), "/d/c.key".into())]);
        assert!(right.combined.is_empty());
        let trap = client("[\"c.cert\", \"c.key\"]");
        assert_eq!((trap.files.pairs.len(), trap.combined), (2, vec![1]));
        let empty = client("[[\"c.pem\", \"\"]]");
        assert_eq!((empty.files.pairs[0].1.clone(), empty.empty_names), (PathBuf::from("/d"), vec![1]));
    }

    #[test]
    fn what_containerd_logs_and_passes_over() {
        let cases = [
            ("ca = 5", 1),
            ("[host]\n\"x\" = 1\nca = ", 3),
            ("client = [[\"a\"]]", 1),
            ("client = [[\"a\", \"b\", \"c\"]]", 1),
            ("client = [5]", 1),
            ("[host.\"https://x\"]\ncapabilities = [\"fly\"]", 2),
            ("capabilities = \"pull\"", 1),
            ("skip_verify = \"yes\"", 1),
            ("server = \"https://\"", 1),
            ("\n[header]\nx = 5", 3),
            ("host = 1", 1),
            ("not toml", 1),
        ];
        for (text, line) in cases {
            let refused = parse(text).unwrap_err();
            assert_eq!(refused.line, line, "{text}: {refused}");
        }
        assert!(HostsToml::parse(b"\xff", Path::new("/d")).is_err());
    }

    #[test]
    fn what_a_host_is_for_and_where_its_api_is() {
        let entry = |url: &str, rest: &str| parse(&format!("[host.\"{url}\"]\n{rest}")).unwrap().entries.remove(0);
        for (url, rest, path) in [
            ("https://m.test", "", "/v2"),
            ("https://m.test/", "", "/v2"),
            ("https://m.test/v2/", "", "/v2"),
            ("https://m.test/v2/proxy", "", "/v2/proxy/v2"),
            ("https://m.test/v2/proxy?x", "override_path = true", "/v2/proxy"),
            ("https://m.test", "override_path = true", ""),
        ] {
            assert_eq!(entry(url, rest).path, path, "{url} {rest}");
        }
        for (words, what) in [
            ("[\"pull\"]", [false, true, false]),
            ("[\"resolve\"]", [true, false, false]),
            ("[\"push\", \"pull\"]", [false, true, true]),
            ("[]", [true, true, true]),
        ] {
            let entry = entry("https://m.test", &format!("capabilities = {words}"));
            assert_eq!([entry.resolves, entry.pulls, entry.pushes], what, "{words}");
        }
        assert!(parse("override_path = 1").is_err());
    }

    #[test]
    fn unknown_keys_are_passed_over() {
        let read = parse("surprise = 1\n").unwrap();
        assert_eq!((read.entries.len(), read.has_host_table, read.entries[0].server.clone()), (1, false, None));
    }
}
