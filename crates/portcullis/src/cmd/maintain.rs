//! What a registry's certificates need as time goes by: its own is renewed from two thirds of its life on, and the
//! clients' CA's revocation list once a day. One function: `up` runs it each hour, `portcullis maintain` is the same for a
//! timer beside `serve`, which never opens a CA's key.

use std::time::Duration;

use anyhow::{Context, bail};
use portcullis_certs::Certificate;
use portcullis_certs::trust_dir::TrustDir;
use portcullis_pki::Authority;
use portcullis_server::Config;
use time::OffsetDateTime;

use crate::args::MaintainArgs;
use crate::cmd::up::{issue_server_certificate, leaf, server_names};
use crate::cmd::{ask, date, revoke};
use crate::home::Home;
use crate::output;

const PERIOD: Duration = Duration::from_hours(1);

pub(crate) fn run(args: &MaintainArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let done = maintain(&home, OffsetDateTime::now_utc())?;
    if done.is_empty() {
        output::line("nothing is due");
        return Ok(());
    }
    for line in done {
        output::line(&line);
    }
    output::line(&ask::put_in_force(&home)?);
    Ok(())
}

/// Renews what is due, and says what was done. A CA that is not here is nobody's to use here: that is no error.
///
/// # Errors
/// Everything that went wrong; what else was due is done all the same.
pub(crate) fn maintain(home: &Home, now: OffsetDateTime) -> anyhow::Result<Vec<String>> {
    let _lock = home.lock()?;
    let config = home.config()?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for outcome in [renew_server(home, &config, now), renew_list(home, &config, now)] {
        match outcome {
            Ok(line) => done.extend(line),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("\n  "));
    }
    Ok(done)
}

/// Each hour, in a thread of its own, until the process ends; the log tells what was done.
pub(crate) fn keep_up(home: Home) -> std::io::Result<()> {
    std::thread::Builder::new().name("maintain".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(PERIOD);
            match maintain(&home, OffsetDateTime::now_utc()) {
                Ok(done) => done.iter().for_each(|line| tracing::info!("{line}")),
                Err(error) => tracing::error!(%error, "what is due cannot be renewed"),
            }
        }
    })?;
    Ok(())
}

/// With the key it has: one file changes, and no reader ever sees a pair that does not fit.
fn renew_server(home: &Home, config: &Config, now: OffsetDateTime) -> anyhow::Result<Option<String>> {
    let path = home.server().join("server.crt");
    if config.certificate != path || !home.server_ca().join("ca.key").exists() {
        return Ok(None);
    }
    let old = leaf(&path)?;
    let authority = Authority::open(&home.server_ca())?;
    // One of another CA was put there by somebody who renews it.
    if !is_due(&old, now) || !old.is_signed_by(authority.certificate()) {
        return Ok(None);
    }
    issue_server_certificate(&authority, home, server_names(&old), now).context("the server's certificate")?;
    Ok(Some(format!("renewed the server's certificate: until {}", date(leaf(&path)?.facts().not_after))))
}

fn renew_list(home: &Home, config: &Config, now: OffsetDateTime) -> anyhow::Result<Option<String>> {
    if !home.client_ca().join("ca.key").exists() {
        return Ok(None);
    }
    let authority = Authority::open(&home.client_ca())?;
    let published = revoke::publish(config, &authority, &TrustDir::new(&config.trust), now);
    let published = published.context("the clients' revocation list")?;
    Ok(published
        .map(|crl| format!("made the revocation list {}: good until {}", crl.path.display(), date(crl.next_update))))
}

/// From two thirds of its life on.
pub(crate) fn is_due(certificate: &Certificate, now: OffsetDateTime) -> bool {
    let facts = certificate.facts();
    facts.not_after - now <= (facts.not_after - facts.not_before) / 3
}
