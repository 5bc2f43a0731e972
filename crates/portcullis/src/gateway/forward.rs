//! From a [`Passage`] to the registry and back. What is sent on is written anew: method and path from the passage, a
//! chosen few headers, the body as it comes; what comes back likewise, with its addresses turned to the gateway. Must not
//! know who asked, nor what may be asked.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use portcullis_client::{Client, ClientError, RelayTo, Relayed, UploadLocation};
use portcullis_oci::route::upload_location;
use portcullis_oci::{Digest, Endpoint, RepositoryName, UploadId};

use super::Gateway;
use super::exchange::{Content, RequestBody};
use super::refusal::Refusal;
use super::registry::Session;
use super::rules::Passage;

/// All of a request that is the registry's business. `Authorization` and `Cookie` are not: the gateway has its own login,
/// and what a program here has for its "127.0.0.1" is for nobody else. Nor is what says how this connection works (RFC 9110
/// §7.6.1), or asks for an encoding.
const SENT_ON: [HeaderName; 9] = [
    header::ACCEPT,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// All of an answer that is the program's business. `Location`, `Link` and the upload's name are written anew; a challenge
/// (`WWW-Authenticate`) and cookies are the registry's and ours.
const GIVEN_BACK: [HeaderName; 19] = [
    header::ACCEPT_RANGES,
    header::ALLOW,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::RANGE,
    header::RETRY_AFTER,
    header::WARNING,
    HeaderName::from_static("docker-content-digest"),
    HeaderName::from_static("docker-distribution-api-version"),
    HeaderName::from_static("oci-chunk-min-length"),
    HeaderName::from_static("oci-filters-applied"),
    HeaderName::from_static("oci-subject"),
    HeaderName::from_static("oci-tag"),
    HeaderName::from_static("portcullis-reason"),
];

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// The upload that a request is about.
struct Upload {
    id: UploadId,
    location: UploadLocation,
    digest: Option<Digest>,
}

impl Gateway {
    /// Sends the request on and gives back the answer, its body still to come.
    pub(super) async fn forward(
        &self,
        passage: &Passage,
        headers: &HeaderMap,
        body: RequestBody,
    ) -> Result<Response<Content>, Refusal> {
        if !passage.takes_body() && !body.is_end_stream() {
            return Err(Refusal::UnwantedBody);
        }
        let upload = self.upload_of(&passage.endpoint)?;
        let to = match (&upload, &passage.page) {
            (Some(upload), _) => RelayTo::Upload(&upload.location, upload.digest.as_ref()),
            (None, Some(query)) => RelayTo::Page(&passage.endpoint, query),
            (None, None) => RelayTo::Endpoint(&passage.endpoint),
        };
        let headers = chosen(headers, &SENT_ON);
        let (session, relayed) = if passage.is_read() {
            self.read(passage, to, &headers).await?
        } else {
            self.write(&passage.method, to, headers, body).await?
        };
        self.give_back(&session.client, passage, upload.as_ref(), relayed).await
    }

    /// A read that the registry refuses is tried again under the identity that it takes now.
    async fn read(
        &self,
        passage: &Passage,
        to: RelayTo<'_>,
        headers: &HeaderMap,
    ) -> Result<(Session, Relayed), ClientError> {
        let is_base = passage.endpoint == Endpoint::Base;
        let session = if is_base { self.registry.fresh().await? } else { self.registry.session() };
        let answer = session.client.relay_read(&passage.method, to, headers).await;
        let refused = match &answer {
            Ok(answer) => is_base && matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
            Err(error) => self.is_about_certificate(error),
        };
        if !refused {
            return answer.map(|answer| (session, answer));
        }
        let session = self.registry.another(&session).await?;
        let answer = session.client.relay_read(&passage.method, to, headers).await?;
        Ok((session, answer))
    }

    /// A write goes once, under the identity chosen before it. When that is refused, the next request gets another.
    async fn write(
        &self,
        method: &Method,
        to: RelayTo<'_>,
        headers: HeaderMap,
        body: RequestBody,
    ) -> Result<(Session, Relayed), Refusal> {
        let session = self.registry.session();
        let fault = body.fault();
        match session.client.relay_write(method, to, headers, body).await {
            Ok(answer) => Ok((session, answer)),
            Err(error) => {
                if let Some(fault) = fault.take() {
                    return Err(fault);
                }
                if self.is_about_certificate(&error) {
                    // Told to whoever asks next; this one is told of the refusal.
                    drop(self.registry.another(&session).await);
                }
                Err(error.into())
            }
        }
    }

    /// Whether the registry, and not a store that it redirected to, refused the certificate in use.
    fn is_about_certificate(&self, error: &ClientError) -> bool {
        matches!(error, ClientError::Connection { host, failure, .. } if host == self.registry.host() && failure.is_about_identity())
    }

    fn upload_of(&self, endpoint: &Endpoint) -> Result<Option<Upload>, Refusal> {
        let (repository, id, digest) = match endpoint {
            Endpoint::FinishUpload { repository, id, digest } => (repository, id, Some(*digest)),
            Endpoint::UploadStatus { repository, id }
            | Endpoint::AppendUpload { repository, id }
            | Endpoint::CancelUpload { repository, id } => (repository, id, None),
            _ => return Ok(None),
        };
        let location = self.uploads.find(repository, id).ok_or(Refusal::UnknownUpload)?;
        Ok(Some(Upload { id: *id, location, digest }))
    }

    async fn give_back(
        &self,
        client: &Client,
        passage: &Passage,
        upload: Option<&Upload>,
        relayed: Relayed,
    ) -> Result<Response<Content>, Refusal> {
        if relayed.status() == StatusCode::UNAUTHORIZED {
            let host = client.host().to_string();
            return Err(Refusal::NotLetIn { host, answer: Box::new(relayed.into_answer().await) });
        }
        let mut headers = chosen(relayed.headers(), &GIVEN_BACK);
        // Nothing that is stored in the registry is a page of this address.
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
        if let Some(link) = next_page(client, &passage.endpoint, &relayed)? {
            headers.insert(header::LINK, value(&link)?);
        }
        match self.upload_after(client, &passage.endpoint, upload, &relayed)? {
            Some((repository, id)) => {
                headers.insert(header::LOCATION, value(&upload_location(repository, &id))?);
                headers.insert(UPLOAD_UUID, value(&id.to_string())?);
            }
            None => {
                if let Some(location) = location(client, &relayed) {
                    headers.insert(header::LOCATION, value(&location)?);
                }
            }
        }
        let mut response = Response::new(());
        *response.status_mut() = relayed.status();
        *response.headers_mut() = headers;
        Ok(response.map(|()| Content::Relayed(relayed.into_body())))
    }

    /// The upload that the program goes on with after this answer.
    fn upload_after<'a>(
        &self,
        client: &Client,
        endpoint: &'a Endpoint,
        upload: Option<&Upload>,
        relayed: &Relayed,
    ) -> Result<Option<(&'a RepositoryName, UploadId)>, Refusal> {
        match (endpoint, upload) {
            (Endpoint::StartUpload { repository, .. }, _) if relayed.status() == StatusCode::ACCEPTED => {
                let location = client.relayed_upload(relayed)?;
                Ok(Some((repository, self.uploads.begin(repository, location))))
            }
            (Endpoint::UploadStatus { repository, .. } | Endpoint::AppendUpload { repository, .. }, Some(upload)) => {
                if relayed.status() == StatusCode::NOT_FOUND {
                    self.uploads.end(&upload.id);
                    return Ok(None);
                }
                // A 416 says where to go on, too.
                if relayed.headers().contains_key(header::LOCATION) {
                    self.uploads.moved(&upload.id, client.relayed_upload(relayed)?);
                }
                Ok(Some((repository, upload.id)))
            }
            (Endpoint::FinishUpload { .. } | Endpoint::CancelUpload { .. }, Some(upload)) => {
                if relayed.status().is_success() || relayed.status() == StatusCode::NOT_FOUND {
                    self.uploads.end(&upload.id);
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

/// The headers with these names, but for those that belong to the connection they came on.
fn chosen(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let hops = headers.get_all(header::CONNECTION);
    let hops: Vec<&str> =
        hops.iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')).collect();
    let is_hop = |name: &HeaderName| hops.iter().any(|hop| hop.trim().eq_ignore_ascii_case(name.as_str()));
    let mut chosen = HeaderMap::new();
    for name in names.iter().filter(|name| !is_hop(name)) {
        for value in headers.get_all(name) {
            chosen.append(name, value.clone());
        }
    }
    chosen
}

/// `Location` of what was stored, here.
fn location(client: &Client, relayed: &Relayed) -> Option<String> {
    let address = client.relayed_location(relayed)?;
    let (path, query) = split(&address);
    Endpoint::parse(&Method::GET, path, query).ok().map(|endpoint| endpoint.to_request().1)
}

/// `Link` to the next page, here: this list's own path, with the registry's words after it.
fn next_page(client: &Client, endpoint: &Endpoint, relayed: &Relayed) -> Result<Option<String>, Refusal> {
    if !matches!(endpoint, Endpoint::Catalog { .. } | Endpoint::ListTags { .. } | Endpoint::Referrers { .. }) {
        return Ok(None);
    }
    let Some(address) = client.relayed_next_page(relayed)? else { return Ok(None) };
    let (path, query) = split(&address);
    let own = endpoint.to_request().1;
    let (own, _) = split(&own);
    let is_same_list = Endpoint::parse(&Method::GET, path, query).is_ok() && path == own;
    match query {
        Some(query) if is_same_list => Ok(Some(format!("<{own}?{query}>; rel=\"next\""))),
        _ => Err(Refusal::OtherList),
    }
}

fn split(address: &str) -> (&str, Option<&str>) {
    address.split_once('?').map_or((address, None), |(path, query)| (path, Some(query)))
}

fn value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::try_from(text).map_err(|_| Refusal::OtherList)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn what_is_sent_on() {
        let secrets = map(&[
            ("authorization", "Bearer x"),
            ("cookie", "x"),
            ("proxy-authorization", "Basic x"),
            ("forwarded", "for=1"),
            ("x-forwarded-host", "evil.test"),
            ("host", "127.0.0.1:5000"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("accept-encoding", "gzip"),
            ("x-portcullis-anything", "x"),
        ]);
        assert_eq!(chosen(&secrets, &SENT_ON), HeaderMap::new());
        let wanted = map(&[("accept", "a/b"), ("content-type", "c/d"), ("range", "bytes=0-1"), ("if-none-match", "x")]);
        assert_eq!(chosen(&wanted, &SENT_ON), wanted);
        let several: HeaderMap =
            ["a/b", "c/d"].map(|value| (header::ACCEPT, HeaderValue::from_static(value))).into_iter().collect();
        assert_eq!(chosen(&several, &SENT_ON).get_all(header::ACCEPT).iter().count(), 2);
    }

    #[test]
    fn what_is_given_back() {
        let kept = map(&[
            ("www-authenticate", "Bearer realm=\"https://evil.test\""),
            ("set-cookie", "x"),
            ("location", "https://registry.test/"),
            ("link", "<https://registry.test/>; rel=\"next\""),
            ("docker-upload-uuid", "x"),
            ("access-control-allow-origin", "*"),
            ("connection", "keep-alive"),
            ("alt-svc", "h3=\":443\""),
            ("strict-transport-security", "max-age=1"),
        ]);
        assert_eq!(chosen(&kept, &GIVEN_BACK), HeaderMap::new());
        let told = map(&[("content-type", "a/b"), ("docker-content-digest", "x"), ("oci-subject", "y")]);
        assert_eq!(chosen(&told, &GIVEN_BACK), told);
    }

    /// RFC 9110 §7.6.1: what `Connection` names is for this connection.
    #[test]
    fn what_the_connection_names_stays_on_it() {
        let headers = map(&[("connection", "close, Range"), ("range", "bytes=0-1"), ("accept", "a/b")]);
        assert_eq!(chosen(&headers, &SENT_ON), map(&[("accept", "a/b")]));
    }
}
