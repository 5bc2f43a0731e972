//! The token server: GET with Basic (distribution's `docs/spec/auth/token.md`), POST for OAuth 2
//! (`docs/spec/auth/oauth.md`). Must not know which request the token is for.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::challenge::Bearer;
use super::scope::Scopes;
use crate::error::ProtocolFault;
use crate::secret::Secret;
use crate::session::{Repeat, Response};
use crate::{Client, ClientError, Credential, Progress};

/// The most of a token server's answer that is read, and the longest token that is taken, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
const MAX_TOKEN: usize = 64 * 1024;

/// How long a token is good when the server does not say (`expires_in`), and the longest that it is believed to be.
const DEFAULT_LIFE: u64 = 60;
const MAX_LIFE: u64 = 24 * 60 * 60;

/// What we call ourselves there.
const CLIENT_ID: &str = "portcullis";

/// What a token server gave.
pub(super) struct Granted {
    pub(super) value: Secret,
    pub(super) until: Instant,
    pub(super) refresh: Option<Secret>,
}

impl Client {
    pub(super) async fn fetch_token(
        &self,
        bearer: &Bearer,
        scopes: &Scopes,
        credential: Option<&Credential>,
    ) -> Result<Granted, ClientError> {
        let asked = Instant::now();
        let mut response = match credential {
            Some(Credential::IdentityToken(token)) => {
                self.post(bearer, scopes, &[("grant_type", "refresh_token"), ("refresh_token", token.expose())]).await?
            }
            Some(Credential::Password { username, password }) => {
                let got = self.get(bearer, scopes, Some((username, password))).await?;
                match got.status() {
                    // Servers of OAuth 2 alone.
                    StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                        let password = password.expose();
                        let form = [("grant_type", "password"), ("username", username), ("password", password)];
                        self.post(bearer, scopes, &form).await?
                    }
                    _ => got,
                }
            }
            Some(Credential::RegistryToken(_)) | None => self.get(bearer, scopes, None).await?,
        };
        if response.status() != StatusCode::OK {
            return Err(response.into_error().await);
        }
        let body = Zeroizing::new(response.whole(MAX_ANSWER).await?.to_vec());
        let reason = |reason: &str| response.fault(ProtocolFault::BadBody { reason: reason.to_owned() });
        granted(&body, asked).map_err(reason)
    }

    async fn get(
        &self,
        bearer: &Bearer,
        scopes: &Scopes,
        login: Option<(&String, &Secret)>,
    ) -> Result<Response, ClientError> {
        let mut url = bearer.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(bearer.service.iter().map(|service| ("service", service)));
            query.extend_pairs(scopes.texts().map(|scope| ("scope", scope)));
            query.extend_pairs(login.iter().map(|(username, _)| ("account", username)));
            query.append_pair("client_id", CLIENT_ID);
        }
        let mut headers = HeaderMap::new();
        if let Some(value) = login.and_then(|(username, password)| password.basic(username)) {
            headers.insert(AUTHORIZATION, value);
        }
        let session = self.session_with(&bearer.realm).await?;
        session.read(&Method::GET, &url, &headers, Repeat::Passing, &Progress::none()).await
    }

    async fn post(&self, bearer: &Bearer, scopes: &Scopes, form: &[(&str, &str)]) -> Result<Response, ClientError> {
        let scopes = scopes.texts().collect::<Vec<_>>().join(" ");
        let service = bearer.service.as_deref().unwrap_or_default();
        let common = [("client_id", CLIENT_ID), ("service", service), ("scope", &scopes)];
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(common).extend_pairs(form).finish();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let session = self.session_with(&bearer.realm).await?;
        // Once: a refresh token may be good for one use.
        let (url, nobody) = (&bearer.realm, Progress::none());
        session.write(&Method::POST, url, &headers, Bytes::from(body), Repeat::Never, &nobody).await
    }
}

/// Reads the answer; nothing of it is in an error.
fn granted(body: &[u8], asked: Instant) -> Result<Granted, &'static str> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| "it is no JSON")?;
    let text = |key: &str| answer.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let token = text("token").or_else(|| text("access_token")).ok_or("it has no token")?;
    if token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its token is no possible one");
    }
    let life = answer.get("expires_in").and_then(Value::as_u64).filter(|life| *life > 0);
    let life = life.unwrap_or(DEFAULT_LIFE).min(MAX_LIFE);
    // Given up a tenth before its end, so that it does not end on its way.
    let until = asked + Duration::from_secs(life) * 9 / 10;
    let secret = |text: &str| Secret::new(text.to_owned());
    Ok(Granted { value: secret(token), until, refresh: text("refresh_token").map(secret) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(body: &str) -> Result<Duration, &'static str> {
        let now = Instant::now();
        granted(body.as_bytes(), now).map(|granted| granted.until - now)
    }

    #[test]
    fn how_long_a_token_is_good() {
        for (expires, seconds) in [
            ("", 54),
            (r#","expires_in":300"#, 270),
            (r#","expires_in":10"#, 9),
            (r#","expires_in":0"#, 54),
            (r#","expires_in":-5"#, 54),
            (r#","expires_in":"300""#, 54),
            (r#","expires_in":99999999999999999"#, 77760),
        ] {
            assert_eq!(life(&format!(r#"{{"token":"t"{expires}}}"#)), Ok(Duration::from_secs(seconds)), "{expires}");
        }
    }

    #[test]
    fn what_a_token_server_says() {
        let value = |body: &str| granted(body.as_bytes(), Instant::now()).map(|granted| granted.value);
        let secret = |text: &str| Ok(Secret::new(text.to_owned()));
        assert_eq!(value(r#"{"token":"a"}"#), secret("a"));
        assert_eq!(value(r#"{"access_token":"b"}"#), secret("b"));
        assert_eq!(value(r#"{"token":"","access_token":"b"}"#), secret("b"));
        assert_eq!(value(r#"{"token":"a","access_token":"b"}"#), secret("a"));
        assert_eq!(value(&format!(r#"{{"token":"{}"}}"#, "x".repeat(MAX_TOKEN))), secret(&"x".repeat(MAX_TOKEN)));
        assert!(value(&format!(r#"{{"token":"{}"}}"#, "x".repeat(MAX_TOKEN + 1))).is_err());
        for bad in ["", "[]", "{}", "<html>", r#"{"token":1}"#, r#"{"token":"a b"}"#, r#"{"token":"a\r\nX: y"}"#] {
            assert!(value(bad).is_err(), "{bad}");
        }
        let refresh = granted(br#"{"token":"a","refresh_token":"r"}"#, Instant::now()).unwrap().refresh;
        assert_eq!(refresh, Some(Secret::new("r".to_owned())));
    }
}
