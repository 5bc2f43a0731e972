//! `portcullis cert revoke` and `portcullis trust forgive`: what is denied, written down twice (`trust/deny` and `state/`),
//! put in force, and published as our CA's revocation list.

use portcullis_certs::state_dir::StateDir;
use portcullis_certs::trust_dir::TrustDir;
use portcullis_pki::{Authority, Journal, PublishedCrl};
use portcullis_server::Config;
use rustix::process::geteuid;
use time::OffsetDateTime;

use crate::args::{CertRevokeArgs, TrustForgiveArgs};
use crate::cmd::{ask, date};
use crate::home::Home;
use crate::output;

pub(crate) fn run(args: &CertRevokeArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let config = home.config()?;
    let trust = TrustDir::new(&config.trust);
    let lock = home.lock()?;
    let now = OffsetDateTime::now_utc();
    // Not through the authority: its key may be kept elsewhere, and denying needs none.
    let journal = Journal::of(&home.client_ca())?;
    let note = format!("{}, uid {}, {}: {}", date(now), geteuid().as_raw(), args.target, args.reason);
    match args.before {
        None => {
            let revoked = portcullis_pki::revoke(&journal, &trust, &args.target, &note, now)?;
            output::line(&revoked.to_string());
        }
        Some(before) => {
            let cut_off = (args.target.as_str(), before.0);
            let (rule, already) = portcullis_pki::cut_off(&journal, &trust, cut_off, &note, now)?;
            let said = if already { "already revoked" } else { "revoked" };
            output::line(&format!("{said} {rule}"));
        }
    }
    // The deny list is what counts: whatever else goes wrong from here on is told and holds nothing back.
    remember(&config, &trust);
    let published = Authority::open(&home.client_ca())
        .map_err(anyhow::Error::from)
        .and_then(|authority| publish(&config, &authority, &trust, now));
    drop(lock);
    output::line(&ask::put_deny_in_force(&home)?);
    tell_published(published);
    Ok(())
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
    if let Err(error) = state.remember(&trust.read().0.deny, []) {
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
