//! Listing what refers to a manifest: signatures, SBOMs, attestations.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderName, HeaderValue, Response};
use portcullis_oci::{Digest, Endpoint, Page, RepositoryName, manifest, media};
use portcullis_store::{ReferrersPage, ReferrersQuery};
use serde_json::json;

use crate::access::{Permit, Pull};
use crate::api::blocking;
use crate::app::Call;
use crate::body::ResponseBody;
use crate::error::{ApiError, header};

/// The most referrers in one page; a page is also no larger than a manifest.
const MAX_PAGE: usize = 1000;
const MAX_BYTES: usize = manifest::MAX_BYTES - 1024;

/// How many repositories are read at once whose referrers are not known yet: each keeps a disk thread for as long as all
/// its manifests take. Others wait here, where waiting keeps none.
pub(crate) const READINGS: usize = 2;
/// How long they wait at most.
const READING_WAIT: Duration = Duration::from_secs(30);

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// 200 with an empty index where there are none: a 404 would tell the client to use tags instead.
pub(crate) async fn list(
    permit: &Permit<Pull>,
    subject: Digest,
    artifact_type: Option<String>,
    page: &Page,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let after = page.last.as_ref().and_then(|last| last.parse::<Digest>().ok());
    let most = page.n.map_or(MAX_PAGE, |n| n as usize).min(MAX_PAGE);
    let query = ReferrersQuery { subject, artifact_type: artifact_type.clone(), after, most, most_bytes: MAX_BYTES };
    let ReferrersPage { referrers: manifests, more } = ask(permit.repository(), query, &call).await?;
    let last = manifests.last().map(|referrer| referrer.digest.to_string());
    let index = json!({ "schemaVersion": 2, "mediaType": media::OCI_IMAGE_INDEX, "manifests": manifests });
    let mut response = Response::new(ResponseBody::full(index.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media::OCI_IMAGE_INDEX));
    if artifact_type.is_some() {
        headers.insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    if let (true, Some(last)) = (more, last) {
        let repository = permit.repository().clone();
        let page = Page { n: page.n, last: Some(last) };
        let next = Endpoint::Referrers { repository, digest: subject, artifact_type, page };
        headers.insert(LINK, header(&format!("<{}>; rel=\"next\"", next.to_request().1)));
    }
    Ok(response)
}

/// A question that is not answered from memory takes its turn first, and keeps it although its client may leave.
async fn ask(repository: &RepositoryName, query: ReferrersQuery, call: &Call<'_>) -> Result<ReferrersPage, ApiError> {
    let turn = if call.store.knows_referrers(repository) {
        None
    } else {
        let turn = tokio::time::timeout(READING_WAIT, Arc::clone(call.readings).acquire_owned()).await;
        Some(turn.ok().and_then(Result::ok).ok_or(ApiError::TooManyReadings { limit: READINGS })?)
    };
    let repository = repository.clone();
    blocking(call.store, move |store| {
        let _turn = turn;
        store.referrers(&repository, &query)
    })
    .await
}
