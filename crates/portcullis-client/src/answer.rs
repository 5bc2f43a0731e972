//! What a registry says when it does not do what it was asked: status, the spec's error body, or whatever a proxy in
//! front of it writes instead. All text here is a peer's and is shown through [`Visible`]. Must not know what was asked.

use std::fmt;

use http::header::{HeaderMap, WWW_AUTHENTICATE};
use http::{HeaderName, StatusCode};
use portcullis_certs::Visible;
use portcullis_oci::{ErrorBody, ErrorCode};

/// The most of an error body that is read, in bytes.
pub(crate) const MAX_BODY: usize = 64 * 1024;

/// The most errors of a body that are kept, and the most characters of each text that are shown.
const MAX_ERRORS: usize = 16;
const MAX_SHOWN: usize = 600;

const REASON: HeaderName = HeaderName::from_static("portcullis-reason");

/// An answer that is not the one hoped for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The entries of the distribution spec's error body, at most 16; empty when the body is something else.
    pub errors: Vec<Complaint>,
    /// The body's first words, without HTML tags, when it is not the spec's error body.
    pub text: Option<String>,
    /// The schemes of `WWW-Authenticate`, as sent (`Bearer`, `Basic`, `Mutual`).
    pub challenges: Vec<String>,
    /// The header `Portcullis-Reason`: the one thing a refused HEAD has to say.
    pub reason: Option<String>,
}

/// One entry of the spec's error body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// `MANIFEST_UNKNOWN`, `DENIED`, …: one of [`portcullis_oci::ErrorCode`], or the registry's own.
    pub code: String,
    /// For a person.
    pub message: String,
}

impl Answer {
    /// Takes apart what was received; `body` is at most [`MAX_BODY`] bytes of it.
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let errors = complaints(body);
        let text = if errors.is_empty() { first_words(body) } else { None };
        let reason = headers.get(REASON).and_then(|value| value.to_str().ok()).map(cut);
        Self { status: status.as_u16(), errors, text, challenges: challenges(headers), reason }
    }

    /// Whether this refuses the identity, so that another pair could fare better: 401, 403, nginx's 495 and 496 and its
    /// 400 about certificates, and every 5xx. Not 404 and not 429, which any identity would get.
    pub fn is_about_identity(&self) -> bool {
        match self.status {
            401 | 403 | 495 | 496 | 500..=599 => true,
            400 => self.text.as_deref().is_some_and(is_nginx_about_certificates),
            _ => false,
        }
    }

    /// Whether there is no such thing: 404, or the spec's code for an unknown repository under another 4xx.
    pub fn is_not_found(&self) -> bool {
        self.status == 404 || (matches!(self.status, 400..=499) && self.says(ErrorCode::NameUnknown))
    }

    /// Whether the same request may succeed a moment later.
    pub const fn is_passing(&self) -> bool {
        matches!(self.status, 429 | 500 | 502..=504)
    }

    /// What to do about it, where there is something to do on this side.
    pub fn advice(&self) -> Option<&'static str> {
        match self.status {
            400 if self.is_about_identity() => Some(
                "put a client certificate the registry trusts beside its key, as NAME.cert and NAME.key, into the registry's certificate directory",
            ),
            401 if self.wants_login() => {
                Some("the registry wants a user name and a password, or other ones: `portcullis login HOST` keeps them")
            }
            401 | 495 | 496 => Some("use a client certificate that the registry trusts"),
            403 => Some("the registry knows this certificate but its policy does not allow this: ask who runs it"),
            404 if self.says(ErrorCode::NameUnknown) => {
                Some("check the repository's name; registries say the same to whom they hide it from")
            }
            404 if self.says(ErrorCode::ManifestUnknown) => {
                Some("check the tag or digest, and list the repository's tags to see what there is")
            }
            405 if self.says(ErrorCode::Unsupported) => Some("the registry has this turned off: ask who runs it"),
            429 => Some("the registry limits the rate of requests: try again later"),
            _ => None,
        }
    }

    fn says(&self, code: ErrorCode) -> bool {
        self.errors.iter().any(|complaint| complaint.code == code.as_str())
    }

    /// Whether it asks for what `portcullis login` keeps.
    pub fn wants_login(&self) -> bool {
        self.challenges.iter().any(|scheme| ["bearer", "basic"].contains(&scheme.to_ascii_lowercase().as_str()))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if let Some(name) = StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason()) {
            write!(f, " {name}")?;
        }
        for (index, complaint) in self.errors.iter().enumerate() {
            let before = if index == 0 { ": " } else { "; " };
            write!(f, "{before}{complaint}")?;
        }
        if let Some(text) = &self.text {
            write!(f, ": {}", Visible(text))?;
        }
        match &self.reason {
            Some(reason) if self.errors.is_empty() => write!(f, " ({})", Visible(reason)),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code.as_str(), self.message.as_str()) {
            (code, "") => write!(f, "{}", Visible(code)),
            ("", message) => write!(f, "{}", Visible(message)),
            (code, message) => write!(f, "{}: {}", Visible(code), Visible(message)),
        }
    }
}

/// What nginx answers with `ssl_verify_client on` when there is no certificate, or one it does not accept
/// (`ngx_http_special_response.c`).
fn is_nginx_about_certificates(text: &str) -> bool {
    text.contains("No required SSL certificate was sent") || text.contains("The SSL certificate error")
}

fn complaints(body: &[u8]) -> Vec<Complaint> {
    let Ok(body) = serde_json::from_slice::<ErrorBody>(body) else { return Vec::new() };
    let complaint =
        |entry: portcullis_oci::error::ErrorEntry| Complaint { code: cut(&entry.code), message: cut(&entry.message) };
    body.errors.into_iter().take(MAX_ERRORS).map(complaint).collect()
}

fn challenges(headers: &HeaderMap) -> Vec<String> {
    let scheme = |value: &http::HeaderValue| value.to_str().ok()?.split_whitespace().next().map(cut);
    headers.get_all(WWW_AUTHENTICATE).iter().filter_map(scheme).take(MAX_ERRORS).collect()
}

/// The text of a page without its tags, blanks joined.
fn first_words(body: &[u8]) -> Option<String> {
    let body = String::from_utf8_lossy(body);
    let mut words = String::new();
    let mut in_tag = false;
    for c in body.chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                words.push(' ');
            }
            _ if in_tag => {}
            c => words.push(c),
        }
    }
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    (!words.is_empty()).then(|| cut(&words))
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer::new(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn the_specs_error_body_is_shown() {
        let body =
            r#"{"errors":[{"code":"DENIED","message":"no pull on team/app","detail":{"a":1}},{"code":"UNKNOWN"}]}"#;
        assert_eq!(answer(403, body).to_string(), "403 Forbidden: DENIED: no pull on team/app; UNKNOWN");
    }

    #[test]
    fn a_page_is_shown_without_its_tags() {
        let body =
            "<html>\r\n<head><title>400 No required SSL certificate was sent</title></head>\r\n<body></body></html>";
        let answer = answer(400, body);
        assert_eq!(answer.to_string(), "400 Bad Request: 400 No required SSL certificate was sent");
        assert!(answer.is_about_identity());
    }

    #[test]
    fn which_answers_are_about_the_identity() {
        for status in [401, 403, 495, 496, 500, 502, 503, 599] {
            assert!(answer(status, "").is_about_identity(), "{status}");
        }
        for status in [200, 301, 400, 404, 405, 416, 429, 497] {
            assert!(!answer(status, "").is_about_identity(), "{status}");
        }
    }

    #[test]
    fn a_peers_text_cannot_move_the_cursor_or_run_on() {
        let body = format!(r#"{{"errors":[{{"code":"X","message":"\u001b[2J{}"}}]}}"#, "a".repeat(10_000));
        let shown = answer(500, &body).to_string();
        assert!(!shown.contains('\u{1b}'), "{shown}");
        assert!(shown.len() < 1_000, "{}", shown.len());
    }

    #[test]
    fn a_challenge_that_wants_a_password_is_told() {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, "Bearer realm=\"https://auth.test/token\"".parse().unwrap());
        let answer = Answer::new(StatusCode::UNAUTHORIZED, &headers, b"");
        assert_eq!(answer.challenges, ["Bearer"]);
        assert!(answer.advice().is_some_and(|advice| advice.contains("login")));
    }
}
