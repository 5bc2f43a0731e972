//! `portcullis cert renew`: new certificates for clients of our own CA, with the keys they have.

use anyhow::{Context, bail};
use portcullis_certs::Certificate;
use portcullis_pki::{Authority, ClientName, ClientRequest, KeySource, issue_client};
use time::OffsetDateTime;

use crate::args::CertRenewArgs;
use crate::cmd::cert::{cut_off, is_denied, is_set_aside};
use crate::cmd::date;
use crate::cmd::maintain::is_due;
use crate::cmd::up::leaf;
use crate::home::Home;
use crate::output;

pub(crate) fn run(args: &CertRenewArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let _lock = home.lock()?;
    let now = OffsetDateTime::now_utc();
    let authority = Authority::open(&home.client_ca())?;
    let names = if args.all { all(&home)? } else { args.names.clone() };
    let mut failed = Vec::new();
    for name in &names {
        if let Err(error) = renew(&home, &authority, name, args.all, now) {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    if !failed.is_empty() {
        bail!("not renewed:\n  {}", failed.join("\n  "));
    }
    Ok(())
}

/// One that was named is renewed whenever it is asked for; among all, those that are due.
fn renew(
    home: &Home,
    authority: &Authority,
    name: &ClientName,
    only_due: bool,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    let config = home.config()?;
    let directory = home.client(name.as_str());
    let old = leaf(&directory.join("client.cert")).with_context(|| {
        format!("no such client; make it: {}", home.command(&["cert", "new", "client", name.as_str()]))
    })?;
    if is_denied(home, &config, &old) {
        bail!("it is revoked; for a new key: {}", home.command(&["cert", "new", "client", name.as_str()]));
    }
    if only_due && !is_due(&old, now) {
        output::line(&format!("{name}: not due, until {}", date(old.facts().not_after)));
        return Ok(());
    }
    let request = ClientRequest {
        key: KeySource::Existing(directory.join("client.key")),
        lifetime: life(&old),
        not_before: cut_off(&config),
        ..ClientRequest::new(name.clone())
    };
    let issued = issue_client(authority, &request, now)?;
    issued.write_client(&directory, &leaf(&home.server_ca().join("ca.crt"))?)?;
    output::line(&format!("{name}: renewed until {}", date(issued.certificate().facts().not_after)));
    output::line(&format!("  copy {} to its host", directory.join("client.cert").display()));
    Ok(())
}

/// As long as before; the hour of backdating is not part of what was asked for.
fn life(old: &Certificate) -> time::Duration {
    let facts = old.facts();
    (facts.not_after - facts.not_before - portcullis_pki::profile::BACKDATE).max(time::Duration::MINUTE)
}

/// Every client that has a certificate here.
fn all(home: &Home) -> anyhow::Result<Vec<ClientName>> {
    let clients = home.client("");
    let entries = std::fs::read_dir(&clients).with_context(|| format!("cannot read {}", clients.display()))?;
    let mut names: Vec<ClientName> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("client.cert").exists() && !is_set_aside(&entry.file_name()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    Ok(names)
}
