//! What a file without PEM blocks is instead: the words for it decide whether its owner finds the mistake.

use crate::fault::Fault;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Content types of PKCS#7 and CMS: 1.2.840.113549.1.7.
const PKCS7: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07];
/// Password-based encryption, PKCS#5 and PKCS#12: 1.2.840.113549.1.5 and .12.
const PBE: [&[u8]; 2] =
    [&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05], &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c]];

const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The best word for a file that has no PEM block.
pub(super) fn foreign(bytes: &[u8]) -> Fault {
    let text = bytes.trim_ascii();
    if text.is_empty() || bytes == b"\xef\xbb\xbf" {
        Fault::Empty
    } else if is_utf16(bytes) {
        Fault::Utf16
    } else if bytes.starts_with(b"\xef\xbb\xbf-----BEGIN") {
        Fault::ByteOrderMark
    } else if bytes.starts_with(&[0, 5, 0x16, 7]) {
        Fault::AppleDouble
    } else if let Some(fault) = der(bytes) {
        fault
    } else if is_html(text) {
        Fault::Html
    } else {
        Fault::NoPem
    }
}

/// A byte order mark, or ASCII with every other octet zero.
fn is_utf16(bytes: &[u8]) -> bool {
    let ascii = |pair: &[u8], zero: usize| pair[zero] == 0 && pair[1 - zero].is_ascii() && pair[1 - zero] != 0;
    let all = |zero: usize| bytes.len() >= 8 && bytes.chunks_exact(2).take(32).all(|pair| ascii(pair, zero));
    bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || all(0) || all(1)
}

fn is_html(text: &[u8]) -> bool {
    let head = text.get(..text.len().min(1024)).unwrap_or_default().to_ascii_lowercase();
    let has = |tag: &[u8]| head.windows(tag.len()).any(|window| window == tag);
    head.starts_with(b"<") && (has(b"<html") || has(b"<!doctype html") || has(b"<head"))
}

/// Told apart by the first elements: `None` for what is no DER we know.
fn der(bytes: &[u8]) -> Option<Fault> {
    if X509Certificate::from_der(bytes).is_ok() {
        return Some(Fault::DerCertificate);
    }
    let (SEQUENCE, outer) = element(bytes)? else { return None };
    let (tag, first) = element(outer)?;
    match tag {
        OID if first.starts_with(PKCS7) => Some(Fault::Pkcs7),
        SEQUENCE => {
            let (tag, oid) = element(first)?;
            (tag == OID && PBE.iter().any(|prefix| oid.starts_with(prefix))).then_some(Fault::DerKey)
        }
        INTEGER => {
            let (tag, second) = element(after_integer(outer)?)?;
            let is_content =
                tag == SEQUENCE && element(second).is_some_and(|(tag, oid)| tag == OID && oid.starts_with(PKCS7));
            Some(if is_content { Fault::Pkcs12 } else { Fault::DerKey })
        }
        _ => None,
    }
}

/// Tag and content of the first element. The content runs on to the end of the input: what is cut short, or of
/// indefinite length (BER, as Windows and Java write PKCS#12), is recognized too.
fn element(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [tag, length, rest @ ..] = bytes else { return None };
    match length {
        0..=0x80 => Some((*tag, rest)),
        _ => rest.get(usize::from(length & 0x7f)..).map(|content| (*tag, content)),
    }
}

/// A short INTEGER, such as the version that keys and PKCS#12 start with.
fn after_integer(bytes: &[u8]) -> Option<&[u8]> {
    let [INTEGER, length @ 0..=4, rest @ ..] = bytes else { return None };
    rest.get(usize::from(*length)..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_something_else() {
        let utf16: Vec<u8> = "-----BEGIN".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let utf16be: Vec<u8> = "-----BEGIN".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let cases: [(&[u8], Fault); 14] = [
            (b"", Fault::Empty),
            (b" \r\n\t\n", Fault::Empty),
            (b"\xef\xbb\xbf", Fault::Empty),
            (&utf16, Fault::Utf16),
            (&utf16be, Fault::Utf16),
            (b"\xff\xfe-\0", Fault::Utf16),
            (b"\xef\xbb\xbf-----BEGIN CERTIFICATE-----", Fault::ByteOrderMark),
            (&[0, 5, 0x16, 7, 0, 2, 0, 0], Fault::AppleDouble),
            (b"\n<!DOCTYPE html><title>Sign in</title>", Fault::Html),
            (b"<?xml version='1.0'?><html>", Fault::Html),
            (b"MIIB...", Fault::NoPem),
            (b"<a", Fault::NoPem),
            (b"0", Fault::NoPem),
            (&[0x30, 0x82, 0x01, 0x00, 0x02, 0x01, 0x00, 0x02, 0x41], Fault::DerKey),
        ];
        for (bytes, fault) in cases {
            assert_eq!(foreign(bytes), fault, "{}", crate::visible_bytes(bytes));
        }
    }
}
