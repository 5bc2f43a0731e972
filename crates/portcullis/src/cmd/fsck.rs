//! `portcullis fsck`: looks at all that is stored, through the running server or with the data locked for itself.
//!
//! The run is kept here and its steps are made there, so that a server is never busy with more than one step, an
//! interrupted run goes on, and its pace is set by waiting between the steps.

mod kept;
mod text;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use portcullis_server::{Config, admin};
use portcullis_store::fsck::{Counts, Finding, Fsck, Outcome, Purpose, Step};
use portcullis_store::{Store, StoreOptions};
use serde::Serialize;

use self::kept::Kept;
use crate::args::{ForWord, FsckArgs};
use crate::cmd::{ask, serve};
use crate::exit::Found;
use crate::home::Home;
use crate::output::{self, Drawn};

/// How much one step reads: enough to be worth a question, and little enough for a disk to answer others in between.
const STEP: u64 = 16 << 20;
/// How often the run is written down, for the next one to go on from.
const KEEP: Duration = Duration::from_secs(5);

/// Who makes the steps.
enum Worker {
    /// The running server.
    Server { socket: PathBuf },
    /// This process.
    Store(Store),
}

/// `--json`. The keys are stable; those of the findings are the store's.
#[derive(Serialize)]
struct Report<'a> {
    purpose: Purpose,
    clean: bool,
    counts: Counts,
    findings: &'a [Finding],
    omitted: u64,
}

pub(crate) fn run(args: &FsckArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let config = home.config()?;
    let worker = Worker::find(&config)?;
    let kept = Kept::of(&home, &config.data);
    let purpose = match (args.purpose, args.repair) {
        (Some(ForWord::Distribution), _) => Purpose::ForDistribution,
        (None, true) => Purpose::Repair,
        (None, false) => Purpose::Check,
    };
    let mut run = match kept.read(purpose).filter(|_| !args.restart) {
        Some(run) => {
            output::note(&format!(
                "going on with the check that was interrupted ({}); --restart begins anew",
                text::counts(&run)
            ));
            run.resumed()
        }
        None => Fsck::new(purpose),
    };
    let rate = args.rate.map(|rate| rate.0);
    finish(&mut run, &worker, &kept, rate)
        .map_err(|error| error.context(format!("the check was interrupted; to go on: {}", home.command(&["fsck"]))))?;
    kept.remove();
    report(&run, &home, args)
}

/// Makes every step that is left.
fn finish(run: &mut Fsck, worker: &Worker, kept: &Kept, rate: Option<u64>) -> anyhow::Result<()> {
    let bytes = rate.map_or(STEP, |rate| (rate / 4).clamp(1, STEP));
    let before = run.counts().bytes;
    let (start, mut last_kept) = (Instant::now(), Instant::now());
    let mut drawn = Drawn::new();
    while let Some(step) = run.next_step(bytes) {
        let outcome = match worker.step(&step) {
            Ok(outcome) => outcome,
            Err(error) => {
                kept.write(run)?;
                return Err(error);
            }
        };
        run.take(outcome);
        let read = run.counts().bytes - before;
        drawn.draw(|| text::progress(run, read, start.elapsed()));
        if last_kept.elapsed() >= KEEP {
            kept.write(run)?;
            last_kept = Instant::now();
        }
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(approximate(read) / approximate(rate));
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    Ok(())
}

impl Worker {
    /// The server of this home if it runs, else this process if nobody else has the data.
    fn find(config: &Config) -> anyhow::Result<Self> {
        if let Some(socket) = &config.admin_socket {
            match ask::ask(admin::status(socket)) {
                Ok(_) => return Ok(Self::Server { socket: socket.clone() }),
                Err(error) if matches!(error.downcast_ref(), Some(admin::AdminError::NotRunning { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        if !config.data.is_dir() {
            bail!(
                "nothing is stored: there is no directory {} (`storage.data` in the config file)",
                config.data.display()
            );
        }
        serve::check_owner(&config.data)?;
        // What a repair brings back takes no space that was not taken before.
        let store = Store::open(&config.data, &StoreOptions { reserve: 0, ..StoreOptions::default() })?;
        Ok(Self::Store(store))
    }

    fn step(&self, step: &Step) -> anyhow::Result<Outcome> {
        match self {
            Self::Server { socket } => ask::ask(admin::fsck(socket, step)),
            Self::Store(store) => store.fsck_step(step).context("the data cannot be looked at"),
        }
    }
}

fn report(run: &Fsck, home: &Home, args: &FsckArgs) -> anyhow::Result<()> {
    if args.json {
        let (purpose, clean, counts, omitted) = (run.purpose(), run.is_clean(), run.counts(), run.omitted());
        output::json(&Report { purpose, clean, counts, findings: run.findings(), omitted })?;
    } else {
        for finding in run.findings() {
            for line in text::finding(finding) {
                output::line(&line);
            }
        }
        output::line(&text::summary(run));
    }
    if run.is_clean() {
        return Ok(());
    }
    Err(Found(text::verdict(run, home)).into())
}

/// For a pace, where the last bytes do not matter.
#[expect(clippy::cast_precision_loss, reason = "53 bits are enough for a pace")]
fn approximate(bytes: u64) -> f64 {
    bytes as f64
}
