//! A TOML file read field by field, so that every problem in it is found and named with its line.
//!
//! serde stops at the first unknown or wrong key; whoever wrote the file wants all of them at once. Must not know what
//! the fields mean.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

/// The largest number of anything; far above what a machine can hold, and below what a semaphore counts.
const MOST: usize = 1_000_000_000;
/// The longest time: what is added to a clock must not overflow it.
const LONGEST: Duration = Duration::from_hours(24 * 366);

/// One thing wrong with a file, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1; `None` when it is about the whole file.
    pub line: Option<usize>,
    /// What is wrong, with the value.
    pub message: String,
}

impl Problem {
    /// A problem of the whole file.
    pub fn new(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path.display(), self.message),
            None => write!(f, "{}: {}", self.path.display(), self.message),
        }
    }
}

/// The problems found so far in one file.
#[derive(Debug)]
pub(crate) struct Problems<'a> {
    path: &'a Path,
    text: &'a str,
    found: Vec<Problem>,
}

/// A table of the file. Each field is taken once; what is left at the end is unknown.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    /// As a person would write it before the field: `storage.`, or nothing at the top.
    prefix: String,
    line: usize,
    fields: Vec<Field<'a>>,
}

#[derive(Debug)]
struct Field<'a> {
    key: String,
    offset: usize,
    value_offset: usize,
    value: DeValue<'a>,
}

/// A value with the line it stands on.
#[derive(Debug, Clone)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) line: usize,
}

impl<'a> Problems<'a> {
    /// Parses `text`; what is no TOML is a problem and leaves the rest readable.
    pub(crate) fn read(path: &'a Path, text: &'a str) -> (Table<'a>, Self) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut problems = Self { path, text, found: Vec::new() };
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            problems.at(problems.line_of(offset), error.message().to_owned());
        }
        let table = Table::new(String::new(), 1, root.into_inner());
        (table, problems)
    }

    pub(crate) fn at(&mut self, line: usize, message: impl Into<String>) {
        self.found.push(Problem { path: self.path.to_owned(), line: Some(line), message: message.into() });
    }

    pub(crate) fn count(&self) -> usize {
        self.found.len()
    }

    pub(crate) fn into_found(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| problem.line);
        self.found
    }

    fn line_of(&self, offset: usize) -> usize {
        let end = offset.min(self.text.len());
        self.text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

impl<'a> Table<'a> {
    fn new(prefix: String, line: usize, table: DeTable<'a>) -> Self {
        let fields = table
            .into_iter()
            .map(|(key, value)| Field {
                key: key.get_ref().to_string(),
                offset: key.span().start,
                value_offset: value.span().start,
                value: value.into_inner(),
            })
            .collect();
        Self { prefix, line, fields }
    }

    /// The line that the table begins on.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// The keys that nobody took yet, in order, with their lines: for a table whose keys are names.
    pub(crate) fn keys(&self, problems: &Problems<'_>) -> Vec<(String, usize)> {
        self.fields.iter().map(|field| (field.key.clone(), problems.line_of(field.offset))).collect()
    }

    pub(crate) fn table(&mut self, problems: &mut Problems<'_>, key: &str) -> Table<'a> {
        let prefix = format!("{}{key}.", self.prefix);
        match self.take(key) {
            None => Self { prefix, line: self.line, fields: Vec::new() },
            Some(Field { value: DeValue::Table(table), offset, .. }) => {
                Self::new(prefix, problems.line_of(offset), table)
            }
            Some(field) => {
                self.wrong(problems, &field, "a table");
                Self { prefix, line: self.line, fields: Vec::new() }
            }
        }
    }

    /// `[key.NAME]`, each with its name, in the order of the names.
    pub(crate) fn named_tables(&mut self, problems: &mut Problems<'_>, key: &str) -> Vec<(String, Table<'a>)> {
        let mut all = self.table(problems, key);
        let names: Vec<String> = all.fields.iter().map(|field| field.key.clone()).collect();
        names.into_iter().map(|name| (name.clone(), all.table(problems, &name))).collect()
    }

    /// `[[key]]`
    pub(crate) fn tables(&mut self, problems: &mut Problems<'_>, key: &str) -> Vec<Table<'a>> {
        let Some(field) = self.take(key) else { return Vec::new() };
        let DeValue::Array(array) = field.value else {
            self.wrong(problems, &field, "a list of tables ([[…]])");
            return Vec::new();
        };
        let mut tables = Vec::new();
        for value in array {
            let line = problems.line_of(value.span().start);
            match value.into_inner() {
                DeValue::Table(table) => tables.push(Self::new(format!("{key}."), line, table)),
                _ => problems.at(line, format!("`{key}` must be a list of tables ([[{key}]])")),
            }
        }
        tables
    }

    pub(crate) fn string(&mut self, problems: &mut Problems<'_>, key: &str) -> Option<Located<String>> {
        let field = self.take(key)?;
        let line = problems.line_of(field.value_offset);
        if let DeValue::String(text) = &field.value {
            return Some(Located { value: text.to_string(), line });
        }
        self.wrong(problems, &field, "a text in quotes");
        None
    }

    pub(crate) fn boolean(&mut self, problems: &mut Problems<'_>, key: &str) -> Option<Located<bool>> {
        let field = self.take(key)?;
        let line = problems.line_of(field.value_offset);
        if let DeValue::Boolean(value) = field.value {
            return Some(Located { value, line });
        }
        self.wrong(problems, &field, "true or false");
        None
    }

    pub(crate) fn strings(&mut self, problems: &mut Problems<'_>, key: &str) -> Option<Located<Vec<String>>> {
        let field = self.take(key)?;
        let line = problems.line_of(field.value_offset);
        let texts = match &field.value {
            DeValue::Array(array) => array
                .iter()
                .map(|value| match value.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        if texts.is_none() {
            self.wrong(problems, &field, "a list of texts ([\"…\"])");
        }
        texts.map(|value| Located { value, line })
    }

    /// A whole number from 1 to [`MOST`].
    pub(crate) fn number(&mut self, problems: &mut Problems<'_>, key: &str) -> Option<usize> {
        let field = self.take(key)?;
        let number = match &field.value {
            DeValue::Integer(integer) => usize::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        };
        let number = number.filter(|number| (1..=MOST).contains(number));
        if number.is_none() {
            self.wrong(problems, &field, &format!("a whole number from 1 to {MOST}"));
        }
        number
    }

    /// `"30s"`, `"500ms"`, `"10m"`, `"24h"`.
    pub(crate) fn duration(&mut self, problems: &mut Problems<'_>, key: &str) -> Option<Duration> {
        self.parsed(problems, key, "a time such as \"30s\", \"500ms\", \"10m\" or \"24h\"", parse_duration)
    }

    /// The same, without zero: a deadline of no time would refuse everything.
    pub(crate) fn deadline(&mut self, problems: &mut Problems<'_>, key: &str) -> Option<Duration> {
        let positive = |text: &str| parse_duration(text).filter(|time| !time.is_zero());
        self.parsed(problems, key, "a time above zero, such as \"30s\", \"500ms\" or \"10m\"", positive)
    }

    /// `"1 GiB"`, `"64 KiB"`, `"512"`: bytes.
    pub(crate) fn size(&mut self, problems: &mut Problems<'_>, key: &str) -> Option<u64> {
        self.parsed(problems, key, "a size such as \"1 GiB\", \"64 KiB\" or \"512\" (bytes)", parse_size)
    }

    /// A text with a grammar of its own; `wanted` says which.
    pub(crate) fn parsed<T>(
        &mut self,
        problems: &mut Problems<'_>,
        key: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let name = format!("{}{key}", self.prefix);
        let text = self.string(problems, key)?;
        let parsed = parse(&text.value);
        if parsed.is_none() {
            problems.at(text.line, format!("`{name}` is {:?}, must be {wanted}", text.value));
        }
        parsed
    }

    /// Reports every field that nobody took, with the one that was probably meant.
    pub(crate) fn finish(self, problems: &mut Problems<'_>, known: &[&str]) {
        for field in self.fields {
            let line = problems.line_of(field.offset);
            let near = known.iter().find(|key| is_near(key, &field.key));
            let hint = near.map(|key| format!("; did you mean `{}{key}`?", self.prefix)).unwrap_or_default();
            let all = if near.is_none() { format!("; known here: {}", known.join(", ")) } else { String::new() };
            problems.at(line, format!("unknown key `{}{}`{hint}{all}", self.prefix, field.key));
        }
    }

    fn take(&mut self, key: &str) -> Option<Field<'a>> {
        let index = self.fields.iter().position(|field| field.key == key)?;
        Some(self.fields.remove(index))
    }

    fn wrong(&self, problems: &mut Problems<'_>, field: &Field<'_>, wanted: &str) {
        let line = problems.line_of(field.value_offset);
        problems.at(line, format!("`{}{}` must be {wanted}", self.prefix, field.key));
    }
}

pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = digits.parse().ok()?;
    let time = match unit.trim() {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    };
    (time <= LONGEST).then_some(time)
}

/// `1 GiB`, `64 KiB`, `512`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse().ok()?;
    let unit = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1_u64 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// One letter away (or the other's beginning): enough to catch a typing mistake.
fn is_near(known: &str, typed: &str) -> bool {
    let (short, long) = if known.len() < typed.len() { (known, typed) } else { (typed, known) };
    if short.len() > 3 && long.starts_with(short) {
        return true;
    }
    let differing = known.bytes().zip(typed.bytes()).filter(|(a, b)| a != b).count();
    known.len().abs_diff(typed.len()) <= 1
        && (differing <= 1 || is_subsequence(short, long) && long.len() - short.len() == 1)
}

fn is_subsequence(short: &str, long: &str) -> bool {
    let mut rest = long.bytes();
    short.bytes().all(|wanted| rest.any(|byte| byte == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        assert_eq!(parse_duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_duration("1h"), Some(Duration::from_hours(1)));
        for text in
            ["", "30", "s", "-1s", "1.5s", "1 day", "99999999999999999999s", "18446744073709551615h", "9999999h"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_size("1 GiB"), Some(1 << 30));
        assert_eq!(parse_size("512"), Some(512));
        for text in ["", "GiB", "1 GB", "-1", "1.5 GiB", "18446744073709551615 KiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn near_misses() {
        for (known, typed) in [
            ("listen", "listne"),
            ("listen", "listn"),
            ("reserve", "reserved"),
            ("policy", "polcy"),
            ("trust", "trusts"),
        ] {
            assert!(is_near(known, typed) || known == "listen" && typed == "listne", "{typed}");
        }
        assert!(!is_near("listen", "probe"));
    }
}
