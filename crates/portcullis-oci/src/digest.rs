//! Digests (image-spec "Descriptors", section Digests) and the hash states behind them.
//!
//! `sha256` and `sha512` are equals: neither is rewritten into the other. Must not know where bytes come from.

use std::fmt;
use std::str::FromStr;

use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256, Sha512};

/// A registered digest algorithm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Algorithm {
    /// SHA-256, the one that every registry must take.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// A content digest, for example `sha256:e3b0…b855`. `Copy`, compared by value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// The 32 bytes of a SHA-256.
    Sha256([u8; 32]),
    /// The 64 bytes of a SHA-512.
    Sha512([u8; 64]),
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// There is no `algorithm:` in front.
    #[error("{text:?} is not a digest: `sha256:` or `sha512:` and lower-case hex are expected")]
    NoAlgorithm {
        /// The text, cut to 160 characters.
        text: String,
    },
    /// The algorithm is not one of [`Algorithm::ALL`].
    #[error("digest algorithm {algorithm:?} is not supported: use sha256 or sha512")]
    UnsupportedAlgorithm {
        /// The algorithm, cut to 160 characters.
        algorithm: String,
    },
    /// The encoded part is not lower-case hex of the algorithm's length.
    #[error("a {algorithm} digest has {expected} lower-case hex digits")]
    Encoding {
        /// The algorithm named.
        algorithm: Algorithm,
        /// How many hex digits it wants.
        expected: usize,
    },
}

/// A running hash. Its state can be [saved](Hasher::save) and [restored](Hasher::restore), so that an upload goes on
/// after a restart without reading again what was received.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Algorithm {
    /// Every algorithm, in order of preference.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// The registered identifier.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hex digits a digest of this algorithm has.
    pub const fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == text)
            .ok_or_else(|| InvalidDigest::UnsupportedAlgorithm { algorithm: text.chars().take(160).collect() })
    }
}

impl serde::Serialize for Algorithm {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Algorithm {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Digest {
    /// Hashes `bytes` at once.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::digest(bytes).into()),
            Algorithm::Sha512 => Self::Sha512(Sha512::digest(bytes).into()),
        }
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw hash.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// The encoded part: lower-case hex, without the algorithm.
    pub fn hex(&self) -> String {
        self.hex_in(&mut [0; 128]).to_owned()
    }

    /// Without memory of its own: digests are written several times for each request.
    fn hex_in<'a>(&self, room: &'a mut [u8; 128]) -> &'a str {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (pair, byte) in room.chunks_exact_mut(2).zip(self.as_bytes()) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        // ASCII is UTF-8.
        std::str::from_utf8(&room[..self.algorithm().hex_len()]).unwrap_or_default()
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(InvalidDigest::NoAlgorithm { text: text.chars().take(160).collect() });
        };
        let algorithm: Algorithm = algorithm.parse()?;
        let invalid = || InvalidDigest::Encoding { algorithm, expected: algorithm.hex_len() };
        match algorithm {
            Algorithm::Sha256 => decode_hex(hex).map(Self::Sha256).ok_or_else(invalid),
            Algorithm::Sha512 => decode_hex(hex).map(Self::Sha512).ok_or_else(invalid),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().as_str())?;
        f.write_str(":")?;
        f.write_str(self.hex_in(&mut [0; 128]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Hasher {
    /// A hash of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::Sha256(state.finalize().into()),
            State::Sha512(state) => Digest::Sha512(state.finalize().into()),
        }
    }

    /// The state in the hashing library's own format (104 bytes for SHA-256, 208 for SHA-512). Whoever keeps it must
    /// keep a version beside it: the format is the library's, not a standard's.
    pub fn save(&self) -> Vec<u8> {
        match &self.0 {
            State::Sha256(state) => state.serialize().to_vec(),
            State::Sha512(state) => state.serialize().to_vec(),
        }
    }

    /// The inverse of [`Hasher::save`]; `None` when `state` is not one.
    pub fn restore(algorithm: Algorithm, state: &[u8]) -> Option<Self> {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::deserialize(state.try_into().ok()?).ok()?),
            Algorithm::Sha512 => State::Sha512(Sha512::deserialize(state.try_into().ok()?).ok()?),
        };
        Some(Self(state))
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hasher").field(&self.algorithm()).finish()
    }
}

/// Exactly `2 * N` lower-case hex digits. Upper case is refused: one digest must have one spelling.
fn decode_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing() {
        assert_eq!(Digest::of(Algorithm::Sha256, b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>(), Ok(Digest::of(Algorithm::Sha256, b"")));
    }

    #[test]
    fn one_spelling_only() {
        let upper = EMPTY.to_uppercase();
        let mixed = EMPTY.replace("e3b0", "E3B0");
        for text in [
            upper.as_str(),
            &mixed,
            &EMPTY[..70],
            "sha256:",
            "sha256",
            "",
            "md5:00",
            &format!("{EMPTY}0"),
            "sha512:00",
            "sha256:../../etc",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_saved_state_goes_on_where_it_was() {
        for algorithm in Algorithm::ALL {
            let mut first = Hasher::new(algorithm);
            first.update(&[7; 100]);
            let mut second = Hasher::restore(algorithm, &first.save()).expect("own state");
            second.update(&[8; 1000]);
            let whole = [vec![7; 100], vec![8; 1000]].concat();
            assert_eq!(second.finish(), Digest::of(algorithm, &whole));
        }
    }

    #[test]
    fn a_state_of_the_wrong_length_is_refused() {
        let state = Hasher::new(Algorithm::Sha256).save();
        assert!(Hasher::restore(Algorithm::Sha512, &state).is_none());
        assert!(Hasher::restore(Algorithm::Sha256, &state[1..]).is_none());
    }
}
