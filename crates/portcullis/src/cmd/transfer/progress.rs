//! How a transfer is told: bars on a terminal, a line per step elsewhere, events for programs, or nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_client::{Event, Progress};
use portcullis_oci::Digest;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::cmd::size;
use crate::output::{self, Board};

/// A blob's `moving` events come no more often.
const PAUSE: Duration = Duration::from_millis(250);

/// Bars are drawn this often when nothing moves.
const TICK: Duration = Duration::from_secs(1);

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Nobody: the result says all.
    Nobody,
    /// A program, with one JSON object per line.
    Program,
    /// A person.
    Person,
}

impl Audience {
    pub(crate) fn of(quiet: bool, json: bool) -> Self {
        match (quiet, json) {
            (_, true) => Self::Program,
            (true, false) => Self::Nobody,
            (false, false) => Self::Person,
        }
    }

    /// What hands the events on.
    pub(crate) fn progress(self) -> Progress {
        match self {
            Self::Nobody => Progress::none(),
            Self::Program => {
                let mut moving = Moving::default();
                sink(move |event| {
                    if let Some(told) = moving.told(&event) {
                        output::json_line(&told);
                    }
                })
            }
            Self::Person if output::draws() => {
                let bars = Arc::new(Mutex::new(Bars::new()));
                let ticking = Ticking::of(&bars);
                Progress::new(move |event| {
                    let _ticking = &ticking;
                    bars.lock().unwrap_or_else(PoisonError::into_inner).take(&event);
                })
            }
            Self::Person => {
                let mut sizes = HashMap::new();
                sink(move |event| {
                    if let Some(text) = line(&event, &mut sizes) {
                        output::note(&text);
                    }
                })
            }
        }
    }
}

/// Draws also while nothing happens: how long it takes is then ever longer.
struct Ticking(AbortHandle);

impl Ticking {
    fn of(bars: &Arc<Mutex<Bars>>) -> Self {
        let bars = Arc::downgrade(bars);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                let Some(bars) = bars.upgrade() else { return };
                bars.lock().unwrap_or_else(PoisonError::into_inner).draw();
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn sink(take: impl FnMut(Event) + Send + 'static) -> Progress {
    let take = Arc::new(Mutex::new(take));
    // Only this closure holds the lock, and what is called does not panic.
    Progress::new(move |event| (take.lock().unwrap_or_else(PoisonError::into_inner))(event))
}

/// One line for each step that is worth one.
fn line(event: &Event, sizes: &mut HashMap<Digest, u64>) -> Option<String> {
    let text = match event {
        Event::BlobStarted { digest, size } => {
            sizes.insert(*digest, *size);
            return None;
        }
        Event::BlobResumed { digest, bytes } => format!("{} goes on, {} of it are there", short(digest), size(*bytes)),
        Event::BlobFinished { digest } => {
            format!("{} done ({})", short(digest), size(sizes.remove(digest).unwrap_or(0)))
        }
        Event::BlobExists { digest, .. } => format!("{} is there already", short(digest)),
        Event::BlobMounted { digest, .. } => format!("{} is mounted", short(digest)),
        Event::BlobForeign { digest } => format!("{} is fetched from elsewhere, left out", short(digest)),
        Event::Retrying { request, reason, pause } => {
            format!("{request}: {reason}; again in {:.1} s", pause.as_secs_f32())
        }
        Event::Planned { blobs, bytes } => format!("{blobs} blobs, {}", size(*bytes)),
        Event::Manifest { .. } | Event::BlobAdvanced { .. } | Event::Tagged { .. } => return None,
    };
    Some(text)
}

/// As engines abbreviate it: twelve digits.
fn short(digest: &Digest) -> String {
    format!("{}:{}", digest.algorithm(), &digest.hex()[..12])
}

/// Blobs under way, for the events about their bytes.
#[derive(Default)]
struct Moving(HashMap<Digest, (u64, u64, Option<Instant>)>);

impl Moving {
    /// The event as JSON. The keys are stable (docs/client.md).
    fn told(&mut self, event: &Event) -> Option<Value> {
        Some(match event {
            Event::Planned { blobs, bytes } => json!({"event": "planned", "blobs": blobs, "bytes": bytes}),
            Event::Manifest { digest, media_type, size } => {
                json!({"event": "manifest", "digest": digest, "media_type": media_type, "size": size})
            }
            Event::BlobStarted { digest, size } => {
                self.0.insert(*digest, (0, *size, None));
                blob(digest, "started", Some(*size))
            }
            Event::BlobResumed { digest, bytes } => {
                let (moved, size, _) = self.0.get_mut(digest)?;
                *moved = *bytes;
                let mut told = blob(digest, "resumed", Some(*size));
                told["moved"] = json!(*moved);
                told
            }
            Event::BlobAdvanced { digest, bytes } => {
                let (moved, size, last) = self.0.get_mut(digest)?;
                *moved += bytes;
                if last.is_some_and(|last| last.elapsed() < PAUSE) {
                    return None;
                }
                *last = Some(Instant::now());
                let mut told = blob(digest, "moving", Some(*size));
                told["moved"] = json!(*moved);
                told
            }
            Event::BlobFinished { digest } => {
                let size = self.0.remove(digest).map(|(_, size, _)| size);
                blob(digest, "done", size)
            }
            Event::BlobExists { digest, size } => blob(digest, "there", Some(*size)),
            Event::BlobMounted { digest, size } => blob(digest, "mounted", Some(*size)),
            Event::BlobForeign { digest } => blob(digest, "elsewhere", None),
            Event::Retrying { request, reason, pause } => {
                json!({"event": "retrying", "request": request, "reason": reason, "seconds": pause.as_secs_f32()})
            }
            Event::Tagged { tag, digest } => {
                json!({"event": "tagged", "tag": tag.as_ref().map(portcullis_oci::Tag::as_str), "digest": digest})
            }
        })
    }
}

fn blob(digest: &Digest, state: &str, size: Option<u64>) -> Value {
    json!({"event": "blob", "digest": digest, "state": state, "size": size})
}

/// A bar for each blob under way and one for all of them.
struct Bars {
    board: Board,
    sizes: HashMap<Digest, u64>,
    under_way: Vec<Bar>,
    planned: u64,
    moved: u64,
    /// What need not move.
    spared: u64,
    start: Option<Instant>,
}

struct Bar {
    digest: Digest,
    size: u64,
    moved: u64,
    /// What of it need not move.
    spared: u64,
}

impl Bars {
    fn new() -> Self {
        let (sizes, under_way) = (HashMap::new(), Vec::new());
        Self { board: Board::new(), sizes, under_way, planned: 0, moved: 0, spared: 0, start: None }
    }

    fn take(&mut self, event: &Event) {
        let said = line(event, &mut self.sizes);
        self.count(event);
        if let Some(said) = said {
            self.board.say(&said);
        }
        self.draw();
    }

    fn draw(&mut self) {
        let Self { board, under_way, planned, moved, spared, start, .. } = self;
        if *planned == 0 {
            // What there is to do is not known yet.
            return;
        }
        board.draw(|columns| {
            let drawn_of = |bar: &Bar| drawn(&short(&bar.digest), bar.moved + bar.spared, bar.size, "", columns);
            let mut lines: Vec<String> = under_way.iter().map(drawn_of).collect();
            let pace = start.map(|start| pace(*moved, planned.saturating_sub(*spared), start.elapsed()));
            lines.push(drawn("all", *moved + *spared, *planned, &pace.unwrap_or_default(), columns));
            lines
        });
    }

    fn count(&mut self, event: &Event) {
        match *event {
            Event::Planned { bytes, .. } => self.planned = bytes,
            Event::BlobStarted { digest, size } => {
                self.start.get_or_insert_with(Instant::now);
                self.forget(digest);
                self.under_way.push(Bar { digest, size, moved: 0, spared: 0 });
            }
            Event::BlobResumed { digest, bytes } => {
                self.spared += bytes;
                if let Some(bar) = self.under_way.iter_mut().find(|bar| bar.digest == digest) {
                    bar.spared += bytes;
                }
            }
            Event::BlobAdvanced { digest, bytes } => {
                self.moved += bytes;
                if let Some(bar) = self.under_way.iter_mut().find(|bar| bar.digest == digest) {
                    bar.moved += bytes;
                }
            }
            Event::BlobFinished { digest } => self.under_way.retain(|bar| bar.digest != digest),
            Event::BlobExists { size, .. } | Event::BlobMounted { size, .. } => self.spared += size,
            Event::BlobForeign { .. } | Event::Retrying { .. } | Event::Manifest { .. } | Event::Tagged { .. } => {}
        }
    }

    /// What has moved of a blob that begins anew counts for nothing.
    fn forget(&mut self, digest: Digest) {
        if let Some(at) = self.under_way.iter().position(|bar| bar.digest == digest) {
            let Bar { moved, spared, .. } = self.under_way.remove(at);
            self.moved -= moved;
            self.spared -= spared;
        }
    }
}

/// `sha256:0123456789ab [=======>      ]  45 %  12.0 MiB of 26.5 MiB`, or what a narrow terminal has room for.
fn drawn(name: &str, moved: u64, size_of_it: u64, pace: &str, columns: usize) -> String {
    let (parts, whole) = (moved.min(size_of_it), size_of_it.max(1));
    let percent = u128::from(parts) * 100 / u128::from(whole);
    let tail = format!("{percent:>3} %  {} of {}{pace}", size(moved), size(size_of_it));
    let room = columns.saturating_sub(19 + 4 + tail.len()).min(40);
    if room >= 10 {
        let filled = usize::try_from(u128::from(parts) * room as u128 / u128::from(whole)).unwrap_or(room);
        let head = if filled < room { ">" } else { "" };
        return format!("{name:<19} [{:<room$}] {tail}", "=".repeat(filled) + head);
    }
    let name = name.rsplit(':').next().unwrap_or(name);
    let least = format!("{name:<12} {percent:>3} %");
    let of = if pace.is_empty() { format!(" of {}", size(size_of_it)) } else { pace.to_owned() };
    let fitting = [format!("{name:<19} {tail}"), format!("{least}{of}")].into_iter().find(|text| text.len() <= columns);
    fitting.unwrap_or_else(|| least.chars().take(columns).collect())
}

/// `  34.1 MiB/s, 3 s left`
fn pace(moved: u64, of: u64, elapsed: Duration) -> String {
    let millis = elapsed.as_millis();
    if millis < 500 || moved == 0 {
        return String::new();
    }
    let rate = u64::try_from(u128::from(moved) * 1000 / millis).unwrap_or(u64::MAX).max(1);
    let left = of.saturating_sub(moved) / rate;
    let left = match (left / 3600, left / 60 % 60, left % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    };
    format!("  {}/s, {left} left", size(rate))
}

#[cfg(test)]
mod tests {
    use portcullis_oci::Algorithm;

    use super::*;

    #[test]
    fn a_bar_fits_its_line() {
        for (moved, of, columns, text) in [
            (0, 100, 80, "x                   [>                             ]   0 %  0 bytes of 100 bytes"),
            (50, 100, 62, "x                   [=====>     ]  50 %  50 bytes of 100 bytes"),
            (100, 100, 63, "x                   [===========] 100 %  100 bytes of 100 bytes"),
            (300, 100, 63, "x                   [===========] 100 %  300 bytes of 100 bytes"),
            (0, 0, 30, "x              0 % of 0 bytes"),
            (300, 900, 39, "x             33 % of 900 bytes"),
            (300, 900, 5, "x    "),
        ] {
            let bar = drawn("x", moved, of, "", columns);
            assert_eq!(bar, text, "{moved} of {of} in {columns}");
            assert!(bar.len() <= columns, "{bar}");
        }
    }

    #[test]
    fn how_fast_and_how_long() {
        let second = Duration::from_secs(1);
        assert_eq!(pace(1 << 20, 4 << 20, second), "  1.0 MiB/s, 3 s left");
        assert_eq!(pace(1 << 20, 100 << 20, second), "  1.0 MiB/s, 1 min 39 s left");
        assert_eq!(pace(1 << 20, 5000 << 20, second), "  1.0 MiB/s, 1 h 23 min left");
        assert_eq!(pace(0, 5, second), "");
        assert_eq!(pace(5, 5, Duration::from_millis(10)), "");
    }

    #[test]
    fn a_blob_that_begins_anew_counts_once() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let mut bars = Bars::new();
        let take = |bars: &mut Bars, events: &[Event]| events.iter().for_each(|event| bars.count(event));
        let started = || Event::BlobStarted { digest, size: 10 };
        let moved = |bytes| Event::BlobAdvanced { digest, bytes };
        take(&mut bars, &[Event::Planned { blobs: 1, bytes: 10 }, started(), Event::BlobResumed { digest, bytes: 7 }]);
        take(&mut bars, &[moved(3)]);
        assert_eq!((bars.moved, bars.spared), (3, 7));
        take(&mut bars, &[started(), moved(10)]);
        assert_eq!((bars.moved, bars.spared, bars.under_way.len()), (10, 0, 1));
    }

    #[test]
    fn a_program_hears_of_moving_bytes_now_and_then() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let mut moving = Moving::default();
        let told = moving.told(&Event::BlobStarted { digest, size: 10 }).unwrap();
        assert_eq!(told, json!({"event": "blob", "digest": digest, "state": "started", "size": 10}));
        let told = moving.told(&Event::BlobAdvanced { digest, bytes: 4 }).unwrap();
        assert_eq!((&told["moved"], &told["state"]), (&json!(4), &json!("moving")));
        assert!(moving.told(&Event::BlobAdvanced { digest, bytes: 4 }).is_none(), "so soon");
        moving.told(&Event::BlobStarted { digest, size: 10 }).unwrap();
        let told = moving.told(&Event::BlobResumed { digest, bytes: 7 }).unwrap();
        assert_eq!(told, json!({"event": "blob", "digest": digest, "state": "resumed", "size": 10, "moved": 7}));
        let told = moving.told(&Event::BlobAdvanced { digest, bytes: 2 }).unwrap();
        assert_eq!(told["moved"], 9);
        let told = moving.told(&Event::BlobFinished { digest }).unwrap();
        assert_eq!(told, json!({"event": "blob", "digest": digest, "state": "done", "size": 10}));
    }
}
