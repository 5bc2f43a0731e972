//! Listing what refers to a manifest: signatures, SBOMs, attestations.

use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderName, HeaderValue, Response};
use portcullis_oci::{Descriptor, Digest, Endpoint, Page, manifest, media};
use serde_json::json;

use crate::access::{Permit, Pull};
use crate::api::blocking;
use crate::app::Call;
use crate::body::ResponseBody;
use crate::error::{ApiError, header};

/// The most referrers in one page; a page is also no larger than a manifest.
const MAX_PAGE: usize = 1000;
const MAX_BYTES: usize = manifest::MAX_BYTES - 1024;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// 200 with an empty index where there are none: a 404 would tell the client to use tags instead.
pub(crate) async fn list(
    permit: &Permit<Pull>,
    subject: Digest,
    artifact_type: Option<String>,
    page: &Page,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let repository = permit.repository().clone();
    let found = blocking(call.store, move |store| store.referrers(&repository, &subject)).await?;
    let wanted = |referrer: &Descriptor| match &artifact_type {
        Some(artifact_type) => referrer.artifact_type.as_ref() == Some(artifact_type),
        None => true,
    };
    let after = page.last.as_ref().and_then(|last| last.parse::<Digest>().ok());
    let rest = found.into_iter().filter(|referrer| after.is_none_or(|after| referrer.digest > after)).filter(wanted);
    let (manifests, more) = one_page(rest, page.n.map_or(MAX_PAGE, |n| n as usize).min(MAX_PAGE));
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

/// As many as fit, at least one, and whether there are more.
fn one_page(referrers: impl Iterator<Item = Descriptor>, n: usize) -> (Vec<Descriptor>, bool) {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for referrer in referrers {
        // A descriptor always serialises.
        bytes += serde_json::to_vec(&referrer).map_or(0, |json| json.len() + 1);
        if page.len() == n || (bytes > MAX_BYTES && !page.is_empty()) {
            return (page, true);
        }
        page.push(referrer);
    }
    (page, false)
}
