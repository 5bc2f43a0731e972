//! What a test does when a program or a right it needs is missing: it says so where `cargo xtask test` will see it.
//!
//! A skipped test returns, so libtest counts it as passed. The line it leaves in the file named by
//! [`SKIPS_FILE`] is what lets `cargo xtask test` list it and exit 1. Knows nothing of what the tests do.
//!
//! ```no_run
//! use portcullis_testkit::{skip, skip_unless};
//!
//! fn pulls_with_a_program_nobody_has() {
//!     skip_unless!(skip::Need::Program("no-such-program"));
//!     unreachable!("the line above returned");
//! }
//! pulls_with_a_program_nobody_has();
//! ```

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt};

/// The environment variable that names the file to which each skip is appended as `test name<TAB>reason`. Unset: the
/// reason is printed only.
pub const SKIPS_FILE: &str = "PORTCULLIS_TEST_SKIPS";

/// Something a test with real peers cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A program on `PATH` (or in the directories for root's programs).
    Program(&'static str),
    /// The right to make network and mount namespaces: root, with the kernel's consent.
    Namespaces,
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Program(name) => find_program(name).is_some(),
            Self::Namespaces => may_make_namespaces(),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(name) => write!(f, "the program `{name}` is not installed"),
            Self::Namespaces => f.write_str("no right to make network and mount namespaces (root is needed)"),
        }
    }
}

/// Whether all of `needs` are met. If not, the skip of `test` is recorded and printed, and the test must return.
/// [`skip_unless!`](crate::skip_unless) does both.
pub fn require(test: &str, needs: &[Need]) -> bool {
    match missing(needs) {
        None => true,
        Some(reason) => {
            record(test, &reason);
            false
        }
    }
}

/// Records that `test` was skipped and why.
#[expect(clippy::print_stderr, reason = "a skip must be seen by whoever runs the tests by hand")]
pub fn record(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = env::var_os(SKIPS_FILE) {
        append(Path::new(&path), test, reason);
    }
}

/// All that is not met, in words.
fn missing(needs: &[Need]) -> Option<String> {
    let missing: Vec<String> = needs.iter().filter(|need| !need.is_met()).map(ToString::to_string).collect();
    (!missing.is_empty()).then(|| missing.join("; "))
}

fn append(path: &Path, test: &str, reason: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the file of skips opens");
    // One write, so that tests of several processes do not mix their lines.
    file.write_all(format!("{test}\t{reason}\n").as_bytes()).expect("the skip is recorded");
}

/// Returns from the test unless all needs are met, and records the skip under the name of the enclosing function.
#[macro_export]
macro_rules! skip_unless {
    ($($need:expr),+ $(,)?) => {{
        fn here() {}
        let name = ::std::any::type_name_of_val(&here);
        if !$crate::skip::require($crate::skip::test_name(name), &[$($need),+]) {
            return;
        }
    }};
}

/// The name libtest gives to the test in which a function `here` with this type name stands: no crate, no `here`.
#[doc(hidden)]
pub fn test_name(type_name: &str) -> &str {
    let path = type_name.strip_suffix("::here").unwrap_or(type_name);
    path.split_once("::").map_or(path, |(_crate_name, rest)| rest)
}

/// Where a program is. Debian's users have no `/usr/sbin` on their `PATH`, where `ip` and `dockerd` are.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn may_make_namespaces() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    unshare.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_need_of_two_is_enough_to_skip() {
        let reason = missing(&[Need::Program("sh"), Need::Program("portcullis-no-such-program")]);
        assert_eq!(reason.as_deref(), Some("the program `portcullis-no-such-program` is not installed"));
    }

    #[test]
    fn a_skip_is_one_line_after_those_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skips");
        append(&file, "first", "no reason");
        append(&file, "second", "another");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "first\tno reason\nsecond\tanother\n");
    }

    #[test]
    fn goes_on_when_all_is_there() {
        assert!(require("this", &[Need::Program("sh")]));
    }

    #[test]
    fn names_the_test_as_libtest_does() {
        assert_eq!(test_name("it::docker_page::word_for_word::here"), "docker_page::word_for_word");
        assert_eq!(test_name("it"), "it");
    }
}
