//! Questions to whoever sits at the terminal. However one ends, by an answer, an error or a signal, the terminal shows again
//! what is typed, and what comes next stands on a line of its own. Must not know what the answers are for.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use anyhow::Context as _;
use portcullis_client::Secret;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use crate::cmd::aside;

/// A terminal hands on so many bytes of one line, and drops what is longer without a word (Linux, `n_tty`).
const MAX_LINE: usize = 4095;

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("no {0} was typed: the input ended")]
    Ended(&'static str),
    #[error("the {0} is too long for a line of a terminal, which has {MAX_LINE} bytes at most")]
    Long(&'static str),
}

/// Whether the terminal shows what is typed.
#[derive(Clone, Copy)]
enum Typed {
    Shown,
    Hidden,
}

/// Asks, and shows what is typed.
pub(crate) async fn ask(what: &'static str) -> anyhow::Result<String> {
    answer(what, Typed::Shown).await
}

/// Asks, and does not show what is typed.
pub(crate) async fn ask_secret(what: &'static str) -> anyhow::Result<Secret> {
    answer(what, Typed::Hidden).await.map(Secret::new)
}

async fn answer(what: &'static str, typed: Typed) -> anyhow::Result<String> {
    let mut question = Question::put(what, typed)?;
    let terminal = question.terminal.try_clone()?;
    let line = aside(move || {
        let mut line = String::new();
        BufReader::new(terminal.take(MAX_LINE as u64 + 1)).read_line(&mut line)?;
        Ok(line)
    });
    let line = line.await?;
    question.is_answered = line.ends_with('\n');
    let answer = line.trim_end_matches(['\r', '\n']);
    match answer.len() {
        0 if line.is_empty() => Err(NoAnswer::Ended(what).into()),
        MAX_LINE.. => Err(NoAnswer::Long(what).into()),
        _ => Ok(answer.to_owned()),
    }
}

/// A question that waits for its answer.
struct Question {
    terminal: File,
    before: Option<Termios>,
    is_answered: bool,
}

impl Question {
    fn put(what: &str, typed: Typed) -> anyhow::Result<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
        let terminal = terminal.context("there is no terminal to ask at")?;
        let mut question = Self { terminal, before: None, is_answered: false };
        if matches!(typed, Typed::Hidden) {
            question.before = Some(hide(&question.terminal)?);
        }
        write!(question.terminal, "{what}: ")?;
        Ok(question)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // The terminal may be gone; then nobody sees it.
            let _ = tcsetattr(&self.terminal, OptionalActions::Flush, before);
        }
        if !self.is_answered {
            let _ = writeln!(self.terminal);
        }
    }
}

/// Shows no longer what is typed; says how it was before.
fn hide(terminal: &File) -> rustix::io::Result<Termios> {
    let before = tcgetattr(terminal)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL);
    // Whoever stopped the program, or had it dump its memory, would be left with a terminal that shows nothing.
    hidden.special_codes[SpecialCodeIndex::VSUSP] = 0;
    hidden.special_codes[SpecialCodeIndex::VQUIT] = 0;
    tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
    Ok(before)
}
