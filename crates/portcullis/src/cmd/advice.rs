//! What to type next, where an error of a registry's client and the words of the command together say it. Knows what was
//! typed, and nothing of what was done.

use std::ffi::OsString;

use portcullis_certs::ShellCommand;
use portcullis_client::{Answer, ClientError, Refusal};
use portcullis_oci::{Endpoint, ErrorCode, Reference, RegistryHost, RepositoryName};

use crate::args::{ClientArgs, Command};
use crate::output;

/// What a command asks registries for.
pub(crate) struct Asked(Vec<Place>);

/// A registry as it was typed, with how it is reached.
struct Place {
    host: RegistryHost,
    repository: Option<RepositoryName>,
    words: Vec<OsString>,
}

impl Asked {
    pub(crate) fn by(command: &Command) -> Self {
        let image = |reference: &Reference, client: &ClientArgs| {
            Place::new(&reference.host, Some(&reference.repository), client)
        };
        Self(match command {
            Command::Pull(args) => vec![image(&args.reference, &args.client)],
            Command::Push(args) => vec![image(&args.reference, &args.client)],
            Command::Manifest(args) => vec![image(&args.reference, &args.client)],
            Command::Referrers(args) => vec![image(&args.reference, &args.client)],
            Command::Diff(args) => [&args.first, &args.second].map(|one| image(one, &args.client)).into(),
            Command::Copy(args) => vec![
                image(&args.from, &args.client(args.src_cert_dir.as_deref())),
                image(&args.to, &args.client(args.dest_cert_dir.as_deref())),
            ],
            Command::Tags(args) => {
                vec![Place::new(&args.repository.host, Some(&args.repository.repository), &args.client)]
            }
            Command::Delete(args) => vec![Place::new(&args.place.host, Some(&args.place.repository), &args.client)],
            Command::Catalog(args) => vec![Place::new(&args.host, None, &args.client)],
            _ => Vec::new(),
        })
    }

    /// The error with the command, if there is one.
    pub(crate) fn advise(&self, error: anyhow::Error) -> anyhow::Error {
        let fix = error.downcast_ref().and_then(|error| self.0.iter().find_map(|place| place.fix(error)));
        match fix {
            Some(fix) => output::with_fix(error, &fix),
            None => error,
        }
    }
}

impl Place {
    fn new(host: &RegistryHost, repository: Option<&RepositoryName>, client: &ClientArgs) -> Self {
        Self { host: host.clone(), repository: repository.cloned(), words: client.words() }
    }

    fn fix(&self, error: &ClientError) -> Option<ShellCommand> {
        let host = self.host.to_string();
        match error {
            ClientError::Refused { host: asked, attempts } if *asked == self.host => {
                let wants_login = |refusal: &Refusal| match refusal {
                    Refusal::Answer(answer) => answer.wants_login(),
                    Refusal::Handshake(_) => false,
                };
                attempts.iter().any(|one| wants_login(&one.refusal)).then(|| self.command("login", host))
            }
            ClientError::Status { host: asked, answer, .. } if *asked == self.host && answer.wants_login() => {
                Some(self.command("login", host))
            }
            ClientError::Status { request, answer, .. } if answer.is_not_found() => {
                let (is_manifest, repository) = asked_for(request)?;
                if self.repository.as_ref() != Some(&repository) {
                    return None;
                }
                if answer.errors.iter().any(|one| one.code == ErrorCode::NameUnknown.as_str()) {
                    return Some(self.command("catalog", host));
                }
                is_manifest.then(|| self.command("tags", format!("{host}/{repository}")))
            }
            _ => None,
        }
    }

    fn command(&self, verb: &str, place: String) -> ShellCommand {
        let words = ["portcullis".into(), verb.into(), place.into()];
        ShellCommand::new(words.into_iter().chain(self.words.iter().cloned()))
    }
}

/// Whether a request, by method and path, is for a manifest, and the repository that it is for.
fn asked_for(request: &str) -> Option<(bool, RepositoryName)> {
    let (method, path) = request.split_once(' ')?;
    match Endpoint::parse(&method.parse().ok()?, path, None).ok()? {
        Endpoint::GetManifest { repository, .. }
        | Endpoint::HeadManifest { repository, .. }
        | Endpoint::DeleteManifest { repository, .. } => Some((true, repository)),
        Endpoint::ListTags { repository, .. } | Endpoint::Referrers { repository, .. } => Some((false, repository)),
        _ => None,
    }
}

/// What is wrong where a password was just typed.
pub(crate) fn advise_login(error: ClientError) -> anyhow::Error {
    let is_refused = |answer: &Answer| answer.status == 401 && answer.wants_login();
    let wrong = match &error {
        ClientError::Refused { attempts, .. } => {
            attempts.iter().any(|one| matches!(&one.refusal, Refusal::Answer(answer) if is_refused(answer)))
        }
        ClientError::Status { answer, .. } => is_refused(answer),
        _ => false,
    };
    if wrong {
        return output::with_fix(
            error.into(),
            &"the registry does not take this user name and password: type them again",
        );
    }
    error.into()
}
