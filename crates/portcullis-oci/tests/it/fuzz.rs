//! The fuzzers' bodies, replayed over their corpora: what a fuzzer once found stays found.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[path = "../../../../fuzz/bodies/digest.rs"]
mod digest;
#[path = "../../../../fuzz/bodies/manifest.rs"]
mod manifest;
#[path = "../../../../fuzz/bodies/range.rs"]
mod range;
#[path = "../../../../fuzz/bodies/reference.rs"]
mod reference;
#[path = "../../../../fuzz/bodies/url.rs"]
mod url;

/// Runs one input; panics where something does not hold.
type Body = fn(&[u8]);

const BODIES: [(&str, Body); 5] = [
    ("url", url::run),
    ("digest", digest::run),
    ("reference", reference::run),
    ("range", range::run),
    ("manifest", manifest::run),
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let files = fs::read_dir(&directory).expect(name).map(|entry| entry.unwrap().path());
    let contents: Vec<Vec<u8>> = files.map(|path| fs::read(path).unwrap()).collect();
    assert!(contents.len() >= 10, "the corpus of {name} is not there");
    contents
}

#[test]
fn the_corpora() {
    for (name, run) in BODIES {
        for bytes in corpus(name) {
            run(&bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// A little of what a fuzzer does: an entry with bytes changed, cut and joined with another.
    #[test]
    fn near_the_corpora(body in 0..BODIES.len(), picks in any::<[usize; 2]>(), cut in any::<[usize; 2]>(), changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..4)) {
        let (name, run) = BODIES[body];
        let entries = corpus(name);
        let part = |at: usize| {
            let entry = &entries[picks[at] % entries.len()];
            &entry[..cut[at] % (entry.len() + 1)]
        };
        let mut bytes = [part(0), part(1)].concat();
        for (at, byte) in changes {
            if let Some(len) = std::num::NonZero::new(bytes.len()) {
                bytes[at % len] = byte;
            }
        }
        run(&bytes);
    }
}
