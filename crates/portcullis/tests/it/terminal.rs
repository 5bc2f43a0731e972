//! A terminal of the test's own, with a program at it: what is typed, and what a person would see, on a screen that does
//! with the control sequences what ECMA-48 says. Knows nothing of registries.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;

use portcullis_testkit::skip::Need;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::process::{DEADLINE, eventually};

/// Makes the terminal the program's own.
pub(crate) const SETSID: Need = Need::Program("setsid");

const ROWS: u16 = 24;

/// The keys, as they arrive.
pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";

/// A terminal and the program at it, which is killed when this is dropped.
pub(crate) struct Terminal {
    controller: File,
    columns: usize,
    written: Arc<Mutex<Vec<u8>>>,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Terminal {
    /// Starts a program at a terminal that is so wide.
    #[track_caller]
    pub(crate) fn start(program: &Command, columns: u16) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let own = File::from(ioctl_tiocgptpeer(&controller, flags).unwrap());
        tcsetwinsize(&own, Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();

        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program.get_program()).args(program.get_args()).env_clear().env("TERM", "xterm");
        for (name, value) in program.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        if let Some(dir) = program.get_current_dir() {
            command.current_dir(dir);
        }
        let stream = || own.try_clone().unwrap();
        let child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
        drop((own, command));

        let controller = File::from(controller);
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut reader, sink) = (controller.try_clone().unwrap(), Arc::clone(&written));
        // It ends when the last program has left the terminal (EIO).
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut piece) {
                sink.lock().unwrap().extend_from_slice(&piece[..count]);
            }
        });
        Self { controller, columns: columns.into(), written, child, ended: None }
    }

    pub(crate) fn types(&self, keys: &str) {
        (&self.controller).write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until a line of the screen has this text.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        let is_shown = eventually(DEADLINE, || self.screen().iter().any(|line| line.contains(text)));
        assert!(is_shown, "`{text}` is not shown: {:#?}", self.screen());
    }

    /// Whether what is typed is shown.
    pub(crate) fn echoes(&self) -> bool {
        tcgetattr(&self.controller).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    /// All bytes that came so far.
    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// What is on the screen, and what has left it at its upper end: all lines, without the empty ones at the end.
    pub(crate) fn screen(&self) -> Vec<String> {
        drawn(&self.written(), self.columns)
    }

    /// Waits for the program's end, and for the last of what it wrote.
    #[track_caller]
    pub(crate) fn exits(&mut self, code: i32) {
        let ended = eventually(DEADLINE, || {
            self.ended = self.child.try_wait().unwrap();
            self.ended.is_some()
        });
        assert!(ended, "still running: {:#?}", self.screen());
        // Nothing more is to come when nothing came for a while; the kernel has it already.
        let mut length = usize::MAX;
        eventually(DEADLINE, || {
            let before = std::mem::replace(&mut length, self.written.lock().unwrap().len());
            thread::sleep(std::time::Duration::from_millis(50));
            before == length
        });
        assert_eq!(self.ended.and_then(|status| status.code()), Some(code), "exit code; {:#?}", self.screen());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _gone_already = self.child.kill();
            let _status = self.child.wait();
        }
    }
}

/// What a terminal of this width makes of it.
fn drawn(written: &str, columns: usize) -> Vec<String> {
    let mut screen = Screen { columns, lines: vec![vec![]], row: 0, column: 0 };
    let mut rest = written;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\r' => screen.column = 0,
            '\n' => screen.go_down(),
            '\x1b' => {
                let last = rest.find(char::is_alphabetic).unwrap_or_else(|| panic!("cut: {written:?}"));
                screen.obey(&rest[..=last]);
                rest = &rest[last + 1..];
            }
            c => screen.put(c),
        }
    }
    let text = |line: Vec<char>| line.into_iter().collect::<String>().trim_end().to_owned();
    let mut lines: Vec<String> = screen.lines.into_iter().map(text).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

struct Screen {
    columns: usize,
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    fn go_down(&mut self) {
        self.row += 1;
        if self.row == self.lines.len() {
            self.lines.push(vec![]);
        }
    }

    fn put(&mut self, c: char) {
        if self.column == self.columns {
            self.column = 0;
            self.go_down();
        }
        let line = &mut self.lines[self.row];
        line.resize(line.len().max(self.column + 1), ' ');
        line[self.column] = c;
        self.column += 1;
    }

    /// What comes after the escape character.
    fn obey(&mut self, sequence: &str) {
        let number = || sequence[1..sequence.len() - 1].parse::<usize>().unwrap_or(1);
        match (sequence.chars().next(), sequence.chars().last()) {
            // What has left the screen is out of reach.
            (Some('['), Some('A')) => {
                let top = self.lines.len().saturating_sub(ROWS.into());
                self.row = self.row.saturating_sub(number()).max(top);
            }
            (Some('['), Some('J')) => {
                self.lines.truncate(self.row + 1);
                self.lines[self.row].truncate(self.column);
            }
            (Some('['), Some('K')) => self.lines[self.row].truncate(self.column),
            _ => panic!("a sequence that this screen does not know: {sequence:?}"),
        }
    }
}

#[test]
fn a_screen_does_what_terminals_do() {
    assert_eq!(drawn("one\r\ntwo\rT\r\n\x1b[2AO\x1b[K\r\n\r\n\r\n", 80), ["O", "Two"]);
    assert_eq!(drawn("12345678\r\n\r\n\x1b[1A\x1b[JX", 5), ["12345", "678", "X"]);
    let many: String = (0..40).map(|line| format!("{line}\r\n")).collect();
    let lines = drawn(&format!("{many}\x1b[99Atop"), 80);
    assert_eq!(lines.iter().position(|line| line.starts_with("top")), Some(41 - usize::from(ROWS)));
}
