//! `cargo xtask tidy`: the rules of this repository that clippy cannot see.
//!
//! Reads the files that git tracks, or would track, and prints every problem, not the first. Each rule is a function
//! from text to problems.

mod edges;
mod manifests;
mod markdown;
mod rust;
mod source;
mod words;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cargo;
use source::Source;

/// What is wrong, and where. Line 0 means the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    path: String,
    line: usize,
    text: String,
}

impl Problem {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Problem {
        Problem { path: path.into(), line, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { path, line, text } = self;
        if *line == 0 { write!(f, "{path}: {text}") } else { write!(f, "{path}:{line}: {text}") }
    }
}

/// A file of the repository: its path from the root with `/`, and its text.
#[derive(Debug)]
struct File {
    path: String,
    text: String,
}

impl File {
    fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }
}

/// Prints the problems; `true` when there are none.
pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let paths = tracked_paths(root)?;
    let files = read_texts(root, &paths);
    let mut problems = check_files(&files, &paths);
    problems.extend(edges::check(&cargo::output(cargo::command(root).args(edges::METADATA))?)?);
    problems.sort();
    problems.dedup();
    for problem in &problems {
        println!("{problem}");
    }
    println!("tidy: {} files read, problems: {}", paths.len(), problems.len());
    Ok(problems.is_empty())
}

fn check_files(files: &[File], paths: &[String]) -> Vec<Problem> {
    let sources: Vec<(&str, Source)> =
        files.iter().filter(|file| file.is("rs")).map(|file| (file.path.as_str(), Source::parse(&file.text))).collect();
    let mut problems = Vec::new();
    for (path, source) in &sources {
        let is_test = source::is_test_file(path, &sources);
        problems.extend(rust::check(path, source, is_test));
    }
    for file in files {
        problems.extend(words::check_name(&file.path));
        problems.extend(words::check_length(file));
        if file.is("md") {
            problems.extend(markdown::check(file, files, paths));
        }
    }
    problems.extend(manifests::check(files));
    problems
}

/// Tracked files and new ones that are not ignored: a new file is checked before it is added.
fn tracked_paths(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut command = Command::new("git");
    // A clone mounted into a container belongs to another user, and git would refuse to list it.
    command.arg("-c").arg(format!("safe.directory={}", root.display()));
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = cargo::output(command.current_dir(root).stdin(Stdio::null()))?;
    let mut paths: Vec<String> = listed.split_terminator('\0').map(String::from).collect();
    paths.retain(|path| root.join(path).is_file());
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// Files that are no text are passed over: no rule is about them.
fn read_texts(root: &Path, paths: &[String]) -> Vec<File> {
    let read = |path: &String| Some(File { path: path.clone(), text: fs::read_to_string(root.join(path)).ok()? });
    paths.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_printed_as_editors_read_them() {
        assert_eq!(Problem::new("a/b.rs", 7, "wrong").to_string(), "a/b.rs:7: wrong");
        assert_eq!(Problem::new("a/b.rs", 0, "wrong").to_string(), "a/b.rs: wrong");
    }

    #[test]
    fn every_rule_is_called() {
        let files = [
            ("crates/portcullis-oci/src/util.rs", "fn f() { println!(); }\n"),
            ("crates/portcullis-oci/Cargo.toml", "[package]\nname = \"portcullis-oci\"\n"),
            ("README.md", "[gone](docs/gone.md)\n"),
        ];
        let files = files.map(|(path, text)| File { path: path.into(), text: text.into() });
        let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        let found: Vec<String> = check_files(&files, &paths).iter().map(Problem::to_string).collect();
        for expected in ["util.rs: ", "util.rs:1: ", "Cargo.toml: ", "README.md:1: "] {
            assert!(found.iter().any(|problem| problem.contains(expected)), "{expected} in {found:#?}");
        }
    }
}
