//! The results as a picture: for each operation one bar a server, as long as the CPU time it takes.

use std::fmt::Write as _;

use crate::operations::{BLOB_GET, BLOB_GET_8, BLOB_GET_H2, BLOB_HEAD, HANDSHAKE, IMAGES, MANIFEST_GET, PUSH};
use crate::results::{OURS, Results};
use crate::table::time;

const SHOWN: [&str; 8] = [BLOB_GET, BLOB_GET_8, BLOB_GET_H2, MANIFEST_GET, BLOB_HEAD, HANDSHAKE, PUSH, IMAGES];
const WIDTH: u32 = 860;
const LABEL: u32 = 150;
const BAR: u32 = 16;
const LONGEST: f64 = 560.0;
/// For a light page and for a dark one.
const STYLE: &str = "\
    .page{fill:#ffffff} text{fill:#1f2328} .peer{fill:#59636e} .ours{fill:#1a7f5a} .theirs{fill:#c3c0b6}\
    @media (prefers-color-scheme:dark){\
    .page{fill:#0d1117} text{fill:#e6edf3} .peer{fill:#9198a1} .ours{fill:#3fb98a} .theirs{fill:#4b525b}}";

pub(crate) fn svg(results: &Results) -> String {
    let mut bars = String::new();
    let mut y = 46;
    for operation in SHOWN {
        // Writing into a string cannot fail.
        let _ = group(&mut bars, results, operation, &mut y);
    }
    let title = "server CPU time for each operation, one core, mutual TLS 1.3; shorter is better";
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" role=\"img\" aria-label=\"{title}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{y}\" rx=\"6\"/>\n\
         <text x=\"12\" y=\"26\" font-size=\"15\">{title}</text>\n{bars}</svg>\n"
    )
}

fn group(bars: &mut String, results: &Results, operation: &str, y: &mut u32) -> std::fmt::Result {
    let rows = results.rows.iter().filter(|row| row.operation == operation);
    let measured: Vec<_> = rows.filter_map(|row| Some((row.peer.as_str(), row.outcome.cpu?))).collect();
    let Some(longest) = measured.iter().map(|(_, cpu)| *cpu).max().filter(|cpu| !cpu.is_zero()) else { return Ok(()) };
    *y += 14;
    writeln!(bars, "<text x=\"12\" y=\"{y}\" font-weight=\"bold\">{operation}</text>")?;
    *y += 6;
    for (peer, cpu) in measured {
        let length = LONGEST * cpu.as_secs_f64() / longest.as_secs_f64();
        let whose = if peer == OURS { "ours" } else { "theirs" };
        let (text, end) = (*y + BAR - 4, f64::from(LABEL) + length + 6.0);
        writeln!(
            bars,
            "<text x=\"24\" y=\"{text}\" class=\"peer\">{}</text>\
             <rect x=\"{LABEL}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" rx=\"2\" class=\"{whose}\"/>\
             <text x=\"{end:.1}\" y=\"{text}\" class=\"peer\">{}</text>",
            escaped(peer),
            BAR - 3,
            time(cpu)
        )?;
        *y += BAR;
    }
    *y += 10;
    Ok(())
}

/// A peer has the name that somebody typed.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
