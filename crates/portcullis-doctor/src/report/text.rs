//! The report for a person: aligned, coloured where that is wanted, folded to the width. Returns text, prints nothing.
//!
//! Commands and paths are never folded: they are there to be pasted.

use super::{Report, Verdict, VerdictState, engines_shown};
use crate::diagnosis::Diagnosis;
use portcullis_certs::{Fix, Severity};
use std::fmt::Write as _;

/// How the text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns to fold at; at least 40 are used.
    pub width: usize,
    /// Whether to colour.
    pub colour: bool,
    /// Whether to say how each verdict is known.
    pub verbose: bool,
}

/// Findings as text, each line ended: for those who have findings and no report.
pub fn write_findings(findings: &[Diagnosis], style: Style) -> String {
    let style = Style { width: style.width.max(NARROWEST), ..style };
    let mut out = String::new();
    for (index, finding) in findings.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        write_finding(&mut out, finding, style);
    }
    out
}

/// Columns that are used at least.
pub(crate) const NARROWEST: usize = 40;

const LABEL: usize = 6;

const RED: &str = "31";
const YELLOW: &str = "33";
const GREEN: &str = "32";
const BLUE: &str = "36";
pub(crate) const BOLD: &str = "1";
pub(crate) const DIM: &str = "2";

impl Report {
    /// The report as text, each line ended.
    pub fn to_text(&self, style: Style) -> String {
        let style = Style { width: style.width.max(NARROWEST), ..style };
        let mut out = String::new();
        self.write_head(&mut out, style);
        if !self.findings.is_empty() {
            out.push('\n');
            out.push_str(&write_findings(&self.findings, style));
        }
        self.write_skipped(&mut out, style);
        out
    }

    fn write_head(&self, out: &mut String, style: Style) {
        line(out, &style.paint(BOLD, &self.host));
        if let Some(server) = &self.server {
            folded(out, "  ", "  ", server, style.width);
        }
        let widest = self.verdicts.iter().map(|verdict| label(verdict).chars().count()).max().unwrap_or(0);
        for verdict in &self.verdicts {
            write_verdict(out, verdict, widest, style);
        }
        out.push('\n');
        line(out, &self.tally());
    }

    /// How many findings of each kind there are, in words.
    pub fn tally(&self) -> String {
        let of = |severity, one: &str, many: &str| {
            let count = self.count(severity);
            format!("{count} {}", if count == 1 { one } else { many })
        };
        if self.findings.is_empty() {
            return "nothing to find fault with".to_owned();
        }
        format!(
            "{}, {}, {}",
            of(Severity::Fatal, "fault", "faults"),
            of(Severity::Warning, "warning", "warnings"),
            of(Severity::Note, "note", "notes")
        )
    }

    /// The reasons with the codes they hold for.
    fn write_skipped(&self, out: &mut String, style: Style) {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for skipped in &self.skipped {
            match reasons.iter_mut().find(|(reason, _)| *reason == skipped.reason) {
                Some((_, codes)) => codes.push(skipped.code),
                None => reasons.push((skipped.reason, vec![skipped.code])),
            }
        }
        if reasons.is_empty() {
            return;
        }
        out.push('\n');
        line(out, &style.paint(DIM, "not checked"));
        for (reason, codes) in reasons {
            folded(out, "  ", "    ", &format!("{}  {reason}", spans(&codes)), style.width);
        }
    }
}

fn write_verdict(out: &mut String, verdict: &Verdict, widest: usize, style: Style) {
    let (mark, colour) = match verdict.state {
        VerdictState::Works => ("✓", GREEN),
        VerdictState::Fails => ("✗", RED),
        VerdictState::Unknown => ("?", YELLOW),
    };
    let name = label(verdict);
    let pad = " ".repeat(widest - name.chars().count());
    let codes = if verdict.codes.is_empty() { String::new() } else { format!("{}  ", verdict.codes.join(" ")) };
    let head = format!("  {name}{pad}  {} ", style.paint(colour, mark));
    let indent = " ".repeat(widest + 6);
    folded_after(out, &head, widest + 6, &indent, &format!("{codes}{}", verdict.summary), style.width);
    if let Some(directory) = &verdict.directory {
        line(out, &format!("{indent}{}", style.paint(DIM, directory)));
    }
    if style.verbose {
        folded(out, &indent, &indent, &verdict.basis, style.width);
    }
}

/// `D60-D63 D71`
fn spans(codes: &[&str]) -> String {
    let all: Vec<&str> = crate::checks::all().map(|check| check.code).collect();
    let position = |code: &str| all.iter().position(|known| *known == code);
    let mut runs: Vec<(&str, &str)> = Vec::new();
    for code in codes {
        match runs.last_mut() {
            Some((_, last)) if position(last).map(|at| at + 1) == position(code) => *last = code,
            _ => runs.push((code, code)),
        }
    }
    let shown =
        runs.iter().map(|(first, last)| if first == last { (*first).to_owned() } else { format!("{first}-{last}") });
    shown.collect::<Vec<_>>().join(" ")
}

fn label(verdict: &Verdict) -> String {
    match &verdict.version {
        Some(version) => format!("{} {version}", verdict.engine),
        None => verdict.engine.to_owned(),
    }
}

fn write_finding(out: &mut String, finding: &Diagnosis, style: Style) {
    let (word, colour) = match finding.severity {
        Severity::Fatal => ("fault", RED),
        Severity::Warning => ("warning", YELLOW),
        Severity::Note => ("note", BLUE),
    };
    let head = format!("{} {} ", finding.code, style.paint(colour, word));
    folded_after(out, &head, finding.code.len() + word.len() + 2, "    ", &finding.what, style.width);
    part(out, "for", &engines_shown(finding), style);
    for (index, evidence) in finding.evidence.iter().enumerate() {
        // Paths stand on a line of their own, however long: they are there to be copied.
        let label = if index == 0 || evidence.path.is_some() { "seen" } else { "" };
        line(out, &format!("    {}{}", padded(label, style), evidence.shown()));
    }
    part(out, "why", finding.why, style);
    match &finding.fix {
        Fix::Run(command) => {
            line(out, &format!("    {}{}", padded("fix", style), style.paint(BOLD, &command.to_string())));
        }
        Fix::Say { text, command } => {
            part(out, "fix", text, style);
            line(out, &format!("    {}{}", padded("", style), style.paint(BOLD, &command.to_string())));
        }
        Fix::NothingToDo => part(out, "fix", "nothing to do", style),
    }
}

fn part(out: &mut String, label: &str, text: &str, style: Style) {
    let head = format!("    {}", padded(label, style));
    folded_after(out, &head, 4 + LABEL, &" ".repeat(4 + LABEL), text, style.width);
}

fn padded(label: &str, style: Style) -> String {
    format!("{}{}", style.paint(DIM, label), " ".repeat(LABEL.saturating_sub(label.len())))
}

impl Style {
    pub(crate) fn paint(self, colour: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

pub(crate) fn line(out: &mut String, text: &str) {
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{}", text.trim_end());
}

pub(crate) fn folded(out: &mut String, first: &str, next: &str, text: &str, width: usize) {
    folded_after(out, first, first.chars().count(), next, text, width);
}

/// `head` is `columns` wide on the screen, whatever colours are in it. Words longer than a line stay whole.
pub(crate) fn folded_after(out: &mut String, head: &str, columns: usize, next: &str, text: &str, width: usize) {
    let mut current = head.to_owned();
    let mut used = columns;
    let mut fresh = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if !fresh && used + 1 + length > width {
            line(out, &current);
            next.clone_into(&mut current);
            used = next.chars().count();
            fresh = true;
        }
        if !fresh {
            current.push(' ');
            used += 1;
        }
        current.push_str(word);
        used += length;
        fresh = false;
    }
    line(out, &current);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_folded_and_long_ones_stay_whole() {
        let mut out = String::new();
        folded(&mut out, "- ", "  ", "aaa bbb /a/path/that/is/longer/than/the/line ccc", 12);
        assert_eq!(out, "- aaa bbb\n  /a/path/that/is/longer/than/the/line\n  ccc\n");
    }

    #[test]
    fn neighbouring_codes_are_a_span() {
        assert_eq!(spans(&["D60", "D61", "D62", "D71"]), "D60-D62 D71");
        assert_eq!(spans(&["D12", "D20"]), "D12-D20");
    }
}
