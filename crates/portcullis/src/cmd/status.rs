//! `portcullis status`: what the running server says about itself.

use portcullis_server::{Status, admin};

use crate::args::AskArgs;
use crate::cmd::ask;
use crate::home::Home;
use crate::output;

pub(crate) fn run(args: &AskArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let status = ask::ask(admin::status(&ask::socket(&home)?))?;
    if args.json {
        return output::json(&status);
    }
    for line in lines(&status) {
        output::line(&line);
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
    if status.damaged > 0 {
        lines
            .push(format!("damaged      {} links or manifests, treated as absent; the log names them", status.damaged));
    }
    lines.extend(status.refused.iter().map(|problem| format!("not in force: {problem}")));
    lines.extend(status.not_ready.iter().map(|problem| format!("not ready: {problem}")));
    lines
}
