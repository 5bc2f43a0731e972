//! Listing a repository's tags (distribution spec end-8a, end-8b): page after page, as long as the registry names a next
//! one on itself.

use http::HeaderMap;
use http::StatusCode;
use http::header::LINK;
use portcullis_certs::Visible;
use portcullis_oci::route::Page;
use portcullis_oci::{Endpoint, RepositoryName, Tag};
use reqwest::Url;
use serde_json::Value;

use crate::Client;
use crate::error::{ClientError, ProtocolFault};
use crate::progress::Progress;
use crate::session::Response;

/// The most pages of one list that are asked for.
pub const MAX_TAG_PAGES: usize = 4096;

/// The most tags of one repository that are taken.
pub const MAX_TAGS: usize = 1_000_000;

/// The most bytes of one page. Some registries send everything in one.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

impl Client {
    /// Lists the tags of a repository, in the registry's order, which the spec wants to be the lexical one.
    ///
    /// # Errors
    /// [`ClientError::Status`] when there is no such repository ([`ClientError::is_not_found`]);
    /// [`ClientError::Protocol`] when the list does not end within [`MAX_TAG_PAGES`] and [`MAX_TAGS`], or goes on at
    /// another origin, which the certificate is not for.
    pub async fn tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, ClientError> {
        // No `n`: some registries refuse one that is larger than their own bound.
        let endpoint = Endpoint::ListTags { repository: repository.clone(), page: Page::default() };
        let (method, mut url) = self.session().address(&endpoint);
        let mut tags = Vec::new();
        let mut pages = 0;
        loop {
            let mut response = self.read_from(&method, url, &HeaderMap::new(), &Progress::none()).await?;
            if response.status() != StatusCode::OK {
                return Err(response.into_error().await);
            }
            let body = response.whole(MAX_PAGE_BYTES).await?;
            tags.extend(page(&body).map_err(|reason| response.fault(ProtocolFault::BadBody { reason }))?);
            if tags.len() > MAX_TAGS {
                return Err(response.fault(ProtocolFault::EndlessList { limit: MAX_TAGS, unit: "tags" }));
            }
            let Some(next) = self.next_page(&response)? else { return Ok(tags) };
            pages += 1;
            if pages == MAX_TAG_PAGES {
                return Err(response.fault(ProtocolFault::EndlessList { limit: MAX_TAG_PAGES, unit: "pages" }));
            }
            url = next;
        }
    }

    /// Where the list goes on, if it does; absolute or relative to the address that answered.
    pub(crate) fn next_page(&self, response: &Response) -> Result<Option<Url>, ClientError> {
        for value in response.headers(&LINK) {
            let bad = || {
                let value = value.chars().take(200).collect();
                response.fault(ProtocolFault::BadHeader { header: "Link", value })
            };
            let Some(target) = next_link(value).map_err(|()| bad())? else { continue };
            let url = response.url().join(target).map_err(|_| bad())?;
            // A user name in the address would become a login of the registry's choosing.
            let plain = url.username().is_empty() && url.password().is_none();
            if !plain || !self.session().owns(&url) {
                let origin = url.origin().ascii_serialization();
                return Err(response.fault(ProtocolFault::ForeignPage { origin }));
            }
            return Ok(Some(url));
        }
        Ok(None)
    }
}

/// The tags of one page. A repository without any has `null` at Distribution.
fn page(body: &[u8]) -> Result<Vec<Tag>, String> {
    let mut body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let tags = match body.get_mut("tags").map(Value::take) {
        Some(Value::Array(tags)) => tags,
        Some(Value::Null) => return Ok(Vec::new()),
        _ => return Err("it has no list of tags".to_owned()),
    };
    tags.iter().map(tag).collect()
}

fn tag(value: &Value) -> Result<Tag, String> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        let shown: String = value.to_string().chars().take(200).collect();
        format!("{} is no tag", Visible(&shown))
    })
}

/// The target of relation `next` in a `Link` header (RFC 8288 §3), which may hold several links.
fn next_link(value: &str) -> Result<Option<&str>, ()> {
    let mut rest = value.trim();
    while !rest.is_empty() {
        let (target, after) = rest.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or(())?;
        // No parameter that matters here has a `<` in it.
        let (parameters, following) = after.split_at(after.find('<').unwrap_or(after.len()));
        if parameters.split([';', ',']).any(is_next) {
            return Ok(Some(target));
        }
        rest = following;
    }
    Ok(None)
}

/// `rel=next`, `rel="next"`, also one of several relations.
fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let mut relations = value.trim().trim_matches('"').split_whitespace();
    name.trim().eq_ignore_ascii_case("rel") && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_list_goes_on() {
        for (value, next) in [
            (r#"</v2/a/tags/list?last=b&n=2>; rel="next""#, Some("/v2/a/tags/list?last=b&n=2")),
            ("<https://r.test/x>;rel=next", Some("https://r.test/x")),
            (r#"<x>; title="y"; REL="last Next""#, Some("x")),
            (r#"<first>; rel="first", <second>; rel="next""#, Some("second")),
            (r#"<x>; rel="prev""#, None),
            (r#"<x>; rel="nextish"; title=next"#, None),
            ("<x>", None),
            ("", None),
        ] {
            assert_eq!(next_link(value), Ok(next), "{value}");
        }
        for value in ["/v2/a/tags/list", r#"<x; rel="next""#, r#"x>; rel="next""#] {
            assert_eq!(next_link(value), Err(()), "{value}");
        }
    }

    #[test]
    fn what_a_page_holds() {
        assert_eq!(page(br#"{"name":"a","tags":["1","b"]}"#).unwrap().len(), 2);
        assert_eq!(page(br#"{"name":"a","tags":null}"#).unwrap(), []);
        for (body, reason) in [
            (r#"{"name":"a"}"#, "no list of tags"),
            (r#"{"tags":{}}"#, "no list of tags"),
            (r#"["1"]"#, "no list of tags"),
            (r#"{"tags":["1",2]}"#, "2 is no tag"),
            (r#"{"tags":["a b"]}"#, r#""a b" is no tag"#),
            (r#"{"tags":[""]}"#, r#""" is no tag"#),
            ("<html>", "expected value"),
        ] {
            let error = page(body.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{body}: {error}");
        }
        let error = page("{\"tags\":[\"\u{202e}x\"]}".as_bytes()).unwrap_err();
        assert!(!error.contains('\u{202e}'), "{error}");
    }
}
