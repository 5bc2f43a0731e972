//! The fuzzer's body for link files, replayed over its corpus.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

#[path = "../../../../fuzz/bodies/link.rs"]
mod link;

#[test]
fn the_corpus() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/link");
    let files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 10, "{files:?}");
    for path in files {
        link::run(&fs::read(path).unwrap());
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(sha256:)?[0-9a-f]{0,70}\n?") {
        link::run(&bytes);
        link::run(text.as_bytes());
    }
}
