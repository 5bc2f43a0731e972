//! The results as text, for a terminal and for docs/performance.md.

use std::fmt::Write as _;
use std::time::Duration;

use crate::args::Depth;
use crate::load::Outcome;
use crate::operations::{BLOB, BLOB_GET, BLOB_GET_8, PUSH};
use crate::results::{OURS, Results};

pub(crate) fn text(results: &Results) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write(&mut text, results);
    text
}

fn write(text: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(text, "{}", results.machine)?;
    for (name, version) in &results.peers {
        writeln!(text, "{name} {version}")?;
    }
    if results.depth == Depth::Quick {
        writeln!(text, "--quick: one round of few operations; for numbers to quote run it without")?;
    }
    let floor = results.floor;
    writeln!(
        text,
        "\nfloor, for 100 MB: AES-128-GCM {}, SHA-256 {}, loopback send {} and receive {}, write and fsync {}",
        milliseconds(floor.seal),
        milliseconds(floor.sha256),
        milliseconds(floor.send),
        milliseconds(floor.receive),
        milliseconds(floor.write),
    )?;
    for operation in results.operations() {
        writeln!(text, "\n{operation}")?;
        writeln!(
            text,
            "  {:<16} {:>12} {:>10} {:>10} {:>12} {:>9}   ours as a part of it: CPU, time",
            "", "throughput", "p50", "p99", "CPU each", "memory"
        )?;
        for row in results.rows.iter().filter(|row| row.operation == operation) {
            let ours = results.row(operation, OURS).filter(|_| row.peer != OURS);
            let ratio = ours.map(|ours| ratios(ours, &row.outcome)).unwrap_or_default();
            writeln!(text, "  {:<16} {}   {ratio}", row.peer, outcome(&row.outcome))?;
        }
        if let (Some(least), Some(ours)) = (least(results, operation), results.row(operation, OURS)) {
            let part = ours.cpu.map(|cpu| format!("{:.2}", cpu.as_secs_f64() / least.as_secs_f64()));
            writeln!(text, "  {:<16} {:>47}   ours is {} of it", "floor", time(least), part.unwrap_or_default())?;
        }
    }
    if !results.left_out.is_empty() {
        writeln!(text, "\nleft out")?;
        for left_out in &results.left_out {
            writeln!(text, "  {left_out}")?;
        }
    }
    writeln!(text, "\ngoals")?;
    for verdict in results.verdicts() {
        let mark = if verdict.reached == Some(true) { "reached" } else { "not yet" };
        writeln!(text, "  {mark}  {}", verdict.text)?;
    }
    Ok(())
}

/// The least CPU that this machine can do an operation with, where only bytes count.
fn least(results: &Results, operation: &str) -> Option<Duration> {
    match operation {
        BLOB_GET | BLOB_GET_8 => Some(results.floor.download(BLOB as u64)),
        PUSH => Some(results.floor.upload(BLOB as u64)),
        _ => None,
    }
}

fn outcome(outcome: &Outcome) -> String {
    let Outcome { operations, bytes, wall, p50, p99, cpu, memory } = outcome;
    let seconds = wall.as_secs_f64();
    let (throughput, p50, p99) = if wall.is_zero() {
        (String::new(), String::new(), String::new())
    } else if *bytes > operations * 1_000_000 {
        (format!("{:.0} MB/s", float(*bytes) / 1e6 / seconds), time(*p50), time(*p99))
    } else {
        (format!("{:.0}/s", float(*operations) / seconds), time(*p50), time(*p99))
    };
    let cpu = cpu.map_or_else(|| "-".to_owned(), time);
    let memory = memory.map_or_else(|| "-".to_owned(), |memory| format!("{:.1} MB", float(memory) / 1e6));
    format!("{throughput:>12} {p50:>10} {p99:>10} {cpu:>12} {memory:>9}")
}

fn ratios(ours: &Outcome, theirs: &Outcome) -> String {
    let part = |ours: f64, theirs: f64| if theirs > 0.0 { format!("{:.2}", ours / theirs) } else { "-".to_owned() };
    let cpu = ours.cpu.zip(theirs.cpu).map(|(ours, theirs)| part(ours.as_secs_f64(), theirs.as_secs_f64()));
    let each = |outcome: &Outcome| outcome.wall.as_secs_f64() / float(outcome.operations);
    format!("{}, {}", cpu.unwrap_or_else(|| "-".to_owned()), part(each(ours), each(theirs)))
}

/// Nanoseconds for a byte as milliseconds for the blob.
fn milliseconds(nanoseconds: f64) -> String {
    format!("{:.0} ms", nanoseconds * float(BLOB as u64) / 1e6)
}

pub(crate) fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    if micros < 1000.0 {
        format!("{micros:.0} µs")
    } else if micros < 1e6 {
        format!("{:.1} ms", micros / 1e3)
    } else {
        format!("{:.2} s", micros / 1e6)
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn float(number: u64) -> f64 {
    number as f64
}
