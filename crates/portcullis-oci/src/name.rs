//! Repository names and tags, as the distribution spec writes them ("Pulling manifests", `<name>` and `<reference>`).
//!
//! Must not know where a name is stored or which URL it stands in.

use std::fmt;
use std::str::FromStr;

/// A repository name: path components of `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` joined by `/`, at most 255 bytes in all.
///
/// The spec allows clients to cap host and name together at 255; CNCF Distribution caps the name at 255, as here.
/// No component can be `.` or `..`, start with `_`, or hold a separator: a name is safe as a relative path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RepositoryName(String);

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tag(String);

/// Why a text is no repository name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// There is nothing to name.
    #[error("repository name is empty")]
    Empty,
    /// Longer than [`RepositoryName::MAX_BYTES`].
    #[error("repository name has {bytes} bytes, at most 255 are allowed")]
    TooLong {
        /// The length given.
        bytes: usize,
    },
    /// A path component does not match the grammar.
    #[error(
        "repository name has the component {component:?}; components are lower-case letters and digits, joined by `.`, `_`, `__` or dashes"
    )]
    Component {
        /// The component, as given.
        component: String,
    },
}

/// Why a text is no tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{tag:?} is not a tag: 1 to 128 letters, digits, `_`, `.` or `-`, the first not `.` or `-`")]
pub struct InvalidTag {
    /// The text, cut to 160 bytes.
    pub tag: String,
}

impl RepositoryName {
    /// The longest name accepted, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path components, in order.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for RepositoryName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidName::TooLong { bytes: text.len() });
        }
        match text.split('/').find(|component| !is_component(component.as_bytes())) {
            Some(component) => Err(InvalidName::Component { component: component.to_owned() }),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Tag {
    /// The longest tag accepted, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// The tag as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let valid = bytes.len() <= Self::MAX_BYTES
            && bytes.first().is_some_and(|first| first.is_ascii_alphanumeric() || *first == b'_')
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidTag { tag: text.chars().take(160).collect() }) }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for RepositoryName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for RepositoryName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for Tag {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Tag {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &[u8]) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (component.first(), component.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    component.split(alphanumeric).all(|separator| match separator {
        [] | [b'.' | b'_'] | [b'_', b'_'] => true,
        dashes => dashes.iter().all(|byte| *byte == b'-'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_grammar_are_taken() {
        for name in ["a", "library/ubuntu", "a.b", "a_b", "a__b", "a---b", "0/1/2", "team/app-1.2_3"] {
            assert_eq!(name.parse::<RepositoryName>().expect(name).as_str(), name);
        }
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        let bad = [
            "", "/", "a/", "/a", "a//b", "A", "a/..", "..", "a..b", "a___b", "a._b", "-a", "a-", "_a", "a b", "ä",
            "a\0", "a/_b", "a%2fb",
        ];
        for name in bad {
            assert!(name.parse::<RepositoryName>().is_err(), "{name:?}");
        }
        assert_eq!("a".repeat(256).parse::<RepositoryName>(), Err(InvalidName::TooLong { bytes: 256 }));
    }

    #[test]
    fn tags_at_the_limit_and_past_it() {
        assert!("a".repeat(128).parse::<Tag>().is_ok());
        assert!("a".repeat(129).parse::<Tag>().is_err());
        for tag in ["latest", "_", "V1.2-x_y", "0"] {
            assert!(tag.parse::<Tag>().is_ok(), "{tag}");
        }
        for tag in ["", ".", "-a", ".a", "a/b", "a:b", "ä", "a b", "a\n"] {
            assert!(tag.parse::<Tag>().is_err(), "{tag:?}");
        }
    }
}
