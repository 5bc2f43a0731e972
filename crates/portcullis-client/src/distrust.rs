//! Why a registry's own certificate was not accepted, in words that name the fix. The verdict is `portcullis-tls`'s.

use std::fmt;

use portcullis_certs::Visible;
use rustls::CertificateError;
use rustls::pki_types::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What is wrong with a registry's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// No root that holds for this registry leads to it.
    UnknownIssuer,
    /// It is for other names.
    Name {
        /// The host that was asked for.
        expected: String,
        /// The names it is for.
        presented: Vec<String>,
    },
    /// It is over.
    Expired {
        /// Its last second.
        not_after: OffsetDateTime,
    },
    /// It has not begun.
    NotYetValid {
        /// Its first second.
        not_before: OffsetDateTime,
    },
    /// It is not for servers: its extended key usage lacks serverAuth.
    Purpose,
    /// Anything else: a root that leads to it but is not usable itself, an unsupported signature.
    Other {
        /// The verifier's reason.
        reason: String,
    },
}

impl Distrust {
    /// What rustls' verdict means.
    pub fn of(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::NotValidForNameContext { expected, presented } => {
                let presented = presented.iter().map(|name| plain(name)).collect();
                Self::Name { expected: expected.to_str().into_owned(), presented }
            }
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired { not_after: date(*not_after) },
            CertificateError::NotValidYetContext { not_before, .. } => {
                Self::NotYetValid { not_before: date(*not_before) }
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Self::Purpose,
            // What a verifier of our own says travels in `Other`, whose text is the whole reason.
            CertificateError::Other(other) => Self::Other { reason: other.to_string() },
            other => Self::Other { reason: other.to_string() },
        }
    }

    /// What to do about it.
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::UnknownIssuer => {
                "put the certificate of the CA that signed the registry's certificate into the registry's certificate directory as ca.crt"
            }
            Self::Name { .. } => {
                "use a name that the certificate has, or have the registry's certificate issued again with this one"
            }
            Self::Expired { .. } => "have the registry's certificate renewed, or set this machine's clock",
            Self::NotYetValid { .. } => "set this machine's clock, or the one of who issued the certificate",
            Self::Purpose => "have the registry's certificate issued again with serverAuth in its extended key usage",
            Self::Other { .. } => {
                "have the registry's certificate, or the CA certificate in the registry's certificate directory, replaced"
            }
        }
    }
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownIssuer => f.write_str("no CA that counts for this registry has signed it"),
            Self::Name { expected, presented } if presented.is_empty() => {
                let expected = Visible(expected);
                write!(f, "it is not for {expected}, and not for any name (a common name alone does not count)")
            }
            Self::Name { expected, presented } => {
                write!(f, "it is not for {}, only for {}", Visible(expected), Visible(&presented.join(", ")))
            }
            Self::Expired { not_after } => write!(f, "it expired on {}", shown(*not_after)),
            Self::NotYetValid { not_before } => write!(f, "it is not valid before {}", shown(*not_before)),
            Self::Purpose => f.write_str("it is not one for servers"),
            Self::Other { reason } => write!(f, "{}", Visible(reason)),
        }
    }
}

/// rustls hands names on as their debug text: `DnsName("other.test")`, `IpAddress(10.0.0.1)`.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"')).to_owned()
}

fn date(time: UnixTime) -> OffsetDateTime {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn shown(date: OffsetDateTime) -> String {
    date.format(&Rfc3339).unwrap_or_else(|_| date.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_dates() {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000));
        let error = CertificateError::ExpiredContext { time, not_after: time };
        assert_eq!(Distrust::of(&error).to_string(), "it expired on 2023-11-14T22:13:20Z");
    }

    #[test]
    fn names_are_named() {
        let name = |presented| CertificateError::NotValidForNameContext {
            expected: "registry.test".try_into().unwrap(),
            presented,
        };
        let error = name(vec!["DnsName(\"other.test\")".into(), "IpAddress(::1)".into(), "odd".into()]);
        assert_eq!(Distrust::of(&error).to_string(), "it is not for registry.test, only for other.test, ::1, odd");
        assert!(Distrust::of(&name(vec![])).to_string().contains("common name"));
    }
}
