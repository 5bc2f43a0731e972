//! What an engine's error text means: the likely causes in order, how they are told apart, and what to do.
//!
//! The texts and their meanings are in `known`; a pasted text is matched without case and with its white space collapsed.
//! It is foreign: bounded here, and shown only made visible.

mod alerts;
mod files;
mod known;
mod words;

use crate::checks::{Check, check};
use portcullis_certs::Visible;

/// Bytes of a pasted text that are looked at.
pub const MAX_TEXT: usize = 16 * 1024;

/// Meanings that are shown: a person reads the first few.
const MAX_MEANINGS: usize = 6;

/// Characters of the pasted text that are shown back.
const MAX_SHOWN: usize = 200;

/// One text, or a piece of it, that a program prints.
pub(crate) struct Known {
    /// Pieces that all must occur, in lower case.
    pub(crate) pieces: &'static [&'static str],
    /// Who prints it.
    pub(crate) by: &'static str,
    /// What it may mean, the likeliest first.
    pub(crate) meanings: &'static [Meaning],
}

/// One cause of an error text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// The check that finds this cause.
    pub code: &'static str,
    /// The cause.
    pub meaning: &'static str,
    /// How it is told apart from the others.
    pub tell: &'static str,
}

impl Meaning {
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        check(self.code).map_or("", |check| check.fix)
    }
}

/// What was made of a code or a pasted text.
#[derive(Debug, Clone)]
pub enum Explanation {
    /// It is the code of a check.
    Code(&'static Check),
    /// It is a text that programs print.
    Text {
        /// The beginning of the text, made visible.
        shown: String,
        /// Who prints it.
        by: &'static str,
        /// The meanings, the likeliest first.
        meanings: Vec<Meaning>,
    },
    /// Nothing is known about it.
    Unknown {
        /// The beginning of the text, made visible.
        shown: String,
    },
}

/// Explains a code (`D20`) or a pasted error text.
///
/// ```
/// use portcullis_doctor::{Explanation, explain};
/// let pasted = "x509: certificate signed by unknown authority";
/// let Explanation::Text { meanings, .. } = explain(pasted) else { panic!("it is known") };
/// assert_eq!(meanings[0].code, "D66");
/// assert!(matches!(explain("d20"), Explanation::Code(_)));
/// assert!(matches!(explain("out of cheese"), Explanation::Unknown { .. }));
/// ```
pub fn explain(pasted: &str) -> Explanation {
    if let Some(check) = check(pasted.trim()) {
        return Explanation::Code(check);
    }
    let text = normal(pasted);
    let shown = shown(pasted);
    let matching: Vec<&Known> = all().filter(|known| known.pieces.iter().all(|piece| text.contains(piece))).collect();
    let Some(first) = matching.first() else { return Explanation::Unknown { shown } };
    let mut meanings: Vec<Meaning> = Vec::new();
    for meaning in matching.iter().flat_map(|known| known.meanings) {
        if meanings.len() < MAX_MEANINGS && !meanings.iter().any(|other| other.code == meaning.code) {
            meanings.push(*meaning);
        }
    }
    Explanation::Text { shown, by: first.by, meanings }
}

/// The more telling texts first: a general one matches what a special one matches too.
fn all() -> impl Iterator<Item = &'static Known> {
    files::KNOWN.iter().chain(known::KNOWN).chain(alerts::KNOWN)
}

/// Lower case, one space between words, at most [`MAX_TEXT`] bytes.
fn normal(pasted: &str) -> String {
    let end = (0..=MAX_TEXT.min(pasted.len())).rev().find(|at| pasted.is_char_boundary(*at)).unwrap_or(0);
    let cut = pasted.get(..end).unwrap_or_default().to_lowercase();
    cut.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shown(pasted: &str) -> String {
    let start: String = pasted.trim().chars().take(MAX_SHOWN).collect();
    let cut = pasted.trim().chars().count() > MAX_SHOWN;
    let ellipsis = if cut { " …" } else { "" };
    format!("{}{ellipsis}", Visible(&start))
}
