//! What must stay, as far as a collection remembers it: the first eight bytes of each digest.
//!
//! Two digests that share them cost a dead blob its turn, never a live one. Must not know what a digest is of.

use std::collections::HashSet;

use portcullis_oci::Digest;

/// Digests by their first eight bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shorts(HashSet<u64>);

/// What a round remembers of all that must stay. When that is more than it may be, the round is about a part of all
/// digests only: what is outside of it is taken for marked, and another round is about the next part.
#[derive(Debug)]
pub(super) struct Marks {
    kept: Shorts,
    part: Part,
    most: usize,
}

/// All digests whose first bytes, but for the bits of `mask`, are `bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    mask: u64,
    bits: u64,
}

/// The first eight bytes of a digest.
pub(super) fn short(digest: &Digest) -> u64 {
    digest.as_bytes().first_chunk().copied().map_or(0, u64::from_le_bytes)
}

impl Shorts {
    pub(super) fn add(&mut self, digest: &Digest) {
        self.0.insert(short(digest));
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.0.contains(&short(digest))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Marks {
    /// Nothing is marked; at most `most` digests will be remembered, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Shorts::default(), part: Part { mask: 0, bits: 0 }, most }
    }

    pub(super) fn add(&mut self, digest: &Digest) {
        self.insert(short(digest));
    }

    pub(super) fn extend<'a>(&mut self, digests: impl IntoIterator<Item = &'a Digest>) {
        digests.into_iter().for_each(|digest| self.add(digest));
    }

    pub(super) fn insert(&mut self, short: u64) {
        if !self.part.has(short) {
            return;
        }
        self.kept.0.insert(short);
        while self.kept.len() > self.most {
            let part = self.part.half();
            self.kept.0.retain(|short| part.has(*short));
            self.part = part;
        }
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        let short = short(digest);
        !self.part.has(short) || self.kept.0.contains(&short)
    }

    /// Whether this is about some digests only.
    pub(super) fn is_partial(&self) -> bool {
        self.part.mask != 0
    }

    /// For a round about the part after this one. `None`: it was the last.
    pub(super) fn of_next_part(&self) -> Option<Self> {
        let Part { mask, bits } = self.part;
        (bits < mask).then(|| Self { part: Part { mask, bits: bits + 1 }, ..Self::new(self.most) })
    }
}

impl Part {
    fn has(self, short: u64) -> bool {
        short & self.mask == self.bits
    }

    /// One of the two halves; the other one comes when the parts after it are counted up.
    fn half(self) -> Self {
        Self { mask: self.mask << 1 | 1, ..self }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_oci::Algorithm;

    use super::*;

    fn digest(number: u32) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_le_bytes())
    }

    /// Every other digest is marked, in as many rounds as it takes: what was not has its turn in at least one of them,
    /// and what was is never free.
    #[test]
    fn more_than_may_be_remembered_is_marked_in_parts() {
        for most in [40, 39, 7, 1] {
            let live = 0..40_u32;
            let mut had_a_turn = HashSet::new();
            let mut marks = Some(Marks::new(most));
            let mut rounds = 0;
            while let Some(mut round) = marks {
                rounds += 1;
                for number in live.clone() {
                    round.add(&digest(2 * number));
                    assert!(round.kept.len() <= most);
                }
                assert!(live.clone().all(|number| round.has(&digest(2 * number))), "room for {most}");
                had_a_turn.extend(live.clone().filter(|number| !round.has(&digest(2 * number + 1))));
                assert_eq!(round.is_partial(), most < 40);
                marks = round.of_next_part();
            }
            assert_eq!(had_a_turn.len(), 40, "room for {most}");
            assert_eq!(rounds == 1, most >= 40);
        }
    }
}
