//! The grammar of the deny list, for those who write it and those who read it. No I/O.
//!
//! One entry per line, append-only:
//! `sha256:HEX | serial:<CA key hash>:<HEX> | key:HEX | name:<matcher> before <RFC 3339>`, then optionally `# who, when, why`.

use crate::error::CertsError;
use crate::fault::Fault;
use crate::fingerprint::{Fingerprint, Serial, excerpt, write_hex};
use crate::visible::{Visible, is_plain};
use std::fmt;
use std::str::FromStr;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One line of the deny list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenyEntry {
    /// The line, counted from 1.
    pub line: u32,
    /// What is denied.
    pub rule: DenyRule,
    /// What follows `#`: who denied it, when, why.
    pub note: Option<String>,
}

/// What is denied. [`fmt::Display`] and [`FromStr`] are the file's grammar.
///
/// ```
/// use portcullis_certs::trust_dir::DenyRule;
/// let rule: DenyRule = "name:cn=alice before 2026-01-02T03:04:05Z".parse()?;
/// assert_eq!(rule.to_string(), "name:cn=alice before 2026-01-02T03:04:05Z");
/// # Ok::<(), portcullis_certs::CertsError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DenyRule {
    /// This certificate.
    Certificate(Fingerprint),
    /// What the CA with this key issued under this number.
    Serial {
        /// The SHA-256 of the CA's SubjectPublicKeyInfo.
        ca_key: Fingerprint,
        /// The number.
        serial: Serial,
    },
    /// Every certificate with this key, and what a CA with it issued.
    Key(Fingerprint),
    /// Every certificate of this identity that was issued before a moment.
    Name {
        /// An identity matcher, as in the policy.
        matcher: String,
        /// Certificates with an earlier notBefore are denied.
        before: OffsetDateTime,
    },
}

impl fmt::Display for DenyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(fingerprint) => write!(f, "{fingerprint}"),
            Self::Serial { ca_key, serial } => {
                f.write_str("serial:")?;
                write_hex(f, &ca_key.0)?;
                write!(f, ":{serial}")
            }
            Self::Key(fingerprint) => {
                f.write_str("key:")?;
                write_hex(f, &fingerprint.0)
            }
            Self::Name { matcher, before } => {
                let before = before.format(&Rfc3339).map_err(|_| fmt::Error)?;
                write!(f, "name:{matcher} before {before}")
            }
        }
    }
}

impl FromStr for DenyRule {
    type Err = CertsError;

    fn from_str(text: &str) -> Result<Self, CertsError> {
        parse_rule(text.trim())
            .map_err(|reason| CertsError::DenyRule { text: excerpt(text), reason: reason.to_owned() })
    }
}

impl DenyEntry {
    /// The line to append for a rule, without its line end.
    ///
    /// The note is flattened to one visible line. An error when the rule would not read back as itself: a matcher with
    /// control characters, a `#` after a space, or a year after 9999.
    pub fn to_line(rule: &DenyRule, note: Option<&str>) -> Result<String, CertsError> {
        let refused =
            |text: String| CertsError::DenyRule { text, reason: "it cannot be written on one line".to_owned() };
        let mut text = String::new();
        fmt::write(&mut text, format_args!("{rule}")).map_err(|_| refused(format!("{rule:?}")))?;
        let line = match note {
            Some(note) => format!("{text} # {}", Visible(note.trim())),
            None => text,
        };
        match parse_line(&line) {
            Ok(Some((read, _))) if read == *rule => Ok(line),
            _ => Err(refused(excerpt(&line))),
        }
    }
}

/// All entries that parse, and the others as faults with their line.
///
/// A line that does not parse never takes the good ones with it: a restriction is never held back.
pub(crate) fn parse_list(bytes: &[u8]) -> (Vec<DenyEntry>, Vec<(u32, Fault)>) {
    let mut entries = Vec::new();
    let mut faults = Vec::new();
    for (line, bytes) in (1..).zip(bytes.split(|&b| b == b'\n')) {
        match parse_line(&String::from_utf8_lossy(bytes)) {
            Ok(None) => {}
            Ok(Some((rule, note))) => entries.push(DenyEntry { line, rule, note }),
            Err((text, reason)) => faults.push((line, Fault::BadDenyLine { text, reason: reason.to_owned() })),
        }
    }
    (entries, faults)
}

type Line = Option<(DenyRule, Option<String>)>;

/// `None` for an empty line or one that is only a comment.
fn parse_line(line: &str) -> Result<Line, (String, &'static str)> {
    let (rule, note) = split_note(line.trim());
    if rule.is_empty() {
        return Ok(None);
    }
    let rule = parse_rule(rule).map_err(|reason| (excerpt(rule), reason))?;
    Ok(Some((rule, note.map(str::to_owned))))
}

/// A note starts at a `#` that begins the line or follows white space, so that a URI with a fragment can be matched.
fn split_note(line: &str) -> (&str, Option<&str>) {
    let starts = |i: usize| line[..i].chars().next_back().is_none_or(char::is_whitespace);
    match line.match_indices('#').find(|(i, _)| starts(*i)) {
        Some((i, _)) => (line[..i].trim_end(), Some(line[i + 1..].trim())),
        None => (line, None),
    }
}

fn parse_rule(text: &str) -> Result<DenyRule, &'static str> {
    let Some((kind, rest)) = text.split_once(':') else {
        return Err("expected sha256:, serial:, key: or name:");
    };
    match kind {
        "sha256" => hash(rest).map(DenyRule::Certificate),
        "key" => hash(rest).map(DenyRule::Key),
        "serial" => {
            let (ca_key, serial) = rest.split_once(':').ok_or("expected serial:<CA key hash>:<HEX>")?;
            let serial = serial.parse().map_err(|_| "the serial number is not hexadecimal")?;
            Ok(DenyRule::Serial { ca_key: hash(ca_key)?, serial })
        }
        "name" => name(rest),
        _ => Err("expected sha256:, serial:, key: or name:"),
    }
}

fn hash(text: &str) -> Result<Fingerprint, &'static str> {
    let bare = text.len() == 64;
    text.parse().ok().filter(|_| bare).ok_or("expected 64 hexadecimal digits")
}

/// What may stand before the `=` of a name.
const NAME_KINDS: [&str; 7] = ["cn", "o", "ou", "dns", "email", "uri", "spiffe"];

fn name(text: &str) -> Result<DenyRule, &'static str> {
    let (matcher, before) = text.rsplit_once(" before ").ok_or("expected name:<matcher> before <RFC 3339>")?;
    let matcher = matcher.trim();
    if matcher.is_empty() || !matcher.chars().all(is_plain) {
        return Err("the matcher is empty or has characters that cannot be seen");
    }
    // A word that nobody knows would be part of a glob that matches nobody: a line in force that denies no one.
    let word = matcher.split_once('=').map(|(word, _)| word);
    if word.is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_alphabetic()) && !NAME_KINDS.contains(&word)) {
        return Err("a name is cn=, o=, ou=, dns=, email=, uri= or spiffe= and a glob, or a glob alone");
    }
    let before = OffsetDateTime::parse(before.trim(), &Rfc3339)
        .map_err(|_| "the moment is not RFC 3339, as in 2026-01-02T03:04:05Z")?;
    Ok(DenyRule::Name { matcher: matcher.to_owned(), before })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn the_four_rules_read_back_as_themselves() {
        for text in [
            format!("sha256:{HEX}"),
            format!("key:{HEX}"),
            format!("serial:{HEX}:0aff"),
            "name:uri=spiffe://x/y#z before 2026-01-02T03:04:05.5+02:00".to_owned(),
            "name:cn=a before b before 2026-01-02T03:04:05Z".to_owned(),
        ] {
            let rule: DenyRule = text.parse().unwrap();
            assert_eq!(rule.to_string(), text);
            assert_eq!(DenyEntry::to_line(&rule, None).unwrap(), text);
        }
    }

    #[test]
    fn good_lines_count_although_others_do_not_parse() {
        let list = format!(
            "# head\n\nsha256:{HEX} # ops, 2026, lost\r\nsha256:12\n  key:{HEX}\nfoo\nserial:{HEX}:xyz\nname:x before soon\nname: before 2026-01-02T03:04:05Z\né:1\nsha256:{HEX}\t#\nkey:{HEX}x"
        );
        let (entries, faults) = parse_list(list.as_bytes());
        let lines: Vec<u32> = entries.iter().map(|entry| entry.line).collect();
        assert_eq!(lines, [3, 5, 11]);
        assert_eq!(entries[0].note.as_deref(), Some("ops, 2026, lost"));
        assert_eq!(entries[2].note.as_deref(), Some(""));
        assert_eq!(faults.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 6, 7, 8, 9, 10, 12]);
    }

    #[test]
    fn a_torn_last_line_is_no_rule() {
        let (entries, faults) = parse_list(format!("sha256:{}", &HEX[..63]).as_bytes());
        assert!(entries.is_empty());
        assert_eq!(faults.len(), 1);
    }

    /// As part of a glob the word would match nobody: a denial that was accepted and denies no one.
    #[test]
    fn a_word_that_nobody_knows_is_no_name() {
        let is_read = |matcher: &str| format!("name:{matcher} before 2026-01-02T03:04:05Z").parse::<DenyRule>().is_ok();
        for unknown in ["pin=alice", "ca=clients", "fingerprint=sha256:00", "serial=*", "CN=a", "=a"] {
            assert!(!is_read(unknown), "{unknown}");
        }
        for known in ["cn=a", "spiffe=spiffe://x/*", "https://x/?a=b", "a glob"] {
            assert!(is_read(known), "{known}");
        }
    }

    #[test]
    fn a_note_cannot_make_a_second_line() {
        let rule = DenyRule::Key(Fingerprint([7; 32]));
        let line = DenyEntry::to_line(&rule, Some("bob\nsha256:00 # x\u{202e}")).unwrap();
        assert!(!line.contains('\n') && !line.contains('\u{202e}'));
        assert_eq!(parse_list(line.as_bytes()).0.len(), 1);
    }

    #[test]
    fn a_matcher_that_would_not_read_back_is_not_written() {
        let before = OffsetDateTime::UNIX_EPOCH;
        for matcher in ["", "a\nkey:b", "a # b", " a", "a\u{202e}"] {
            let rule = DenyRule::Name { matcher: matcher.to_owned(), before };
            assert!(DenyEntry::to_line(&rule, None).is_err(), "{matcher:?}");
        }
    }

    proptest! {
        #[test]
        fn any_matcher_is_written_truly_or_not_at_all(matcher in "\\PC{0,40}", note in any::<Option<String>>()) {
            let rule = DenyRule::Name { matcher, before: OffsetDateTime::UNIX_EPOCH };
            if let Ok(line) = DenyEntry::to_line(&rule, note.as_deref()) {
                let (entries, faults) = parse_list(line.as_bytes());
                prop_assert!(faults.is_empty());
                prop_assert_eq!(entries.len(), 1);
                prop_assert_eq!(&entries[0].rule, &rule);
            }
        }
    }
}
