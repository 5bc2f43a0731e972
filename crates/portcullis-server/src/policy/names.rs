//! The names that a certificate states of itself, as far as a rule may go by them.
//!
//! A name counts only where nobody can read it two ways: what is ambiguous, malformed or hides something is no name, so
//! that a rule that asks for one does not match.

use portcullis_certs::{AltName, CertificateFacts, Visible, glob};

use super::pattern::Pattern;

/// What a rule asks of the certificate's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameMatcher {
    kind: NameKind,
    text: String,
    wanted: Wanted,
}

/// A kind of name, and its key in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameKind {
    Spiffe,
    Uri,
    Dns,
    Email,
    CommonName,
    Organization,
    OrganizationalUnit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// Of what is made of components.
    Components(Pattern),
    /// Of plain text: `*` is any run of characters.
    Text(String),
}

/// The longest SPIFFE ID and the longest trust domain (SPIFFE-ID §2.3).
const MAX_SPIFFE: usize = 2048;
const MAX_TRUST_DOMAIN: usize = 255;
const SPIFFE: &str = "spiffe://";

impl NameKind {
    pub(super) const ALL: [Self; 7] = [
        Self::Spiffe,
        Self::Uri,
        Self::Dns,
        Self::Email,
        Self::CommonName,
        Self::Organization,
        Self::OrganizationalUnit,
    ];

    /// The key of the policy.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Spiffe => "spiffe",
            Self::Uri => "uri",
            Self::Dns => "dns",
            Self::Email => "email",
            Self::CommonName => "cn",
            Self::Organization => "o",
            Self::OrganizationalUnit => "ou",
        }
    }

    /// What a value must be, for messages.
    pub(super) const fn wanted(self) -> &'static str {
        match self {
            Self::Spiffe => {
                "a SPIFFE ID with its trust domain in full, such as \"spiffe://example.org/ci/*\" (`*` within a path segment, `**` for any number of them)"
            }
            Self::Uri => {
                "a URI with its scheme, such as \"https://example.org/ci/*\" (`*` within a component, `**` for any number of them)"
            }
            Self::Dns => {
                "a DNS name, such as \"*.ci.example.org\" (`*` within a label, `**` for any number of them; ASCII, without a final dot)"
            }
            Self::Email => "an address, such as \"*@example.org\" (`*` within either side of the @)",
            Self::CommonName | Self::Organization | Self::OrganizationalUnit => {
                "text, such as \"ci-*\" (`*` for any run of characters)"
            }
        }
    }
}

impl NameMatcher {
    /// `None`: no certificate could ever match it, or nobody could say what it means.
    pub(super) fn new(kind: NameKind, text: &str) -> Option<Self> {
        if !is_plain(text) {
            return None;
        }
        let wanted = match kind {
            NameKind::Spiffe => Wanted::Components(spiffe_pattern(text)?),
            NameKind::Uri => Wanted::Components(uri_pattern(text)?),
            NameKind::Dns => Wanted::Components(dns_pattern(text)?),
            NameKind::Email => Wanted::Components(email_pattern(text)?),
            NameKind::CommonName | NameKind::Organization | NameKind::OrganizationalUnit => {
                Wanted::Text((!text.contains("**")).then(|| text.to_owned())?)
            }
        };
        Some(Self { kind, text: text.to_owned(), wanted })
    }

    pub(super) fn key(&self) -> &'static str {
        self.kind.as_str()
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn matches(&self, facts: &CertificateFacts) -> bool {
        names(self.kind, facts).iter().any(|name| match &self.wanted {
            Wanted::Components(pattern) => pattern.matches(name),
            Wanted::Text(pattern) => glob(pattern, name),
        })
    }

    /// What the certificate has instead, or why that does not count; for whoever asks why a rule does not match.
    pub(super) fn found(&self, facts: &CertificateFacts) -> String {
        let found = names(self.kind, facts);
        if !found.is_empty() {
            let found: Vec<String> = found.iter().map(|name| format!("\"{}\"", Visible(name))).collect();
            return format!("the certificate has {}", found.join(", "));
        }
        let stated = stated(self.kind, facts);
        match (stated, self.kind) {
            (0, _) => "the certificate has none".to_owned(),
            (2.., NameKind::CommonName) => format!("the certificate has {stated} common names: which is meant?"),
            (2.., NameKind::Spiffe) => {
                format!("the certificate has {stated} URIs, and a SPIFFE ID must be the only one")
            }
            _ => "what the certificate has is malformed or ambiguous and does not count".to_owned(),
        }
    }
}

/// Every name of the kind that counts.
fn names(kind: NameKind, facts: &CertificateFacts) -> Vec<String> {
    let subject = &facts.subject;
    let owned = |text: &str| is_plain(text).then(|| text.to_owned());
    match kind {
        NameKind::Spiffe => spiffe_id(facts).map(str::to_owned).into_iter().collect(),
        NameKind::Uri => uris(facts).into_iter().map(str::to_owned).collect(),
        NameKind::Dns => alt_names(facts, NameKind::Dns).filter_map(dns_name).collect(),
        NameKind::Email => alt_names(facts, NameKind::Email).filter_map(email).collect(),
        NameKind::CommonName => subject.only_common_name().and_then(owned).into_iter().collect(),
        NameKind::Organization => subject.organizations().filter_map(owned).collect(),
        NameKind::OrganizationalUnit => subject.organizational_units().filter_map(owned).collect(),
    }
}

/// How many the certificate states, whether they count or not.
fn stated(kind: NameKind, facts: &CertificateFacts) -> usize {
    let subject = &facts.subject;
    match kind {
        NameKind::CommonName => subject.count("CN"),
        NameKind::Organization => subject.count("O"),
        NameKind::OrganizationalUnit => subject.count("OU"),
        NameKind::Spiffe | NameKind::Uri | NameKind::Dns | NameKind::Email => alt_names(facts, kind).count(),
    }
}

fn alt_names(facts: &CertificateFacts, kind: NameKind) -> impl Iterator<Item = &str> {
    facts.alt_names.iter().filter_map(move |name| match (name, kind) {
        (AltName::Uri(text), NameKind::Uri | NameKind::Spiffe)
        | (AltName::Dns(text), NameKind::Dns)
        | (AltName::Email(text), NameKind::Email) => Some(text.as_str()),
        _ => None,
    })
}

/// No control characters (a NUL ends the name for others), nothing that is invisible or turns the text around.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && Visible(text).to_string() == text
}

fn is_graphic(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// X509-SVID §2, §5.2: exactly one URI; a signing certificate (CA:TRUE, keyCertSign, cRLSign) identifies no workload.
fn spiffe_id(facts: &CertificateFacts) -> Option<&str> {
    let mut uris = alt_names(facts, NameKind::Spiffe);
    let (uri, None) = (uris.next()?, uris.next()) else { return None };
    let signs = facts.is_ca == Some(true)
        || facts.key_usage.as_ref().is_some_and(|usage| usage.key_cert_sign || usage.crl_sign);
    (!signs && is_spiffe_id(uri)).then_some(uri)
}

/// A certificate with a SPIFFE ID is held to its rules whichever matcher asks.
fn uris(facts: &CertificateFacts) -> Vec<&str> {
    let is_spiffe = |uri: &str| uri.get(..SPIFFE.len()).is_some_and(|start| start.eq_ignore_ascii_case(SPIFFE));
    if alt_names(facts, NameKind::Uri).any(is_spiffe) {
        return spiffe_id(facts).into_iter().collect();
    }
    alt_names(facts, NameKind::Uri).filter(|uri| is_graphic(uri) && reads_one_way(uri)).collect()
}

/// `https://example.org/ci/../admin` reads as one thing and means another (RFC 3986 §6.2.2), and so does a separator that
/// is written `%2f` or `\`. An authority ends at the first `/`: in `https://evil.test?.example.org/ci` it has ended before
/// what looks like its domain.
fn reads_one_way(uri: &str) -> bool {
    let authority = uri.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let has_dots = uri.split(['/', '?', '#']).any(|segment| matches!(segment, "." | ".."));
    let lower = uri.to_ascii_lowercase();
    !has_dots
        && !authority.contains(['?', '#', '@'])
        && !["%2e", "%2f", "%5c", "%00", "\\"].iter().any(|hidden| lower.contains(hidden))
}

/// SPIFFE-ID §2: lower-case trust domain, then a path of plain segments; nothing else, and never percent-encoded. A
/// workload's has a path (X509-SVID §3.1).
fn is_spiffe_id(uri: &str) -> bool {
    let Some((domain, path)) = uri.strip_prefix(SPIFFE).and_then(|rest| rest.split_once('/')) else { return false };
    uri.len() <= MAX_SPIFFE && is_trust_domain(domain) && path.split('/').all(is_spiffe_segment)
}

fn is_trust_domain(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=MAX_TRUST_DOMAIN).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_spiffe_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !text.is_empty() && !matches!(text, "." | "..") && text.bytes().all(allowed)
}

/// A wildcard is a server's; as a client's it names nobody in particular.
fn dns_name(text: &str) -> Option<String> {
    (is_graphic(text) && !text.contains('*')).then(|| text.to_ascii_lowercase())
}

/// RFC 5321 §2.3.11: the domain in any case, the local part as it is.
fn email(text: &str) -> Option<String> {
    let (local, domain) = text.split_once('@')?;
    let plain = is_graphic(text) && !local.is_empty() && !domain.is_empty() && !domain.contains('@');
    plain.then(|| format!("{local}@{}", domain.to_ascii_lowercase()))
}

/// The trust domain is whose word it is: a pattern for any would take anybody's.
fn spiffe_pattern(text: &str) -> Option<Pattern> {
    let (domain, path) = text.strip_prefix(SPIFFE)?.split_once('/')?;
    let is_segment = |segment: &str| is_spiffe_segment(&segment.replace('*', "x"));
    (is_trust_domain(domain) && path.split('/').all(is_segment)).then_some(())?;
    Pattern::new(text, '/')
}

fn uri_pattern(text: &str) -> Option<Pattern> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if scheme == "spiffe" {
        return spiffe_pattern(text);
    }
    (is_scheme && is_graphic(rest)).then(|| Pattern::new(text, '/'))?
}

fn dns_pattern(text: &str) -> Option<Pattern> {
    let is_label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_*".contains(&b));
    text.split('.').all(is_label).then(|| Pattern::new(&text.to_ascii_lowercase(), '.'))?
}

fn email_pattern(text: &str) -> Option<Pattern> {
    (!text.contains("**")).then(|| Pattern::new(&email(text)?, '@'))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_ends_at_the_first_slash() {
        for uri in ["https://ci.example.org/a?b#c@d", "urn:uuid:1", "https://example.org"] {
            assert!(reads_one_way(uri), "{uri}");
        }
        for hidden in ["https://evil.test?.example.org/ci", "https://evil.test#.example.org/ci", "https://a@b/ci"] {
            assert!(!reads_one_way(hidden), "{hidden}");
        }
    }

    #[test]
    fn spiffe_ids() {
        for (uri, expected) in [
            ("spiffe://example.org/ci/7", true),
            ("spiffe://example.org/a_b.c-D", true),
            ("spiffe://example.org", false),
            ("spiffe://example.org/", false),
            ("spiffe://Example.org/ci", false),
            ("SPIFFE://example.org/ci", false),
            ("spiffe:///ci", false),
            ("spiffe://example.org:8443/ci", false),
            ("spiffe://user@example.org/ci", false),
            ("spiffe://example.org/ci/", false),
            ("spiffe://example.org//ci", false),
            ("spiffe://example.org/ci/../admin", false),
            ("spiffe://example.org/./ci", false),
            ("spiffe://example.org/ci%2fadmin", false),
            ("spiffe://example.org/ci?x", false),
            ("spiffe://example.org/ci#x", false),
            ("spiffe://example.org/c\0i", false),
            ("https://example.org/ci", false),
        ] {
            assert_eq!(is_spiffe_id(uri), expected, "{uri}");
        }
        let of_length = |length: usize| format!("spiffe://t/{}", "x".repeat(length - "spiffe://t/".len()));
        assert!(is_spiffe_id(&of_length(MAX_SPIFFE)) && !is_spiffe_id(&of_length(MAX_SPIFFE + 1)));
        let of_domain = |length: usize| format!("spiffe://{}/x", "t".repeat(length));
        assert!(is_spiffe_id(&of_domain(MAX_TRUST_DOMAIN)) && !is_spiffe_id(&of_domain(MAX_TRUST_DOMAIN + 1)));
    }

    #[test]
    fn what_is_no_matcher() {
        use NameKind as K;
        for (kind, text) in [
            (K::Spiffe, "spiffe://example.org"),
            (K::Spiffe, "spiffe://*/ci"),
            (K::Spiffe, "spiffe://**"),
            (K::Spiffe, "*"),
            (K::Spiffe, "spiffe://Example.org/ci"),
            (K::Spiffe, "spiffe://example.org/../x"),
            (K::Spiffe, "spiffe://example.org/ci-**"),
            (K::Uri, "*"),
            (K::Uri, "example.org/ci"),
            (K::Uri, "spiffe://*/ci"),
            (K::Dns, "a..b"),
            (K::Dns, "a.b."),
            (K::Dns, "zürich.example"),
            (K::Dns, "a b"),
            (K::Dns, "a**.example"),
            (K::Email, "example.org"),
            (K::Email, "@example.org"),
            (K::Email, "a@b@c"),
            (K::Email, "**@example.org"),
            (K::CommonName, ""),
            (K::CommonName, "a**"),
            (K::CommonName, "a\u{202e}b"),
            (K::CommonName, "a\0"),
        ] {
            assert_eq!(NameMatcher::new(kind, text), None, "{kind:?} {text:?}");
        }
    }
}
