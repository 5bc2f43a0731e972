//! Commands for a person to paste, and the one quoter that prints them.
//!
//! Built as an argument vector, so that no caller ever glues text into a shell line. A command holds words of ours and
//! names of local files; text that a peer chose (subjects, messages, header values) never goes into one.

use crate::visible::is_plain;
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write};
use std::path::Path;

/// One command, or several joined with `&&`, to be pasted into a POSIX shell.
///
/// [`fmt::Display`] quotes each word so that the shell sees exactly the argument vector: plain words as they are, others in single quotes,
/// and words with control, invisible or non-UTF-8 octets in `$'…'` (POSIX.1-2024 §2.2.4), so that the line shows what it does.
///
/// ```
/// use portcullis_certs::ShellCommand;
/// let command = ShellCommand::new(["chmod", "600", "my key"]);
/// assert_eq!(command.to_string(), "chmod 600 'my key'");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellCommand {
    steps: Vec<Vec<OsString>>,
}

impl ShellCommand {
    /// A command from its argument vector, program first.
    pub fn new<W: Into<OsString>>(argv: impl IntoIterator<Item = W>) -> Self {
        Self { steps: vec![argv.into_iter().map(Into::into).collect()] }
    }

    /// Opens a file at a line, counted from 1. Every POSIX system has `vi`.
    pub fn edit(path: &Path, line: Option<u32>) -> Self {
        let at = line.map(|line| OsString::from(format!("+{line}")));
        Self::new([OsString::from("vi")].into_iter().chain(at).chain([Self::operand(path)]))
    }

    /// Shows the certificates of a file or directory: whom they name, who issued them, until when.
    pub fn show(path: &Path) -> Self {
        Self::new(["portcullis".into(), "cert".into(), "show".into(), Self::operand(path)])
    }

    /// A path as a program's argument: one that starts with a hyphen would be taken for an option.
    pub fn operand(path: &Path) -> OsString {
        let is_option = path.as_os_str().as_encoded_bytes().starts_with(b"-");
        if is_option { Path::new(".").join(path).into() } else { path.into() }
    }

    /// Every step with root's rights.
    #[must_use]
    pub fn with_sudo(self) -> Self {
        let sudo = |argv: Vec<OsString>| [OsString::from("sudo")].into_iter().chain(argv).collect();
        Self { steps: self.steps.into_iter().map(sudo).collect() }
    }

    /// A second command that runs only when the ones before succeeded (`&&`).
    #[must_use]
    pub fn then<W: Into<OsString>>(mut self, argv: impl IntoIterator<Item = W>) -> Self {
        self.steps.push(argv.into_iter().map(Into::into).collect());
        self
    }

    /// The argument vectors, in the order they run.
    pub fn steps(&self) -> impl Iterator<Item = &[OsString]> {
        self.steps.iter().map(Vec::as_slice)
    }
}

impl fmt::Display for ShellCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, argv) in self.steps.iter().enumerate() {
            if i > 0 {
                f.write_str(" && ")?;
            }
            for (j, word) in argv.iter().enumerate() {
                if j > 0 {
                    f.write_char(' ')?;
                }
                write_quoted(f, word)?;
            }
        }
        Ok(())
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, word: &OsStr) -> fmt::Result {
    match word.to_str() {
        Some(text) if !text.is_empty() && text.bytes().all(needs_no_quotes) => f.write_str(text),
        Some(text) if text.chars().all(is_plain) => write!(f, "'{}'", text.replace('\'', r"'\''")),
        _ => write_octal(f, word.as_encoded_bytes()),
    }
}

/// `~` and `=` are quoted although many shells would not mind: they mean something at the start of a word.
const fn needs_no_quotes(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.' | b'/' | b':' | b',' | b'+' | b'@' | b'%')
}

/// Octal with three digits always, because `\1` before a digit would swallow it.
fn write_octal(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    f.write_str("$'")?;
    for &octet in octets {
        match octet {
            b'\'' | b'\\' => write!(f, "\\{}", char::from(octet))?,
            b' '..=b'~' => f.write_char(char::from(octet))?,
            _ => write!(f, "\\{octet:03o}")?,
        }
    }
    f.write_char('\'')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn quoted(word: &[u8]) -> String {
        ShellCommand::new([OsStr::from_bytes(word)]).to_string()
    }

    #[test]
    fn words_are_quoted_only_when_they_must_be() {
        assert_eq!(quoted(b"/etc/docker/certs.d/r.test:5000/ca.crt"), "/etc/docker/certs.d/r.test:5000/ca.crt");
        assert_eq!(quoted(b""), "''");
        assert_eq!(quoted(b"a';id;'.pem"), r"'a'\'';id;'\''.pem'");
        assert_eq!(quoted(b"$(id)"), "'$(id)'");
        assert_eq!(quoted(b"~root"), "'~root'");
        assert_eq!(quoted("[fd00::1]:5000".as_bytes()), "'[fd00::1]:5000'");
        assert_eq!(quoted("Zürich".as_bytes()), "'Zürich'");
    }

    #[test]
    fn what_cannot_be_seen_is_spelled_in_octal() {
        assert_eq!(quoted(b"a\nb'\\"), r"$'a\012b\'\\'");
        assert_eq!(quoted("\u{202e}x".as_bytes()), r"$'\342\200\256x'");
        assert_eq!(quoted(b"\xff1"), r"$'\3771'");
    }

    #[test]
    fn a_shell_sees_the_argument_vector() {
        let words: [&[u8]; 7] =
            [b"a';id;'", b"$(id)`id`", b"a\nb\n", b"\xff\xfe", b"", b"\\'\"", "\u{202e}".as_bytes()];
        let mut argv = vec![OsStr::new("printf"), OsStr::new("%s\\0")];
        argv.extend(words.iter().map(|w| OsStr::from_bytes(w)));
        let line = ShellCommand::new(argv).to_string();
        let output = std::process::Command::new("bash").arg("-c").arg(line).output().unwrap();
        let mut expected = words.join(&0);
        expected.push(0);
        assert_eq!(output.stdout, expected);
    }

    #[test]
    fn steps_are_joined_so_that_a_failure_stops_them() {
        let command = ShellCommand::new(["false"]).then(["rm", "x y"]);
        assert_eq!(command.to_string(), "false && rm 'x y'");
        assert_eq!(command.steps().count(), 2);
    }
}
