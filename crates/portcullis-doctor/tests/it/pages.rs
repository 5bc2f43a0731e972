//! docs/errors is written from the table: `PORTCULLIS_WRITE_DOCS=1` writes it, without it a difference fails.

use portcullis_doctor::{CHECKS, index_page, page};
use std::fs;
use std::path::PathBuf;

#[test]
fn the_pages_are_those_of_the_table() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    let pages = CHECKS.iter().copied().flatten().map(|check| (format!("{}.md", check.code), page(check)));
    let all: Vec<(String, String)> = pages.chain([("README.md".to_owned(), index_page())]).collect();
    if std::env::var_os("PORTCULLIS_WRITE_DOCS").is_some() {
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in &all {
            fs::write(directory.join(name), text).unwrap();
        }
    }
    for (name, text) in &all {
        let written = fs::read_to_string(directory.join(name)).unwrap_or_default();
        assert_eq!(&written, text, "docs/errors/{name} differs: run this test with PORTCULLIS_WRITE_DOCS=1");
    }
    let known = |name: &str| all.iter().any(|(page, _)| page == name);
    for entry in fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known(&name), "docs/errors/{name} belongs to no check");
    }
}
