//! `portcullis gc`: collects garbage now, in the running server or, without one, in this process.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use portcullis_certs::Visible;
use portcullis_server::Config;
use portcullis_server::admin::{self, AdminError};
use portcullis_server::gc::{self, GcCounts, GcHeld, GcReport, GcResult, GcStarted, GcStatus, Removal};

use crate::args::GcArgs;
use crate::cmd::{ask, size};
use crate::home::Home;
use crate::output;

/// How often a running server is asked how far it is.
const POLL: Duration = Duration::from_millis(200);

pub(crate) fn run(args: &GcArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.ask.home.home.as_deref())?;
    let config = home.config()?;
    if args.resume || args.pause.is_some() {
        return pause(&config, args.pause.map_or(Duration::ZERO, |pause| pause.0));
    }
    let removal = if args.dry_run { Removal::DryRun } else { Removal::Real };
    let in_server = match &config.admin_socket {
        Some(socket) => ask_server(socket, removal)?,
        None => Asked::NoServer,
    };
    let report = match in_server {
        Asked::Ended(report) => *report,
        Asked::NoServer => gc::collect(&config, removal, |_| {})?,
        Asked::Paused(seconds) => bail!(
            "collections are paused for another {seconds} s, while somebody copies the data\n  to end the pause: {}",
            home.command(&["gc", "--resume"])
        ),
    };
    if report.result == Some(GcResult::Paused) && !args.ask.json {
        let reason = report.failed.as_deref().unwrap_or_default();
        bail!("{reason}\n  to end the pause: {}", home.command(&["gc", "--resume"]));
    }
    if args.ask.json {
        output::json(&report)?;
    } else {
        for line in lines(&report) {
            output::line(&line);
        }
        for complaint in complaints(&report) {
            output::warning(&complaint);
        }
    }
    match &report.failed {
        Some(reason) => bail!("the collection ended early: {}", Visible(reason)),
        None => Ok(()),
    }
}

/// What came of asking the server.
enum Asked {
    NoServer,
    Ended(Box<GcReport>),
    /// For so many seconds.
    Paused(u64),
}

/// Has the running server collect, and waits for the end of it.
fn ask_server(socket: &Path, removal: Removal) -> anyhow::Result<Asked> {
    ask::ask(async {
        loop {
            let GcStarted { number, begun, paused } = match admin::start_gc(socket, removal).await {
                Err(AdminError::NotRunning { .. }) => return Ok(Asked::NoServer),
                started => started?,
            };
            if let Some(seconds) = paused {
                return Ok(Asked::Paused(seconds));
            }
            if !begun {
                output::note("another collection runs: waiting for its end");
            }
            let ended = wait_for(socket, number).await?;
            if begun {
                return Ok(Asked::Ended(Box::new(ended)));
            }
        }
    })
}

/// Pauses, and waits until the collection under way has ended; or ends the pause.
fn pause(config: &Config, time: Duration) -> anyhow::Result<()> {
    let in_server = match &config.admin_socket {
        Some(socket) => pause_server(socket, time)?,
        None => None,
    };
    let paused = match in_server {
        Some(status) => status.paused,
        None => gc::pause(config, time)?,
    };
    output::line(&match paused {
        None => "collections begin again".to_owned(),
        Some(seconds) => format!("no collection begins for {seconds} s, whether or not the server is started anew"),
    });
    Ok(())
}

/// `None`: no server runs.
fn pause_server(socket: &Path, time: Duration) -> anyhow::Result<Option<GcStatus>> {
    ask::ask(async {
        let mut status = match admin::pause_gc(socket, time).await {
            Err(AdminError::NotRunning { .. }) => return Ok(None),
            status => status?,
        };
        while status.paused.is_some() && status.running.as_ref().is_some_and(|running| !running.dry_run) {
            tokio::time::sleep(POLL).await;
            status = admin::gc(socket).await?;
        }
        Ok(Some(status))
    })
}

/// A server that stops meanwhile answers no more, and that is an error; one that was started anew knows of nothing.
async fn wait_for(socket: &Path, number: u64) -> Result<GcReport, AdminError> {
    loop {
        let GcStatus { running, last, .. } = admin::gc(socket).await?;
        match (running, last) {
            (Some(running), _) if running.number == number => tokio::time::sleep(POLL).await,
            (_, Some(last)) => return Ok(last),
            (_, None) => {
                let reason = "it was started anew while it collected".to_owned();
                return Err(AdminError::NoAnswer { socket: socket.to_owned(), reason });
            }
        }
    }
}

fn lines(report: &GcReport) -> Vec<String> {
    let mut lines: Vec<String> = report
        .listed
        .iter()
        .map(|one| match (&one.repository, one.bytes) {
            (Some(repository), _) => format!("{} {} of {repository}", one.kind, one.digest),
            (None, bytes) => format!("{} {}: {}", one.kind, one.digest, size(bytes.unwrap_or(0))),
        })
        .collect();
    lines.push(summary(report));
    if report.purged.blobs > 0 {
        lines.push(format!("{} blobs ({}) left the trash for good", report.purged.blobs, size(report.purged.bytes)));
    }
    lines.push(format!(
        "looked at {} repositories, {} manifests, {} blobs",
        report.repositories, report.manifests, report.blobs
    ));
    lines
}

/// What it removed, in one line.
pub(crate) fn summary(report: &GcReport) -> String {
    let GcCounts { manifests, links, blobs, bytes } = report.removed;
    let (verb, place) = if report.dry_run { ("would remove", "") } else { ("removed", ", into the trash") };
    let more = if report.more { " and more" } else { "" };
    format!("{verb} {manifests} manifests, {links} links, {blobs} blobs ({}){place}{more}", size(bytes))
}

/// What stops removals, each with what to type or look at.
fn complaints(report: &GcReport) -> Vec<String> {
    let held = report.held.iter().map(|GcHeld { repository, kind, name, reason }| {
        let fix = match kind.as_str() {
            "manifest" => format!("portcullis delete HOST/{repository}@{name}, if nobody needs it"),
            "tag" => format!("portcullis delete HOST/{repository}:{name}, or push the tag again"),
            "size" => format!("move a part of {repository} to another repository"),
            "algorithm" => format!("push what is needed of {repository} by sha256 to another repository"),
            _ => "push an image with that layer again".to_owned(),
        };
        format!(
            "nothing is removed from {repository}, because of {kind} {}: {}\n  fix: {fix}",
            Visible(name),
            Visible(reason)
        )
    });
    let strangers = report.strangers.iter().map(|path| {
        format!(
            "no blob is removed while `{}` lies among the repositories: no repository can have that name\n  \
             fix: move it out of the data directory",
            Visible(path)
        )
    });
    held.chain(strangers).collect()
}
