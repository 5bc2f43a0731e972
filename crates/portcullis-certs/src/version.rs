//! Versions of engines, and the range of them that a row of a profile holds for.

use std::fmt;

/// An engine's version: the first `MAJOR.MINOR[.PATCH]` of whatever the engine prints about itself.
///
/// ```
/// use portcullis_certs::Version;
/// let debian = Version::find_in("Docker version 20.10.24+dfsg1, build 5d6db84");
/// assert_eq!(debian, Some(Version::new(20, 10, 24)));
/// assert!(Version::new(1, 9, 0) < Version::new(1, 10, 0));
/// assert_eq!(Version::find_in("unknown"), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// `major.minor.patch`.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// The first version in a text, as `dockerd --version` and its like print it; `None` when there is none.
    pub fn find_in(text: &str) -> Option<Self> {
        let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
        words.filter(|word| word.contains('.')).find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut numbers = word.split('.').map(str::parse::<u32>);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self { major, minor, patch: numbers.next().and_then(Result::ok).unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The versions a row holds for: from `since` on, up to but without `until`. [`fmt::Display`]: `1.11.0..17.9.0`, `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The first; `None`: from the beginning.
    pub since: Option<Version>,
    /// The first that is different again; `None`: not yet.
    pub until: Option<Version>,
}

impl Versions {
    /// All versions that were looked at.
    pub const ALL: Self = Self { since: None, until: None };

    /// From this version on.
    pub const fn since(since: Version) -> Self {
        Self { since: Some(since), until: None }
    }

    /// Before this version.
    pub const fn until(until: Version) -> Self {
        Self { since: None, until: Some(until) }
    }

    /// From the first, before the second.
    pub const fn between(since: Version, until: Version) -> Self {
        Self { since: Some(since), until: Some(until) }
    }

    /// Whether the row holds for this version.
    pub fn holds(&self, version: Version) -> bool {
        self.since.is_none_or(|since| since <= version) && self.until.is_none_or(|until| version < until)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.since, self.until) {
            (None, None) => f.write_str("all"),
            (Some(since), None) => write!(f, "{since}.."),
            (None, Some(until)) => write!(f, "..{until}"),
            (Some(since), Some(until)) => write!(f, "{since}..{until}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_print() {
        let cases = [
            ("Docker version 20.10.24+dfsg1, build 5d6db84", Some(Version::new(20, 10, 24))),
            ("ctr github.com/containerd/containerd 1.6.20~ds1", Some(Version::new(1, 6, 20))),
            ("nerdctl version 2.1", Some(Version::new(2, 1, 0))),
            ("v1.31.2+k3s1", Some(Version::new(1, 31, 2))),
            ("podman version 4.3.1", Some(Version::new(4, 3, 1))),
            ("28", None),
            ("99999999999.1.1", None),
            ("...", None),
            ("", None),
        ];
        for (text, version) in cases {
            assert_eq!(Version::find_in(text), version, "{text}");
        }
    }

    #[test]
    fn a_range_has_its_first_and_not_its_last() {
        let range = Versions::between(Version::new(1, 11, 0), Version::new(17, 9, 0));
        let holds = |major, minor, patch| range.holds(Version::new(major, minor, patch));
        assert!(!holds(1, 10, 9) && holds(1, 11, 0) && holds(17, 8, 9) && !holds(17, 9, 0));
        assert!(Versions::ALL.holds(Version::new(0, 0, 0)));
        assert_eq!(range.to_string(), "1.11.0..17.9.0");
    }
}
