//! A certificate written anew around a signature of one's choice, and the one such signature that everybody can make:
//! where ECDSA signed (r, s), (r, n − s) verifies too. By plain bytes: no library of certificates would write it.

use super::KeyAlg;

/// The outermost parts of a certificate, each without its tag and length.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// tbsCertificate, with tag and length.
    pub tbs: Vec<u8>,
    /// signatureAlgorithm, with tag and length.
    pub algorithm: Vec<u8>,
    /// The content of signatureValue, after the octet that counts unused bits.
    pub signature: Vec<u8>,
}

impl Envelope {
    /// Takes a certificate apart.
    pub fn open(der: &[u8]) -> Self {
        let mut rest = element(der).0;
        let mut next = || {
            let (content, whole, after) = parts(rest);
            rest = after;
            (content.to_vec(), whole.to_vec())
        };
        let ((_, tbs), (_, algorithm), (signature, _)) = (next(), next(), next());
        Self { tbs, algorithm, signature: signature[1..].to_vec() }
    }

    /// Puts it together again.
    pub fn close(&self) -> Vec<u8> {
        self.close_with(&[&[0], self.signature.as_slice()].concat())
    }

    /// The same with this whole content of signatureValue, its count of unused bits included.
    pub fn close_with(&self, bits: &[u8]) -> Vec<u8> {
        write(0x30, &[self.tbs.as_slice(), &self.algorithm, &write(0x03, bits)].concat())
    }

    /// r and s of an ECDSA signature, as they stand in their INTEGERs.
    pub fn ecdsa(&self) -> (Vec<u8>, Vec<u8>) {
        let content = element(&self.signature).0;
        let (r, _, rest) = parts(content);
        (r.to_vec(), element(rest).0.to_vec())
    }

    /// The same with these for r and s.
    #[must_use]
    pub fn with_ecdsa(&self, r: &[u8], s: &[u8]) -> Self {
        Self { signature: write(0x30, &[write(0x02, r), write(0x02, s)].concat()), ..self.clone() }
    }
}

/// The certificate with (r, n − s) for (r, s), where n is the order of `signer`'s curve: signed by the same key, with
/// another fingerprint.
///
/// ```
/// use portcullis_testkit::pki::{Authority, KeyAlg, twin};
/// let client = Authority::new("client CA").client("ci-7");
/// let other = twin(client.cert_der(), KeyAlg::P256);
/// assert_ne!(other, client.cert_der());
/// assert_eq!(twin(&other, KeyAlg::P256), client.cert_der());
/// ```
pub fn twin(der: &[u8], signer: KeyAlg) -> Vec<u8> {
    let envelope = Envelope::open(der);
    let (r, s) = envelope.ecdsa();
    envelope.with_ecdsa(&r, &integer(&minus(&order(signer), &s))).close()
}

/// The order of the curve (FIPS 186-4, D.1.2), big-endian.
pub fn order(curve: KeyAlg) -> Vec<u8> {
    let hex = match curve {
        KeyAlg::P256 => "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551".to_owned(),
        KeyAlg::P384 => format!("{}c7634d81f4372ddf581a0db248b0a77aecec196accc52973", "ff".repeat(24)),
        KeyAlg::P521 => {
            format!("01{}fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", "ff".repeat(32))
        }
        other => panic!("{other:?} is no curve of ECDSA"),
    };
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// a − b, for a ≥ b.
fn minus(a: &[u8], b: &[u8]) -> Vec<u8> {
    let b: Vec<u8> = b.iter().copied().skip_while(|&octet| octet == 0).collect();
    let mut borrow = 0;
    let mut difference: Vec<u8> = a
        .iter()
        .rev()
        .zip(b.iter().rev().copied().chain(std::iter::repeat(0)))
        .map(|(&a, b)| {
            let octet = i16::from(a) - i16::from(b) - borrow;
            borrow = i16::from(octet < 0);
            u8::try_from(octet.rem_euclid(256)).expect("below 256")
        })
        .collect();
    difference.reverse();
    difference
}

/// The content of a positive INTEGER.
fn integer(number: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = number.iter().copied().skip_while(|&octet| octet == 0).collect();
    if digits.first().is_some_and(|&first| first >= 0x80) { [&[0], digits.as_slice()].concat() } else { digits }
}

fn write(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits: Vec<u8> = length.into_iter().skip_while(|&octet| octet == 0).collect();
    match (content.len(), u8::try_from(digits.len()).expect("short")) {
        (short @ 0..=0x7f, _) => [&[tag, u8::try_from(short).expect("short")], content].concat(),
        (_, octets) => [&[tag, 0x80 | octets], digits.as_slice(), content].concat(),
    }
}

/// Content and whole of the first element.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (content, whole, _) = parts(der);
    (content, whole)
}

/// Content and whole of the first element, and what follows it.
fn parts(der: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (length, header) = match der[1] {
        short @ 0..=0x7f => (usize::from(short), 2),
        long => {
            let octets = usize::from(long & 0x7f);
            (der[2..2 + octets].iter().fold(0, |sum, &octet| sum * 256 + usize::from(octet)), 2 + octets)
        }
    };
    (&der[header..header + length], &der[..header + length], &der[header + length..])
}
