//! Listing a repository's tags.

use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderValue, Response};
use portcullis_oci::{Endpoint, Page};
use serde_json::json;

use crate::access::{Permit, Pull};
use crate::api::blocking;
use crate::app::Call;
use crate::body::ResponseBody;
use crate::error::{ApiError, header};

/// The most tags in one page.
const MAX_PAGE: u32 = 1000;

pub(crate) async fn list(
    permit: &Permit<Pull>,
    page: &Page,
    call: Call<'_>,
) -> Result<Response<ResponseBody>, ApiError> {
    let repository = permit.repository().clone();
    let n = page.n.unwrap_or(MAX_PAGE).min(MAX_PAGE) as usize;
    let last = page.last.clone();
    // One more than asked for tells whether there is a next page.
    let found = blocking(call.store, move |store| store.tags(&repository, last.as_deref(), n + 1)).await?;
    let mut tags = found.ok_or(ApiError::NameUnknown)?;
    let more = tags.len() > n;
    tags.truncate(n);
    let names: Vec<&str> = tags.iter().map(portcullis_oci::Tag::as_str).collect();
    let body = json!({ "name": permit.repository().as_str(), "tags": names });
    let mut response = Response::new(ResponseBody::full(body.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let (true, Some(last)) = (more, tags.last()) {
        let page = Page { n: Some(u32::try_from(n).unwrap_or(MAX_PAGE)), last: Some(last.to_string()) };
        let next = Endpoint::ListTags { repository: permit.repository().clone(), page };
        headers.insert(LINK, header(&format!("<{}>; rel=\"next\"", next.to_request().1)));
    }
    Ok(response)
}
