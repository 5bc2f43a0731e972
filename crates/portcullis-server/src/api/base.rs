//! `GET /v2/`, and the headers that every answer carries.

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response};

use crate::body::ResponseBody;

/// Sent by CNCF Distribution since its first release; old Docker engines decide by it that this is a v2 registry.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// 200 for every trusted peer, whatever the policy gives it.
pub(crate) fn get() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full("{}"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn add_headers(response: &mut Response<ResponseBody>) {
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response.headers_mut().insert(NOSNIFF, HeaderValue::from_static("nosniff"));
}
