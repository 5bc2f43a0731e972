//! Uploads: whole, in chunks, and cut off in the middle.

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use portcullis_oci::route::{UploadId, upload_location};
use portcullis_oci::{Digest, Endpoint, RepositoryName};

use super::{Content, Reply, Seen, Shared, Spelling, broken, reply, with};

/// Where a connection breaks.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) method: Method,
    /// After so many bytes of the body, or more; `usize::MAX`: after all of it, when it was stored.
    pub(crate) after: usize,
    /// How many of them the registry keeps; some keep what has come, most what they have acknowledged.
    pub(crate) kept: usize,
}

/// The cut that a request is in for.
pub(super) fn next_cut(shared: &Shared, method: &Method) -> Option<Cut> {
    let mut cuts = shared.cuts.lock().unwrap();
    if cuts.first()?.method == *method { Some(cuts.remove(0)) } else { None }
}

/// The body, or the beginning of it where it is cut off there.
pub(super) async fn body(mut body: Incoming, cut: Option<&Cut>) -> Option<Bytes> {
    let most = cut.map_or(usize::MAX, |cut| cut.after);
    let mut bytes = Vec::new();
    while bytes.len() < most
        && let Some(frame) = body.frame().await
    {
        bytes.extend_from_slice(frame.ok()?.data_ref()?);
    }
    Some(bytes.into())
}

/// Breaks the connection, and keeps what is to be kept.
pub(super) fn cut_off(shared: &Shared, endpoint: &Endpoint, body: &[u8], cut: &Cut) -> Reply {
    let mut content = shared.content.lock().unwrap();
    match endpoint {
        Endpoint::FinishUpload { repository, id, digest } if cut.after == usize::MAX => {
            content.finish(repository, id, digest, body);
        }
        Endpoint::AppendUpload { id, .. } | Endpoint::FinishUpload { id, .. } => {
            let kept = &body[..cut.kept.min(body.len())];
            content.parts.entry(*id).or_default().extend_from_slice(kept);
        }
        _ => {}
    }
    broken()
}

impl Content {
    /// Whether it has the digest.
    fn finish(&mut self, repository: &RepositoryName, id: &UploadId, digest: &Digest, body: &[u8]) -> bool {
        let bytes = [&self.parts.remove(id).unwrap_or_default()[..], body].concat();
        let is_right = Digest::of(digest.algorithm(), &bytes) == *digest;
        if is_right {
            self.blobs.insert((repository.to_string(), *digest), bytes.into());
        }
        is_right
    }
}

pub(super) struct Uploads<'a> {
    pub(super) content: &'a mut Content,
    pub(super) spelling: Spelling,
    pub(super) authority: String,
}

impl Uploads<'_> {
    pub(super) fn serve(mut self, seen: &Seen, endpoint: Endpoint, body: &[u8]) -> Reply {
        match endpoint {
            Endpoint::StartUpload { repository, .. } => {
                self.content.uploads += 1;
                let id = UploadId::from_bytes([self.content.uploads; 16]);
                self.content.parts.insert(id, Vec::new());
                self.session(202, &repository, &id)
            }
            Endpoint::UploadStatus { repository, id } if self.content.parts.contains_key(&id) => {
                self.session(204, &repository, &id)
            }
            Endpoint::AppendUpload { repository, id } if self.content.parts.contains_key(&id) => {
                if !self.is_next(seen, &id) {
                    return reply(416, "");
                }
                self.content.parts.entry(id).or_default().extend_from_slice(body);
                self.session(202, &repository, &id)
            }
            Endpoint::FinishUpload { repository, id, digest } => {
                let stateful = matches!(self.spelling, Spelling::RelativeWithState);
                if !self.is_next(seen, &id) {
                    return reply(416, "");
                }
                if (stateful && !seen.target.contains("_state=a%3D%2Fb"))
                    || !self.content.finish(&repository, &id, &digest, body)
                {
                    return reply(400, r#"{"errors":[{"code":"DIGEST_INVALID","message":"not what it says"}]}"#);
                }
                reply(201, "")
            }
            _ => reply(404, r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"no such upload"}]}"#),
        }
    }

    /// A chunk must begin where the upload is.
    fn is_next(&self, seen: &Seen, id: &UploadId) -> bool {
        let begins = seen.content_range.as_deref().map(|range| range.split_once('-').unwrap().0.parse().unwrap());
        begins.is_none_or(|begins: usize| begins == self.content.parts.get(id).map_or(0, Vec::len))
    }

    fn session(&mut self, status: u16, repository: &RepositoryName, id: &UploadId) -> Reply {
        let path = upload_location(repository, id);
        let location = match &self.spelling {
            Spelling::Relative => path,
            Spelling::RelativeWithState => format!("{path}?_state=a%3D%2Fb"),
            Spelling::Absolute => format!("https://{}{path}", self.authority),
            Spelling::Origin(origin) => format!("{origin}{path}"),
            Spelling::Missing => return reply(status, ""),
        };
        // As Distribution writes it, `0-0` where nothing is there.
        let range = format!("0-{}", self.content.parts[id].len().saturating_sub(1));
        with(with(reply(status, ""), "location", &location), "range", &range)
    }
}
