//! Foreign bytes: every reader comes back, whatever it is given. Each body is a plain function for a fuzzer to call.

use crate::fixture::bytes;
use portcullis_certs::{Certificate, Visible, pem, visible_bytes};
use proptest::prelude::*;
use std::path::Path;

/// Certificates and keys of arbitrary bytes; what comes of it keeps its promises.
fn pem_file(data: &[u8]) {
    let (certificates, findings) = pem::certificates(data, Path::new("f"));
    assert!(!certificates.is_empty() || !findings.is_empty(), "a file without a certificate always has a reason");
    let lines = data.split(|&b| b == b'\n').count();
    for finding in findings {
        let text = format!("{finding} {}", finding.fix());
        assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
        assert!(finding.line.is_none_or(|line| line >= 1 && line as usize <= lines));
    }
    let _ = pem::private_key(data, Path::new("f"));
}

/// DER of arbitrary bytes.
fn der(data: &[u8]) {
    if let Ok(certificate) = Certificate::from_der(data.to_vec().into()) {
        assert_eq!(certificate.der().as_ref(), data);
        assert!(!certificate.facts().subject.to_string().contains(|c: char| c.is_control()));
    }
}

/// The escaper.
fn visible(data: &[u8]) {
    let shown = visible_bytes(data);
    assert!(!shown.contains(|c: char| c.is_control()));
    assert_eq!(Visible(&shown).to_string(), shown, "what was made visible stays as it is");
}

/// PEM-like text: frames, headers and bodies in any order, which random bytes would never hit.
fn pem_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"-----BEGIN CERTIFICATE-----".to_vec()),
        Just(b"-----END CERTIFICATE-----".to_vec()),
        Just(b"-----BEGIN PRIVATE KEY-----".to_vec()),
        Just(b"-----END PRIVATE KEY-----".to_vec()),
        Just(b"-----BEGIN -----".to_vec()),
        Just(b"-----BEGIN ----".to_vec()),
        Just(b"Proc-Type: 4,ENCRYPTED".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\xef\xbb\xbf".to_vec()),
        Just(bytes("ca.crt")),
        Just(bytes("p256.sec1.key")),
        prop::collection::vec(any::<u8>(), 0..40),
        "[A-Za-z0-9+/=]{0,64}\n".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_as_pem(data in prop::collection::vec(any::<u8>(), 0..2048)) {
        pem_file(&data);
        visible(&data);
        der(&data);
    }

    #[test]
    fn any_frames_as_pem(data in pem_like()) {
        pem_file(&data);
    }

    #[test]
    fn any_damage_to_a_certificate(at in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 0..8), cut in 0_usize..8) {
        let mut data = bytes("ca.der");
        let at = at.index(data.len());
        let end = (at + cut).min(data.len());
        data.splice(at..end, with);
        der(&data);
        pem_file(&data);
    }
}
