//! `portcullis login` and `logout`: user names and passwords, kept where Docker and Podman keep theirs.

use std::ffi::OsString;
use std::io::Read as _;

use anyhow::{Context as _, bail};
use portcullis_certs::ShellCommand;
use portcullis_client::{Client, ClientOptions, Credential, Credentials, Kept, Secret, forget, keep};

use crate::args::{LoginArgs, LogoutArgs};
use crate::cmd::advice::advise_login;
use crate::cmd::{shown, transfer};
use crate::{output, terminal};

/// The longest password, in bytes.
const MAX_PASSWORD: u64 = 64 * 1024;

pub(crate) fn run(args: &LoginArgs) -> anyhow::Result<()> {
    transfer::run_resumable("nothing was kept", async {
        let (username, password) = asked(args).await.map_err(|error| output::with_fix(error, &unattended(args)))?;
        let credential = Credential::Password { username: username.clone(), password: password.clone() };
        let options = ClientOptions { credentials: Credentials::Given(credential), ..transfer::options(&args.client) };
        transfer::check_registry(&args.host, None, &args.client)?;
        let client = Client::connect(&args.host, &options).await.map_err(advise_login)?;
        client.ping().await.map_err(advise_login)?;
        if !client.has_asked_for_login() {
            bail!("{} does not ask for a login, so the password could not be checked: nothing is kept", args.host);
        }
        match keep(&transfer::auth_files(&args.client), &args.host, &username, &password).await? {
            Kept::File(path) => {
                output::line(&format!("logged in to {}, kept in {}", args.host, shown(&path)));
                if !args.client.quiet {
                    output::note("the password is readable in that file; a credential helper (credsStore) hides it");
                }
            }
            Kept::Helper { helper, .. } => {
                output::line(&format!("logged in to {}, kept by {helper}", args.host));
            }
        }
        Ok(())
    })
}

/// The user name and the password, from where they are to come.
async fn asked(args: &LoginArgs) -> anyhow::Result<(String, Secret)> {
    let username = match &args.username {
        Some(username) => username.clone(),
        None => terminal::ask("user name").await?,
    };
    if username.is_empty() || username.contains(':') {
        bail!("{username:?} is no user name: it is empty, or has a colon in it");
    }
    let password =
        if args.password_stdin { transfer::aside(from_stdin).await? } else { terminal::ask_secret("password").await? };
    if password.expose().is_empty() {
        bail!("the password is empty");
    }
    Ok((username, password))
}

/// The same without questions.
fn unattended(args: &LoginArgs) -> ShellCommand {
    let username = args.username.as_deref().unwrap_or("NAME");
    let words = ["portcullis", "login", args.host.as_str(), "--username", username, "--password-stdin"];
    ShellCommand::new(words.map(OsString::from).into_iter().chain(args.client.words()))
}

pub(crate) fn run_logout(args: &LogoutArgs) -> anyhow::Result<()> {
    transfer::run(async {
        let gone = forget(&transfer::auth_files(&args.client), &args.host).await?;
        for kept in &gone {
            let from = match kept {
                Kept::File(path) => shown(path),
                Kept::Helper { helper, .. } => helper.clone(),
            };
            output::line(&format!("logged out of {}: removed from {from}", args.host));
        }
        if gone.is_empty() {
            output::note(&format!("there was no login to {}", args.host));
        }
        Ok(())
    })
}

/// One line end is not part of the password.
fn from_stdin() -> anyhow::Result<Secret> {
    let mut text = String::new();
    #[expect(clippy::disallowed_methods, reason = "--password-stdin asks for it, and it is bounded")]
    let stdin = std::io::stdin();
    stdin.lock().take(MAX_PASSWORD + 1).read_to_string(&mut text).context("cannot read the password")?;
    if text.len() as u64 > MAX_PASSWORD {
        bail!("the password is longer than {MAX_PASSWORD} bytes");
    }
    let length = text.trim_end_matches('\n').trim_end_matches('\r').len();
    text.truncate(length);
    Ok(Secret::new(text))
}
