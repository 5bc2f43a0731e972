//! The two range grammars: `Range` of a blob read (RFC 9110 §14.2) and `Content-Range` of an upload chunk
//! (distribution spec, "Pushing a blob in chunks": `<start>-<end>`, both inclusive, without a unit).

use std::fmt;
use std::str::FromStr;

/// One `bytes=` range. Several ranges in one header are not supported: the whole blob is then the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `a-`: from this offset to the end.
    From(u64),
    /// `a-b`: both inclusive. Backwards it holds nothing: RFC 9110 §14.1.1 calls it invalid and lets it be ignored; the
    /// distribution conformance suite wants 416.
    Between(u64, u64),
    /// `-n`: the last `n` bytes.
    Last(u64),
}

/// The bytes of an upload chunk, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// The first byte's offset.
    pub start: u64,
    /// The last byte's offset; never below `start`.
    pub end: u64,
}

/// Why a text is no [`ContentRange`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a chunk's Content-Range: <start>-<end> is expected, both inclusive")]
pub struct InvalidRange {
    /// The header, cut to 80 characters.
    pub text: String,
}

impl ByteRange {
    /// Reads a `Range` header. `None` means "answer with the whole": RFC 9110 §14.2 has a server ignore units and
    /// forms that it does not know.
    pub fn parse(header: &str) -> Option<Self> {
        let (start, end) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
        match (start.trim(), end.trim()) {
            ("", last) => Some(Self::Last(digits(last)?)),
            (start, "") => Some(Self::From(digits(start)?)),
            (start, end) => Some(Self::Between(digits(start)?, digits(end)?)),
        }
    }

    /// Offset and length within a body of `size` bytes; `None` when nothing of it is there (416).
    pub fn resolve(self, size: u64) -> Option<(u64, u64)> {
        let (start, end) = match self {
            Self::From(start) => (start, size),
            Self::Between(start, end) => (start, end.saturating_add(1).min(size)),
            Self::Last(0) => return None,
            Self::Last(bytes) => (size.saturating_sub(bytes), size),
        };
        (start < end).then(|| (start, end - start))
    }
}

impl ContentRange {
    /// How many bytes the chunk has.
    pub const fn len(self) -> u64 {
        self.end - self.start + 1
    }

    /// Never: a chunk without bytes cannot be written in this grammar.
    pub const fn is_empty(self) -> bool {
        false
    }
}

impl FromStr for ContentRange {
    type Err = InvalidRange;

    /// Takes the RFC 9110 form `bytes <start>-<end>/<size>` too, which some clients send.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRange { text: text.chars().take(80).collect() };
        let range = text.trim().trim_start_matches("bytes ").split('/').next().unwrap_or_default();
        let (start, end) = range.split_once('-').ok_or_else(invalid)?;
        match (digits(start), digits(end)) {
            (Some(start), Some(end)) if start <= end && end < u64::MAX => Ok(Self { start, end }),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// Digits only: `u64::from_str` alone takes `+5`.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_read() {
        for (header, expected) in [
            ("bytes=0-0", Some((0, 1))),
            ("bytes=500-1499", Some((500, 500))),
            ("bytes=500-", Some((500, 500))),
            ("bytes=-500", Some((500, 500))),
            ("bytes=-5000", Some((0, 1000))),
            ("bytes=999-18446744073709551615", Some((999, 1))),
            ("bytes=1000-", None),
            ("bytes=2000-5000", None),
            ("bytes=-0", None),
            ("bytes=500-0", None),
        ] {
            let range = ByteRange::parse(header).expect(header);
            assert_eq!(range.resolve(1000), expected, "{header}");
        }
        assert_eq!(ByteRange::From(0).resolve(0), None);
    }

    #[test]
    fn headers_that_are_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "lines=0-1",
            "bytes=0-1,3-4",
            "bytes=+1-2",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(ByteRange::parse(header), None, "{header}");
        }
    }

    #[test]
    fn ranges_of_a_chunk() {
        assert_eq!("0-99".parse(), Ok(ContentRange { start: 0, end: 99 }));
        assert_eq!("bytes 5-5/100".parse(), Ok(ContentRange { start: 5, end: 5 }));
        for text in ["", "-", "1", "5-4", "a-b", "0-18446744073709551615", "-5", "+1-2"] {
            assert!(text.parse::<ContentRange>().is_err(), "{text}");
        }
    }
}
