//! An explanation as text: folded to the width, returned and not printed.

use super::{Explanation, Meaning};
use crate::checks::Check;
use crate::report::Style;
use crate::report::text::{BOLD, DIM, NARROWEST, folded, folded_after, line};

/// Columns of a label and the space after it.
const LABEL: usize = 10;

impl Explanation {
    /// The explanation for a person, each line ended; empty when nothing is known.
    pub fn to_text(&self, style: Style) -> String {
        let style = Style { width: style.width.max(NARROWEST), ..style };
        let mut out = String::new();
        match self {
            Self::Code(check) => write_check(&mut out, check, style),
            Self::Text { shown, by, meanings } => {
                folded(&mut out, "", "  ", shown, style.width);
                labelled(&mut out, "  ", "said by", by, style);
                for (index, meaning) in meanings.iter().enumerate() {
                    out.push('\n');
                    write_meaning(&mut out, index + 1, meaning, style);
                }
                out.push('\n');
                line(&mut out, "to see which it is: portcullis doctor HOST[:PORT]");
            }
            Self::Unknown { .. } => {}
        }
        out
    }
}

fn write_check(out: &mut String, check: &Check, style: Style) {
    let Check { code, title, severity, why, text, fix, .. } = check;
    let head = format!("{}  ", style.paint(BOLD, code));
    folded_after(out, &head, code.len() + 2, "     ", title, style.width);
    labelled(out, "  ", "at worst", &severity.to_string(), style);
    labelled(out, "  ", "why", why, style);
    labelled(out, "  ", "fix", fix, style);
    out.push('\n');
    folded(out, "", "", text, style.width);
}

fn write_meaning(out: &mut String, number: usize, meaning: &Meaning, style: Style) {
    let head = format!("{number}. ");
    let text = format!("{} ({})", meaning.meaning, meaning.code);
    folded(out, &head, "   ", &text, style.width);
    labelled(out, "   ", "told by", meaning.tell, style);
    labelled(out, "   ", "fix", meaning.fix(), style);
}

fn labelled(out: &mut String, indent: &str, label: &str, text: &str, style: Style) {
    let pad = " ".repeat(LABEL.saturating_sub(label.len()));
    let head = format!("{indent}{}{pad}", style.paint(DIM, label));
    let columns = indent.len() + LABEL;
    folded_after(out, &head, columns, &" ".repeat(columns), text, style.width);
}
