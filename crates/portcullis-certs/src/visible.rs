//! The one escaper: text from certificates, file names and peers, made safe to show on a terminal.
//!
//! It knows nothing of where the text comes from or goes to. It never changes what a plain reader would see:
//! letters, digits, punctuation and spaces of any script pass; what moves the cursor, reorders text, or cannot be seen
//! becomes `\u{202e}`; bytes that are not UTF-8 become `\xff`.

use std::fmt::{self, Write};

/// Text whose control, bidi and invisible characters are shown as `\u{…}`.
///
/// The result is for eyes, not for reading back: a backslash stands for itself.
///
/// ```
/// use portcullis_certs::Visible;
/// assert_eq!(Visible("alice").to_string(), "alice");
/// assert_eq!(Visible("a\u{1b}[31m\u{202e}b").to_string(), r"a\u{1b}[31m\u{202e}b");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visible<'a>(pub &'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whole runs at once: most text is one.
        let mut rest = self.0;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| !is_plain(*c)) {
            f.write_str(&rest[..at])?;
            write!(f, "\\u{{{:x}}}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        f.write_str(rest)
    }
}

/// Shows bytes as text: as [`Visible`] where they are UTF-8, `\xNN` per octet where they are not.
///
/// ```
/// assert_eq!(portcullis_certs::visible_bytes(b"caf\xc3\xa9 \xff"), r"café \xff");
/// ```
pub fn visible_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    // Writing into a String cannot fail.
    for chunk in bytes.utf8_chunks() {
        let _ = write!(text, "{}", Visible(chunk.valid()));
        for octet in chunk.invalid() {
            let _ = write!(text, "\\x{octet:02x}");
        }
    }
    text
}

/// Whether a character shows as itself, takes its place, and leaves its neighbours where they are.
pub(crate) fn is_plain(c: char) -> bool {
    // Nearly all text is this.
    let is_ascii = matches!(c, ' '..='~');
    is_ascii || !c.is_control() && !is_invisible(c)
}

/// Format characters (Unicode category Cf), separators other than the space, fillers that render as nothing, variation
/// selectors, and private use. Listed by range because the standard library has no general categories.
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c),
        0x00a0 | 0x00ad | 0x034f | 0x0600..=0x0605 | 0x061c | 0x06dd | 0x070f | 0x0890..=0x0891 | 0x08e2
        | 0x115f..=0x1160 | 0x1680 | 0x17b4..=0x17b5 | 0x180b..=0x180f
        | 0x2000..=0x200f | 0x2028..=0x202f | 0x205f..=0x206f | 0x2800 | 0x3000 | 0x3164
        | 0xe000..=0xf8ff | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb | 0xfffe..=0xffff
        | 0x110bd | 0x110cd | 0x13430..=0x1343f | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a
        | 0xe0000..=0x0010_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_reorders_or_hides_is_shown() {
        for c in [
            '\0',
            '\n',
            '\t',
            '\u{7f}',
            '\u{9b}',
            '\u{200b}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0041}',
            '\u{2028}',
            '\u{ad}',
        ] {
            let shown = Visible(&format!("a{c}b")).to_string();
            assert_eq!(shown, format!("a\\u{{{:x}}}b", u32::from(c)));
        }
    }

    #[test]
    fn what_people_write_stays() {
        for text in ["client-7.cert", "Zürich", "名前", "a b", "$(id)", "C:\\x", "né", "Ελλάδα", "Русский"]
        {
            assert_eq!(Visible(text).to_string(), text);
        }
    }

    #[test]
    fn octets_that_are_no_text_are_shown_one_by_one() {
        assert_eq!(visible_bytes(b"\xf0\x9f\x90x\xc3"), r"\xf0\x9f\x90x\xc3");
        assert_eq!(visible_bytes(b""), "");
    }
}
