//! Rules about names, length and open ends, for files of every kind.

use super::source::is_word;
use super::{File, Problem};

/// A name that says nothing attracts everything.
pub(super) const EMPTY_NAMES: [&str; 5] = ["common", "util", "utils", "helpers", "misc"];

const LINES: usize = 500;

/// A file or folder may not be named by what it is not about.
pub(super) fn check_name(path: &str) -> Option<Problem> {
    let mut stems = path.split('/').map(|part| part.split('.').next().unwrap_or(part));
    let empty = stems.find(|stem| EMPTY_NAMES.contains(stem))?;
    Some(Problem::new(path, 0, format!("{empty:?} says nothing: name it after what it owns")))
}

/// Below 500 lines, tests included; what does not fit wants another module.
pub(super) fn check_length(file: &File) -> Option<Problem> {
    let lines = file.text.lines().count();
    let is_too_long = file.is("rs") && lines >= LINES;
    is_too_long.then(|| Problem::new(&file.path, 0, format!("{lines} lines: a file has fewer than {LINES}")))
}

/// An open end without somebody's name in brackets behind it stays open for ever.
pub(super) fn check_open_ends(path: &str, line: usize, text: &str) -> Option<Problem> {
    let word = ["TODO", "FIXME", "XXX"].into_iter().find(|word| is_unowned(text, word))?;
    Some(Problem::new(path, line, format!("`{word}` without a name: write `{word}(name)`, or open an issue instead")))
}

fn is_unowned(text: &str, word: &str) -> bool {
    find_words(text, word).any(|at| {
        let owner = text[at + word.len()..].strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let is_quoted = text[..at].ends_with('`');
        !is_quoted && owner.is_none_or(|(name, _)| name.trim().is_empty())
    })
}

/// Where `needle` stands with no letter, digit or `_` before or behind it.
pub(super) fn find_words<'a>(text: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(needle).map(|(at, _)| at).filter(move |&at| {
        let before = !text[..at].ends_with(is_word);
        let behind = !text[at + needle.len()..].starts_with(is_word);
        before && (behind || needle.ends_with(|c| !is_word(c)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_names_are_refused_as_file_and_folder() {
        for path in ["a/src/util.rs", "a/src/common/key.rs", "a/tests/it/helpers.rs", "misc/x.sh"] {
            assert!(check_name(path).is_some(), "{path}");
        }
        for path in ["a/src/utility.rs", "a/src/key.rs", "docs/common-mistakes.md"] {
            assert_eq!(check_name(path), None);
        }
    }

    #[test]
    fn a_rust_file_has_fewer_than_500_lines() {
        let file = |path: &str, lines| File { path: path.into(), text: "x\n".repeat(lines) };
        assert_eq!(check_length(&file("a.rs", 499)), None);
        assert!(check_length(&file("a.rs", 500)).is_some());
        assert_eq!(check_length(&file("CHANGELOG.md", 5000)), None);
    }

    #[test]
    fn open_ends_have_an_owner() {
        for text in ["// TODO: later", "FIXME", "XXX() no name", "TODO(ann): a TODO"] {
            assert!(check_open_ends("a.rs", 1, text).is_some(), "{text}");
        }
        for text in ["// TODO(ann): later", "TODOS", "mktemp XXXXXX", "the word `TODO`"] {
            assert_eq!(check_open_ends("a.rs", 1, text), None);
        }
    }

    #[test]
    fn words_have_borders() {
        assert_eq!(find_words("eprint! print! x.print!", "print!").collect::<Vec<_>>(), [8, 17]);
        assert_eq!(find_words("io::stdout_raw io::stdout()", "io::stdout").collect::<Vec<_>>(), [15]);
    }
}
