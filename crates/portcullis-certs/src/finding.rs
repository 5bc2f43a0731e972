//! A fault, where it is, and how bad it is.

use crate::fault::Fault;
use crate::fault_text::shown;
use crate::fix::Fix;
use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong, or worth knowing, about a file, a directory or a line.
///
/// [`fmt::Display`] gives `path:line: text` (`path: text` without a line), all made visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file or directory.
    pub path: PathBuf,
    /// The line in it, counted from 1.
    pub line: Option<u32>,
    /// How bad it is for whoever reads.
    pub severity: Severity,
    /// What it is.
    pub fault: Fault,
}

/// How bad a finding is. Ordered: a note is less than a warning is less than a fatal one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; what was asked for works.
    Note,
    /// Something is not used, or will not work much longer; the rest works.
    Warning,
    /// What was asked for cannot be done.
    Fatal,
}

impl Finding {
    /// A finding about the whole file or directory.
    pub fn new(path: &Path, severity: Severity, fault: Fault) -> Self {
        Self { path: path.to_owned(), line: None, severity, fault }
    }

    /// A finding about one line of a file, counted from 1.
    pub fn at(path: &Path, line: u32, severity: Severity, fault: Fault) -> Self {
        Self { path: path.to_owned(), line: Some(line), severity, fault }
    }

    /// The stable code, `D20`.
    pub fn code(&self) -> &'static str {
        self.fault.code()
    }

    /// What to do. Commands name local paths only.
    pub fn fix(&self) -> Fix {
        Fix::of(self)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.path))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fatal => "fatal",
        })
    }
}
