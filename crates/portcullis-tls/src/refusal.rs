//! Why a client certificate is refused, and which alert says so on the wire.

use portcullis_certs::Certificate;
use rustls::{AlertDescription, CertificateError, Error};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::clock::offset_date_time;
use crate::trust::MAX_CHAIN;

/// The verdict's reason. Each stands for one TLS alert (design §3; RFC 8446 §6.2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not an X.509 certificate. Alert: `bad_certificate`.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// A line of the deny list names it or one of its issuers. Alert: `certificate_revoked`.
    #[error("the certificate is on the deny list (line {line})")]
    Denied {
        /// The line of `trust/deny`.
        line: u32,
    },
    /// Its CA's revocation list names it or one of its issuers. Alert: `certificate_revoked`.
    #[error("the certificate, or one of its issuers, is revoked: it is on the revocation list (CRL) of the CA {ca}")]
    Revoked {
        /// The CA's name in `trust/cas`.
        ca: String,
    },
    /// Its CA must have a revocation list and has none here. Alert: `unknown_ca`.
    #[error("the CA {ca} has no revocation list (CRL) here, and the policy requires one")]
    CrlMissing {
        /// The name in `trust/cas` of the CA that the path ends at.
        ca: String,
    },
    /// Its CA's revocation list is out of date, and the policy wants a current one. Alert: `unknown_ca`.
    #[error("the revocation list (CRL) of the CA {ca} is out of date since {next_update}, and the policy rejects that")]
    CrlStale {
        /// The CA's name in `trust/cas`.
        ca: String,
        /// When a newer one was due.
        next_update: OffsetDateTime,
    },
    /// It or an issuer is past notAfter. Alert: `certificate_expired`.
    #[error("the certificate expired on {not_after}")]
    Expired {
        /// The end of its life.
        not_after: OffsetDateTime,
    },
    /// It is before notBefore, or the clocks differ. Alert: `certificate_expired`.
    #[error("the certificate is not valid before {not_before}: renew it or check both clocks")]
    NotYetValid {
        /// The start of its life.
        not_before: OffsetDateTime,
    },
    /// Self-signed, and not one of the pins. Alert: `unknown_ca`.
    #[error("the certificate is self-signed and not pinned here")]
    SelfSigned,
    /// No path to a CA that is trusted here. Alert: `unknown_ca`.
    #[error("the certificate was issued by a CA that is not trusted here, or its intermediate certificate is missing")]
    UnknownIssuer,
    /// Its issuer is a pin: a pin signs for nobody. Alert: `unknown_ca`.
    #[error("the certificate was issued by the pinned certificate pin:{pin}; a pin is trusted for itself only")]
    IssuedByPin {
        /// The pin's name.
        pin: String,
    },
    /// Usages that do not allow it to be a TLS client's. Alert: `unsupported_certificate`.
    #[error("the certificate may not be used by a TLS client: {problem}")]
    Usage {
        /// Which usage is missing or too much.
        problem: &'static str,
    },
    /// A key, signature, version or extension that is not taken. Alert: `unsupported_certificate`.
    #[error("the certificate is not supported: {problem}")]
    Unsupported {
        /// What about it.
        problem: String,
    },
    /// A CA of the issuer's name is trusted, and another key signed. Alert: `unknown_ca`.
    #[error(
        "the certificate was signed by another key than that of the CA with its issuer's name that is trusted here: the CA was made anew, or it is another one"
    )]
    OtherKey,
}

/// A refused peer, for the log. What it claims is not proven: the chain is judged before the handshake's signature.
#[derive(Debug, Clone)]
pub struct RefusedPeer {
    /// The certificate it presented; `None` where that could not be read.
    pub certificate: Option<Certificate>,
    /// What it sent with it, as much as is looked at.
    pub others: Vec<CertificateDer<'static>>,
    /// Why it was refused.
    pub refusal: Refusal,
}

impl RefusedPeer {
    /// `others`: what followed the certificate in the peer's chain.
    pub fn new(certificate: Option<Certificate>, others: &[CertificateDer<'_>], refusal: Refusal) -> Self {
        let others = others.iter().take(MAX_CHAIN - 1).map(|der| der.clone().into_owned()).collect();
        Self { certificate, others, refusal }
    }

    /// The same for a whole chain, leaf first.
    pub fn of_chain(chain: &[CertificateDer<'_>], refusal: Refusal) -> Self {
        let leaf = chain.first().and_then(|leaf| Certificate::from_der(leaf.clone().into_owned()).ok());
        Self::new(leaf, chain.get(1..).unwrap_or_default(), refusal)
    }

    /// Whether the certificate of its issuer, by name, was sent too: where it was not, a missing intermediate may be all
    /// that is wrong.
    pub fn sent_its_issuer(&self) -> bool {
        let Some(leaf) = &self.certificate else { return false };
        let is_issuer = |der: &CertificateDer<'static>| {
            Certificate::from_der(der.clone()).is_ok_and(|other| other.facts().subject == leaf.facts().issuer)
        };
        self.others.iter().any(is_issuer)
    }
}

impl Refusal {
    /// One word for it, stable: what programs and `portcullis explain` go by.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Denied { .. } | Self::Revoked { .. } => "revoked",
            Self::CrlMissing { .. } | Self::CrlStale { .. } => "revocation-unknown",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::SelfSigned => "self-signed",
            // Which pin issued it is not the peer's to know.
            Self::UnknownIssuer | Self::IssuedByPin { .. } | Self::OtherKey => "unknown-ca",
            Self::Usage { .. } => "wrong-usage",
            Self::Unsupported { .. } => "unsupported",
        }
    }

    /// What path building's error about this leaf means.
    pub(crate) fn of(error: &webpki::Error, leaf: &Certificate) -> Self {
        use webpki::Error as E;
        match error {
            E::CaUsedAsEndEntity => Self::Usage { problem: "it is a CA's (CA:TRUE)" },
            E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
                Self::Usage { problem: "its extendedKeyUsage, or an issuer's, lacks clientAuth" }
            }
            // The leaf's own dates have been checked: these are an intermediate's.
            E::CertExpired { not_after, .. } => Self::Expired { not_after: offset_date_time(*not_after) },
            E::CertNotValidYet { not_before, .. } => Self::NotYetValid { not_before: offset_date_time(*not_before) },
            // Another kind of signature than the CA's key makes is another key's.
            E::InvalidSignatureForPublicKey | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::OtherKey,
            E::UnsupportedCertVersion => {
                Self::Unsupported { problem: format!("X.509 v{}, issue it again as v3", leaf.facts().version) }
            }
            E::UnsupportedCriticalExtension => {
                Self::Unsupported { problem: "a critical extension is not understood".to_owned() }
            }
            E::UnsupportedSignatureAlgorithmContext(_) => {
                Self::Unsupported { problem: format!("signed with {}", leaf.facts().signature) }
            }
            E::BadDer | E::TrailingData(_) | E::BadDerTime => Self::Unreadable,
            // Path building failed in one way or another: constraints, budget, an issuer that does not fit.
            _ => Self::UnknownIssuer,
        }
    }

    /// The rustls error whose alert says this on the wire. Never `ApplicationVerificationFailure`: clients translate
    /// alerts, so each must be exact.
    pub(crate) fn to_rustls(&self) -> Error {
        Error::InvalidCertificate(self.certificate_error())
    }

    /// The alert that says this on the wire, as RFC 8446 §6.2 spells it.
    pub fn alert(&self) -> &'static str {
        match AlertDescription::from(self.certificate_error()) {
            AlertDescription::BadCertificate | AlertDescription::DecodeError => "bad_certificate",
            AlertDescription::CertificateRevoked => "certificate_revoked",
            AlertDescription::CertificateExpired => "certificate_expired",
            AlertDescription::UnsupportedCertificate => "unsupported_certificate",
            _ => "unknown_ca",
        }
    }

    fn certificate_error(&self) -> CertificateError {
        match self {
            Self::Unreadable => CertificateError::BadEncoding,
            Self::Denied { .. } | Self::Revoked { .. } => CertificateError::Revoked,
            Self::CrlMissing { .. } | Self::CrlStale { .. } => CertificateError::UnknownRevocationStatus,
            Self::Expired { .. } | Self::NotYetValid { .. } => CertificateError::Expired,
            Self::SelfSigned | Self::UnknownIssuer | Self::OtherKey | Self::IssuedByPin { .. } => {
                CertificateError::UnknownIssuer
            }
            Self::Usage { .. } | Self::Unsupported { .. } => CertificateError::InvalidPurpose,
        }
    }
}
