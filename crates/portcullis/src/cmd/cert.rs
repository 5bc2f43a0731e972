//! `portcullis cert new client | new server | show | lint | revoke`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use portcullis_certs::Certificate;
use portcullis_certs::trust_dir::{DenyRule, TrustDir};
use portcullis_pki::{Authority, ClientRequest, KeySource, issue_client};
use rustix::process::geteuid;
use time::{Duration, OffsetDateTime};

use crate::args::{CertCommand, CertNew, CertRevokeArgs, NewClientArgs, NewServerArgs};
use crate::cmd::up::{add_names, leaf, server_names};
use crate::cmd::{ask, date, lint, show};
use crate::home::{self, Home};
use crate::{names, output};

pub(crate) fn run(command: CertCommand) -> anyhow::Result<()> {
    match command {
        CertCommand::New(CertNew::Client(args)) => new_client(&args),
        CertCommand::New(CertNew::Server(args)) => new_server(&args),
        CertCommand::Show(args) => show::run(&args),
        CertCommand::Lint(args) => lint::run(&args),
        CertCommand::Revoke(args) => revoke(&args),
    }
}

fn new_client(args: &NewClientArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let lock = home.lock()?;
    let now = OffsetDateTime::now_utc();
    let config = home.config()?;
    let trust = TrustDir::new(&config.trust);
    let directory = home.client(args.name.as_str());
    let path = directory.join("client.cert");
    let mut existing = if path.exists() { Some(leaf(&path)?) } else { None };
    if existing.as_ref().is_some_and(|existing| is_denied(&trust, existing)) {
        let aside = set_aside(&directory)?;
        output::line(&format!("the certificate before is revoked; its files are in {}", aside.display()));
        existing = None;
    }
    let certificate = match existing.filter(|existing| existing.facts().not_after > now) {
        Some(existing) => {
            output::line(&format!("already so: {} has a certificate", args.name));
            existing
        }
        None => {
            let server_ca = leaf(&home.server_ca().join("ca.crt"))?;
            let request = ClientRequest {
                key: KeySource::at(directory.join("client.key"), args.alg),
                lifetime: Duration::days(i64::from(args.days)),
                ..ClientRequest::new(args.name.clone())
            };
            let issued = issue_client(&Authority::open(&home.client_ca())?, &request, now)?;
            issued.write_client(&directory, &server_ca)?;
            output::line(&format!("made a client certificate for {}", args.name));
            issued.certificate().clone()
        }
    };
    drop(lock);
    output::line(&format!("  {}", directory.display()));
    output::line(&format!("  until {}, {}", date(certificate.facts().not_after), certificate.fingerprint()));
    let typed = names::to_type(&server_names(&leaf(&config.certificate)?), config.listen);
    output::line("on the host that will use it (copy the directory there first):");
    output::line(&format!("  {}", home::install_command(&typed.host, &directory)));
    Ok(())
}

/// Whether this very certificate, or its key, is on the deny list.
fn is_denied(trust: &TrustDir, certificate: &Certificate) -> bool {
    trust.read().0.deny.iter().any(|entry| match &entry.rule {
        DenyRule::Certificate(fingerprint) => *fingerprint == certificate.fingerprint(),
        DenyRule::Key(key) => *key == certificate.facts().key_hash,
        DenyRule::Serial { .. } | DenyRule::Name { .. } => false,
    })
}

/// Moves a client's directory out of the way. A key is never overwritten, and never used again once it is revoked.
fn set_aside(directory: &Path) -> anyhow::Result<PathBuf> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let mut names = (1..1000).map(|n| directory.with_file_name(format!("{name}.revoked-{n}")));
    let aside =
        names.find(|path| !path.exists()).context("there are 1,000 revoked directories of this client: remove some")?;
    fs::rename(directory, &aside).with_context(|| format!("cannot move {}", directory.display()))?;
    Ok(aside)
}

fn revoke(args: &CertRevokeArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let trust = TrustDir::new(home.config()?.trust);
    let lock = home.lock()?;
    let now = OffsetDateTime::now_utc();
    let journal = Authority::open(&home.client_ca())?.journal()?;
    let note = format!("{}, uid {}, {}: {}", date(now), geteuid().as_raw(), args.target, args.reason);
    let revoked = portcullis_pki::revoke(&journal, &trust, &args.target, &note, now)?;
    drop(lock);
    output::line(&revoked.to_string());
    output::line(&ask::put_deny_in_force(&home)?);
    Ok(())
}

fn new_server(args: &NewServerArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let lock = home.lock()?;
    let is_new = add_names(&home, &args.names)?;
    drop(lock);
    let certificate = leaf(&home.server().join("server.crt"))?;
    let names: Vec<String> = server_names(&certificate).iter().map(ToString::to_string).collect();
    let said = if is_new { "made a server certificate" } else { "already so: the server certificate is" };
    output::line(&format!("{said} for {}", names.join(", ")));
    output::line(&format!("  until {}, {}", date(certificate.facts().not_after), certificate.fingerprint()));
    if is_new {
        output::line(&ask::put_in_force(&home)?);
    }
    Ok(())
}
