//! In how many ways a certificate can be written. What its issuer signed is the TBSCertificate; the signature is not part
//! of it, and where ECDSA made (r, s), everybody can write (r, n − s), which verifies too: the same names, serial number
//! and key under another SHA-256. Whoever goes by a fingerprint has to know both.
//!
//! Everything else around the signed part has one form here: shortest lengths, nothing behind, no unused bits, the
//! algorithm as it was signed, minimal integers.

use crate::crl::der::{self, Der, INTEGER, SEQUENCE};
use crate::fingerprint::Fingerprint;

/// The orders of the curves that sign certificates (FIPS 186-4, D.1.2), big-endian. A certificate does not say which of
/// them is its issuer's, so that a signature has a twin for each that is larger; those of other curves verify nowhere.
const ORDERS: [&[u8]; 3] = [
    &[
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ],
    &[
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2,
        0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
    ],
    &[
        0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfa, 0x51, 0x86,
        0x87, 0x83, 0xbf, 0x2f, 0x96, 0x6b, 0x7f, 0xcc, 0x01, 0x48, 0xf7, 0x09, 0xa5, 0xd0, 0x3b, 0xb5, 0xc9, 0xb8,
        0x89, 0x9c, 0x47, 0xae, 0xbb, 0x6f, 0xb7, 0x1e, 0x91, 0x38, 0x64, 0x09,
    ],
];

/// What surrounds the signed part of a certificate in its one form.
struct Envelope<'a> {
    tbs: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

/// An ECDSA signature in its one form: the contents of r's and s' INTEGERs, without the octet that only says "positive".
struct Ecdsa<'a> {
    r: &'a [u8],
    s: &'a [u8],
}

/// Whether the certificate is written in the only way there is, but for the twins of an ECDSA signature.
pub(super) fn is_only(der: &[u8], is_ecdsa: bool) -> bool {
    Envelope::open(der).is_some_and(|envelope| !is_ecdsa || Ecdsa::read(envelope.signature).is_some())
}

/// The fingerprints of a certificate's twins. None where its signature is not in its one form: it is refused by itself.
pub(super) fn twins(der: &[u8]) -> Vec<Fingerprint> {
    let Some(envelope) = Envelope::open(der) else { return Vec::new() };
    let Some(signature) = Ecdsa::read(envelope.signature) else { return Vec::new() };
    let negated = ORDERS.iter().filter_map(|order| minus(order, signature.s));
    negated.map(|s| Fingerprint::of(&envelope.with(&Ecdsa { s: &s, ..signature }.write()))).collect()
}

impl<'a> Envelope<'a> {
    fn open(der: &'a [u8]) -> Option<Self> {
        let mut outer = Der::whole(der, SEQUENCE).ok()?;
        let tbs = outer.take(SEQUENCE, "").ok()?;
        let algorithm = outer.take(SEQUENCE, "").ok()?.whole;
        let (unused, signature) = outer.take(der::BIT_STRING, "").ok()?.content.split_first()?;
        outer.end("").ok()?;
        let mut signed = Der::new(tbs.content);
        signed.take_if(der::EXPLICIT_0).ok()?;
        signed.take(INTEGER, "").ok()?;
        let is_as_signed = signed.take(SEQUENCE, "").ok()?.whole == algorithm;
        (*unused == 0 && is_as_signed).then_some(Self { tbs: tbs.whole, algorithm, signature })
    }

    fn with(&self, signature: &[u8]) -> Vec<u8> {
        let bits = der::write(der::BIT_STRING, &[&[0], signature]);
        der::write(SEQUENCE, &[self.tbs, self.algorithm, &bits])
    }
}

impl<'a> Ecdsa<'a> {
    fn read(signature: &'a [u8]) -> Option<Self> {
        let mut numbers = Der::whole(signature, SEQUENCE).ok()?;
        let r = positive(numbers.take(INTEGER, "").ok()?.content)?;
        let s = positive(numbers.take(INTEGER, "").ok()?.content)?;
        numbers.end("").ok().map(|()| Self { r, s })
    }

    fn write(&self) -> Vec<u8> {
        der::write(SEQUENCE, &[&integer(self.r), &integer(self.s)])
    }
}

/// The digits of a positive INTEGER in its shortest form (X.690 §8.3.2).
fn positive(content: &[u8]) -> Option<&[u8]> {
    match content {
        [0, digits @ ..] if digits.first().is_some_and(|first| *first >= 0x80) => Some(digits),
        [1..=0x7f, ..] => Some(content),
        _ => None,
    }
}

fn integer(digits: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if digits.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    der::write(INTEGER, &[sign, digits])
}

/// `order` − `s`, without leading zeros; `None` where that is not positive.
fn minus(order: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    let missing = order.len().checked_sub(s.len())?;
    let mut borrow = false;
    let mut difference: Vec<u8> = Vec::with_capacity(order.len());
    for (n, s) in order.iter().rev().zip(s.iter().rev().copied().chain(std::iter::repeat_n(0, missing))) {
        let (octet, first) = n.overflowing_sub(s);
        let (octet, second) = octet.overflowing_sub(u8::from(borrow));
        borrow = first || second;
        difference.push(octet);
    }
    difference.reverse();
    let start = difference.iter().position(|octet| *octet != 0)?;
    (!borrow).then(|| difference.split_off(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_positive_or_none() {
        assert_eq!(minus(&[1, 0, 0], &[1]), Some(vec![0xff, 0xff]));
        assert_eq!(minus(&[1, 0], &[0xff]), Some(vec![1]));
        assert_eq!(minus(&[5], &[5]), None);
        assert_eq!(minus(&[5], &[6]), None);
        assert_eq!(minus(&[5], &[1, 0]), None);
    }

    #[test]
    fn integers_are_positive_and_shortest() {
        for good in [&[1][..], &[0x7f, 0], &[0, 0x80]] {
            let digits = positive(good).unwrap();
            assert_eq!(integer(digits), [&[INTEGER, u8::try_from(good.len()).unwrap()], good].concat());
        }
        for bad in [&[][..], &[0], &[0, 1], &[0, 0, 0x80], &[0x80], &[0xff, 1]] {
            assert_eq!(positive(bad), None, "{bad:?}");
        }
    }
}
