//! The far end of the audit's queue: a thread that writes batches of lines to a file or an output.
//!
//! A file is looked at before each write, and twice a second: when another stands at its path (logrotate has moved it),
//! it is opened again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::events::audit::{Counts, Message, Record, line};

/// How often a file is looked at when there is nothing to write.
const LOOK: Duration = Duration::from_millis(500);
/// What is written at once.
const BATCH_BYTES: usize = 256 * 1024;

/// Where lines go.
pub(super) enum Sink {
    Output(Box<dyn Write + Send>),
    File { path: PathBuf, file: File },
}

/// What is waiting to be written.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

/// The state between two writes.
struct Writer<'a> {
    sink: Sink,
    counts: &'a Counts,
    /// Dropped lines that a line has told of.
    told_of: u64,
    /// The last write ended in the middle of a line.
    torn: bool,
    failing: bool,
}

impl Sink {
    /// The file at `path`, made with mode 0600 where there is none. Its mode is left as it is where there is one: whoever
    /// lets a group read the audit has a reason.
    pub(super) fn file(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self::File { path, file })
    }

    fn write_all(&mut self, bytes: &[u8], written: &mut usize) -> io::Result<()> {
        let output: &mut dyn Write = match self {
            Self::Output(output) => output,
            Self::File { file, .. } => file,
        };
        while *written < bytes.len() {
            match output.write(&bytes[*written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => *written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        output.flush()
    }

    /// Opens the file again if it is no longer the one at its path.
    fn follow(&mut self) -> io::Result<()> {
        let Self::File { path, file } = self else { return Ok(()) };
        let ours = file.metadata()?;
        let same = |other: std::fs::Metadata| (other.dev(), other.ino()) == (ours.dev(), ours.ino());
        if !std::fs::metadata(&*path).is_ok_and(same) {
            *file = open(path)?;
        }
        Ok(())
    }
}

/// Append only: after a rotation by copy and truncation, too, the next line stands at the end.
fn open(path: &Path) -> io::Result<File> {
    match std::fs::metadata(path) {
        // A pipe without a reader would hold the start for ever.
        Ok(metadata) if !metadata.is_file() => {
            return Err(io::Error::other("it is no file; for standard output say \"stdout\""));
        }
        _ => {}
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Until the end is asked for, or every sender is gone.
pub(super) fn run(sink: Sink, messages: &Receiver<Message>, counts: &Counts) {
    let mut writer = Writer { sink, counts, told_of: 0, torn: false, failing: false };
    loop {
        let mut batch = Batch::default();
        let mut ended = match messages.recv_timeout(LOOK) {
            Ok(message) => batch.add(message),
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        while !ended && batch.bytes.len() < BATCH_BYTES {
            let Ok(message) = messages.try_recv() else { break };
            ended = batch.add(message);
        }
        writer.write(batch);
        if ended {
            return;
        }
    }
}

impl Batch {
    /// Says whether it was the end.
    fn add(&mut self, message: Message) -> bool {
        match message {
            Message::Line(line) => {
                self.bytes.extend_from_slice(&line);
                self.lines += 1;
                false
            }
            Message::End => true,
        }
    }
}

impl Writer<'_> {
    fn write(&mut self, mut batch: Batch) {
        let dropped = self.counts.dropped.get();
        if dropped > self.told_of {
            let record = Record { lines: Some(dropped - self.told_of), ..Record::default() };
            batch.bytes.extend_from_slice(&line("audit.dropped", &record));
        }
        match self.try_write(&batch.bytes) {
            Ok(()) => {
                self.told_of = dropped;
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the audit is written again");
                }
            }
            Err(error) => {
                self.counts.dropped.inc_by(batch.lines);
                // Once: the log would otherwise have a line for each line that the audit has not.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the audit cannot be written, its lines are lost");
                }
            }
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sink.follow()?;
        if bytes.is_empty() {
            return Ok(());
        }
        if self.torn {
            self.sink.write_all(b"\n", &mut 0)?;
            self.torn = false;
        }
        let mut written = 0;
        let result = self.sink.write_all(bytes, &mut written);
        self.torn = result.is_err() && written.checked_sub(1).is_some_and(|last| bytes[last] != b'\n');
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A disk that is full after `room` bytes.
    struct Full {
        room: Arc<Mutex<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut room = self.room.lock().expect("room");
            let taken = bytes.len().min(*room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= taken;
            self.written.lock().expect("bytes").extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(line: &str) -> Batch {
        Batch { bytes: line.as_bytes().to_vec(), lines: 1 }
    }

    /// A line cut by a full disk must not swallow the one that follows it, and what is missing is told.
    #[test]
    fn a_torn_line_ends_and_the_loss_is_told() {
        let (room, written) = (Arc::new(Mutex::new(12)), Arc::default());
        let full = Full { room: Arc::clone(&room), written: Arc::clone(&written) };
        let counts = Counts::default();
        let sink = Sink::Output(Box::new(full));
        let mut writer = Writer { sink, counts: &counts, told_of: 0, torn: false, failing: false };
        writer.write(batch("{\"a\":1}\n"));
        writer.write(batch("{\"b\":2}\n"));
        writer.write(batch("{\"c\":3}\n"));
        assert_eq!(counts.dropped.get(), 2);
        *room.lock().expect("room") = 1000;
        writer.write(batch("{\"d\":4}\n"));
        let text = String::from_utf8(written.lock().expect("bytes").clone()).expect("UTF-8");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..3], ["{\"a\":1}", "{\"b\"", "{\"d\":4}"]);
        assert!(lines[3].contains("\"event\":\"audit.dropped\"") && lines[3].ends_with("\"lines\":2}"), "{text}");
        writer.write(batch("{\"e\":5}\n"));
        assert_eq!(counts.dropped.get(), 2);
        assert!(written.lock().expect("bytes").ends_with(b"{\"e\":5}\n"));
    }
}
