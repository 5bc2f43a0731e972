//! Lists: a repository's tags (distribution spec end-8a, end-8b), and the repositories themselves (`_catalog`, which
//! Docker's registry brought): page after page, as long as the registry names a next one on itself.

use std::str::FromStr;

use http::StatusCode;
use http::header::LINK;
use portcullis_certs::Visible;
use portcullis_oci::route::Page;
use portcullis_oci::{Endpoint, RepositoryName, Tag};
use reqwest::Url;
use serde_json::Value;

use crate::Client;
use crate::error::{ClientError, ProtocolFault};
use crate::session::Response;

/// The most pages of one list that are asked for.
pub const MAX_LIST_PAGES: usize = 4096;

/// The most tags of one repository, or repositories of one registry, that are taken.
pub const MAX_LISTED: usize = 1_000_000;

/// The most bytes of one page. Some registries send everything in one.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// What a list is of: the key of its pages, and a word for messages.
#[derive(Clone, Copy)]
struct Of {
    key: &'static str,
    one: &'static str,
}

const TAGS: Of = Of { key: "tags", one: "tag" };
const REPOSITORIES: Of = Of { key: "repositories", one: "repository" };

impl Client {
    /// Lists the tags of a repository, in the registry's order, which the spec wants to be the lexical one.
    ///
    /// # Errors
    /// [`ClientError::Status`] when there is no such repository ([`ClientError::is_not_found`]);
    /// [`ClientError::Protocol`] when the list does not end within [`MAX_LIST_PAGES`] and [`MAX_LISTED`], or goes on at
    /// another origin, which the certificate is not for.
    pub async fn tags(&self, repository: &RepositoryName) -> Result<Vec<Tag>, ClientError> {
        // No `n`: some registries refuse one that is larger than their own bound.
        let endpoint = Endpoint::ListTags { repository: repository.clone(), page: Page::default() };
        let mut turn = self.first_turn(&endpoint).await?;
        loop {
            match turn.client.list(&endpoint, TAGS).await {
                Ok(tags) => return Ok(tags),
                Err(error) => turn = self.next_turn(&turn, error).await?,
            }
        }
    }

    /// Lists the repositories that the registry shows to this identity.
    ///
    /// # Errors
    /// [`ClientError::Status`]: many registries do not have it, or allow it to few; else as [`Client::tags`].
    pub async fn repositories(&self) -> Result<Vec<RepositoryName>, ClientError> {
        self.list(&Endpoint::Catalog { page: Page::default() }, REPOSITORIES).await
    }

    async fn list<T: FromStr>(&self, endpoint: &Endpoint, of: Of) -> Result<Vec<T>, ClientError> {
        let (_, mut url, scopes) = self.session().address(endpoint);
        let mut listed = Vec::new();
        let mut pages = 0;
        loop {
            let mut response = self.read_page(&url, &scopes).await?;
            if response.status() != StatusCode::OK {
                return Err(response.into_error().await);
            }
            let body = response.whole(MAX_PAGE_BYTES).await?;
            listed.extend(page(&body, of).map_err(|reason| response.fault(ProtocolFault::BadBody { reason }))?);
            if listed.len() > MAX_LISTED {
                return Err(response.fault(ProtocolFault::EndlessList { limit: MAX_LISTED, unit: of.key }));
            }
            let Some(next) = self.next_page(&response)? else { return Ok(listed) };
            pages += 1;
            if pages == MAX_LIST_PAGES {
                return Err(response.fault(ProtocolFault::EndlessList { limit: MAX_LIST_PAGES, unit: "pages" }));
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

/// What one page lists. A repository without any tag has `null` at Distribution.
fn page<T: FromStr>(body: &[u8], of: Of) -> Result<Vec<T>, String> {
    let mut body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let listed = match body.get_mut(of.key).map(Value::take) {
        Some(Value::Array(listed)) => listed,
        Some(Value::Null) => return Ok(Vec::new()),
        _ => return Err(format!("it has no list of {}", of.key)),
    };
    listed.iter().map(|value| entry(value, of)).collect()
}

fn entry<T: FromStr>(value: &Value, of: Of) -> Result<T, String> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        let shown: String = value.to_string().chars().take(200).collect();
        format!("{} is no {}", Visible(&shown), of.one)
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
        let tags = |body: &[u8]| page::<Tag>(body, TAGS);
        let repositories = page::<RepositoryName>(br#"{"repositories":["a/b","c"]}"#, REPOSITORIES).unwrap();
        assert_eq!(repositories.iter().map(RepositoryName::as_str).collect::<Vec<_>>(), ["a/b", "c"]);
        let error = page::<RepositoryName>(br#"{"repositories":["a/../b"]}"#, REPOSITORIES).unwrap_err();
        assert!(error.contains(r#""a/../b" is no repository"#), "{error}");
        assert_eq!(tags(br#"{"name":"a","tags":["1","b"]}"#).unwrap().len(), 2);
        assert_eq!(tags(br#"{"name":"a","tags":null}"#).unwrap(), []);
        for (body, reason) in [
            (r#"{"name":"a"}"#, "no list of tags"),
            (r#"{"tags":{}}"#, "no list of tags"),
            (r#"["1"]"#, "no list of tags"),
            (r#"{"tags":["1",2]}"#, "2 is no tag"),
            (r#"{"tags":["a b"]}"#, r#""a b" is no tag"#),
            (r#"{"tags":[""]}"#, r#""" is no tag"#),
            ("<html>", "expected value"),
        ] {
            let error = tags(body.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{body}: {error}");
        }
        let error = tags("{\"tags\":[\"\u{202e}x\"]}".as_bytes()).unwrap_err();
        assert!(!error.contains('\u{202e}'), "{error}");
    }
}
