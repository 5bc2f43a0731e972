//! Foreign bytes as certificates and keys: the fuzzers' bodies, replayed over their corpora.

use crate::fixture::bytes;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

#[path = "../../../../fuzz/bodies/certificate.rs"]
mod certificate;
#[path = "../../../../fuzz/bodies/pem.rs"]
mod pem;

#[test]
fn the_corpora_are_read() {
    for (name, body) in [("pem", pem::run as fn(&[u8])), ("certificate", certificate::run)] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "{name}");
        for file in files {
            body(&fs::read(&file).unwrap());
        }
    }
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
        pem::run(&data);
        certificate::run(&data);
    }

    #[test]
    fn any_frames_as_pem(data in pem_like()) {
        pem::run(&data);
    }

    #[test]
    fn any_damage_to_a_certificate(at in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 0..8), cut in 0_usize..8) {
        let mut data = bytes("ca.der");
        let at = at.index(data.len());
        let end = (at + cut).min(data.len());
        data.splice(at..end, with);
        certificate::run(&data);
        pem::run(&data);
    }
}
