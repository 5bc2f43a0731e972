//! `portcullis trust add | list | remove | forgive`: writes the trust directory and puts it in force.

use portcullis_certs::trust_dir::TrustDir;
use portcullis_certs::{Certificate, Severity};
use portcullis_pki::PkiError;
use portcullis_pki::trust::{self, Role, TrustRole, Trusted};
use serde::Serialize;
use time::OffsetDateTime;

use crate::args::{RoleWord, TrustAddArgs, TrustCommand, TrustListArgs, TrustRemoveArgs};
use crate::cmd::{ask, date, revoke};
use crate::home::Home;
use crate::output;

pub(crate) fn run(command: TrustCommand) -> anyhow::Result<()> {
    match command {
        TrustCommand::Add(args) => add(&args),
        TrustCommand::List(args) => list(&args),
        TrustCommand::Remove(args) => remove(&args),
        TrustCommand::Forgive(args) => revoke::forgive(&args),
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
    let added = trust::add(&trust, &args.file, role, args.name.as_deref(), OffsetDateTime::now_utc());
    let added = added.map_err(|error| with_home(error, &home, args))?;
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

/// The commands to choose from, for this home.
fn with_home(error: PkiError, home: &Home, args: &TrustAddArgs) -> anyhow::Error {
    let PkiError::RoleNeeded { as_pin, .. } = &error else { return error.into() };
    let file = args.file.to_string_lossy();
    let command = |role: &str| {
        let name = args.name.iter().flat_map(|name| ["--name", name.as_str()]);
        home.command(&["trust", "add", &file, "--as", role].into_iter().chain(name).collect::<Vec<_>>())
    };
    let choice = |what: &str, role: &str| format!("\n  {what}:\n    {}", command(role));
    let pin = as_pin.as_ref().map(|_| choice("exactly this certificate, and nobody whom it signs", "pin"));
    let text = format!(
        "{} may be a CA or a client's own certificate; say which:{}{}",
        args.file.display(),
        pin.unwrap_or_default(),
        choice("everybody whom it signs", "ca")
    );
    anyhow::Error::msg(text)
}

fn remove(args: &TrustRemoveArgs) -> anyhow::Result<()> {
    let home = Home::existing_to_restrict(args.home.home.as_deref())?;
    let config = home.config_as_far_as_it_can_be_read();
    let trust = TrustDir::new(&config.trust);
    let lock = home.lock_for_a_while();
    let removed = trust::remove(&trust, &args.name, OffsetDateTime::now_utc())?;
    drop(lock);
    for path in removed.paths {
        output::line(&format!("no longer trusted: removed {}", path.display()));
    }
    output::line(&ask::put_restriction_in_force(&config)?);
    for (fingerprint, ca) in &removed.still_let_in {
        let revoke = home.command(&["cert", "revoke", &fingerprint.to_string()]);
        output::warning(&format!(
            "the CA {ca}, which is trusted, issued this certificate: without its pin it has the rights of that CA's clients\n  keep it out: {revoke}"
        ));
    }
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
