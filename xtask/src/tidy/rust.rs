//! Rules about Rust files: module docs, printing, and words that only one file may spell.

use super::source::Source;
use super::words::{self, EMPTY_NAMES};
use super::{Problem, words::find_words};

/// Text that stands in one place of the shipped code, so that it is changed in one place.
struct SpelledOnce {
    what: &'static str,
    words: &'static [&'static str],
    /// Paths, or beginnings of paths, where the words may stand.
    homes: &'static [&'static str],
}

const SPELLED_ONCE: [SpelledOnce; 3] = [
    SpelledOnce {
        what: "a path in storage",
        words: &["_layers", "_manifests", STORAGE_ROOT],
        homes: &["crates/portcullis-store/src/layout.rs"],
    },
    SpelledOnce {
        what: "a URL path",
        words: &["/v2/", "/blobs/", "/manifests/", "/referrers/"],
        homes: &["crates/portcullis-oci/src/route.rs"],
    },
    SpelledOnce {
        what: "a certificate directory",
        words: &["/etc/docker/certs.d", "/etc/containers/certs.d"],
        // args.rs: the help names the directories that the engines read.
        homes: &["crates/portcullis-certs/", "crates/portcullis/src/args.rs"],
    },
];

/// Ends like a URL path begins, and is none.
const STORAGE_ROOT: &str = "docker/registry/v2";

const PRINTING: [&str; 8] =
    ["println!", "eprintln!", "print!", "eprint!", "io::stdout", "io::stderr", "stdout()", "stderr()"];

const PRINTERS: [&str; 3] = ["crates/portcullis/src/output.rs", "bench/src/main.rs", "xtask/"];

pub(super) fn check(path: &str, source: &Source, is_test: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    problems.extend(check_module_doc(path, source));
    problems.extend(check_module_names(path, source));
    problems.extend(check_open_ends(path, source));
    if !is_test {
        problems.extend(check_printing(path, source));
        problems.extend(check_spelled_once(path, source));
    }
    problems
}

fn check_module_doc(path: &str, source: &Source) -> Option<Problem> {
    let is_exempt = ["build.rs", "/tests.rs"].iter().any(|end| path.ends_with(end)) || path.contains("/tests/");
    let text = "no module doc: begin with `//!`, what it owns and what it must not know";
    (!source.has_module_doc && !is_exempt).then(|| Problem::new(path, 1, text))
}

fn check_module_names(path: &str, source: &Source) -> Vec<Problem> {
    let numbered = source.code.iter().enumerate();
    numbered
        .filter_map(|(index, code)| {
            let at = find_words(code, "mod").next()?;
            let name = code[at + 3..].trim_start().split([' ', ';', '{']).next()?;
            let text = format!("module {name:?} says nothing: name it after what it owns");
            EMPTY_NAMES.contains(&name).then(|| Problem::new(path, index + 1, text))
        })
        .collect()
}

fn check_open_ends(path: &str, source: &Source) -> Vec<Problem> {
    source.comments.iter().filter_map(|(line, text)| words::check_open_ends(path, *line, text)).collect()
}

fn check_printing(path: &str, source: &Source) -> Vec<Problem> {
    // A build script speaks to cargo on its standard output.
    if path.ends_with("build.rs") || PRINTERS.iter().any(|home| path.starts_with(home)) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (line, code) in source.shipped_code() {
        let found = PRINTING.into_iter().find(|word| find_words(code, word).any(|at| !code[..at].ends_with('.')));
        problems.extend(found.map(|word| {
            let text = format!("`{word}`: only crates/portcullis/src/output.rs prints; return it, or log it");
            Problem::new(path, line, text)
        }));
    }
    problems
}

fn check_spelled_once(path: &str, source: &Source) -> Vec<Problem> {
    if !path.starts_with("crates/") {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for SpelledOnce { what, words, homes } in SPELLED_ONCE {
        if homes.iter().any(|home| path.starts_with(home)) {
            continue;
        }
        for (line, text) in source.shipped_strings() {
            problems.extend(words.iter().find(|word| contains(text, word)).map(|word| {
                let text = format!("{word:?} is {what}: it is spelled in {} alone", homes.join(" and "));
                Problem::new(path, line, text)
            }));
        }
    }
    problems
}

fn contains(text: &str, word: &str) -> bool {
    if word == STORAGE_ROOT { text.contains(word) } else { text.replace(STORAGE_ROOT, "").contains(word) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELSEWHERE: &str = "crates/portcullis-server/src/app.rs";

    fn check_shipped(path: &str, text: &str) -> Vec<String> {
        check(path, &Source::parse(&format!("//! Doc.\n{text}")), false).iter().map(Problem::to_string).collect()
    }

    fn assert_found(path: &str, text: &str, expected: &str) {
        let found = check_shipped(path, text);
        assert!(found.len() == 1 && found[0].contains(expected), "{text}: {expected} in {found:?}");
    }

    #[test]
    fn a_module_says_what_it_owns() {
        let found = |path| check(path, &Source::parse("use a;\n"), false).len();
        assert_eq!(found("crates/portcullis-oci/src/name.rs"), 1);
        assert_eq!(found("crates/portcullis-oci/build.rs"), 0);
        assert_eq!(found("crates/portcullis-oci/tests/it/pull.rs"), 0);
        assert_eq!(found("crates/portcullis-oci/src/name/tests.rs"), 0);
    }

    #[test]
    fn inline_modules_have_names_too() {
        assert_found(ELSEWHERE, "pub(crate) mod util {\n}", ":2: module \"util\"");
        assert_eq!(check_shipped(ELSEWHERE, "mod utilities;\nlet model = 1;"), [""; 0]);
    }

    #[test]
    fn only_output_prints() {
        for text in ["println!(\"x\");", "eprint!(\"x\");", "std::io::stdout().write()", "let w = stderr();"] {
            assert_found(ELSEWHERE, text, ":2: ");
            assert_eq!(check_shipped("crates/portcullis/src/output.rs", text), [""; 0]);
        }
        for text in ["// println!()", "child.stdout()", "#[test]\nfn f() { println!(); }", "writeln!(f)", "\"print!\""]
        {
            assert_eq!(check_shipped(ELSEWHERE, text), [""; 0]);
        }
    }

    #[test]
    fn paths_are_spelled_in_one_file() {
        for (text, expected) in [
            ("\"/_layers\"", "portcullis-store/src/layout.rs"),
            ("\"docker/registry/v2/blobs\"", "portcullis-store/src/layout.rs"),
            ("format!(\"/v2/{name}\")", "portcullis-oci/src/route.rs"),
            ("r\"x/referrers/\"", "portcullis-oci/src/route.rs"),
            ("\"/etc/docker/certs.d/x\"", "portcullis-certs"),
        ] {
            assert_found(ELSEWHERE, text, expected);
        }
        assert_eq!(check_shipped("crates/portcullis-store/src/layout.rs", "\"docker/registry/v2/_layers\""), [""; 0]);
        assert_eq!(check_shipped("crates/portcullis-oci/src/route.rs", "\"/v2/{}/blobs/{}\""), [""; 0]);
        assert_eq!(check_shipped("crates/portcullis-certs/src/profile.rs", "\"/etc/containers/certs.d\""), [""; 0]);
        assert_eq!(check_shipped(ELSEWHERE, "/// GET /v2/ in a doc\n#[cfg(test)]\nmod t { \"/v2/\" }"), [""; 0]);
    }

    #[test]
    fn tests_may_spell_and_print() {
        let source = Source::parse("//! Doc.\nprintln!(\"/v2/\");");
        assert_eq!(check(ELSEWHERE, &source, true), []);
    }
}
