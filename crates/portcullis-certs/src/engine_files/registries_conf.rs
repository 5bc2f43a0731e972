//! Podman's `registries.conf`: containers/image `pkg/sysregistriesv2/system_registries_v2.go`, as of Podman 4.3.
//!
//! What it says about short names (`unqualified-search-registries`, `aliases`) is not kept: a short name is refused before.

use super::NotTaken;
use super::tree::{Node, Value, not_taken};
use crate::visible::Visible;
use portcullis_oci::{Reference, RegistryHost, RepositoryName};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// How many mirrors one registry may have: each may be waited for.
pub const MAX_MIRRORS: usize = 64;

/// What `registries.conf` and its drop-ins say, each prefix once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    tables: BTreeMap<String, RegistryTable>,
    /// The files it was read from, in order.
    pub files: Vec<PathBuf>,
}

/// A `[[registry]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryTable {
    /// Where it stands.
    pub at: Written,
    /// What it is for: `host[:port]`, with a path or without, or `*.domain`.
    pub prefix: String,
    /// What is asked in the prefix's place; empty: what was typed, which only `*.domain` may say.
    pub location: String,
    /// `insecure`: Podman does not verify its certificate.
    pub insecure: bool,
    /// `blocked`.
    pub blocked: bool,
    /// Those that are asked before it, in order.
    pub mirrors: Vec<MirrorTable>,
}

/// A `[[registry.mirror]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorTable {
    /// Where it stands.
    pub at: Written,
    /// What is asked in the prefix's place.
    pub location: String,
    /// `insecure`.
    pub insecure: bool,
    /// Which pulls it is for: `pull-from-mirror`, or the registry's `mirror-by-digest-only`.
    pub pulls: MirrorPulls,
}

/// Which pulls a mirror is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MirrorPulls {
    /// All.
    #[default]
    All,
    /// Those of an image by its digest.
    ByDigest,
    /// Those of an image by its tag.
    ByTag,
}

/// How the image that is pulled was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullBy {
    /// By a tag alone.
    Tag,
    /// With a digest.
    Digest,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: u32,
}

/// What is asked for an image: the registry itself, or what stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrySource {
    /// Whom.
    pub host: RegistryHost,
    /// For which repository.
    pub repository: RepositoryName,
    /// What speaks against it.
    pub standing: Standing,
}

/// What speaks against asking a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// It is not to be used.
    pub blocked: Option<RegistryFault>,
    /// Podman would not verify its certificate.
    pub insecure: Option<RegistryFault>,
}

/// Why `registries.conf` keeps a registry from being asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryFault {
    /// `blocked = true`.
    #[error("{at} blocks {}: take `blocked = true` out, if it may be used", Visible(prefix))]
    Blocked {
        /// The prefix that it matches.
        prefix: String,
        /// Where it says so.
        at: Written,
    },
    /// `insecure = true`.
    #[error(
        "{at} calls it insecure, so that its certificate would not be verified, which is never done here: put its CA into its certificate directory and take `insecure = true` out, or speak to it without TLS at all, with --plain-http"
    )]
    Insecure {
        /// Where it says so.
        at: Written,
    },
    /// With `location` in place of the prefix it is no repository.
    #[error(
        "{at} leads to {}, which is no repository in a registry: write `location` as HOST[:PORT] or HOST[:PORT]/PATH",
        Visible(name)
    )]
    Location {
        /// What comes of it.
        name: String,
        /// Where the location stands.
        at: Written,
    },
}

impl RegistriesConf {
    /// Reads the file itself; `path` is its own, for what is said about it later. The old form, with `[registries.block]` and
    /// `[registries.insecure]`, is taken as well.
    ///
    /// # Errors
    /// What Podman stops at.
    ///
    /// ```
    /// use portcullis_certs::engine_files::{PullBy, RegistriesConf};
    /// let text = "[[registry]]\nprefix = \"r.test/team\"\nlocation = \"in.test:5000/x\"\n[[registry.mirror]]\nlocation = \"m.test/y\"\n";
    /// let read = RegistriesConf::parse(text.as_bytes(), "/etc/containers/registries.conf".as_ref())?;
    /// let sources = read.sources(&"r.test".parse()?, &"team/app".parse()?, PullBy::Tag)?;
    /// let names: Vec<String> = sources.iter().map(|source| format!("{}/{}", source.host, source.repository)).collect();
    /// assert_eq!(names, ["m.test/y/app", "in.test:5000/x/app"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, NotTaken> {
        let tree = tree(bytes)?;
        let Some(old) = old_form(&tree)? else { return Self::of(&tree, path) };
        if !field(&tree, "registry").is_none_or(is_empty)
            || !field(&tree, "unqualified-search-registries").is_none_or(is_empty)
        {
            return Err(not_taken(old.line, "mixes the old form, [registries.…], with [[registry]]"));
        }
        Self::of_old_form(old, path)
    }

    /// Reads a file of `registries.conf.d`, where the old form is an error.
    ///
    /// # Errors
    /// As [`RegistriesConf::parse`].
    pub fn parse_drop_in(bytes: &[u8], path: &Path) -> Result<Self, NotTaken> {
        let tree = tree(bytes)?;
        match old_form(&tree)? {
            Some(old) => Err(not_taken(old.line, "is in the old form, [registries.…]: a drop-in has [[registry]]")),
            None => Self::of(&tree, path),
        }
    }

    /// Takes in a file that is read later: it replaces what has the same prefix.
    pub fn extend(&mut self, later: Self) {
        self.tables.extend(later.tables);
        self.files.extend(later.files);
    }

    /// All of them, in byte order of their prefixes.
    pub fn tables(&self) -> impl Iterator<Item = &RegistryTable> {
        self.tables.values()
    }

    /// The table with the longest prefix that `name`, `host[:port]` with or without `/repository`, begins with.
    pub fn find(&self, name: &str) -> Option<&RegistryTable> {
        let matching = self.tables.values().filter(|table| matched(name, &table.prefix).is_some());
        // Of two as long as each other the first.
        matching.rev().max_by_key(|table| table.prefix.len())
    }

    /// What speaks against a registry, or a repository in it, that is asked as it is typed. Podman pushes so, and deletes,
    /// lists and logs in: mirrors and locations are for pulls.
    pub fn standing(&self, host: &RegistryHost, repository: Option<&RepositoryName>) -> Standing {
        let name = repository.map_or_else(|| host.to_string(), |repository| format!("{host}/{repository}"));
        let Some(table) = self.find(&name) else { return Standing::default() };
        Standing { blocked: table.block(), insecure: insecure(table.insecure, &table.at) }
    }

    /// What is asked for an image, in order, the registry or its location last.
    ///
    /// # Errors
    /// The image is blocked, or a location makes no repository of it. Podman looks for a block only where it goes to; here
    /// what was typed counts too.
    pub fn sources(
        &self,
        host: &RegistryHost,
        repository: &RepositoryName,
        by: PullBy,
    ) -> Result<Vec<RegistrySource>, RegistryFault> {
        let name = format!("{host}/{repository}");
        let Some(table) = self.find(&name) else {
            let (host, repository) = (host.clone(), repository.clone());
            return Ok(vec![RegistrySource { host, repository, standing: Standing::default() }]);
        };
        if let Some(blocked) = table.block() {
            return Err(blocked);
        }
        let mirrors = table.mirrors.iter().filter(|mirror| mirror.pulls.are(by));
        let mirrors = mirrors.map(|mirror| (mirror.location.as_str(), mirror.insecure, &mirror.at));
        let own = (table.location.as_str(), table.insecure, &table.at);
        let rest = name.get(matched(&name, &table.prefix).unwrap_or(name.len())..).unwrap_or_default();
        let source = |(location, is_insecure, at): (&str, bool, &Written)| {
            let written = if location.is_empty() { name.clone() } else { format!("{location}{rest}") };
            let (host, repository) =
                located(&written).ok_or(RegistryFault::Location { name: written, at: at.clone() })?;
            let blocked = self.standing(&host, Some(&repository)).blocked;
            Ok(RegistrySource { host, repository, standing: Standing { blocked, insecure: insecure(is_insecure, at) } })
        };
        mirrors.chain([own]).map(source).collect()
    }

    fn of(tree: &Node, path: &Path) -> Result<Self, NotTaken> {
        if let Some(list) = field(tree, "unqualified-search-registries") {
            list.texts("unqualified-search-registries")?;
        }
        let items = field(tree, "registry").map_or(Ok(&[][..]), |node| tables(node, "registry"))?;
        let tables: Vec<RegistryTable> = items.iter().map(|node| table(node, path)).collect::<Result<_, _>>()?;
        agree(&tables)?;
        Ok(Self { tables: first_of_each(tables), files: vec![path.to_owned()] })
    }

    /// `ConvertToV2`: `[registries.insecure]` and `[registries.block]` are lists of locations.
    fn of_old_form(old: &Node, path: &Path) -> Result<Self, NotTaken> {
        let mut read: BTreeMap<String, RegistryTable> = BTreeMap::new();
        for (key, blocks) in [("block", true), ("insecure", false)] {
            let Some(list) = field(old, key).and_then(|node| field(node, "registries")) else { continue };
            for name in list.texts("registries")? {
                let prefix = location(name, list)?;
                let at = Written { file: path.to_owned(), line: list.line };
                let table = read.entry(prefix.clone()).or_insert_with(|| RegistryTable::of(at, prefix));
                if blocks { table.blocked = true } else { table.insecure = true }
            }
        }
        Ok(Self { tables: read, files: vec![path.to_owned()] })
    }
}

impl RegistryTable {
    fn of(at: Written, prefix: String) -> Self {
        Self { at, location: prefix.clone(), prefix, insecure: false, blocked: false, mirrors: Vec::new() }
    }

    fn block(&self) -> Option<RegistryFault> {
        let blocked = || RegistryFault::Blocked { prefix: self.prefix.clone(), at: self.at.clone() };
        self.blocked.then(blocked)
    }

    /// What two tables must have one opinion of.
    fn place(&self) -> &str {
        if self.location.is_empty() { &self.prefix } else { &self.location }
    }
}

impl MirrorPulls {
    fn are(self, by: PullBy) -> bool {
        match self {
            Self::All => true,
            Self::ByDigest => by == PullBy::Digest,
            Self::ByTag => by == PullBy::Tag,
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Visible(&self.file.to_string_lossy()), self.line)
    }
}

fn insecure(is_insecure: bool, at: &Written) -> Option<RegistryFault> {
    is_insecure.then(|| RegistryFault::Insecure { at: at.clone() })
}

fn tree(bytes: &[u8]) -> Result<Node, NotTaken> {
    let text = std::str::from_utf8(bytes).map_err(|_| not_taken(1, "is not UTF-8 text"))?;
    Node::toml(text)
}

/// `[registries]`, where it says anything.
fn old_form(tree: &Node) -> Result<Option<&Node>, NotTaken> {
    let Some(old) = field(tree, "registries") else { return Ok(None) };
    if !matches!(old.value, Value::Table(_)) {
        return Err(old.wrong("registries", "a table"));
    }
    let lists = ["search", "insecure", "block"].map(|key| field(old, key).and_then(|node| field(node, "registries")));
    Ok(lists.iter().flatten().any(|list| !is_empty(list)).then_some(old))
}

fn table(node: &Node, path: &Path) -> Result<RegistryTable, NotTaken> {
    let named = |key: &str| field(node, key).map_or(Ok(String::new()), |value| location(value.text(key)?, value));
    let (prefix, location) = (named("prefix")?, named("location")?);
    let says = |reason: &str| Err(not_taken(node.line, reason));
    let is_wildcard = prefix.starts_with("*.");
    match (prefix.is_empty(), location.is_empty()) {
        (true, true) => return says("a [[registry]] has neither `prefix` nor `location`"),
        (false, true) if !is_wildcard => return says("`location` may only be left out where `prefix` is *.DOMAIN"),
        _ if is_wildcard && prefix.contains(['/', '@', ':']) => {
            return says(&format!("the prefix {prefix:?} is not written as *.DOMAIN"));
        }
        _ => {}
    }
    if let Some(odd) = field(node, "pull-from-mirror") {
        return Err(not_taken(odd.line, "`pull-from-mirror` is a mirror's, and this is the registry itself"));
    }
    let by_digest_only = truth(node, "mirror-by-digest-only")?;
    let items = field(node, "mirror").map_or(Ok(&[][..]), |node| tables(node, "mirror"))?;
    if items.len() > MAX_MIRRORS {
        return says(&format!("more than {MAX_MIRRORS} mirrors"));
    }
    let mirrors = items.iter().map(|item| mirror(item, by_digest_only, path)).collect::<Result<_, _>>()?;
    let (insecure, blocked) = (truth(node, "insecure")?, truth(node, "blocked")?);
    let at = Written { file: path.to_owned(), line: node.line };
    let prefix = if prefix.is_empty() { location.clone() } else { prefix };
    Ok(RegistryTable { at, prefix, location, insecure, blocked, mirrors })
}

fn mirror(node: &Node, by_digest_only: bool, path: &Path) -> Result<MirrorTable, NotTaken> {
    let named = field(node, "location").map(|value| location(value.text("location")?, value)).transpose()?;
    let Some(location) = named.filter(|location| !location.is_empty()) else {
        return Err(not_taken(node.line, "a mirror without `location`"));
    };
    let word = field(node, "pull-from-mirror").map_or(Ok(""), |word| word.text("pull-from-mirror"))?;
    let pulls = match word {
        "" if by_digest_only => MirrorPulls::ByDigest,
        "" => MirrorPulls::All,
        _ if by_digest_only => {
            return Err(not_taken(node.line, "`pull-from-mirror` beside the registry's `mirror-by-digest-only`"));
        }
        "all" => MirrorPulls::All,
        "digest-only" => MirrorPulls::ByDigest,
        "tag-only" => MirrorPulls::ByTag,
        _ => return Err(not_taken(node.line, &format!("unknown value {word:?} of `pull-from-mirror`"))),
    };
    let at = Written { file: path.to_owned(), line: node.line };
    Ok(MirrorTable { at, location, insecure: truth(node, "insecure")?, pulls })
}

/// `parseLocation`.
fn location(text: &str, node: &Node) -> Result<String, NotTaken> {
    let trimmed = text.trim_end_matches('/');
    if trimmed.starts_with("http://") || trimmed.starts_with("https://") {
        return Err(not_taken(node.line, &format!("{text:?} is written as an address: leave the scheme out")));
    }
    Ok(trimmed.to_owned())
}

/// Of several with the same prefix the first counts.
fn first_of_each(read: Vec<RegistryTable>) -> BTreeMap<String, RegistryTable> {
    let mut tables = BTreeMap::new();
    for table in read {
        tables.entry(table.prefix.clone()).or_insert(table);
    }
    tables
}

/// `postProcessRegistries`: those of one location must agree.
fn agree(tables: &[RegistryTable]) -> Result<(), NotTaken> {
    let mut first: BTreeMap<&str, &RegistryTable> = BTreeMap::new();
    for table in tables {
        let other = first.entry(table.place()).or_insert(table);
        for (key, same) in [("insecure", other.insecure == table.insecure), ("blocked", other.blocked == table.blocked)]
        {
            if !same {
                let place = table.place();
                let reason = format!("{place:?} has another `{key}` here than in line {}", other.at.line);
                return Err(not_taken(table.at.line, &reason));
            }
        }
    }
    Ok(())
}

/// How many bytes of `name` the prefix stands for (`refMatchingPrefix`). As there, a prefix without a port is for every
/// port.
fn matched(name: &str, prefix: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*').filter(|domain| domain.starts_with('.')) {
        Some(domain) => {
            let start = name.find(domain)?;
            if name.get(..start)?.contains('/') {
                return None;
            }
            start + domain.len()
        }
        None => name.starts_with(prefix).then_some(prefix.len())?,
    };
    matches!(name.as_bytes().get(end), None | Some(b':' | b'/' | b'@')).then_some(end)
}

fn located(name: &str) -> Option<(RegistryHost, RepositoryName)> {
    let Reference { host, repository, tag: None, digest: None } = name.parse().ok()? else { return None };
    Some((host, repository))
}

/// A key as Go's decoder finds it: as it is written, else in whatever case. `Blocked = true` blocks.
fn field<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let folded = || node.entries().iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    node.get(name).or_else(folded)
}

fn truth(node: &Node, name: &str) -> Result<bool, NotTaken> {
    field(node, name).map_or(Ok(false), |value| value.truth(name))
}

fn tables<'a>(node: &'a Node, name: &str) -> Result<&'a [Node], NotTaken> {
    match &node.value {
        Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Table(_))) => Ok(items),
        _ => Err(node.wrong(name, &format!("a list of tables, [[{name}]]"))),
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.value, Value::List(items) if items.is_empty())
}

#[cfg(test)]
mod tests;
