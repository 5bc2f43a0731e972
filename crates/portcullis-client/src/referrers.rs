//! Which manifests have one for their subject: signatures, attestations, SBOMs (distribution spec end-12a, end-12b), with
//! the tag that stands in where a registry does not know the API (Distribution 2).

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use portcullis_oci::route::Page;
use portcullis_oci::{
    Content, Descriptor, Digest, Endpoint, Manifest, ManifestReference, RepositoryName, Tag, manifest, media,
};

use crate::Client;
use crate::error::{ClientError, ProtocolFault};

/// The most referrers of one manifest that are taken.
pub const MAX_REFERRERS: usize = 10_000;

/// The most pages of one list that are asked for.
const MAX_PAGES: usize = 1024;

impl Client {
    /// Lists what refers to a manifest, of one artifact type or of all. Empty when nothing does, or when the registry
    /// neither knows the API nor has the tag that stands in for it.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] when the list is none, or has no end.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let endpoint = Endpoint::Referrers {
            repository: repository.clone(),
            digest: *digest,
            artifact_type: artifact_type.map(str::to_owned),
            page: Page::default(),
        };
        let mut turn = self.first_turn(&endpoint).await?;
        loop {
            let others = self.has_turn_after(&turn);
            match turn.client.referrers_here(&endpoint, repository, digest, artifact_type, others).await {
                Ok(referrers) => return Ok(referrers),
                Err(error) => turn = self.next_turn(&turn, error).await?,
            }
        }
    }

    /// The same at this host alone. Where `others` can be asked, one that knows neither API nor tag has not said that there
    /// are none.
    async fn referrers_here(
        &self,
        endpoint: &Endpoint,
        repository: &RepositoryName,
        digest: &Digest,
        artifact_type: Option<&str>,
        others: bool,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let (_, mut url, scopes) = self.session().address(endpoint);
        let mut referrers = Vec::new();
        for _ in 0..MAX_PAGES {
            let mut response = self.read_page(&url, &scopes).await?;
            if response.status() == StatusCode::NOT_FOUND {
                let tagged = self.tagged_referrers(repository, digest).await?;
                if tagged.is_none() && others {
                    return Err(response.into_error().await);
                }
                referrers = tagged.map_or_else(Vec::new, |list| list.listed);
                break;
            }
            if response.status() != StatusCode::OK {
                return Err(response.into_error().await);
            }
            // Some answer every unknown path with a page for people.
            let content_type = response.header(&CONTENT_TYPE).map(media::essence);
            if content_type.is_some_and(|content_type| content_type != media::OCI_IMAGE_INDEX) {
                let value = content_type.unwrap_or_default().chars().take(100).collect();
                return Err(response.fault(ProtocolFault::BadHeader { header: "Content-Type", value }));
            }
            let body = response.whole(manifest::MAX_BYTES).await?;
            referrers.extend(listed(&body).map_err(|reason| response.fault(ProtocolFault::BadBody { reason }))?);
            if referrers.len() > MAX_REFERRERS {
                return Err(response.fault(ProtocolFault::EndlessList { limit: MAX_REFERRERS, unit: "referrers" }));
            }
            let Some(next) = self.next_page(&response)? else { return Ok(of_type(referrers, artifact_type)) };
            url = next;
        }
        Ok(of_type(referrers, artifact_type))
    }

    /// Sees to it that a manifest that was put is found by its subject, where the registry did not say that it took care
    /// of that (distribution spec "Pushing Manifests with Subject"). Not safe against another client that does the same at
    /// the same moment: the spec has no way.
    pub(crate) async fn list_referrer(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        referrer: Descriptor,
    ) -> Result<(), ClientError> {
        let tag = standing_in(subject);
        let known = self.tagged_referrers(repository, subject).await?;
        let mut listed = known.map_or_else(Vec::new, |list| list.listed);
        if listed.iter().any(|known| known.digest == referrer.digest) {
            return Ok(());
        }
        listed.push(referrer);
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": media::OCI_IMAGE_INDEX, "manifests": listed,
        });
        let reference = ManifestReference::Tag(tag);
        self.put_manifest(repository, &reference, media::OCI_IMAGE_INDEX, Bytes::from(index.to_string())).await
    }

    async fn tagged_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Option<Standing>, ClientError> {
        match self.manifest(repository, &ManifestReference::Tag(standing_in(subject))).await {
            Ok(fetched) => match fetched.manifest.content {
                Content::Index { manifests } => Ok(Some(Standing { listed: manifests })),
                Content::Image { .. } | Content::Schema1 { .. } => Ok(None),
            },
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The index that stands in for the API.
struct Standing {
    listed: Vec<Descriptor>,
}

/// `sha256-<hex>`, cut to the length of a tag (distribution spec "Referrers Tag Schema").
fn standing_in(subject: &Digest) -> Tag {
    let text: String = format!("{}-{}", subject.algorithm(), subject.hex()).chars().take(128).collect();
    #[expect(
        clippy::expect_used,
        reason = "an algorithm's name, a dash and hex digits, at most 128 of them, are a tag"
    )]
    text.parse().expect("a tag")
}

fn listed(body: &[u8]) -> Result<Vec<Descriptor>, String> {
    match Manifest::parse(body, None).map_err(|error| error.to_string())?.content {
        Content::Index { manifests } => Ok(manifests),
        Content::Image { .. } | Content::Schema1 { .. } => Err("it is no index".to_owned()),
    }
}

/// A registry may leave the choice to us.
fn of_type(mut referrers: Vec<Descriptor>, artifact_type: Option<&str>) -> Vec<Descriptor> {
    if let Some(wanted) = artifact_type {
        referrers.retain(|referrer| referrer.artifact_type.as_deref() == Some(wanted));
    }
    referrers
}
