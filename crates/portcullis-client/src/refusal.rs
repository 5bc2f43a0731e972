//! Why a connection failed, as a closed list: translates the error chains of rustls, hyper and reqwest.
//!
//! A registry that refuses a client certificate says so with a TLS alert. In TLS 1.2 the alert ends the handshake; in
//! TLS 1.3 the client has finished by then and meets it at its first read (RFC 8446 §4.4.2.4 and §6.2), so it arrives
//! as an I/O error of the HTTP exchange. Both end up here. Must not know which pair was presented or what is tried next.

use std::error::Error;
use std::{fmt, io};

use portcullis_certs::Visible;
use rustls::{AlertDescription, InvalidMessage};

use crate::answer::Answer;
use crate::distrust::Distrust;
use crate::resolver::NameNotFound;

/// Why there was no answer. Displayed without the host, which the error around it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Alert `certificate_required`: the registry wants a client certificate and got none.
    CertificateRequired,
    /// Alert `unknown_ca`: the client certificate comes from nobody the registry trusts.
    UnknownCa,
    /// Alert `certificate_expired`: the client certificate is expired or not valid yet.
    CertificateExpired,
    /// Alert `certificate_revoked`.
    CertificateRevoked,
    /// Alert `unsupported_certificate`: its usages do not allow client authentication, or its kind is not supported.
    UnsupportedCertificate,
    /// Alert `bad_certificate`: what older Go servers say for most faults, a missing certificate among them.
    BadCertificate,
    /// Alert `certificate_unknown`: the registry found some other fault with the certificate.
    CertificateUnknown,
    /// Alert `access_denied`.
    AccessDenied,
    /// Alert `handshake_failure`: in TLS 1.2 also what a server says when it got no certificate.
    HandshakeFailure,
    /// Alert `decrypt_error`: the signature made with the client's key did not verify.
    DecryptError,
    /// Any other alert.
    OtherAlert {
        /// Its name in the TLS registry, in rustls' spelling.
        alert: String,
    },
    /// The registry's certificate did not pass our verification.
    ServerNotTrusted(Distrust),
    /// What answers on the port does not speak TLS.
    NotTls,
    /// TLS failed in another way.
    Tls {
        /// What rustls says.
        reason: String,
    },
    /// Nothing listens on the port.
    ConnectionRefused,
    /// The name has no address.
    NameNotFound {
        /// The name that was looked up: the registry's or the proxy's.
        name: String,
    },
    /// There is no way to the address.
    Unreachable,
    /// A deadline passed.
    TimedOut {
        /// What was waited for.
        waiting_for: Wait,
    },
    /// The connection was closed before the answer was complete.
    Closed,
    /// The proxy did not open a tunnel.
    Proxy {
        /// What it did instead.
        reason: String,
    },
    /// There is no TLS connection with the proxy.
    ProxyNotReached {
        /// Its address, without a login.
        proxy: String,
        /// Why not, as it would be of a registry.
        failure: Box<Failure>,
    },
    /// HTTP itself went wrong.
    Protocol {
        /// The innermost cause.
        reason: String,
    },
}

/// What a deadline was set for; see [`crate::Timeouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Name lookup, TCP and TLS.
    Connection,
    /// The first byte of an answer.
    Answer,
    /// The next bytes of a body, in either direction.
    Bytes,
    /// The answer after the last byte of an upload.
    Commit,
}

/// What one registry said to one identity.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The stem of the pair's file names; `None`: no certificate was presented.
    pub pair: Option<String>,
    /// The refusal.
    pub refusal: Refusal,
}

/// How an identity was refused.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// In the handshake, or by closing the connection right after it.
    Handshake(Failure),
    /// With an HTTP status.
    Answer(Box<Answer>),
}

impl Failure {
    /// Reads an error chain; the most telling link wins, wherever it is.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let chain = chain(error);
        let find = |judge: fn(&(dyn Error + 'static)) -> Option<Self>| chain.iter().copied().find_map(judge);
        find(tls)
            .or_else(|| find(name))
            .or_else(|| find(tunnel))
            .or_else(|| find(timeout))
            .or_else(|| find(socket))
            .or_else(|| find(http))
            .unwrap_or_else(|| Self::Protocol { reason: innermost(&chain) })
    }

    /// Whether this may be about the client certificate, so that another one could fare better.
    pub const fn is_about_identity(&self) -> bool {
        matches!(
            self,
            Self::CertificateRequired
                | Self::UnknownCa
                | Self::CertificateExpired
                | Self::CertificateRevoked
                | Self::UnsupportedCertificate
                | Self::BadCertificate
                | Self::CertificateUnknown
                | Self::AccessDenied
                | Self::HandshakeFailure
                | Self::DecryptError
        )
    }

    /// Whether the same request may succeed a moment later.
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self, Self::Closed | Self::Protocol { .. })
    }

    /// What to do about it, where there is something to do on this side.
    pub const fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::CertificateRequired => {
                "put a client certificate the registry trusts beside its key, as NAME.cert and NAME.key, into the registry's certificate directory"
            }
            Self::UnknownCa => {
                "ask who runs the registry to trust this certificate or its CA, or use a pair issued by a CA it trusts; a certificate from an intermediate CA needs that CA's certificate after it in the .cert file"
            }
            Self::CertificateExpired => {
                "renew the client certificate, and compare this machine's clock with the registry's"
            }
            Self::CertificateRevoked => "ask who runs the registry for a new client certificate",
            Self::UnsupportedCertificate => {
                "use a certificate whose extended key usage has clientAuth (a server's certificate does not do)"
            }
            Self::BadCertificate | Self::CertificateUnknown | Self::AccessDenied => {
                "the registry's log says what it has against this certificate"
            }
            Self::HandshakeFailure => {
                "the registry refuses without a reason: it may want a client certificate, or share no TLS version or cipher suite with this client (TLS 1.2 with ECDHE and AEAD, or TLS 1.3)"
            }
            Self::DecryptError => "the key may not belong to the certificate: make the pair again",
            Self::ServerNotTrusted(distrust) => distrust.advice(),
            Self::NotTls => {
                "the registry must serve HTTPS on this port: check the port; one without TLS is spoken to with --plain-http only"
            }
            Self::ConnectionRefused => "check that the registry runs and listens on this port",
            Self::NameNotFound { .. } => "check the spelling, DNS, or /etc/hosts",
            Self::Unreachable => "check the network, and HTTPS_PROXY if one is needed",
            Self::Proxy { .. } => "check HTTPS_PROXY, and NO_PROXY if this registry is to be reached directly",
            Self::ProxyNotReached { .. } => {
                "check HTTPS_PROXY, and NO_PROXY if this registry is to be reached directly; the proxy's CA, and a client certificate for it, belong into its own certificate directory"
            }
            Self::OtherAlert { .. }
            | Self::Tls { .. }
            | Self::TimedOut { .. }
            | Self::Closed
            | Self::Protocol { .. } => {
                return None;
            }
        })
    }

    fn of_rustls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(alert) => Self::of_alert(*alert),
            rustls::Error::InvalidCertificate(reason) => Self::ServerNotTrusted(Distrust::of(reason)),
            // The first byte is no record type: `H` of `HTTP/1.1 400 Bad Request`, mostly.
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            other => Self::Tls { reason: other.to_string() },
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate => Self::CertificateRequired,
            AlertDescription::UnknownCA => Self::UnknownCa,
            AlertDescription::CertificateExpired => Self::CertificateExpired,
            AlertDescription::CertificateRevoked => Self::CertificateRevoked,
            AlertDescription::UnsupportedCertificate => Self::UnsupportedCertificate,
            AlertDescription::BadCertificate => Self::BadCertificate,
            AlertDescription::CertificateUnknown => Self::CertificateUnknown,
            AlertDescription::AccessDenied => Self::AccessDenied,
            AlertDescription::HandshakeFailure => Self::HandshakeFailure,
            AlertDescription::DecryptError => Self::DecryptError,
            other => Self::OtherAlert { alert: format!("{other:?}") },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::CertificateRequired => "the registry requires a client certificate (TLS alert certificate_required)",
            Self::UnknownCa => "the registry does not trust who issued the client certificate (TLS alert unknown_ca)",
            Self::CertificateExpired => {
                "the registry says that the client certificate is not valid now (TLS alert certificate_expired)"
            }
            Self::CertificateRevoked => {
                "the registry says that the client certificate is revoked (TLS alert certificate_revoked)"
            }
            Self::UnsupportedCertificate => {
                "the registry says that the certificate is not one for clients (TLS alert unsupported_certificate)"
            }
            Self::BadCertificate => {
                "the registry does not accept the client certificate, or the lack of one (TLS alert bad_certificate)"
            }
            Self::CertificateUnknown => {
                "the registry does not accept the client certificate (TLS alert certificate_unknown)"
            }
            Self::AccessDenied => "the registry denies access to this certificate (TLS alert access_denied)",
            Self::HandshakeFailure => "the registry refused the TLS handshake (TLS alert handshake_failure)",
            Self::DecryptError => "the registry could not verify the client's signature (TLS alert decrypt_error)",
            Self::OtherAlert { alert } => return write!(f, "the registry ended TLS with the alert {alert}"),
            Self::ServerNotTrusted(distrust) => {
                return write!(f, "the registry's certificate is not trusted: {distrust}");
            }
            Self::NotTls => "what answers on this port does not speak TLS (plain HTTP?)",
            Self::Tls { reason } => return write!(f, "TLS failed: {}", Visible(reason)),
            Self::ConnectionRefused => "connection refused: nothing listens on this port",
            Self::NameNotFound { name } => return write!(f, "no address found for {}", Visible(name)),
            Self::Unreachable => "network or host unreachable",
            Self::TimedOut { waiting_for } => return write!(f, "timed out waiting for {waiting_for}"),
            Self::Closed => "the connection was closed before the answer was complete",
            Self::Proxy { reason } => return write!(f, "the proxy refused: {}", Visible(reason)),
            Self::ProxyNotReached { proxy, failure } => {
                let of_proxy = failure.to_string().replace("the registry", "the proxy");
                return write!(f, "no connection with the proxy {}: {of_proxy}", Visible(proxy));
            }
            Self::Protocol { reason } => return write!(f, "the exchange broke: {}", Visible(reason)),
        };
        f.write_str(text)
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "the connection",
            Self::Answer => "an answer",
            Self::Bytes => "the next bytes",
            Self::Commit => "the answer to a complete upload",
        })
    }
}

impl Refusal {
    /// What to do about it, where there is something to do on this side.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Handshake(failure) => failure.advice(),
            Self::Answer(answer) => answer.advice(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(failure) => failure.fmt(f),
            Self::Answer(answer) => write!(f, "the registry answered {answer}"),
        }
    }
}

impl Attempt {
    /// What to do about it, where there is something to do on this side. To who presented no certificate most servers
    /// say only that the handshake failed.
    pub fn advice(&self) -> Option<&'static str> {
        match (&self.pair, &self.refusal) {
            (None, Refusal::Handshake(failure)) if failure.is_about_identity() => Failure::CertificateRequired.advice(),
            (_, refusal) => refusal.advice(),
        }
    }

    /// Whether this is rather the server's trouble than about the identity, and may pass.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(&self.refusal, Refusal::Answer(answer) if answer.is_passing())
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pair {
            Some(pair) => write!(f, "with {}.cert: {}", Visible(pair), self.refusal),
            None => write!(f, "without a client certificate: {}", self.refusal),
        }
    }
}

/// Every link. `io::Error::source` skips the error it carries, so that one is taken with `get_ref`.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    const MAX_LINKS: usize = 32;
    std::iter::successors(Some(error), |link| follow(*link)).take(MAX_LINKS).collect()
}

fn follow<'a>(link: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match link.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(carried) => Some(carried as &(dyn Error + 'static)),
        None => link.source(),
    }
}

fn tls(link: &(dyn Error + 'static)) -> Option<Failure> {
    if let Some(error) = link.downcast_ref::<rustls::Error>() {
        return Some(Failure::of_rustls(error));
    }
    // h2 keeps of an I/O error its kind and its text only (h2 `proto::Error::Io`), so an alert that arrives on an
    // HTTP/2 connection has lost its type. The text is rustls' own and is compared with what rustls prints.
    let said = link.to_string();
    let alert = (0..=u8::MAX).map(AlertDescription::from).find(|alert| said == alert_text(*alert))?;
    Some(Failure::of_alert(alert))
}

fn alert_text(alert: AlertDescription) -> String {
    rustls::Error::AlertReceived(alert).to_string()
}

fn name(link: &(dyn Error + 'static)) -> Option<Failure> {
    let error = link.downcast_ref::<NameNotFound>()?;
    Some(Failure::NameNotFound { name: error.name.clone() })
}

/// hyper-util's tunnel errors are private; this is how they start.
fn tunnel(link: &(dyn Error + 'static)) -> Option<Failure> {
    let said = link.to_string();
    said.strip_prefix("tunnel error: ").map(|reason| Failure::Proxy { reason: reason.to_owned() })
}

fn timeout(link: &(dyn Error + 'static)) -> Option<Failure> {
    let error = link.downcast_ref::<reqwest::Error>()?;
    error
        .is_timeout()
        .then_some(Failure::TimedOut { waiting_for: if error.is_connect() { Wait::Connection } else { Wait::Answer } })
}

fn socket(link: &(dyn Error + 'static)) -> Option<Failure> {
    let error = link.downcast_ref::<io::Error>()?;
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(Failure::ConnectionRefused),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Some(Failure::Unreachable),
        io::ErrorKind::TimedOut => Some(Failure::TimedOut { waiting_for: Wait::Connection }),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected
        | io::ErrorKind::UnexpectedEof => Some(Failure::Closed),
        _ => None,
    }
}

fn http(link: &(dyn Error + 'static)) -> Option<Failure> {
    let error = link.downcast_ref::<hyper::Error>()?;
    (error.is_incomplete_message() || error.is_canceled() || error.is_closed()).then_some(Failure::Closed)
}

fn innermost(chain: &[&(dyn Error + 'static)]) -> String {
    chain.last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    fn carried(error: impl Into<Box<dyn Error + Send + Sync>>) -> Outer {
        Outer(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn an_alert_inside_an_io_error_is_found() {
        let error = carried(rustls::Error::AlertReceived(AlertDescription::UnknownCA));
        assert_eq!(Failure::of(&error), Failure::UnknownCa);
    }

    #[test]
    fn an_alert_that_is_only_a_text_is_found() {
        // What h2 leaves of it.
        let error = carried("received fatal alert: CertificateRequired");
        assert_eq!(Failure::of(&error), Failure::CertificateRequired);
    }

    #[test]
    fn a_text_that_mentions_an_alert_is_not_one() {
        let error = carried("the log says: received fatal alert: CertificateRequired");
        assert!(!Failure::of(&error).is_about_identity());
    }

    #[test]
    fn plain_http_is_recognised() {
        let error = carried(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType));
        assert_eq!(Failure::of(&error), Failure::NotTls);
    }

    #[test]
    fn the_servers_certificate_is_not_our_identity() {
        let error = carried(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let failure = Failure::of(&error);
        assert_eq!(failure, Failure::ServerNotTrusted(Distrust::UnknownIssuer));
        assert!(!failure.is_about_identity());
    }

    #[test]
    fn socket_errors_have_their_own_words() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionRefused, Failure::ConnectionRefused),
            (io::ErrorKind::ConnectionReset, Failure::Closed),
            (io::ErrorKind::UnexpectedEof, Failure::Closed),
            (io::ErrorKind::HostUnreachable, Failure::Unreachable),
        ] {
            assert_eq!(Failure::of(&Outer(kind.into())), expected);
        }
    }

    #[test]
    fn what_nobody_knows_keeps_its_text() {
        assert_eq!(Failure::of(&carried("odd")), Failure::Protocol { reason: "odd".to_owned() });
    }
}
