//! How the tool speaks, and the only code that prints.
//!
//! Results go to stdout, everything else to stderr. No capital at the start, no full stop at the end of a line that is no
//! sentence. An error says what failed, with the value, then what to type. A closed pipe is no error.

use std::error::Error as _;
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::error::{ContextKind, ContextValue};
use portcullis_certs::{Severity, ShellCommand};
use portcullis_client::{ClientError, Spool};
use portcullis_doctor::Style;
use portcullis_oci::InvalidReference;
use serde::Serialize;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{FmtSpan, Writer, debug_fn};

use crate::exit;
use crate::place::InvalidPlace;

/// The environment variable that sets how much is logged: `error`, `warn`, `info`, `debug`.
const LOG_LEVEL: &str = "PORTCULLIS_LOG";

/// How many lines of the log may wait for whoever reads it. None is long: what peers choose is cut.
const LOG_LINES: usize = 8192;

/// How long the log waits after a write: what comes meanwhile is one write, and wakes no thread. Each line for itself
/// costs a server more than most requests.
const LOG_PAUSE: Duration = Duration::from_millis(10);
/// What is written at once at most.
const LOG_PIECE: usize = 64 * 1024;

/// Longer lines are hard to read.
const MAX_WIDTH: usize = 100;

/// A line of the result.
pub(crate) fn line(text: &str) {
    bottom().show(&[], "");
    // Whoever closed the pipe has read enough.
    let _ = writeln!(io::stdout(), "{text}");
}

/// Lines of the result that are ended already.
pub(crate) fn text(text: &str) {
    let _ = write!(io::stdout(), "{text}");
}

/// How a report is laid out on standard output: colour on a terminal only and not with `NO_COLOR`, folded to the
/// terminal's width, which is 100 columns at most and where there is none.
pub(crate) fn style(verbose: bool) -> Style {
    let stdout = io::stdout();
    let columns = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let width = if columns == 0 { MAX_WIDTH } else { columns.min(MAX_WIDTH) };
    Style { width, colour: stdout.is_terminal() && !no_colour, verbose }
}

/// The result to the byte, with nothing added.
pub(crate) fn bytes(result: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(result).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Whether the result would be shown to a person rather than handed on.
pub(crate) fn is_shown() -> bool {
    io::stdout().is_terminal()
}

/// An archive as the result. Here a closed pipe is an error: whoever reads it has not got all of it.
pub(crate) fn archive(archive: &Spool) -> anyhow::Result<()> {
    archive.write_to(&mut io::stdout().lock()).context("cannot hand on the archive to standard output")
}

/// Where a program that runs for long writes lines of its own making.
pub(crate) fn lines() -> Box<dyn Write + Send> {
    Box::new(io::stdout())
}

/// The result as JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// One of several results, as JSON on a line of its own.
pub(crate) fn json_line(value: &serde_json::Value) {
    line(&value.to_string());
}

/// Something worth knowing beside the result. What is drawn stays below it.
pub(crate) fn note(text: &str) {
    let mut bottom = bottom();
    let lines = bottom.lines.clone();
    bottom.show(&lines, &format!("{text}\n"));
}

/// A warning: the command goes on.
pub(crate) fn warning(text: &str) {
    note(&format!("warning: {text}"));
}

/// A line that is drawn again and again while something goes on. Nothing is drawn where stderr is no terminal.
#[derive(Debug)]
pub(crate) struct Drawn {
    is_terminal: bool,
    last: Option<Instant>,
}

impl Drawn {
    pub(crate) fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), last: None }
    }

    /// Draws at most ten times a second.
    pub(crate) fn draw(&mut self, text: impl FnOnce() -> String) {
        const PAUSE: Duration = Duration::from_millis(100);
        if self.is_terminal && self.last.is_none_or(|last| last.elapsed() >= PAUSE) {
            self.last = Some(Instant::now());
            // Back to the beginning of the line; erase what is longer than the new text (ECMA-48, EL).
            let _ = write!(io::stderr(), "\r{}\x1b[K", text());
        }
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        if self.last.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Whether lines are drawn again and again: on a terminal that knows how to.
pub(crate) fn draws() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Several lines at the bottom of the terminal that are drawn again and again, below lines that stay. One at a time.
#[derive(Debug)]
pub(crate) struct Board {
    last: Option<Instant>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { last: None }
    }

    /// A line that stays, above what is drawn.
    pub(crate) fn say(&mut self, text: &str) {
        note(text);
        self.last = None;
    }

    /// Draws at most ten times a second; lines no longer than the terminal is wide, and not more than fit on it.
    pub(crate) fn draw(&mut self, lines: impl FnOnce(usize) -> Vec<String>) {
        const PAUSE: Duration = Duration::from_millis(100);
        if self.last.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        self.last = Some(Instant::now());
        let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
        let (columns, rows) = size.map_or((0, 0), |size| (size.ws_col.into(), size.ws_row.into()));
        // One column stays free: a line that fills the last one is wrapped by some terminals.
        let mut lines = lines(if columns == 0 { MAX_WIDTH } else { columns - 1 });
        // What has left the screen at its upper end cannot be taken away. The last line says most.
        let fitting = if rows == 0 { lines.len() } else { (rows - 1).min(lines.len()) };
        lines.drain(..lines.len() - fitting);
        bottom().show(&lines, "");
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        bottom().show(&[], "");
    }
}

/// What is drawn at the bottom of the terminal.
#[derive(Debug)]
struct Bottom {
    lines: Vec<String>,
    is_closed: bool,
}

/// Whoever prints looks here first, from any thread.
fn bottom() -> MutexGuard<'static, Bottom> {
    static BOTTOM: Mutex<Bottom> = Mutex::new(Bottom { lines: Vec::new(), is_closed: false });
    // It is whole after every step.
    BOTTOM.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bottom {
    /// Takes away what is drawn (up, and all below: ECMA-48, CUU and ED), writes what stays, then draws; in one go.
    fn show(&mut self, lines: &[String], text: &str) {
        let erased = match self.lines.len() {
            0 => String::new(),
            drawn => format!("\x1b[{drawn}A\r\x1b[J"),
        };
        self.lines = if self.is_closed { Vec::new() } else { lines.to_vec() };
        let drawn: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        let _ = io::stderr().write_all(format!("{erased}{text}{drawn}").as_bytes());
    }
}

/// What ended the command, with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    {
        let mut bottom = bottom();
        // A thread that could not be waited for may still have something to draw.
        bottom.is_closed = true;
        bottom.show(&[], "");
    }
    note(&format!("portcullis: {error}"));
    let mut said = error.to_string();
    // The client says in its own words what the libraries below say in many.
    let is_told = matches!(error.downcast_ref(), Some(ClientError::Connection { .. }));
    for cause in error.chain().skip(1).take(if is_told { 0 } else { usize::MAX }) {
        let cause = cause.to_string();
        // Many errors repeat their source in their own text.
        if !said.contains(&cause) {
            note(&format!("  because: {cause}"));
        }
        said = cause;
    }
    for fix in fixes(error) {
        note(&format!("  fix: {fix}"));
    }
}

/// An error, with what to type against it: known where more is known than the error says.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
struct WithFix {
    said: String,
    fix: String,
}

/// The same error, which is told with this command, or with what else to do.
pub(crate) fn with_fix(error: anyhow::Error, fix: &impl ToString) -> anyhow::Error {
    let (said, fix) = (error.to_string(), fix.to_string());
    error.context(WithFix { said, fix })
}

/// What to type, where the error knows it and does not say so in its own text.
fn fixes(error: &anyhow::Error) -> Vec<String> {
    if let Some(WithFix { fix, .. }) = error.downcast_ref() {
        return vec![fix.clone()];
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::CertsDir { findings, .. }) => {
            let fatal = findings.iter().filter(|finding| finding.severity == Severity::Fatal);
            fatal.map(|finding| finding.fix().to_string()).collect()
        }
        Some(ClientError::EngineFile(finding)) => vec![finding.fix().to_string()],
        Some(error) => error.advice().map(str::to_owned).into_iter().collect(),
        None => Vec::new(),
    }
}

/// Help and version are results; a wrong word is usage. A short name gets the command with the full one.
pub(crate) fn usage(mut error: clap::Error) -> ExitCode {
    if let Some(command) = with_full_name(&error) {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![command.to_string().into()]));
    }
    // clap chooses stdout or stderr itself.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS }
}

/// What was typed, with the short name that was not taken written in full. `None` where it stands twice: one of the two
/// may be something else.
fn with_full_name(error: &clap::Error) -> Option<ShellCommand> {
    let source = error.source()?;
    let full = match (source.downcast_ref::<InvalidReference>(), source.downcast_ref::<InvalidPlace>()) {
        (Some(reference), _) => reference.full_name()?,
        (None, Some(place)) => place.full_name.clone()?,
        (None, None) => return None,
    };
    let Some(ContextValue::String(short)) = error.get(ContextKind::InvalidValue) else { return None };
    let mut words: Vec<OsString> = ["portcullis".into()].into_iter().chain(std::env::args_os().skip(1)).collect();
    let mut places = words.iter_mut().filter(|word| word.as_os_str() == short.as_str());
    let (Some(place), None) = (places.next(), places.next()) else { return None };
    *place = full.into();
    Some(ShellCommand::new(words))
}

/// Sends the log to stderr: text, coloured on a terminal, or JSON lines. Whoever reads it slowly holds up nobody:
/// [`LOG_LINES`] wait at most, more are left out. What waits is written when the guard goes.
pub(crate) fn start_log(json: bool) -> WorkerGuard {
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(LOG_LINES).finish(Gathered::new(io::stderr()));
    let level = std::env::var(LOG_LEVEL).ok().and_then(|level| LevelFilter::from_str(&level).ok());
    let builder = tracing_subscriber::fmt()
        .with_writer(writer)
        .with_max_level(level.unwrap_or(LevelFilter::INFO))
        .with_target(false)
        .with_span_events(FmtSpan::NONE);
    // A second log in one process would be a bug; the first one stays.
    let _ = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let builder = builder.with_ansi(colour);
        if colour { builder.try_init() } else { builder.fmt_fields(plain_fields()).try_init() }
    };
    guard
}

/// As tracing's own, which look for a colour before and behind each name and each `=`: a third of what a line costs.
fn plain_fields() -> impl for<'writer> FormatFields<'writer> {
    let field = |writer: &mut Writer<'_>, field: &Field, value: &dyn std::fmt::Debug| {
        if field.name() != "message" {
            writer.write_str(field.name())?;
            writer.write_char('=')?;
        }
        write!(writer, "{value:?}")
    };
    debug_fn(field).delimited(" ")
}

/// The log's end, on a thread of its own: it is flushed whenever no line waits.
struct Gathered<W: Write>(BufWriter<W>);

impl<W: Write> Gathered<W> {
    fn new(end: W) -> Self {
        Self(BufWriter::with_capacity(LOG_PIECE, end))
    }
}

impl<W: Write> Write for Gathered<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        std::thread::sleep(LOG_PAUSE);
        Ok(())
    }
}
