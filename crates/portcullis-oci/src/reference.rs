//! Registry hosts and full image references, as a person types them (`host[:port]/name[:tag][@digest]`).
//!
//! There is no default registry and no default tag here: a short name is an error that says what an engine would make of
//! it. Must not resolve anything.

use std::fmt;
use std::str::FromStr;

use crate::docker_hub::{self, LIBRARY};
use crate::{Digest, InvalidDigest, InvalidName, InvalidTag, RepositoryName, Tag};

/// A registry's host and, where it was typed, port. Kept **byte for byte**: engines name the certificate directory
/// after exactly this text (moby `daemon/pkg/registry/registry.go` `hostCertsDir`), so `Host`, `host` and `host:443`
/// are three directories.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RegistryHost {
    text: String,
    host_len: usize,
    port: Option<u16>,
}

/// What a manifest is asked for by: its tag or its digest.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ManifestReference {
    /// Whatever the tag points to now.
    Tag(Tag),
    /// Exactly this manifest.
    Digest(Digest),
}

/// A full reference: host, repository, and a tag, a digest, both or neither.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reference {
    /// The registry.
    pub host: RegistryHost,
    /// The repository in it.
    pub repository: RepositoryName,
    /// The tag, if one was given.
    pub tag: Option<Tag>,
    /// The digest, if one was given; it wins over the tag.
    pub digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// The part before the first `/` is not a registry: it has no dot and no port, and is not `localhost`. Engines read such
    /// a short name as one of Docker Hub's.
    #[error("{}", Self::short_name_text(text, &complete(full)))]
    ShortName {
        /// The text, cut to 300 characters.
        text: String,
        /// What engines read it as (distribution/reference `ParseDockerRef`), with tag and digest as they were typed.
        full: Box<Reference>,
    },
    /// There is no registry in it, and no engine would find a name in it either.
    #[error("{text:?} does not name a registry: write it in full, HOST[:PORT]/NAME[:TAG]")]
    NoHost {
        /// The text, cut to 300 characters.
        text: String,
    },
    /// A registry alone. Engines would look for an image of that name on Docker Hub, which nobody means.
    #[error("{host} names a registry and no image: write {host}/NAME")]
    NoRepository {
        /// The registry.
        host: RegistryHost,
    },
    /// The host is not a DNS name, an IPv4 address or a bracketed IPv6 address, with an optional port from 1 to 65535.
    #[error(
        "{host:?} is not a registry host: a name or an address, IPv6 in brackets, and an optional port (host, host:5000, [::1]:5000), without https://"
    )]
    Host {
        /// The host, cut to 300 characters.
        host: String,
    },
    /// The repository name is wrong.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The tag is wrong.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    /// The digest is wrong.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

impl RegistryHost {
    /// Host and port as typed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host alone, brackets kept around an IPv6 address.
    pub fn host(&self) -> &str {
        &self.text[..self.host_len]
    }

    /// The port, if one was typed. Without one, HTTPS means 443.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port to connect to.
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(443)
    }

    /// The host as a certificate names it: without brackets.
    pub fn server_name(&self) -> &str {
        self.host().trim_start_matches('[').trim_end_matches(']')
    }
}

impl FromStr for RegistryHost {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidReference::Host { host: text.chars().take(300).collect() };
        let (host, port) = split_port(text).ok_or_else(invalid)?;
        let port = match port {
            None => None,
            Some(digits) => Some(parse_port(digits).ok_or_else(invalid)?),
        };
        let is_host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
            None => is_dns_name(host),
        };
        if is_host { Ok(Self { text: text.to_owned(), host_len: host.len(), port }) } else { Err(invalid()) }
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ManifestReference {
    type Err = InvalidReference;

    /// A text with a `:` is a digest, for a tag cannot have one.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(':') { Ok(Self::Digest(text.parse()?)) } else { Ok(Self::Tag(text.parse()?)) }
    }
}

impl fmt::Display for ManifestReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Reference {
    /// What to ask the registry for: the digest, else the tag, else `latest` as every engine does.
    pub fn manifest(&self) -> ManifestReference {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => ManifestReference::Digest(*digest),
            (None, Some(tag)) => ManifestReference::Tag(tag.clone()),
            (None, None) => ManifestReference::Tag(latest()),
        }
    }

    /// `NAME[:TAG][@DIGEST]` on a registry. On Docker Hub one word is a name in `library` (`splitDockerDomain`).
    fn on(host: RegistryHost, rest: &str) -> Result<Self, InvalidReference> {
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (rest, None),
        };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.parse()?)),
            None => (rest, None),
        };
        let of_library = host.is_docker_hub() && !repository.contains('/') && !repository.is_empty();
        let host = if host.is_docker_hub() { docker_hub() } else { host };
        let repository = if of_library { format!("{LIBRARY}{repository}").parse()? } else { repository.parse()? };
        Ok(Self { host, repository, tag, digest })
    }
}

impl InvalidReference {
    /// The sentence about a short name, for who wants another part of its full name than [`InvalidReference::full_name`].
    ///
    /// ```
    /// use portcullis_oci::InvalidReference;
    /// let told = InvalidReference::short_name_text("alpine", "docker.io/library/alpine");
    /// assert!(told.ends_with("which to an engine is docker.io/library/alpine"));
    /// ```
    pub fn short_name_text(text: &str, full: &str) -> String {
        format!("{text:?} does not name a registry: write the full name, which to an engine is {full}")
    }

    /// What engines read a short name as, complete with the tag that they take where none was typed.
    ///
    /// ```
    /// use portcullis_oci::Reference;
    /// let error = "alpine".parse::<Reference>().unwrap_err();
    /// assert_eq!(error.full_name().as_deref(), Some("docker.io/library/alpine:latest"));
    /// assert_eq!("r.test/a:b:c".parse::<Reference>().unwrap_err().full_name(), None);
    /// ```
    pub fn full_name(&self) -> Option<String> {
        match self {
            Self::ShortName { full, .. } => Some(complete(full)),
            _ => None,
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains("://") {
            return Err(InvalidReference::Host { host: text.chars().take(300).collect() });
        }
        let Some((host, rest)) = text.split_once('/') else { return Err(without_slash(text)) };
        // The rule of every engine (distribution/reference `splitDockerDomain`): without a dot, a port or the name
        // `localhost`, the first component is not a host but part of a short name.
        if !host.contains(['.', ':']) && host != "localhost" && !host.chars().any(char::is_uppercase) {
            return Err(short_name(text));
        }
        let host = host.parse()?;
        Self::on(host, rest)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn complete(full: &Reference) -> String {
    match (&full.tag, &full.digest) {
        (None, None) => format!("{full}:{}", latest()),
        _ => full.to_string(),
    }
}

/// `NAME`, `NAME:TAG`, or a registry whose image was forgotten.
fn without_slash(text: &str) -> InvalidReference {
    let name = text.split([':', '@']).next().unwrap_or_default();
    match text.parse() {
        Ok(host) if name.contains('.') || name == "localhost" => InvalidReference::NoRepository { host },
        _ => short_name(text),
    }
}

fn docker_hub() -> RegistryHost {
    RegistryHost { text: docker_hub::NAME.to_owned(), host_len: docker_hub::NAME.len(), port: None }
}

/// distribution/reference `splitDockerDomain`: a name without a registry is one of Docker Hub's.
fn short_name(text: &str) -> InvalidReference {
    let shown = text.chars().take(300).collect();
    match Reference::on(docker_hub(), text) {
        Ok(full) => InvalidReference::ShortName { text: shown, full: Box::new(full) },
        Err(_) => InvalidReference::NoHost { text: shown },
    }
}

#[expect(clippy::expect_used, reason = "`latest` matches the grammar, see the test of `manifest`")]
fn latest() -> Tag {
    "latest".parse().expect("a tag")
}

/// `None` when brackets or colons do not fit together.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if text.starts_with('[') {
        let end = text.find(']')? + 1;
        let (host, rest) = text.split_at(end);
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match text.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

/// Digits only (`+5000` and an empty port are not ports), and not 0.
fn parse_port(digits: &str) -> Option<u16> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok().filter(|port| *port != 0) } else { None }
}

/// Labels of letters, digits, `-` and `_`, joined by dots; at most 253 bytes, labels at most 63. Covers IPv4. The
/// underscore is what distribution/reference does not allow and Docker Compose service names have.
fn is_dns_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_kept_byte_for_byte() {
        for (text, host, port) in [
            ("registry.test:5443", "registry.test", Some(5443)),
            ("Registry.Test", "Registry.Test", None),
            ("registry.test:443", "registry.test", Some(443)),
            ("10.77.0.1:5443", "10.77.0.1", Some(5443)),
            ("[fd00::1]:5000", "[fd00::1]", Some(5000)),
            ("[::1]", "[::1]", None),
            ("localhost", "localhost", None),
        ] {
            let parsed: RegistryHost = text.parse().expect(text);
            assert_eq!((parsed.as_str(), parsed.host(), parsed.port()), (text, host, port));
        }
    }

    #[test]
    fn what_is_no_host() {
        for text in [
            "",
            ":5000",
            "host:",
            "host:0",
            "host:65536",
            "host:+80",
            "fd00::1",
            "[fd00::1",
            "[fd00::1]x",
            "[host]",
            "a b",
            "host/",
            "..",
            "-a",
            "a..b",
            "https://x",
            "host:80:80",
            ".",
        ] {
            assert!(text.parse::<RegistryHost>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn references() {
        let digest = Digest::of(crate::Algorithm::Sha256, b"x");
        for text in ["r.test/a", "r.test:5443/a/b:1", "localhost/a:latest", "[::1]:5000/a"] {
            assert_eq!(text.parse::<Reference>().expect(text).to_string(), text);
        }
        let both: Reference = format!("r.test/a:1@{digest}").parse().expect("both");
        assert_eq!(both.manifest(), ManifestReference::Digest(digest));
        let neither: Reference = "r.test/a".parse().expect("neither");
        assert_eq!(neither.manifest().to_string(), "latest");
    }

    #[test]
    fn docker_hub_has_a_library_and_one_name() {
        for (typed, full) in [
            ("docker.io/alpine", "docker.io/library/alpine"),
            ("docker.io/alpine:3.20", "docker.io/library/alpine:3.20"),
            ("index.docker.io/alpine", "docker.io/library/alpine"),
            ("index.docker.io/team/app:1", "docker.io/team/app:1"),
            ("docker.io/team/app", "docker.io/team/app"),
            ("docker.io:443/alpine", "docker.io:443/alpine"),
            ("registry-1.docker.io/alpine", "registry-1.docker.io/alpine"),
        ] {
            assert_eq!(typed.parse::<Reference>().expect(typed).to_string(), full, "{typed}");
        }
        for typed in ["docker.io/", "docker.io/:1", "docker.io/Alpine"] {
            assert!(typed.parse::<Reference>().is_err(), "{typed}");
        }
    }

    #[test]
    fn short_names_and_urls_are_refused_with_the_fix() {
        let digest = Digest::of(crate::Algorithm::Sha256, b"x");
        for (short, full) in [
            ("ubuntu", "docker.io/library/ubuntu:latest".to_owned()),
            ("ubuntu:24.04", "docker.io/library/ubuntu:24.04".to_owned()),
            ("team/app", "docker.io/team/app:latest".to_owned()),
            ("team/app/x:1", "docker.io/team/app/x:1".to_owned()),
            (&format!("app@{digest}"), format!("docker.io/library/app@{digest}")),
        ] {
            let error = short.parse::<Reference>().expect_err(short);
            assert_eq!(error.full_name(), Some(full.clone()), "{short}");
            assert!(error.to_string().contains(&full), "{error}");
            full.parse::<Reference>().expect("what is suggested is taken");
        }
        for text in ["registry.test", "registry.test:5443", "localhost", "localhost:5000"] {
            let error = text.parse::<Reference>().expect_err(text);
            assert!(error.to_string().contains(&format!("write {text}/NAME")), "{error}");
        }
        for text in ["Ubuntu", "", "a:b:c", "team/App", "a@sha256:00", "/a"] {
            let error = text.parse::<Reference>().expect_err(text);
            assert!(matches!(error, InvalidReference::NoHost { .. }), "{text}: {error}");
            assert!(error.to_string().contains("does not name a registry"), "{error}");
        }
        let error = "https://r.test/a".parse::<Reference>().expect_err("scheme").to_string();
        assert!(error.contains("without https://"), "{error}");
        for text in ["r.test/", "r.test/A", "r.test/a:", "r.test/a@sha256:00", "r.test/a:b:c", "r.test/../a"] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
