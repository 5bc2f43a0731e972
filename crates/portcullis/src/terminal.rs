//! Questions to whoever sits at the terminal. Must not know what the answers are for.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use anyhow::Context as _;
use portcullis_client::Secret;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// The longest answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// Asks, and shows what is typed.
pub(crate) fn ask(what: &str) -> anyhow::Result<String> {
    answer(&mut open()?, what)
}

/// Asks, and does not show what is typed.
pub(crate) fn ask_secret(what: &str) -> anyhow::Result<Secret> {
    let mut terminal = open()?;
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let answered = answer(&mut terminal, what);
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    Ok(Secret::new(answered?))
}

fn open() -> anyhow::Result<File> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
    terminal.context("there is no terminal to ask at: give --username NAME --password-stdin")
}

fn answer(terminal: &mut File, what: &str) -> anyhow::Result<String> {
    write!(terminal, "{what}: ")?;
    terminal.flush()?;
    let mut line = String::new();
    BufReader::new(terminal.take(MAX_ANSWER)).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
