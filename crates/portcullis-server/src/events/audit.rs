//! The audit: one JSON line per decision, queued and written by a thread of its own.
//!
//! A request never waits for it. When the queue is full, or a write fails, lines are lost, counted, and the next line
//! that is written says how many. Keys of the lines: docs/audit.md.

use std::fmt::{self, Display, Write as _};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portcullis_certs::{Certificate, Visible};
use prometheus_client::metrics::counter::Counter;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::events::audit_writer::{self, Sink};

/// Lines that may wait to be written.
const QUEUE: usize = 4096;
/// A text is cut after so many bytes; a repository's name, of 255 at most, is whole.
const MAX_TEXT: usize = 512;
/// A list is cut after so many texts.
const MAX_LIST: usize = 50;
/// What a stop waits for the last lines.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// Where audit lines go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AuditTo {
    /// Nowhere.
    #[default]
    Off,
    /// To the program's standard output.
    Stdout,
    /// To the end of this file.
    File(PathBuf),
}

/// The near end of the queue.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    queue: Option<SyncSender<Message>>,
    writer: std::sync::Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
}

/// What became of the lines.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) told: Counter,
    pub(crate) dropped: Counter,
}

/// What the writer is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// With its line feed.
    Line(Vec<u8>),
    End,
}

/// A text in a line: what would move the cursor or reorder text is made visible, and it has an end.
#[derive(Debug, Clone)]
pub(crate) struct Text(String);

/// One line. What does not apply is left out.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) struct Record {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trusted_by: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) issuer: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) serial: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_proven: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) method: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repository: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) generation: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) added: Vec<Text>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) removed: Vec<Text>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) problems: Vec<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lines: Option<u64>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'a str,
    #[serde(flatten)]
    record: &'a Record,
}

impl Audit {
    /// Opens the file and starts the thread that writes it.
    ///
    /// # Errors
    /// The file cannot be opened or is none.
    pub(crate) fn to_file(path: PathBuf) -> io::Result<Self> {
        Self::start(Sink::file(path)?)
    }

    /// Starts the thread that writes to `output`.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn to_output(output: Box<dyn io::Write + Send>) -> io::Result<Self> {
        Self::start(Sink::Output(output))
    }

    fn start(sink: Sink) -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE);
        let counts = Arc::new(Counts::default());
        let (for_writer, builder) = (Arc::clone(&counts), std::thread::Builder::new().name("audit".to_owned()));
        let writer = builder.spawn(move || audit_writer::run(sink, &messages, &for_writer))?;
        Ok(Self { queue: Some(queue), writer: Some(writer).into(), counts })
    }

    /// Queues a line. It is not even made when there is no audit.
    pub(super) fn tell(&self, event: &str, record: impl FnOnce() -> Record) {
        let Some(queue) = &self.queue else { return };
        self.counts.told.inc();
        match queue.try_send(Message::Line(line(event, &record()))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counts.dropped.inc();
            }
        }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Waits, blocking and not for long, until what was queued is written.
    pub(crate) fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let (Some(queue), Some(writer)) = (&self.queue, writer) else { return };
        let end = Instant::now() + CLOSE_TIME;
        let mut asked = false;
        while Instant::now() < end && !writer.is_finished() {
            // A full queue is being emptied.
            asked = asked || queue.try_send(Message::End).is_ok();
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A line with its line feed, as the writer wants it.
pub(super) fn line(event: &str, record: &Record) -> Vec<u8> {
    let now = OffsetDateTime::now_utc();
    // Fails only outside of the years 0 to 9999.
    let time = now.truncate_to_millisecond().format(&Rfc3339).unwrap_or_default();
    let line = Line { time, event, record };
    // Plain structs of texts and numbers always serialise.
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// As many as a line holds, and how many more there are.
pub(super) fn listed(texts: impl Iterator<Item = Text>) -> Vec<Text> {
    let mut texts = texts.fuse();
    let mut list: Vec<Text> = texts.by_ref().take(MAX_LIST).collect();
    match texts.count() {
        0 => {}
        more => list.push(Text(format!("and {more} more"))),
    }
    list
}

impl Record {
    /// A line about a certificate, with everything that it says of itself.
    pub(super) fn about(certificate: Option<&Certificate>) -> Self {
        let facts = certificate.map(Certificate::facts);
        Self {
            subject: facts.map(|facts| Text::of(&facts.subject)),
            issuer: facts.map(|facts| Text::of(&facts.issuer)),
            serial: facts.map(|facts| Text::of(&facts.serial)),
            fingerprint: certificate.map(|certificate| Text::of(&certificate.fingerprint())),
            ..Self::default()
        }
    }
}

impl Text {
    pub(crate) fn of(value: &(impl Display + ?Sized)) -> Self {
        struct Bounded(String);
        impl fmt::Write for Bounded {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                let room = MAX_TEXT.saturating_sub(self.0.len());
                let end = text.floor_char_boundary(room);
                self.0.push_str(&text[..end]);
                // An error ends the formatting: nothing longer is ever built.
                if end < text.len() { Err(fmt::Error) } else { Ok(()) }
            }
        }
        let mut raw = Bounded(String::new());
        let is_whole = write!(raw, "{value}").is_ok();
        // Making it visible lengthens a text sixfold at most.
        let mut shown = Visible(&raw.0).to_string();
        if !is_whole {
            shown.push('…');
        }
        Self(shown)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_at_the_limit_and_past_it() {
        let whole = "x".repeat(MAX_TEXT);
        assert_eq!(Text::of(&whole).as_str(), whole);
        assert_eq!(Text::of(&format!("{whole}x")).as_str(), format!("{whole}…"));
        // Never in the middle of a character.
        let wide = "é".repeat(MAX_TEXT);
        assert_eq!(Text::of(&wide).as_str(), format!("{}…", "é".repeat(MAX_TEXT / 2)));
    }

    #[test]
    fn lists_at_the_limit_and_past_it() {
        let texts = |n: usize| listed((0..n).map(|n| Text::of(&n))).len();
        assert_eq!((texts(0), texts(MAX_LIST), texts(MAX_LIST + 7)), (0, MAX_LIST, MAX_LIST + 1));
        let list = listed((0..MAX_LIST + 7).map(|n| Text::of(&n)));
        assert_eq!(list.last().expect("one").as_str(), "and 7 more");
    }

    /// An output that takes nothing until it is told to.
    struct Stuck(Arc<std::sync::Mutex<Vec<u8>>>);

    impl io::Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("the test lets go").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Whoever tells does not wait for a disk that hangs; what was lost is counted, and told when it moves again.
    #[test]
    fn a_full_queue_loses_lines_and_says_how_many() {
        let written = Arc::new(std::sync::Mutex::new(Vec::new()));
        let audit = Audit::to_output(Box::new(Stuck(Arc::clone(&written)))).expect("a thread");
        let stuck = written.lock().expect("the first");
        // Beside the queue, the writer holds the batch that it cannot write.
        for number in 0..3 * QUEUE {
            audit.tell("push", || Record { reason: Some(Text::of(&number)), ..Record::default() });
        }
        let dropped = audit.counts().dropped.get();
        assert!(dropped >= 1, "nothing was lost");
        assert_eq!(audit.counts().told.get(), 3 * QUEUE as u64);
        drop(stuck);
        audit.close();
        let text = String::from_utf8(written.lock().expect("all is told").clone()).expect("UTF-8");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("whole lines")).collect();
        let pushes = lines.iter().filter(|line| line["event"] == "push").count() as u64;
        let told: u64 = lines.iter().filter_map(|line| line["lines"].as_u64()).sum();
        assert_eq!((pushes + dropped, told), (3 * QUEUE as u64, dropped));
    }

    #[test]
    fn a_line_is_one_line_of_json() {
        let hostile = "a\n{\"event\":\"push\"}\u{202e}\"\u{1b}[2J";
        let record = Record { reason: Some(Text::of(&hostile)), status: Some(403), ..Record::default() };
        let bytes = line("request.denied", &record);
        let text = std::str::from_utf8(&bytes).expect("UTF-8");
        assert_eq!(text.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!((&read["event"], &read["status"]), (&"request.denied".into(), &403.into()));
        assert!(text.starts_with("{\"time\":\"20"), "{text}");
        assert!(read.get("peer").is_none() && read.get("added").is_none(), "{text}");
        assert!(!text.contains('\u{202e}'), "{text}");
    }
}
