//! `portcullis cert new client | new server | show`.

use portcullis_certs::ShellCommand;
use portcullis_pki::{Authority, ClientRequest, KeySource, issue_client};
use time::{Duration, OffsetDateTime};

use crate::args::{CertCommand, CertNew, NewClientArgs, NewServerArgs};
use crate::cmd::up::{add_names, leaf, server_names};
use crate::cmd::{ask, date, show};
use crate::home::{self, Home};
use crate::{names, output};

pub(crate) fn run(command: CertCommand) -> anyhow::Result<()> {
    match command {
        CertCommand::New(CertNew::Client(args)) => new_client(&args),
        CertCommand::New(CertNew::Server(args)) => new_server(&args),
        CertCommand::Show(args) => show::run(&args),
    }
}

fn new_client(args: &NewClientArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let lock = home.lock()?;
    let now = OffsetDateTime::now_utc();
    let directory = home.client(args.name.as_str());
    let path = directory.join("client.cert");
    let existing = if path.exists() { Some(leaf(&path)?) } else { None };
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
    let config = home.config()?;
    let typed = names::to_type(&server_names(&leaf(&config.certificate)?), config.listen);
    let install = ShellCommand::new([
        "sudo".into(),
        home::program(),
        "install".into(),
        typed.host.into(),
        "--from".into(),
        directory.into(),
    ]);
    output::line("on the host that will use it (copy the directory there first):");
    output::line(&format!("  {install}"));
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
