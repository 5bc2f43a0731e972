//! `portcullis cert revoke` and `portcullis trust forgive`: what is denied, written down twice (`trust/deny` and `state/`),
//! put in force, and published as our CA's revocation list.

use portcullis_certs::state_dir::StateDir;
use portcullis_certs::trust_dir::TrustDir;
use portcullis_pki::{Authority, Journal, PublishedCrl};
use portcullis_server::Config;
use rustix::process::geteuid;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::args::{CertRevokeArgs, TrustForgiveArgs};
use crate::cmd::{ask, date};
use crate::home::Home;
use crate::output;

pub(crate) fn run(args: &CertRevokeArgs) -> anyhow::Result<()> {
    let home = Home::existing_to_restrict(args.home.home.as_deref())?;
    let config = home.config_as_far_as_it_can_be_read();
    let trust = TrustDir::new(&config.trust);
    let lock = home.lock_for_a_while();
    let now = OffsetDateTime::now_utc();
    let unread = deny(args, &home, &trust, now)?;
    // The deny list is what counts: whatever else goes wrong from here on is told and holds nothing back.
    let in_force = ask::put_restriction_in_force(&config);
    if let Ok(said) = &in_force {
        output::line(said);
    }
    remember(&config, &trust);
    let published = Authority::open(&home.client_ca())
        .map_err(anyhow::Error::from)
        .and_then(|authority| publish(&config, &authority, &trust, now));
    drop(lock);
    tell_published(published);
    in_force?;
    if unread.is_empty() { Ok(()) } else { Err(unsure(args, &home, &unread, now)) }
}

/// Writes the lines; returns those of the journal that cannot be read and may be about certificates that were meant too.
fn deny(args: &CertRevokeArgs, home: &Home, trust: &TrustDir, now: OffsetDateTime) -> anyhow::Result<Vec<usize>> {
    // Not through the authority: its key may be kept elsewhere, and denying needs none. Nor does a fingerprint need the
    // journal.
    let journal = Journal::of(&home.client_ca()).unwrap_or_else(|error| {
        output::warning(&format!("{error}: only a fingerprint can be revoked"));
        Journal::default()
    });
    let note = format!("{}, uid {}, {}: {}", date(now), geteuid().as_raw(), args.target, args.reason);
    let Some(before) = args.before else {
        let revoked = portcullis_pki::revoke(&journal, trust, &args.target, &note, now)?;
        output::line(&revoked.to_string());
        return Ok(revoked.unread);
    };
    let cut_off = (args.target.as_str(), before.0);
    let (rule, already) = portcullis_pki::cut_off(&journal, trust, cut_off, &note, now)?;
    let said = if already { "already revoked" } else { "revoked" };
    output::line(&format!("{said} {rule}"));
    Ok(Vec::new())
}

/// Whoever revokes must know what may still be let in.
fn unsure(args: &CertRevokeArgs, home: &Home, unread: &[usize], now: OffsetDateTime) -> anyhow::Error {
    let journal = home.client_ca().join("issued.jsonl");
    let lines: Vec<String> = unread.iter().map(ToString::to_string).collect();
    let moment = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
    let before = home.command(&["cert", "revoke", &args.target, "--before", &moment]);
    anyhow::anyhow!(
        "revoked what is above, and perhaps not all: {} cannot be read in line {}; a certificate of {} that is written there is still let in\n  deny whatever was issued to that name until now: {before}\n  then remove the lines: one that a crash cut short stands for no certificate",
        journal.display(),
        lines.join(", "),
        args.target
    )
}

pub(crate) fn forgive(args: &TrustForgiveArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let config = home.config()?;
    let trust = TrustDir::new(&config.trust);
    let lock = home.lock()?;
    portcullis_pki::forgive(&trust, &StateDir::new(&config.state), &args.entry)?;
    output::line(&format!("forgiven: {}", args.entry));
    // Where the CA's key is elsewhere, so is its list.
    if let Ok(authority) = Authority::open(&home.client_ca()) {
        tell_published(publish(&config, &authority, &trust, OffsetDateTime::now_utc()));
    }
    drop(lock);
    output::line(&ask::put_in_force(&home)?);
    Ok(())
}

/// Our CA's list as it should be now; nothing where it is so already.
pub(crate) fn publish(
    config: &Config,
    authority: &Authority,
    trust: &TrustDir,
    now: OffsetDateTime,
) -> anyhow::Result<Option<PublishedCrl>> {
    let (state, _) = StateDir::new(&config.state).read();
    Ok(portcullis_pki::publish_crl(authority, trust, &state.deny, now)?)
}

fn remember(config: &Config, trust: &TrustDir) {
    let state = StateDir::new(&config.state);
    let remembered = state.lock().and_then(|lock| state.remember(&lock, &trust.read().0.deny, []));
    if let Err(error) = remembered {
        output::warning(&format!("not written down in {}: {error}", state.root().display()));
    }
}

fn tell_published(published: anyhow::Result<Option<PublishedCrl>>) {
    match published {
        Ok(Some(crl)) => output::line(&format!(
            "revocation list for other servers (nginx ssl_crl): {}, {} revoked, next due {}",
            crl.path.display(),
            crl.revoked,
            date(crl.next_update)
        )),
        Ok(None) => {}
        Err(error) => output::warning(&format!(
            "the revocation list for other servers is not made anew: {error}; once the CA's ca.key is in place and can be read, type the same command again"
        )),
    }
}
