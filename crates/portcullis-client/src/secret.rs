//! Passwords and tokens: zeroed when they go, and in no `Debug`, error or log.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use zeroize::Zeroizing;

/// A password or a token.
///
/// ```
/// let secret = portcullis_client::Secret::new("hunter2".to_owned());
/// assert_eq!(format!("{secret:?}"), "Secret(…)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for whoever has to send or store it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `Authorization: Bearer …`; `None` when the token is no possible header.
    pub(crate) fn bearer(&self) -> Option<HeaderValue> {
        sensitive(&Zeroizing::new(format!("Bearer {}", self.expose())))
    }

    /// `Authorization: Basic …` (RFC 7617 §2).
    pub(crate) fn basic(&self, username: &str) -> Option<HeaderValue> {
        let encoded = Zeroizing::new(self.encoded(username));
        sensitive(&Zeroizing::new(format!("Basic {}", *encoded)))
    }

    /// `user:password` in base64: of `Basic`, and of the `auth` in an auth file.
    pub(crate) fn encoded(&self, username: &str) -> String {
        STANDARD.encode(Zeroizing::new(format!("{username}:{}", self.expose())).as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    // Keeps it out of `Debug` of headers, and out of HPACK's table (RFC 7541 §7.1.3).
    value.set_sensitive(true);
    Some(value)
}
