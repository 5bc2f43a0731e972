//! Listing the repositories, as far as the caller may pull from them.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderValue, Response};
use portcullis_oci::{Endpoint, Page, RepositoryName};
use portcullis_store::Store;
use serde_json::json;

use crate::access::{Permit, Pull, pull_reaches_below};
use crate::api::blocking;
use crate::app::Call;
use crate::body::ResponseBody;
use crate::error::{ApiError, header};
use crate::peer::Peer;

/// The most repositories in one page.
const MAX_PAGE: usize = 1000;

pub(crate) async fn list(peer: &Arc<Peer>, page: &Page, call: Call<'_>) -> Result<Response<ResponseBody>, ApiError> {
    let n = page.n.map_or(MAX_PAGE, |n| n as usize).min(MAX_PAGE);
    let mut names: Vec<RepositoryName> = Vec::new();
    let mut after = page.last.clone();
    let mut more = n > 0;
    // In steps, so that nobody walks on for a peer that has left. A page ends only with a name that the peer may see:
    // its link must not tell others.
    while more && names.len() < n {
        let (from, reader) = (after.clone(), Arc::clone(peer));
        let walk = move |store: &Store| {
            store.repositories_where(from.as_deref(), MAX_PAGE, &|path| pull_reaches_below(&reader, path))
        };
        let found = blocking(call.store, walk).await?;
        more = found.len() == MAX_PAGE;
        for repository in found {
            if names.len() == n {
                more = true;
                break;
            }
            after = Some(repository.to_string());
            if Permit::<Pull>::ask(peer, repository.clone()).is_ok() {
                names.push(repository);
            }
        }
    }
    let listed: Vec<&str> = names.iter().map(RepositoryName::as_str).collect();
    let mut response = Response::new(ResponseBody::full(json!({ "repositories": listed }).to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let (true, Some(last)) = (more, after) {
        let next = Endpoint::Catalog { page: Page { n: page.n, last: Some(last) } };
        headers.insert(LINK, header(&format!("<{}>; rel=\"next\"", next.to_request().1)));
    }
    Ok(response)
}
