//! Which client certificate Go's `crypto/tls` sends: `handshake_client.go` `getClientCertificate` and `common.go`
//! `CertificateRequestInfo.SupportsCertificate`. Expiry, usages and trust are not looked at there, so they are not here.

use super::{Endpoint, LoadedPair};
use crate::x509::KeyType;

/// The version of TLS that the two ends agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// What a server's CertificateRequest says.
#[derive(Debug, Clone, Copy)]
pub struct CertificateRequest<'a> {
    /// The version of the connection.
    pub version: TlsVersion,
    /// The signature schemes it takes (RFC 8446 §4.2.3); empty: not looked at.
    pub schemes: &'a [u16],
    /// The DER of the CA names it lists; empty: any.
    pub authorities: &'a [Vec<u8>],
}

/// What a Go client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<'a> {
    /// This pair: the first that fits. Whatever the server says to it, no other is tried.
    Sends {
        /// Which of [`Endpoint::pairs`].
        pair: &'a LoadedPair,
        /// Those before it, and why each was passed over.
        skipped: Vec<Skipped>,
    },
    /// An empty certificate message.
    SendsNothing {
        /// Why each pair was passed over; empty when there is none.
        skipped: Vec<Skipped>,
    },
}

/// Why a pair was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// No certificate of its chain was issued under a name that the server listed: often the intermediate is missing in the `.cert`.
    NoListedIssuer,
    /// Its key cannot sign in a scheme that the server takes.
    NoScheme,
}

impl Endpoint {
    /// Which pair a Go client sends to a server that asks like this.
    pub fn choose(&self, request: &CertificateRequest<'_>) -> Choice<'_> {
        let mut skipped = Vec::new();
        for pair in &self.pairs {
            match fits(pair, request) {
                Ok(()) => return Choice::Sends { pair, skipped },
                Err(why) => skipped.push(why),
            }
        }
        Choice::SendsNothing { skipped }
    }
}

fn fits(pair: &LoadedPair, request: &CertificateRequest<'_>) -> Result<(), Skipped> {
    let Some(leaf) = pair.chain.first() else { return Err(Skipped::NoScheme) };
    let schemes = schemes_of(&leaf.facts().key, request.version);
    if schemes.is_empty() || !(request.schemes.is_empty() || request.schemes.iter().any(|s| schemes.contains(s))) {
        return Err(Skipped::NoScheme);
    }
    let listed = |issuer: &[u8]| request.authorities.iter().any(|name| name == issuer);
    let issued = pair.chain.iter().any(|certificate| listed(certificate.facts().issuer.der()));
    if request.authorities.is_empty() || issued { Ok(()) } else { Err(Skipped::NoListedIssuer) }
}

/// `auth.go` `signatureSchemesForCertificate`.
fn schemes_of(key: &KeyType, version: TlsVersion) -> Vec<u16> {
    const ECDSA: [u16; 4] = [0x0403, 0x0503, 0x0603, 0x0203];
    match (key, version) {
        (KeyType::P256 | KeyType::P384 | KeyType::P521, TlsVersion::V1_2) => ECDSA.to_vec(),
        (KeyType::Other(name), TlsVersion::V1_2) if name == "P-224" => ECDSA.to_vec(),
        (KeyType::P256, TlsVersion::V1_3) => vec![0x0403],
        (KeyType::P384, TlsVersion::V1_3) => vec![0x0503],
        (KeyType::P521, TlsVersion::V1_3) => vec![0x0603],
        (KeyType::Ed25519, _) => vec![0x0807],
        (KeyType::Rsa { bits }, _) => rsa_schemes(*bits, version),
        (KeyType::Other(_), _) => vec![],
    }
}

/// `auth.go` `rsaSignatureSchemes`: each with the octets that a modulus must have.
fn rsa_schemes(bits: u32, version: TlsVersion) -> Vec<u16> {
    const PSS: [(u16, u32); 3] = [(0x0804, 66), (0x0805, 98), (0x0806, 130)];
    const PKCS1: [(u16, u32); 4] = [(0x0401, 62), (0x0501, 78), (0x0601, 94), (0x0201, 46)];
    let octets = bits.div_ceil(8);
    let old = if version == TlsVersion::V1_2 { &PKCS1[..] } else { &[] };
    PSS.iter().chain(old).filter(|(_, least)| octets >= *least).map(|(scheme, _)| *scheme).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_of_keys() {
        let (old, new) = (TlsVersion::V1_2, TlsVersion::V1_3);
        assert_eq!(schemes_of(&KeyType::P256, new), [0x0403]);
        assert_eq!(schemes_of(&KeyType::P256, old).len(), 4);
        assert_eq!(schemes_of(&KeyType::Rsa { bits: 2048 }, new), [0x0804, 0x0805, 0x0806]);
        assert_eq!(schemes_of(&KeyType::Rsa { bits: 1024 }, new), [0x0804, 0x0805], "SHA-512 needs 130 octets");
        assert_eq!(schemes_of(&KeyType::Rsa { bits: 512 }, old), [0x0401, 0x0201]);
        assert_eq!(schemes_of(&KeyType::Other("P-224".to_owned()), new), [0u16; 0]);
    }
}
