//! The query half of the grammar, and percent-encoding.

use std::borrow::Cow;

use super::{Page, RouteError, UploadStart};
use crate::{Algorithm, Digest, Tag};

/// The most tags that one manifest PUT may set; the spec asks for at least 10.
pub(super) const MAX_TAGS: usize = 32;

/// Decoded parameters, in the order given.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(super) fn parse(query: &'a str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).collect())
    }

    /// A parameter that may stand once: twice would mean two readings.
    pub(super) fn one(&self, key: &'static str) -> Result<Option<&str>, RouteError> {
        let mut values = self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_ref());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(RouteError::Query { key, problem: "stands twice" }),
            (value, None) => Ok(value),
        }
    }

    pub(super) fn page(&self) -> Result<Page, RouteError> {
        let n = match self.one("n")? {
            Some(text) => Some(text.parse().map_err(|_| RouteError::Query { key: "n", problem: "is not a number" })?),
            None => None,
        };
        Ok(Page { n, last: self.one("last")?.map(str::to_owned) })
    }

    pub(super) fn tags(&self) -> Result<Vec<Tag>, RouteError> {
        let tags: Vec<_> = self.0.iter().filter(|(name, _)| name == "tag").collect();
        if tags.len() > MAX_TAGS {
            return Err(RouteError::TooManyTags);
        }
        Ok(tags.into_iter().map(|(_, tag)| tag.parse()).collect::<Result<_, _>>()?)
    }

    pub(super) fn required_digest(&self) -> Result<Digest, RouteError> {
        let digest = self.one("digest")?.ok_or(RouteError::Query { key: "digest", problem: "is missing" })?;
        Ok(digest.parse()?)
    }

    pub(super) fn upload_start(&self) -> Result<UploadStart, RouteError> {
        let algorithm = match self.one("digest-algorithm")? {
            Some(text) => text.parse()?,
            None => Algorithm::Sha256,
        };
        if let Some(digest) = self.one("mount")? {
            let from = match self.one("from")? {
                Some(name) => Some(name.parse()?),
                None => None,
            };
            return Ok(UploadStart::Mount { digest: digest.parse()?, from });
        }
        match self.one("digest")? {
            Some(digest) => Ok(UploadStart::Monolithic { digest: digest.parse()? }),
            None => Ok(UploadStart::Session { algorithm }),
        }
    }
}

/// Decodes a path. `None` for what is no UTF-8 and for an encoded `/` or `%`: a proxy in front may read those as one
/// path and we as another.
pub(super) fn decode_path(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(Cow::Borrowed(path));
    }
    let upper = path.to_ascii_uppercase();
    if upper.contains("%2F") || upper.contains("%25") {
        return None;
    }
    percent_encoding::percent_decode_str(path).decode_utf8().ok()
}

/// Appends a query to a path.
pub(super) fn with(path: String, pairs: &[(&str, String)]) -> String {
    if pairs.is_empty() {
        return path;
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("{path}?{query}")
}

pub(super) fn page(page: &Page) -> Vec<(&'static str, String)> {
    let n = page.n.map(|n| ("n", n.to_string()));
    let last = page.last.clone().map(|last| ("last", last));
    n.into_iter().chain(last).collect()
}

pub(super) fn upload_start(start: &UploadStart) -> Vec<(&'static str, String)> {
    match start {
        UploadStart::Session { algorithm: Algorithm::Sha256 } => Vec::new(),
        UploadStart::Session { algorithm } => vec![("digest-algorithm", algorithm.to_string())],
        UploadStart::Monolithic { digest } => vec![("digest", digest.to_string())],
        UploadStart::Mount { digest, from } => {
            let from = from.iter().map(|from| ("from", from.to_string()));
            std::iter::once(("mount", digest.to_string())).chain(from).collect()
        }
    }
}
