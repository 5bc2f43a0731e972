//! Running programs so that none outlives its test: each in its own process group, with a deadline, and with its output
//! in files (a grandchild that keeps a pipe open would make the reader wait for ever). Knows nothing of registries.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a program may take that is not expected to move much data. Generous: a busy machine must not fail a test.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// What was typed, for messages.
    pub(crate) line: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The same; panics with everything the program said unless it exited 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }

    /// The same; panics with everything the program said unless it exited with this code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "exit code of {self:#}");
        self
    }

    /// The same; panics with everything the program said if it exited 0.
    #[track_caller]
    pub(crate) fn fails(self) -> Self {
        assert!(!self.status.success(), "this should have failed: {self:#}");
        self
    }

    /// The same; panics unless the text stands in what the program wrote, in either stream.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.said().contains(text), "`{text}` is not said by {self:#}");
        self
    }

    /// Both streams.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { line, status, stdout, stderr } = self;
        write!(f, "`{line}` ({status})\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }
}

/// A running program, the leader of its own process group, which is killed when this is dropped.
pub(crate) struct Running {
    line: String,
    child: Child,
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts `command` with its two output streams in fresh files under `logs`.
    #[track_caller]
    pub(crate) fn start(mut command: Command, logs: &Path) -> Self {
        use std::os::unix::process::CommandExt as _;
        let line = line_of(&command);
        let (stdout, stderr) = fresh_logs(logs, &line);
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap()).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start `{line}`: {error}"));
        Self { line, child, stdout, stderr, ended: None }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the program's whole group; one that is gone already is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        let group = Pid::from_child(&self.child);
        if self.ended.is_none() {
            let _gone_already = kill_process_group(group, signal);
        }
    }

    /// Whether the program has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended.is_some()
    }

    /// How it ended, once [`Running::has_ended`] has said so.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.ended
    }

    /// Waits for the end; after the deadline the whole group is killed and the test fails with what was said.
    #[track_caller]
    pub(crate) fn wait(mut self, deadline: Duration) -> Ran {
        let in_time = eventually(deadline, || self.has_ended());
        if !in_time {
            self.signal(Signal::KILL);
            self.ended = Some(self.child.wait().unwrap());
        }
        let ran = self.so_far(self.ended.expect("waited for"));
        assert!(in_time, "killed after {deadline:?}: {ran}");
        ran
    }

    /// Everything written until now.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", read_lossy(&self.stdout), read_lossy(&self.stderr))
    }

    fn so_far(&self, status: ExitStatus) -> Ran {
        Ran { line: self.line.clone(), status, stdout: read_lossy(&self.stdout), stderr: read_lossy(&self.stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal(Signal::KILL);
            let _status = self.child.wait();
        }
    }
}

/// Runs `command` to its end with nothing on its standard input.
#[track_caller]
pub(crate) fn run(mut command: Command, logs: &Path, deadline: Duration) -> Ran {
    command.stdin(Stdio::null());
    Running::start(command, logs).wait(deadline)
}

/// Looks every few milliseconds until `done` or the deadline is over; says which.
pub(crate) fn eventually(deadline: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The content of a text file; empty if there is none.
pub(crate) fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn fresh_logs(logs: &Path, line: &str) -> (PathBuf, PathBuf) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name: String = line.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
    (logs.join(format!("{number:04}-{name}.out")), logs.join(format!("{number:04}-{name}.err")))
}

/// The command line without what only enters the namespaces, which ends in `env -C DIR`.
fn line_of(command: &Command) -> String {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let start = words.windows(2).position(|pair| pair == ["env", "-C"]).map_or(0, |at| at + 3);
    words[start..].join(" ")
}
