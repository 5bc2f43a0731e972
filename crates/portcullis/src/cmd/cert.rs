//! `portcullis cert new client | new server`, and the other verbs of `cert`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use portcullis_certs::Certificate;
use portcullis_certs::state_dir::StateDir;
use portcullis_certs::trust_dir::{DenyEntry, TrustDir};
use portcullis_pki::{Authority, ClientRequest, KeySource, issue_client, latest_cut_off};
use portcullis_server::Config;
use portcullis_tls::DenyList;
use time::{Duration, OffsetDateTime};

use crate::args::{CertCommand, CertNew, NewClientArgs, NewServerArgs};
use crate::cmd::up::{add_names, leaf, server_names};
use crate::cmd::{ask, date, lint, renew, revoke, show};
use crate::home::{self, Home};
use crate::{names, output};

pub(crate) fn run(command: CertCommand) -> anyhow::Result<()> {
    match command {
        CertCommand::New(CertNew::Client(args)) => new_client(&args),
        CertCommand::New(CertNew::Server(args)) => new_server(&args),
        CertCommand::Show(args) => show::run(&args),
        CertCommand::Lint(args) => lint::run(&args),
        CertCommand::Renew(args) => renew::run(&args),
        CertCommand::Revoke(args) => revoke::run(&args),
    }
}

fn new_client(args: &NewClientArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let lock = home.lock()?;
    let now = OffsetDateTime::now_utc();
    let config = home.config()?;
    let directory = home.client(args.name.as_str());
    let path = directory.join("client.cert");
    let mut existing = if path.exists() { Some(leaf(&path)?) } else { None };
    if existing.as_ref().is_some_and(|existing| is_denied(&home, &config, existing)) {
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
                not_before: cut_off(&config),
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

/// What is denied, by the list and by what is remembered of it.
fn denied(config: &Config) -> Vec<DenyEntry> {
    let mut denied = TrustDir::new(&config.trust).read().0.deny;
    denied.extend(StateDir::new(&config.state).read().0.deny);
    denied
}

/// Whether this very certificate is on the deny list, or was and is not forgiven.
pub(crate) fn is_denied(home: &Home, config: &Config, certificate: &Certificate) -> bool {
    let trusted = TrustDir::new(&config.trust).read().0.cas;
    // Of a CA that is no longer trusted here the lines about serials count as well.
    let own = leaf(&home.client_ca().join("ca.crt")).ok();
    let cas = trusted.iter().flat_map(|ca| &ca.certificates).chain(&own);
    DenyList::of(&denied(config)).denies(certificate, cas)
}

/// When a new certificate may begin at the earliest, lest a cut-off denies it too.
pub(crate) fn cut_off(config: &Config) -> Option<OffsetDateTime> {
    latest_cut_off(&denied(config))
}

/// Whether a directory of clients is one that was moved out of the way.
pub(crate) fn is_set_aside(name: &OsStr) -> bool {
    name.to_string_lossy().contains(".revoked-")
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
