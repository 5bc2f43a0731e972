//! What is kept beside the bytes of an upload: whose it is, how far it got, and the hash so far.
//!
//! Must not know whether the bytes are still there: whoever reads a state compares it with them.

use portcullis_oci::{Algorithm, Hasher, RepositoryName};
use serde::{Deserialize, Serialize};

/// Raised whenever an older program could misread the file.
const VERSION: u32 = 1;

/// Names the library whose format [`Hasher::save`] has: another one must not restore it.
const MIDSTATE_FORMAT: &str = "sha2-0.11";

/// The state of an upload at its last save.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) repository: RepositoryName,
    pub(super) owner: String,
    pub(super) algorithm: Algorithm,
    /// Bytes taken in.
    pub(super) offset: u64,
    /// Bytes that had been synced before this state was written.
    pub(super) synced: u64,
    /// The time in which `offset` holds; in another one only `synced` does.
    pub(super) epoch: String,
    /// When it was saved, in seconds since 1970: by that an abandoned upload is known.
    pub(super) saved_at: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u32,
    repository: String,
    owner: String,
    algorithm: String,
    offset: u64,
    synced: u64,
    midstate_format: String,
    midstate: String,
    boot_id: String,
    saved_at: u64,
}

impl State {
    pub(super) fn encode(&self, hasher: &Hasher) -> Vec<u8> {
        let raw = Raw {
            version: VERSION,
            repository: self.repository.to_string(),
            owner: self.owner.clone(),
            algorithm: self.algorithm.to_string(),
            offset: self.offset,
            synced: self.synced,
            midstate_format: MIDSTATE_FORMAT.to_owned(),
            midstate: encode_hex(&hasher.save()),
            boot_id: self.epoch.clone(),
            saved_at: self.saved_at,
        };
        // Strings and numbers always have a JSON form; an empty note would read as no upload.
        serde_json::to_vec(&raw).unwrap_or_default()
    }

    /// `None` when the text is torn, or of another version. The hasher is `None` when only the hash cannot be used.
    pub(super) fn decode(text: &[u8]) -> Option<(Self, Option<Hasher>)> {
        let raw: Raw = serde_json::from_slice(text).ok().filter(|raw: &Raw| raw.version == VERSION)?;
        let state = Self {
            repository: raw.repository.parse().ok()?,
            owner: raw.owner,
            algorithm: raw.algorithm.parse().ok()?,
            offset: raw.offset,
            synced: raw.synced,
            epoch: raw.boot_id,
            saved_at: raw.saved_at,
        };
        let usable = raw.midstate_format == MIDSTATE_FORMAT;
        let midstate = usable.then(|| decode_hex(&raw.midstate)).flatten();
        let hasher = midstate.and_then(|midstate| Hasher::restore(state.algorithm, &midstate));
        (state.synced <= state.offset).then_some((state, hasher))
    }

    pub(super) fn belongs_to(&self, repository: &RepositoryName, owner: &str) -> bool {
        self.repository == *repository && self.owner == owner
    }
}

fn encode_hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    Some(pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (State, Hasher) {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"some bytes");
        let state = State {
            repository: "team/app".parse().unwrap(),
            owner: "pin:\"alice\"\n".to_owned(),
            algorithm: Algorithm::Sha256,
            offset: 10,
            synced: 4,
            epoch: "boot".to_owned(),
            saved_at: 1_700_000_000,
        };
        (state, hasher)
    }

    #[test]
    fn a_state_comes_back_with_its_hash() {
        let (state, hasher) = state();
        let (read, restored) = State::decode(&state.encode(&hasher)).unwrap();
        assert_eq!(read, state);
        assert_eq!(restored.unwrap().finish(), hasher.finish());
    }

    #[test]
    fn no_torn_text_is_a_state() {
        let (state, hasher) = state();
        let text = state.encode(&hasher);
        for len in 0..text.len() {
            assert!(State::decode(&text[..len]).is_none(), "cut at {len}");
            let mut zeroed = text.clone();
            zeroed[len..].fill(0);
            assert!(State::decode(&zeroed).is_none(), "zeros from {len}");
        }
    }

    #[test]
    fn a_midstate_of_another_library_is_not_restored_but_the_rest_is_kept() {
        let (state, hasher) = state();
        let text = String::from_utf8(state.encode(&hasher)).unwrap();
        for (from, to) in [("sha2-0.11", "sha2-0.12"), ("\"midstate\":\"", "\"midstate\":\"00")] {
            let text = text.replace(from, to);
            let (read, restored) = State::decode(text.as_bytes()).unwrap();
            assert_eq!((read.offset, restored.is_none()), (10, true), "{to}");
        }
    }

    #[test]
    fn another_version_and_impossible_numbers_are_refused() {
        let (state, hasher) = state();
        let text = String::from_utf8(state.encode(&hasher)).unwrap();
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"synced\":4", "\"synced\":11"),
            ("\"offset\":10", "\"offset\":-1"),
            ("team/app", "../app"),
            ("\"sha256\"", "\"md5\""),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            assert!(State::decode(changed.as_bytes()).is_none(), "{to}");
        }
    }
}
