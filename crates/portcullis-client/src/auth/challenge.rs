//! `WWW-Authenticate` (RFC 9110 §11.6.1): from a peer's bytes to the challenges that can be answered. Must not know how.

use reqwest::Url;

use crate::host_of;
use crate::options::Transport;

/// The most that is read of all `WWW-Authenticate` headers together, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// The most challenges, and the most parameters of one, that are looked at.
const MAX_CHALLENGES: usize = 16;
const MAX_PARAMETERS: usize = 16;

/// The longest realm, and the longest of the other parameters.
const MAX_REALM: usize = 2048;
const MAX_PARAMETER: usize = 4096;

/// What a registry wants, where this client can give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A user name and a password with each request (RFC 7617).
    Basic,
    /// A token from a token server (distribution's `docs/spec/auth/token.md`).
    Bearer(Bearer),
}

/// Where the token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bearer {
    /// The token server.
    pub(crate) realm: Url,
    /// The name under which the token server knows the registry.
    pub(crate) service: Option<String>,
    /// What the request needs, in the registry's words; not part of what stays the same.
    pub(crate) scope: Option<String>,
}

/// A challenge that cannot be answered, whatever credentials there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unanswerable {
    /// The realm is no https address without a user name.
    Realm(String),
    /// Nothing that this client knows.
    Unknown,
}

/// Reads all the headers. The best challenge is a Bearer, which does not send the password to the registry.
pub(crate) fn best<'a>(
    headers: impl Iterator<Item = &'a str>,
    transport: Transport,
) -> Result<Challenge, Unanswerable> {
    let mut left = MAX_BYTES;
    let mut parsed = Vec::new();
    for header in headers {
        let Some(rest) = left.checked_sub(header.len()) else { break };
        left = rest;
        Scanner(header).challenges(&mut parsed);
    }
    let mut found = Err(Unanswerable::Unknown);
    for challenge in &parsed {
        match challenge.scheme.as_str() {
            "bearer" => match challenge.bearer(transport) {
                Ok(bearer) => return Ok(Challenge::Bearer(bearer)),
                Err(reason) if found.is_err() => found = Err(reason),
                Err(_) => {}
            },
            "basic" => found = Ok(Challenge::Basic),
            _ => {}
        }
    }
    found
}

/// One challenge, as sent.
struct Parsed {
    /// In lower case.
    scheme: String,
    /// Names in lower case.
    parameters: Vec<(String, String)>,
}

impl Parsed {
    fn bearer(&self, transport: Transport) -> Result<Bearer, Unanswerable> {
        let realm = self.get("realm")?.ok_or(Unanswerable::Unknown)?;
        let shown = || Unanswerable::Realm(realm.chars().take(200).collect());
        let url = Url::parse(realm).map_err(|_| shown())?;
        let secure = url.scheme() == "https" || (url.scheme() == "http" && transport == Transport::PlainHttp);
        // A user name in the address would become a login of the registry's choosing.
        let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if realm.len() > MAX_REALM || !secure || !plain || host_of(&url).is_none() {
            return Err(shown());
        }
        let owned = |name| Ok(self.get(name)?.map(str::to_owned));
        Ok(Bearer { realm: url, service: owned("service")?, scope: owned("scope")? })
    }

    /// A parameter that stands twice may mean either: the challenge is not answered.
    fn get(&self, name: &str) -> Result<Option<&str>, Unanswerable> {
        let mut found = self.parameters.iter().filter(|(other, _)| other == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) if value.len() <= MAX_PARAMETER => Ok(Some(value)),
            (None, _) => Ok(None),
            _ => Err(Unanswerable::Unknown),
        }
    }
}

/// The rest of a header that is being read.
struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    /// Reads until the end, or until what is no challenge.
    fn challenges(&mut self, into: &mut Vec<Parsed>) {
        let mut current: Option<usize> = None;
        loop {
            self.skip(|c| c == ' ' || c == '\t' || c == ',');
            let word = self.take(is_token);
            if word.is_empty() {
                return;
            }
            let after = self.0.trim_start_matches([' ', '\t']);
            if let (Some(rest), Some(at)) = (after.strip_prefix('='), current) {
                self.0 = rest.trim_start_matches([' ', '\t']);
                let Some(value) = self.value() else { return };
                let parameters = &mut into[at].parameters;
                if parameters.len() == MAX_PARAMETERS {
                    return;
                }
                parameters.push((word.to_ascii_lowercase(), value));
                continue;
            }
            if into.len() == MAX_CHALLENGES || (!self.0.is_empty() && !self.0.starts_with([' ', '\t', ','])) {
                return;
            }
            into.push(Parsed { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            current = Some(into.len() - 1);
            self.skip_token68();
        }
    }

    /// A token, or a quoted string with its escapes undone. Some registries leave the quotes out around what is no token.
    fn value(&mut self) -> Option<String> {
        let Some(rest) = self.0.strip_prefix('"') else {
            return Some(self.take(|c| !matches!(c, ',' | ' ' | '\t' | '"')).to_owned());
        };
        let mut value = String::new();
        let mut characters = rest.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.0 = &rest[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(characters.next()?.1),
                c => value.push(c),
            }
        }
        None
    }

    /// `Negotiate YII=`: what some schemes have in place of parameters.
    fn skip_token68(&mut self) {
        let rest = self.0.trim_start_matches([' ', '\t']);
        let end = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
        let after = end.trim_start_matches('=').trim_start_matches([' ', '\t']);
        if end.len() < rest.len() && (after.is_empty() || after.starts_with(',')) {
            self.0 = after;
        }
    }

    fn skip(&mut self, what: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(what);
    }

    fn take(&mut self, what: impl Fn(char) -> bool) -> &'a str {
        let rest = self.0.trim_start_matches(what);
        let (taken, rest) = self.0.split_at(self.0.len() - rest.len());
        self.0 = rest;
        taken
    }
}

/// RFC 9110 §5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(headers: &[&str], expected: &Unanswerable) {
        assert_eq!(best(headers.iter().copied(), Transport::Tls).as_ref(), Err(expected), "{headers:?}");
    }

    fn check(headers: &[&str], expected: &Challenge) {
        assert_eq!(best(headers.iter().copied(), Transport::Tls).as_ref(), Ok(expected), "{headers:?}");
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let (service, scope) = (service.map(str::to_owned), scope.map(str::to_owned));
        Challenge::Bearer(Bearer { realm: Url::parse(realm).unwrap(), service, scope })
    }

    #[test]
    fn what_registries_send() {
        check(
            &[r#"Bearer realm="https://auth.test/token",service="r.test",scope="repository:a/b:pull,push""#],
            &bearer("https://auth.test/token", Some("r.test"), Some("repository:a/b:pull,push")),
        );
        check(&[r#"Basic realm="Registry Realm""#], &Challenge::Basic);
        check(&["basic"], &Challenge::Basic);
        check(&[r#"BEARER Realm = "https://a.test/" , SERVICE=x"#], &bearer("https://a.test/", Some("x"), None));
        check(&[r#"Bearer realm="https://a.test/a\"b""#], &bearer("https://a.test/a\"b", None, None));
        check(&["Bearer realm=https://a.test/t,service=x"], &bearer("https://a.test/t", Some("x"), None));
    }

    #[test]
    fn of_several_the_one_that_keeps_the_password_here() {
        let wanted = bearer("https://a.test/", None, None);
        check(&[r#"Basic realm="x", Bearer realm="https://a.test/""#], &wanted);
        check(&[r#"Basic realm="x""#, r#"Bearer realm="https://a.test/""#], &wanted);
        check(&[r#"Negotiate YII=, NTLM, Bearer realm="https://a.test/""#], &wanted);
        check(&[r#"Digest realm="x", nonce="a,b", Bearer realm="https://a.test/""#], &wanted);
        check(&[r#"Bearer realm="http://a.test/", Basic realm="x""#], &Challenge::Basic);
    }

    #[test]
    fn what_cannot_be_answered() {
        for header in [
            "",
            ",,,",
            "Mutual realm=\"client certificate\"",
            "Bearer",
            "Bearer realm",
            "Bearer service=x",
            "Bearer realm=\"https://a.test/",
            "Bearer realm=\"https://a.test/\\",
            "Bearer realm=\"https://a.test/\", realm=\"https://b.test/\"",
            "=x",
            "(Basic)",
            "Basic@x",
        ] {
            refused(&[header], &Unanswerable::Unknown);
        }
        for realm in ["http://a.test/", "ftp://a.test/", "https://u:p@a.test/", "//a.test/", "https://a.test/#x", "a"] {
            refused(&[&format!("Bearer realm=\"{realm}\"")], &Unanswerable::Realm(realm.to_owned()));
        }
        let shown = Unanswerable::Realm(format!("https://a.test/{}", "x".repeat(185)));
        refused(&[&format!("Bearer realm=\"https://a.test/{}\"", "x".repeat(MAX_REALM))], &shown);
    }

    #[test]
    fn plain_http_is_for_who_asked_for_it() {
        let header = r#"Bearer realm="http://a.test/""#;
        assert!(best([header].into_iter(), Transport::PlainHttp).is_ok());
    }

    #[test]
    fn nothing_is_read_without_a_bound() {
        let many = "Digest x=y, ".repeat(MAX_CHALLENGES - 1);
        check(&[&format!("{many}Basic")], &Challenge::Basic);
        refused(&[&format!("{many}Digest, Basic")], &Unanswerable::Unknown);
        let header = format!("Digest x=\"{}\"", "x".repeat(MAX_BYTES - 16));
        check(&[&header, "Basic"], &Challenge::Basic);
        check(&[&header, "Basic", "Bearer realm=\"https://a.test/\""], &Challenge::Basic);
        let parameters = |count: usize| format!("Bearer {}realm=\"https://a.test/\"", "a=b,".repeat(count));
        check(&[&parameters(MAX_PARAMETERS - 1)], &bearer("https://a.test/", None, None));
        refused(&[&parameters(MAX_PARAMETERS)], &Unanswerable::Unknown);
        let scope = |length: usize| format!("Bearer realm=\"https://a.test/\",scope=\"{}\"", "x".repeat(length));
        assert!(best([scope(MAX_PARAMETER).as_str()].into_iter(), Transport::Tls).is_ok());
        refused(&[&scope(MAX_PARAMETER + 1)], &Unanswerable::Unknown);
    }
}
