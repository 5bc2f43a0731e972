//! What a token is for (distribution's `docs/spec/auth/scope.md`): `repository:team/app:pull,push`.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_oci::route::UploadStart;
use portcullis_oci::{Endpoint, RepositoryName};

/// The most scopes that a registry may ask for in one challenge.
const MAX_ASKED: usize = 8;

/// Resources, `type:name`, each with the actions on it. Sorted, so that the same needs are the same text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scopes {
    resources: BTreeMap<String, BTreeSet<String>>,
    /// The repository that the request is about.
    repository: Option<RepositoryName>,
}

impl Scopes {
    /// What a request needs.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Base => Self::default(),
            Endpoint::Catalog { .. } => Self::default().with("registry:catalog".to_owned(), &["*"]),
            Endpoint::ListTags { repository, .. }
            | Endpoint::Referrers { repository, .. }
            | Endpoint::GetManifest { repository, .. }
            | Endpoint::HeadManifest { repository, .. }
            | Endpoint::GetBlob { repository, .. }
            | Endpoint::HeadBlob { repository, .. } => Self::pull(repository),
            Endpoint::DeleteManifest { repository, .. } | Endpoint::DeleteBlob { repository, .. } => {
                Self::about(repository, &["delete", "pull"])
            }
            Endpoint::StartUpload { repository, start: UploadStart::Mount { from: Some(from), .. } } => {
                Self::push(repository).with(resource(from), &["pull"])
            }
            Endpoint::PutManifest { repository, .. }
            | Endpoint::StartUpload { repository, .. }
            | Endpoint::UploadStatus { repository, .. }
            | Endpoint::AppendUpload { repository, .. }
            | Endpoint::FinishUpload { repository, .. }
            | Endpoint::CancelUpload { repository, .. } => Self::push(repository),
        }
    }

    pub(crate) fn pull(repository: &RepositoryName) -> Self {
        Self::about(repository, &["pull"])
    }

    pub(crate) fn push(repository: &RepositoryName) -> Self {
        Self::about(repository, &["pull", "push"])
    }

    /// Takes in what the registry asks for: another name for the repository (behind a mirror), but no action that the
    /// request does not need. So a registry cannot get a pull to fetch it a token for pushing.
    pub(crate) fn with_asked(mut self, asked: &str) -> Self {
        let needed: BTreeSet<String> = self.resources.values().flatten().cloned().collect();
        for scope in asked.split(' ').filter(|scope| !scope.is_empty()).take(MAX_ASKED) {
            // `type:name:actions`; a name may hold colons.
            let Some((resource, actions)) = scope.rsplit_once(':') else { continue };
            let actions: BTreeSet<String> = actions.split(',').map(str::to_owned).collect();
            if resource.starts_with("repository:") && actions.is_subset(&needed) {
                self.resources.entry(resource.to_owned()).or_default().extend(actions);
            }
        }
        self
    }

    /// Whether a token for these does for `others`.
    pub(crate) fn cover(&self, others: &Self) -> bool {
        others
            .resources
            .iter()
            .all(|(resource, actions)| self.resources.get(resource).is_some_and(|own| actions.is_subset(own)))
    }

    /// One text for each resource.
    pub(crate) fn texts(&self) -> impl Iterator<Item = String> {
        self.resources.iter().map(|(resource, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }

    /// The repository whose credential it takes.
    pub(crate) fn repository(&self) -> Option<&RepositoryName> {
        self.repository.as_ref()
    }

    fn about(repository: &RepositoryName, actions: &[&str]) -> Self {
        Self { repository: Some(repository.clone()), ..Self::default() }.with(resource(repository), actions)
    }

    fn with(mut self, resource: String, actions: &[&str]) -> Self {
        self.resources.entry(resource).or_default().extend(actions.iter().map(|action| (*action).to_owned()));
        self
    }
}

fn resource(repository: &RepositoryName) -> String {
    format!("repository:{repository}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scopes: &Scopes) -> Vec<String> {
        scopes.texts().collect()
    }

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    #[test]
    fn what_each_request_needs() {
        let digest = portcullis_oci::Digest::of(portcullis_oci::Algorithm::Sha256, b"");
        let mount = |from| Endpoint::StartUpload { repository: name("b"), start: UploadStart::Mount { digest, from } };
        let head = Endpoint::HeadBlob { repository: name("a/b"), digest };
        assert_eq!(texts(&Scopes::of(&head)), ["repository:a/b:pull"]);
        let both = Scopes::of(&mount(Some(name("a"))));
        assert_eq!(texts(&both), ["repository:a:pull", "repository:b:pull,push"]);
        assert_eq!(texts(&Scopes::of(&mount(Some(name("b"))))), ["repository:b:pull,push"]);
        assert_eq!(texts(&Scopes::of(&mount(None))), ["repository:b:pull,push"]);
        assert_eq!(
            texts(&Scopes::of(&Endpoint::DeleteBlob { repository: name("a"), digest })),
            ["repository:a:delete,pull"]
        );
        let catalog = Endpoint::Catalog { page: portcullis_oci::route::Page::default() };
        assert_eq!(texts(&Scopes::of(&catalog)), ["registry:catalog:*"]);
        assert!(texts(&Scopes::of(&Endpoint::Base)).is_empty());
    }

    #[test]
    fn a_token_for_more_does_for_less() {
        let (pull, push) = (Scopes::pull(&name("a")), Scopes::push(&name("a")));
        assert!(push.cover(&pull) && pull.cover(&pull) && pull.cover(&Scopes::default()));
        assert!(!pull.cover(&push) && !push.cover(&Scopes::pull(&name("ab"))));
    }

    #[test]
    fn a_registry_gets_no_more_than_the_request_needs() {
        let asked = |scopes: Scopes, asked: &str| texts(&scopes.with_asked(asked));
        let pull = || Scopes::pull(&name("a"));
        assert_eq!(asked(pull(), "repository:proxy/a:pull"), ["repository:a:pull", "repository:proxy/a:pull"]);
        for greedy in [
            "repository:a:pull,push",
            "repository:b:push",
            "repository:b:*",
            "repository:b:",
            "registry:catalog:*",
            "repository",
            "",
            "   ",
        ] {
            assert_eq!(asked(pull(), greedy), ["repository:a:pull"], "{greedy}");
        }
        assert!(asked(Scopes::default(), "repository:a:pull").is_empty());
        let many = "repository:x:pull ".repeat(MAX_ASKED) + "repository:y:pull";
        assert_eq!(asked(pull(), &many), ["repository:a:pull", "repository:x:pull"]);
    }
}
