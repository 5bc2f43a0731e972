//! `portcullis trust add | list | remove`: writes the trust directory and puts it in force.

use portcullis_certs::trust_dir::TrustDir;
use portcullis_certs::{Certificate, Severity};
use portcullis_pki::trust::{self, Role, TrustRole, Trusted};
use serde::Serialize;
use time::OffsetDateTime;

use crate::args::{RoleWord, TrustAddArgs, TrustCommand, TrustListArgs, TrustRemoveArgs};
use crate::cmd::{ask, date};
use crate::home::Home;
use crate::output;

pub(crate) fn run(command: TrustCommand) -> anyhow::Result<()> {
    match command {
        TrustCommand::Add(args) => add(&args),
        TrustCommand::List(args) => list(&args),
        TrustCommand::Remove(args) => remove(&args),
    }
}

fn add(args: &TrustAddArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let role = match args.role {
        None => TrustRole::Auto,
        Some(RoleWord::Ca) => TrustRole::Ca,
        Some(RoleWord::Pin) => TrustRole::Pin,
    };
    let trust = TrustDir::new(home.config()?.trust);
    let lock = home.lock()?;
    let added = trust::add(&trust, &args.file, role, args.name.as_deref(), OffsetDateTime::now_utc())?;
    drop(lock);
    let Trusted { name, role, certificates, .. } = &added.trusted;
    let again = if added.already { "already trusted" } else { "trusted" };
    let who = certificates.first().map(describe).unwrap_or_default();
    match role {
        Role::Pin => output::line(&format!("{again} as pin:{name}, exactly this certificate: {who}")),
        Role::Ca => output::line(&format!("{again} as the CA {name}, with everybody whom it signs: {who}")),
    }
    output::line(&ask::put_in_force(&home)?);
    Ok(())
}

fn remove(args: &TrustRemoveArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let trust = TrustDir::new(home.config()?.trust);
    let lock = home.lock()?;
    let removed = trust::remove(&trust, &args.name)?;
    drop(lock);
    for path in removed {
        output::line(&format!("no longer trusted: removed {}", path.display()));
    }
    output::line(&ask::put_in_force(&home)?);
    Ok(())
}

/// One entry of `trust list --json`. The keys are stable.
#[derive(Serialize)]
struct Listed {
    name: String,
    role: &'static str,
    subject: String,
    fingerprint: String,
    not_after: String,
}

fn list(args: &TrustListArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let (trusted, findings) = trust::list(&TrustDir::new(home.config()?.trust));
    for finding in &findings {
        let severity = if finding.severity == Severity::Fatal { "refused" } else { "warning" };
        output::note(&format!("{severity}: {finding}\n  {}", finding.fix()));
    }
    if args.json {
        return output::json(&trusted.iter().flat_map(listed).collect::<Vec<_>>());
    }
    if trusted.is_empty() {
        output::note("nobody is trusted");
    }
    for entry in &trusted {
        for certificate in &entry.certificates {
            output::line(&format!("{:<4}{:<24}{}", entry.role.to_string(), entry.name, describe(certificate)));
        }
    }
    Ok(())
}

fn listed(trusted: &Trusted) -> impl Iterator<Item = Listed> {
    let role = match trusted.role {
        Role::Ca => "ca",
        Role::Pin => "pin",
    };
    trusted.certificates.iter().map(move |certificate| Listed {
        name: trusted.name.clone(),
        role,
        subject: certificate.facts().subject.to_string(),
        fingerprint: certificate.fingerprint().to_string(),
        not_after: date(certificate.facts().not_after),
    })
}

fn describe(certificate: &Certificate) -> String {
    let facts = certificate.facts();
    format!("{} until {} {}", facts.subject, date(facts.not_after), certificate.fingerprint())
}
