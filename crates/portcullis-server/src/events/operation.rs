//! What a request is about, in the few words that a counter's label and an audit line need.

use std::borrow::Cow;

use http::StatusCode;
use portcullis_oci::{Digest, Endpoint, ManifestReference, RepositoryName, RouteError, UploadStart};

/// One request's endpoint; with the repository and what it names there.
#[derive(Debug)]
pub(crate) struct Operation {
    name: &'static str,
    kind: Kind,
    repository: Option<RepositoryName>,
    reference: Option<ManifestReference>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing in a repository.
    Other,
    Pull,
    /// What ends with 201 has put something into a repository.
    Push,
    /// What ends with 202 has taken something out of one.
    Delete,
    /// A step of a push, or its end: an upload that is asked about, gone on with or given up.
    Upload,
}

/// The path of a request as a log may have it: an upload's id is left out, since whoever has it may write to the upload.
pub(crate) fn loggable<'p>(endpoint: &Result<Endpoint, RouteError>, path: &'p str) -> Cow<'p, str> {
    use Endpoint as E;
    match (endpoint, path.rsplit_once('/')) {
        (
            Ok(E::UploadStatus { .. } | E::AppendUpload { .. } | E::CancelUpload { .. } | E::FinishUpload { .. }),
            Some((uploads, _)),
        ) => Cow::Owned(format!("{uploads}/…")),
        _ => Cow::Borrowed(path),
    }
}

impl Operation {
    pub(crate) fn of(endpoint: &Result<Endpoint, RouteError>) -> Self {
        use Endpoint as E;
        let Ok(endpoint) = endpoint else { return Self::new("none", Kind::Other) };
        match endpoint {
            E::Base => Self::new("base", Kind::Other),
            E::Catalog { .. } => Self::new("catalog", Kind::Other),
            E::ListTags { repository, .. } => Self::on("list_tags", Kind::Pull, repository, None),
            E::Referrers { repository, digest, .. } => Self::on("referrers", Kind::Pull, repository, Some(by(digest))),
            E::GetManifest { repository, reference } => {
                Self::on("get_manifest", Kind::Pull, repository, Some(reference.clone()))
            }
            E::HeadManifest { repository, reference } => {
                Self::on("head_manifest", Kind::Pull, repository, Some(reference.clone()))
            }
            E::GetBlob { repository, digest } => Self::on("get_blob", Kind::Pull, repository, Some(by(digest))),
            E::HeadBlob { repository, digest } => Self::on("head_blob", Kind::Pull, repository, Some(by(digest))),
            // An upload's id is no reference, and whoever has it may write to the upload.
            E::UploadStatus { repository, .. } => Self::on("upload_status", Kind::Upload, repository, None),
            E::AppendUpload { repository, .. } => Self::on("append_upload", Kind::Upload, repository, None),
            E::CancelUpload { repository, .. } => Self::on("cancel_upload", Kind::Upload, repository, None),
            E::StartUpload { repository, start } => {
                let digest = match start {
                    UploadStart::Session { .. } => None,
                    UploadStart::Monolithic { digest } | UploadStart::Mount { digest, .. } => Some(by(digest)),
                };
                Self::on("start_upload", Kind::Push, repository, digest)
            }
            E::FinishUpload { repository, digest, .. } => {
                Self::on("finish_upload", Kind::Push, repository, Some(by(digest)))
            }
            E::PutManifest { repository, reference, .. } => {
                Self::on("put_manifest", Kind::Push, repository, Some(reference.clone()))
            }
            E::DeleteManifest { repository, reference } => {
                Self::on("delete_manifest", Kind::Delete, repository, Some(reference.clone()))
            }
            E::DeleteBlob { repository, digest } => Self::on("delete_blob", Kind::Delete, repository, Some(by(digest))),
        }
    }

    /// The label of a counter: one of a fixed few.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The right that it needs.
    pub(crate) fn action(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Other => None,
            Kind::Pull => Some("pull"),
            Kind::Push | Kind::Upload => Some("push"),
            Kind::Delete => Some("delete"),
        }
    }

    /// The audit event that an answer with this status stands for.
    pub(crate) fn done(&self, status: StatusCode) -> Option<&'static str> {
        match (self.kind, status) {
            (Kind::Push, StatusCode::CREATED) => Some("push"),
            (Kind::Delete, StatusCode::ACCEPTED) => Some("delete"),
            _ => None,
        }
    }

    pub(crate) fn repository(&self) -> Option<&RepositoryName> {
        self.repository.as_ref()
    }

    pub(crate) fn reference(&self) -> Option<&ManifestReference> {
        self.reference.as_ref()
    }

    /// What it is about, as the peer named it: `team/app:v1`, `team/app@sha256:…`, `team/app`, or the registry.
    pub(crate) fn object(&self) -> String {
        match (&self.repository, &self.reference) {
            (Some(repository), Some(ManifestReference::Digest(digest))) => format!("{repository}@{digest}"),
            (Some(repository), Some(ManifestReference::Tag(tag))) => format!("{repository}:{tag}"),
            (Some(repository), None) => repository.to_string(),
            (None, _) => "the registry".to_owned(),
        }
    }

    fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, repository: None, reference: None }
    }

    fn on(name: &'static str, kind: Kind, repository: &RepositoryName, reference: Option<ManifestReference>) -> Self {
        Self { name, kind, repository: Some(repository.clone()), reference }
    }
}

/// What is named by its digest, manifest or blob.
fn by(digest: &Digest) -> ManifestReference {
    ManifestReference::Digest(*digest)
}
