//! How the text is laid out: widths, colours, JSON.

use crate::machine::{Machine, PLAIN, stable};
use portcullis_doctor::{Report, Style};
use std::fs;

fn broken() -> Report {
    let machine = Machine::new();
    fs::remove_file(machine.good().join("client.key")).unwrap();
    stable(machine.report(), machine.root())
}

/// A command or path may be longer than the line, because it is there to be pasted; prose may not.
#[test]
fn narrow_terminals_are_respected() {
    let report = broken();
    for width in [1, 40, 60, 80] {
        let text = report.to_text(Style { width, ..PLAIN });
        for line in text.lines().filter(|line| !line.contains('/')) {
            assert!(line.chars().count() <= width.max(40), "{width}: {line}");
        }
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    let report = broken();
    let coloured = report.to_text(Style { colour: true, ..PLAIN });
    assert!(coloured.contains("\u{1b}[31m"));
    let mut bare = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        bare.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    bare.push_str(rest);
    assert_eq!(bare, report.to_text(PLAIN));
    assert!(!report.to_text(PLAIN).contains('\u{1b}'));
}

#[test]
fn the_keys_of_the_json_are_stable() {
    let json = broken().to_json();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&json), "findings host refused schema server skipped verdicts");
    assert_eq!(keys(&json["verdicts"][0]), "basis codes directory engine state summary version");
    assert_eq!(keys(&json["findings"][0]), "code engines evidence fix mend milder severity what why");
    assert_eq!(keys(&json["findings"][0]["evidence"][0]), "line path value");
    assert_eq!(json["verdicts"][0]["state"], "fails");
    assert_eq!(json["findings"][0]["code"], "D20");
    assert_eq!(json["findings"][0]["severity"], "fatal");
    // The schema in the documentation names every one of them.
    let page = include_str!("../../../../docs/doctor.md");
    for key in [
        "findings",
        "host",
        "refused",
        "schema",
        "server",
        "skipped",
        "verdicts",
        "basis",
        "codes",
        "directory",
        "engine",
        "state",
        "summary",
        "version",
        "code",
        "engines",
        "evidence",
        "fix",
        "mend",
        "severity",
        "what",
        "why",
        "line",
        "path",
        "value",
        "kind",
        "text",
        "argv",
        "reason",
    ] {
        assert!(page.contains(&format!("`{key}`")), "docs/doctor.md lacks {key}");
    }
}

#[test]
fn every_finding_has_a_fix_or_says_that_there_is_nothing_to_do() {
    let text = broken().to_text(PLAIN);
    let count = |word: &str| text.lines().filter(|line| line.trim_start().starts_with(word)).count();
    assert!(count("fix ") > 0);
    assert_eq!(count("fix "), count("why "));
}
