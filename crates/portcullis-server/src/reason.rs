//! What a peer is told when it is not let in, or may not do what it asked: one sentence and one word.
//!
//! The sentence describes the peer's own certificate and the command to type; never rules, lines of the deny list, pins
//! or lists of CAs. Text that the peer chose is made visible, shortened, and never part of a command. Must not know
//! requests or connections.

use std::fmt;
use std::net::IpAddr;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri};
use portcullis_certs::{AltName, Certificate};
use portcullis_oci::{RegistryHost, RepositoryName};
use portcullis_tls::{Identity, Refusal, RefusedPeer, TrustedBy};
use time::OffsetDateTime;

use crate::policy::{Action, Caller};
use crate::status::rfc3339;

/// Subjects are shown up to here: a stranger's can have thousands of characters, and engines print what they are told.
const MAX_NAME: usize = 120;

/// Who makes another certificate, and how.
const ONE: &str = "who runs this registry can make one: portcullis cert new client NAME";
const ANOTHER: &str = "who runs this registry can make another: portcullis cert new client NAME";
const PIN: &str =
    "who runs this registry can trust exactly this certificate: portcullis trust add client.cert --as pin --name NAME";

/// Why not: what the peer is told, and the log with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    code: &'static str,
    sentence: String,
}

/// A certificate as its owner knows it.
struct Own<'a>(&'a Certificate);

/// A name, made visible by its own `Display`, up to [`MAX_NAME`] characters.
pub(crate) struct Short<T>(pub(crate) T);

impl Reason {
    /// No certificate, where one is needed. `host` is the registry's name, as clients type it.
    pub(crate) fn no_certificate(host: &str) -> Self {
        let sentence = format!(
            "no client certificate was presented, and this registry lets in only those who have one; put it where your engine looks: portcullis install {host} --from DIR (with ca.crt, client.cert and client.key; {ONE})"
        );
        Self { code: "no-certificate", sentence }
    }

    /// A certificate that is not trusted at `now`.
    pub(crate) fn refused(peer: &RefusedPeer, now: OffsetDateTime) -> Self {
        let sentence = match &peer.certificate {
            Some(certificate) => {
                format!("the client certificate {} {}", Own(certificate), fault(peer, certificate, now))
            }
            None => format!("the client certificate cannot be read; {ANOTHER}"),
        };
        Self { code: code(peer), sentence }
    }

    /// Trusted, and without the right.
    pub(crate) fn not_allowed(caller: &Caller, action: Action, repository: &RepositoryName) -> Self {
        let action = action.as_str();
        let sentence = match caller {
            Caller::Trusted(identity) => format!(
                "{} may not {action} in {repository}; who runs this registry sees why, and what would allow it, with: portcullis policy check --cert client.cert {action} REPOSITORY",
                Named(identity)
            ),
            Caller::Anonymous => format!(
                "no client certificate was presented, and without one nobody may {action} in {repository}; {ONE}"
            ),
        };
        Self { code: "not-allowed", sentence }
    }

    /// One word, stable.
    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// A CA's own certificate in a client's place is the most frequent wrong usage: it has a word of its own.
fn code(peer: &RefusedPeer) -> &'static str {
    match &peer.refusal {
        Refusal::Usage { .. } | Refusal::SelfSigned if is_ca(peer) => "ca-certificate",
        // Which of the three it is would tell a stranger who is pinned, or what the CAs here are called.
        Refusal::UnknownIssuer | Refusal::IssuedByPin { .. } | Refusal::OtherKey if !peer.sent_its_issuer() => {
            "issuer-not-sent"
        }
        refusal => refusal.code(),
    }
}

fn is_ca(peer: &RefusedPeer) -> bool {
    peer.certificate.as_ref().is_some_and(|certificate| certificate.facts().is_ca == Some(true))
}

/// The end of the sentence that begins with the certificate.
fn fault(peer: &RefusedPeer, certificate: &Certificate, now: OffsetDateTime) -> String {
    let facts = certificate.facts();
    match &peer.refusal {
        Refusal::Unreadable => format!("cannot be read; {ANOTHER}"),
        // Which line says so is the operator's to know.
        Refusal::Denied { .. } | Refusal::Revoked { .. } => format!("is revoked; {ANOTHER}"),
        Refusal::CrlMissing { .. } | Refusal::CrlStale { .. } => {
            "may be as it should, but this registry has no current revocation list (CRL) of its CA and lets nobody in without: tell who runs it, whose log has the CA's name".to_owned()
        }
        Refusal::Expired { not_after } if *not_after == facts.not_after => {
            format!("expired on {}; {ANOTHER}", rfc3339(*not_after))
        }
        Refusal::Expired { not_after } => {
            format!("was issued by a CA whose certificate expired on {}; {ANOTHER}", rfc3339(*not_after))
        }
        Refusal::NotYetValid { not_before } => {
            let whose = if *not_before == facts.not_before { "is" } else { "was issued by a CA whose certificate is" };
            let (from, here) = (rfc3339(*not_before), rfc3339(now));
            format!(
                "{whose} not valid before {from}, and here it is {here}: set the clock that is wrong; else {ANOTHER}"
            )
        }
        Refusal::SelfSigned | Refusal::Usage { .. } if is_ca(peer) => {
            format!("is a CA's (CA:TRUE), and a CA is no client: as one it is let in only when it is pinned; {PIN}")
        }
        Refusal::SelfSigned => format!("is self-signed and not pinned here; {PIN}"),
        Refusal::UnknownIssuer | Refusal::IssuedByPin { .. } | Refusal::OtherKey if !peer.sent_its_issuer() => format!(
            "was issued by {}, which is no CA that is trusted here and whose certificate was not sent; if that is an intermediate CA, append its certificate: cat intermediate.crt >> client.cert; else {ANOTHER}",
            Short(&facts.issuer)
        ),
        Refusal::UnknownIssuer | Refusal::IssuedByPin { .. } | Refusal::OtherKey => {
            format!(
                "was sent with the certificates of its issuers, and they lead to no CA that is trusted here; {ANOTHER}"
            )
        }
        Refusal::Usage { problem } => format!("may not be used by a TLS client: {problem}; {ANOTHER}"),
        Refusal::Unsupported { problem } => format!("is not supported: {problem}; {ANOTHER}"),
    }
}

/// An identity that is trusted, for people: the pin's name or the certificate's own, its serial number and fingerprint.
pub(crate) struct Named<'a>(pub(crate) &'a Identity);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.0.certificate().facts();
        match self.0.trusted_by() {
            pin @ TrustedBy::Pin(_) => write!(f, "{pin}"),
            TrustedBy::Ca(_) => write!(f, "{}", Short(&facts.subject)),
        }?;
        write!(f, " (serial {}, {})", Short(&facts.serial), self.0.fingerprint())
    }
}

impl fmt::Display for Own<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.0.facts();
        write!(
            f,
            "{} (serial {}, {}, valid {} to {})",
            Short(&facts.subject),
            Short(&facts.serial),
            self.0.fingerprint(),
            rfc3339(facts.not_before),
            rfc3339(facts.not_after)
        )
    }
}

impl<T: fmt::Display> fmt::Display for Short<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.char_indices().nth(MAX_NAME) {
            Some((end, _)) => write!(f, "{}…", &text[..end]),
            None => f.write_str(&text),
        }
    }
}

/// How clients name this registry, as far as it can tell: by the first name of its certificate that does not mean this
/// machine, on the port where it listens.
pub(crate) fn own_host(certificate: Option<&Certificate>, port: u16) -> String {
    with_port(names(certificate).find(|name| name != "localhost").as_deref().unwrap_or("HOST"), port)
}

/// How the peer named it, where that is one of its names: in front of it may stand something with another port. The name is
/// taken from the certificate and the port is a number, so that no text of the peer's gets into a command.
pub(crate) fn typed_host(uri: &Uri, headers: &HeaderMap, certificate: Option<&Certificate>, port: u16) -> String {
    let authority = uri.authority().map(Authority::as_str);
    let host = authority.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    let typed = host.and_then(|host| host.parse::<RegistryHost>().ok());
    let known = typed.and_then(|typed| {
        let name = names(certificate).find(|name| name.eq_ignore_ascii_case(typed.host()))?;
        Some(with_port(&name, typed.port_or_default()))
    });
    known.unwrap_or_else(|| own_host(certificate, port))
}

/// The names of the certificate that can be typed.
fn names(certificate: Option<&Certificate>) -> impl Iterator<Item = String> {
    let names = certificate.map_or(&[][..], |certificate| &certificate.facts().alt_names);
    names.iter().filter_map(|name| match name {
        AltName::Dns(name) => name.parse::<RegistryHost>().ok().map(|host| host.host().to_owned()),
        AltName::Ip(ip) if ip.is_loopback() => None,
        AltName::Ip(IpAddr::V6(ip)) => Some(format!("[{ip}]")),
        AltName::Ip(ip) => Some(ip.to_string()),
        AltName::Email(_) | AltName::Uri(_) | AltName::Other(_) => None,
    })
}

fn with_port(host: &str, port: u16) -> String {
    if port == 443 { host.to_owned() } else { format!("{host}:{port}") }
}
