//! The scanner on the corners of Rust's grammar that would mislead the rules.

use super::*;

fn code(text: &str) -> String {
    Source::parse(text).code.join("\n")
}

fn strings(text: &str) -> Vec<(usize, String)> {
    Source::parse(text).strings
}

fn test_line_numbers(text: &str) -> Vec<usize> {
    let source = Source::parse(text);
    (1..=source.code.len()).filter(|line| source.is_test(*line)).collect()
}

#[test]
fn comments_and_strings_are_no_code() {
    assert_eq!(code("a(\"b // c\"); // d \"e\"\nf"), "a(\"\"); \nf");
    assert_eq!(code("a /* b /* c */ d\n */ e"), "a \n e");
    let source = Source::parse("/* a\nb */ // c");
    assert_eq!(source.comments, [(1, "/* a".into()), (2, "b */".into()), (2, "// c".into())]);
}

#[test]
fn strings_keep_their_line_and_text() {
    assert_eq!(strings("\n\"a\\\"b\" \"\\\\\" c"), [(2, "a\\\"b".into()), (2, "\\\\".into())]);
    assert_eq!(strings("\"a\nb\"\n\"c\""), [(1, "a\nb".into()), (3, "c".into())]);
    assert_eq!(strings("r\"\\\" br#\"a\"b\"# b\"c\""), [(1, "\\".into()), (1, "a\"b".into()), (1, "c".into())]);
}

#[test]
fn a_quote_character_opens_no_string() {
    assert_eq!(strings("('\"', '\\'', '\\u{22}', b'\"', \"x\")"), [(1, "x".into())]);
    assert_eq!(strings("fn f<'a>(x: &'a str) { \"y\" }"), [(1, "y".into())]);
    assert_eq!(code("for r in r {} bar\"\""), "for r in r {} bar\"\"");
}

#[test]
fn broken_files_do_not_stop_the_scan() {
    for text in ["\"", "r#\"", "'", "'\\", "/*", "#[", "#[cfg(test)]", "#[cfg(test)] mod x {", "b", "r", "ä'ö"] {
        let source = Source::parse(text);
        assert_eq!(source.code.len(), 1, "{text}");
    }
}

#[test]
fn test_items_are_found() {
    assert_eq!(test_line_numbers("a();\n#[cfg(test)]\nmod tests {\n  fn f() {}\n}\nb();"), [2, 3, 4, 5]);
    assert_eq!(test_line_numbers("#[tokio::test(flavor = \"x\")]\nasync fn f(a: [u8; 2]) {\n}\nb();"), [1, 2, 3]);
    assert_eq!(test_line_numbers("#[cfg(all(test, unix))]\nuse a::{b, c};\nd();"), [1, 2]);
    assert_eq!(test_line_numbers("#![cfg(test)]\na();\nb();"), [1, 2, 3]);
}

#[test]
fn what_is_built_without_tests_is_no_test() {
    for text in
        ["#[cfg(not(test))]\nfn f() {}", "#[cfg_attr(test, derive(Debug))]\nstruct S;", "#[cfg(feature = \"t\")]\nf;"]
    {
        assert_eq!(test_line_numbers(text), [0; 0], "{text}");
    }
}

#[test]
fn test_modules_in_their_own_files_are_tests() {
    let sources = [("crates/a/src/lib.rs", Source::parse("#[cfg(test)]\nmod model;\nmod shipped;"))];
    assert!(is_test_file("crates/a/src/model.rs", &sources));
    assert!(is_test_file("crates/a/src/model/disk.rs", &sources));
    assert!(!is_test_file("crates/a/src/shipped.rs", &sources));
    assert!(!is_test_file("crates/b/src/model.rs", &sources));
    assert!(is_test_file("crates/a/tests/it/main.rs", &[]));
}

#[test]
fn the_module_doc_may_follow_attributes() {
    assert!(Source::parse("//! Owns.\n").has_module_doc);
    assert!(Source::parse("\n#![expect(a, reason = \"[b]\")]\n//! Owns.\n").has_module_doc);
    assert!(!Source::parse("// Owns.\n//! Late.\n").has_module_doc);
    assert!(!Source::parse("use a;\n").has_module_doc);
}
