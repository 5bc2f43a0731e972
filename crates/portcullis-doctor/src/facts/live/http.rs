//! The little HTTP that a conversation under a recorded handshake needs: one GET, and what the head of the answer says.
//!
//! Everything that comes back is foreign: bounded, and shown only through `Visible`.

use portcullis_certs::RegistryHost;
use portcullis_oci::Digest;
use std::io::{Read as _, Write as _};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::contact::Peer;

/// Bytes of one answer, head and body.
pub(super) const LIMIT: usize = 128 * 1024;
const MAX_HEADERS: usize = 64;
/// Characters of a header or body that are kept to be shown.
const MAX_SHOWN: usize = 300;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json, */*";

/// What a server answered. Texts are its own, not yet made visible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The server's own clock.
    pub date: Option<OffsetDateTime>,
    /// `WWW-Authenticate`, all of them.
    pub authenticate: Vec<String>,
    /// `Location`.
    pub location: Option<String>,
    /// `Portcullis-Reason`: what a Portcullis registry in explain mode has against the client certificate.
    pub reason: Option<String>,
    /// Whether it says to be a registry (`Docker-Distribution-Api-Version`).
    pub is_registry: bool,
    /// The body, cut.
    pub body: Vec<u8>,
}

pub(super) fn request(host: &RegistryHost, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: portcullis/{}\r\nAccept: {ACCEPT}\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// The first line that a port answers to plain HTTP; `None`: nothing that looks like HTTP.
pub(super) fn plain(peer: &Peer, path: &str) -> Option<String> {
    let mut tcp = peer.connect().ok()?;
    tcp.write_all(request(&peer.host, path).as_bytes()).ok()?;
    let mut buffer = [0; 512];
    let read = tcp.read(&mut buffer).ok()?;
    let text = String::from_utf8_lossy(buffer.get(..read)?).into_owned();
    let line = text.lines().next()?;
    line.starts_with("HTTP/").then(|| line.chars().take(MAX_SHOWN).collect())
}

/// Whether head and, where its length is known, body are there.
pub(super) fn is_complete(received: &[u8]) -> bool {
    let Some(head) = head_length(received) else { return false };
    let text = String::from_utf8_lossy(received.get(..head).unwrap_or_default()).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| received.len() >= head.saturating_add(length))
}

fn head_length(received: &[u8]) -> Option<usize> {
    received.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

impl Answer {
    /// Takes apart what was received; `None` when it is no answer.
    pub(super) fn parse(received: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = head.parse(received).ok()? else { return None };
        let mut answer = Self { status: head.code?, ..Self::default() };
        let mut chunked = false;
        for header in head.headers.iter() {
            let value: String = String::from_utf8_lossy(header.value).chars().take(MAX_SHOWN).collect();
            match header.name.to_ascii_lowercase().as_str() {
                "date" => answer.date = http_date(&value),
                "www-authenticate" => answer.authenticate.push(value),
                "location" => answer.location = std::str::from_utf8(header.value).ok().map(str::to_owned),
                "portcullis-reason" => answer.reason = Some(value),
                "docker-distribution-api-version" => answer.is_registry = true,
                "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
                _ => {}
            }
        }
        let body = received.get(length..).unwrap_or_default();
        answer.body = if chunked { unchunk(body) } else { body.to_vec() };
        Some(answer)
    }

    /// The host of the token server that a 401 names.
    pub fn token_host(&self) -> Option<RegistryHost> {
        let challenge = self.authenticate.iter().find(|value| starts_with_word(value, "bearer"))?;
        let realm = challenge.split_once("realm=\"")?.1.split('"').next()?;
        host_of(realm)
    }

    /// The host that a redirect leads to.
    pub fn redirect_host(&self) -> Option<RegistryHost> {
        if !matches!(self.status, 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        host_of(self.location.as_deref()?)
    }

    /// The first blob of a manifest: its configuration, or a layer.
    pub(super) fn first_blob(&self) -> Option<Digest> {
        if self.status != 200 {
            return None;
        }
        let manifest: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        let digest = manifest["config"]["digest"].as_str().or_else(|| manifest["layers"][0]["digest"].as_str())?;
        digest.parse().ok()
    }

    /// What the server says about itself, made short.
    pub fn body_shown(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(MAX_SHOWN).collect()
    }
}

fn starts_with_word(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// The host of an `https://` address as its certificate directory is called: a port of 443 that is not written is none.
fn host_of(url: &str) -> Option<RegistryHost> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // A user name would make a login of it.
    authority.parse().ok()
}

/// RFC 9110 §5.6.7: the fixed form is that of mail, with GMT.
fn http_date(value: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(&value.replace("GMT", "+0000"), &Rfc2822).ok()
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Ok(httparse::Status::Complete((start, length))) = httparse::parse_chunk_size(body) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let end = start.saturating_add(length).min(body.len());
        whole.extend_from_slice(body.get(start..end).unwrap_or_default());
        if length == 0 {
            break;
        }
        body = body.get(end.saturating_add(2)..).unwrap_or_default();
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(url: &str) -> Option<String> {
        host_of(url).map(|host| host.to_string())
    }

    #[test]
    fn the_hosts_that_an_answer_names() {
        assert_eq!(host("https://auth.test/token?service=x").as_deref(), Some("auth.test"));
        assert_eq!(host("https://auth.test:8443").as_deref(), Some("auth.test:8443"));
        for bad in ["http://auth.test/", "https://a:b@auth.test/", "https://$(id)/", "/token", ""] {
            assert_eq!(host(bad), None, "{bad}");
        }
        let challenge = "Bearer realm=\"https://auth.test/token\",service=\"r\"".to_owned();
        let answer = Answer { status: 401, authenticate: vec![challenge], ..Answer::default() };
        assert_eq!(answer.token_host().unwrap().as_str(), "auth.test");
    }

    #[test]
    fn an_answer_is_taken_apart() {
        let text = "HTTP/1.1 401 Unauthorized\r\nDate: Tue, 24 Nov 2026 22:13:00 GMT\r\nPortcullis-Reason: expired\r\n\
                    Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let answer = Answer::parse(text.as_bytes()).unwrap();
        assert_eq!(
            (answer.status, answer.reason.as_deref(), answer.body.as_slice()),
            (401, Some("expired"), &b"abc"[..])
        );
        assert_eq!(answer.date.unwrap().unix_timestamp(), 1_795_558_380);
        assert_eq!(Answer::parse(b"SSH-2.0-OpenSSH\r\n\r\n"), None);
        assert_eq!(Answer::parse(b"HTTP/1.1 200 OK\r\nx"), None);
    }

    #[test]
    fn an_answer_is_complete_with_its_body() {
        assert!(is_complete(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"));
        assert!(!is_complete(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}"));
        assert!(!is_complete(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"));
    }
}
