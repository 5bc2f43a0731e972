//! `portcullis status`: what the running server says about itself.

use std::path::Path;

use portcullis_certs::Visible;
use portcullis_server::gc::{GcReport, GcStatus};
use portcullis_server::{SeenClient, Status, admin};

use crate::args::StatusArgs;
use crate::cmd::{self, ask};
use crate::home::Home;
use crate::output;

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.ask.home.home.as_deref())?;
    let socket = ask::socket(&home)?;
    if args.clients {
        return list_clients(&socket, args.ask.json);
    }
    let status = ask::ask(admin::status(&socket))?;
    if args.ask.json {
        return output::json(&status);
    }
    for line in lines(&status) {
        output::line(&line);
    }
    Ok(())
}

fn gc_lines(gc: &GcStatus) -> Vec<String> {
    let running = gc.running.iter().map(|running| {
        let GcReport { begun, doing, repositories, .. } = running;
        format!("gc           runs since {begun}: {doing}, {repositories} repositories looked at")
    });
    let last = gc.last.iter().map(|last| {
        let done = match &last.failed {
            None => cmd::gc::summary(last),
            Some(reason) => format!("ended early: {}", Visible(reason)),
        };
        format!("gc           last {}: {done}", last.ended.as_deref().unwrap_or(&last.begun))
    });
    let held = gc.last.iter().filter(|last| last.repositories_held > 0 || !last.strangers.is_empty()).map(|last| {
        format!("gc           held up in {} repositories; why: portcullis gc --dry-run", last.repositories_held)
    });
    let paused = gc.paused.iter().map(|seconds| format!("gc           paused for another {seconds} s"));
    running.chain(paused).chain(last).chain(held).collect()
}

fn list_clients(socket: &Path, json: bool) -> anyhow::Result<()> {
    let clients = ask::ask(admin::clients(socket))?;
    if json {
        return output::json(&clients);
    }
    for SeenClient { subject, trusted_by, fingerprint, not_after, last_seen, address } in &clients {
        output::line(&format!(
            "until {not_after}  {subject} ({trusted_by}) {fingerprint}, last seen {last_seen} from {address}"
        ));
    }
    if clients.is_empty() {
        output::note("no client was let in within 7 days, or since the server was started");
    }
    Ok(())
}

fn lines(status: &Status) -> Vec<String> {
    let mut lines = vec![
        format!(
            "portcullis {} (pid {}) listens on {} since {}",
            status.version, status.pid, status.listen, status.since
        ),
        format!(
            "trust        generation {} since {}: {} CAs, {} pins",
            status.generation, status.generation_since, status.cas, status.pins
        ),
        format!("certificate  until {}, for {}", status.certificate.not_after, status.certificate.names.join(", ")),
        format!("connections  {} open, {} uploads begun", status.connections, status.open_uploads),
    ];
    lines.extend(gc_lines(&status.gc));
    if status.damaged > 0 {
        lines
            .push(format!("damaged      {} links or manifests, treated as absent; the log names them", status.damaged));
    }
    lines.extend(status.crls.iter().map(|crl| {
        let number = crl.number.as_ref().map(|number| format!(" number {number}")).unwrap_or_default();
        format!("CRL          {}{number}: {} revoked, next due {}", crl.ca, crl.revoked, crl.next_update)
    }));
    lines.extend(status.refused.iter().map(|problem| format!("not in force: {problem}")));
    lines.extend(status.degraded.iter().map(|problem| format!("degraded: {problem}")));
    lines.extend(status.not_ready.iter().map(|problem| format!("not ready: {problem}")));
    lines
}
