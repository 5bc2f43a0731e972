//! The pages of docs/errors: one per check, written from the same table that the doctor runs.

use crate::checks::{Check, all};
use std::fmt::Write as _;

/// The page of one check, in Markdown.
pub fn page(check: &Check) -> String {
    let Check { code, title, severity, why, text, fix, .. } = check;
    let severity = severity.to_string();
    format!(
        "# {code}: {title}\n\nAt worst: {severity}.\n\n{why}.\n\n## What it is\n\n{text}\n\n## What to do\n\n{fix}.\n\n\
         ```\nportcullis doctor HOST[:PORT]\nportcullis explain {code}\n```\n\n[All checks](README.md)\n",
        why = capital(why),
        fix = capital(fix)
    )
}

/// The page that lists all checks.
pub fn index_page() -> String {
    let mut out = String::from(
        "# What the doctor checks\n\nThese pages are written from the table in `portcullis-doctor`; a test fails when they differ from it.\n\n\
         | code | at worst | what |\n|---|---|---|\n",
    );
    for check in all() {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "| [{0}]({0}.md) | {1} | {2} |", check.code, check.severity, check.title);
    }
    out
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    // A word in code keeps its case.
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
