//! One thing that is wrong, with its evidence and its remedy. Pure values; texts are made visible here, once.

use crate::checks::check;
use crate::mend::Mend;
use portcullis_certs::{Finding, Fix, Severity, ShellCommand, Visible, visible_bytes};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What a check found.
///
/// Its texts are safe to print: what a file or a peer chose in them was made visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The code of the check, `D20`.
    pub code: &'static str,
    /// How bad it is for the engine that takes it worst.
    pub severity: Severity,
    /// The engines it matters to, by profile name; empty: all.
    pub engines: Vec<&'static str>,
    /// Engines that take it less badly, and how badly.
    pub milder: Vec<(&'static str, Severity)>,
    /// What is wrong, in one line.
    pub what: String,
    /// Why it matters, in one sentence.
    pub why: &'static str,
    /// Where it is to be seen.
    pub evidence: Vec<Evidence>,
    /// What to do about it.
    pub fix: Fix,
    /// What `--fix` would do, where that is safe and can be undone.
    pub mend: Option<Mend>,
}

/// Where a finding is to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// A file or directory.
    pub path: Option<PathBuf>,
    /// A line of it, from 1.
    pub line: Option<u32>,
    /// What is there; may be empty.
    pub value: String,
}

impl Evidence {
    /// `path:line  value`, as far as there is any.
    pub fn shown(&self) -> String {
        let mut text = self.path.as_deref().map(shown).unwrap_or_default();
        if let Some(line) = self.line {
            // Writing into a String cannot fail.
            let _ = write!(text, ":{line}");
        }
        if !self.value.is_empty() {
            if !text.is_empty() {
                text.push_str("  ");
            }
            text.push_str(&self.value);
        }
        text
    }
}

impl Diagnosis {
    /// A diagnosis of the check `code`, with nothing to do about it so far.
    pub(crate) fn new(code: &'static str, severity: Severity, what: impl Into<String>) -> Self {
        let why = check(code).map_or("", |check| check.why);
        let evidence = Vec::new();
        Self {
            code,
            severity,
            engines: Vec::new(),
            milder: Vec::new(),
            what: what.into(),
            why,
            evidence,
            fix: Fix::NothingToDo,
            mend: None,
        }
    }

    /// What a reader of certificate directories found.
    pub(crate) fn of(finding: &Finding, severity: Severity) -> Self {
        let (text, file) = (finding.fault.to_string(), name(&finding.path));
        let what = if text.contains(&file) { text } else { format!("{file}: {text}") };
        Self::new(finding.code(), severity, what)
            .at_line(&finding.path, finding.line)
            .with_fix(finding.fix())
            .with_mend(Mend::of(finding))
    }

    pub(crate) fn at(self, path: &Path) -> Self {
        self.at_line(path, None)
    }

    pub(crate) fn at_line(mut self, path: &Path, line: Option<u32>) -> Self {
        self.evidence.push(Evidence { path: Some(path.to_owned()), line, value: String::new() });
        self
    }

    /// The value goes to the evidence before it, or stands alone. It may be foreign text.
    pub(crate) fn value(mut self, value: impl AsRef<str>) -> Self {
        let value = Visible(value.as_ref()).to_string();
        match self.evidence.last_mut() {
            Some(last) if last.value.is_empty() => last.value = value,
            _ => self.evidence.push(Evidence { path: None, line: None, value }),
        }
        self
    }

    /// A value that stands on a line of its own.
    pub(crate) fn also(mut self, value: impl AsRef<str>) -> Self {
        let value = Visible(value.as_ref()).to_string();
        self.evidence.push(Evidence { path: None, line: None, value });
        self
    }

    pub(crate) fn for_engine(mut self, engine: &'static str) -> Self {
        if !self.engines.contains(&engine) {
            self.engines.push(engine);
        }
        self
    }

    pub(crate) fn for_engines(mut self, engines: impl IntoIterator<Item = &'static str>) -> Self {
        self.engines.extend(engines);
        self
    }

    pub(crate) fn with_fix(mut self, fix: Fix) -> Self {
        self.fix = fix;
        self
    }

    /// What no one command does, and where it starts.
    pub(crate) fn say(self, text: impl Into<String>, command: ShellCommand) -> Self {
        self.with_fix(Fix::Say { text: text.into(), command })
    }

    /// The same, where it starts with a look at who issued a certificate, and for what.
    pub(crate) fn say_of(self, path: &Path, text: impl Into<String>) -> Self {
        self.say(text, ShellCommand::show(path))
    }

    pub(crate) fn run<W: Into<OsString>>(self, argv: impl IntoIterator<Item = W>) -> Self {
        self.with_fix(Fix::Run(ShellCommand::new(argv)))
    }

    pub(crate) fn with_mend(mut self, mend: Option<Mend>) -> Self {
        self.mend = mend;
        self
    }
}

/// A path for eyes.
pub(crate) fn shown(path: &Path) -> String {
    visible_bytes(path.as_os_str().as_encoded_bytes())
}

/// The last part of a path, for eyes.
pub(crate) fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| shown(path), |name| visible_bytes(name.as_encoded_bytes()))
}

/// A day, as people read it.
pub(crate) fn day(time: time::OffsetDateTime) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    time.format(format).unwrap_or_else(|_| time.to_string())
}
