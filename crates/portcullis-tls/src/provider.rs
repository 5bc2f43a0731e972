//! The crypto provider: AWS-LC, with ring's AES-GCM where it is about twice as fast.
//!
//! AWS-LC has AES-GCM for AES-NI/AVX and for AVX-512, none for VAES with AVX2 (aws-lc #2283, PR #2934, both open);
//! ring 0.17.14 has. Measured on such a CPU: 3.9 against 7.1 GB/s for AES-256-GCM, and 15 to 40 % of the server's CPU
//! per GiB. Everything else (X25519MLKEM768, signatures) stays with AWS-LC.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = aws_lc_rs::default_provider();
    if ring_has_the_faster_aes_gcm() {
        provider.cipher_suites = ring::ALL_CIPHER_SUITES.to_vec();
    }
    Arc::new(provider)
});

/// The provider that every configuration here is built with.
///
/// Suites: the TLS 1.3 ones, and for TLS 1.2 ECDHE with an AEAD. Key exchange: X25519MLKEM768 first.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// Makes [`provider`] the process's default, for libraries that ask for one. Safe to call twice.
pub fn install_default_provider() {
    // An error means that there is a default already: the first one stays, and ours are passed explicitly anyway.
    let _ = CryptoProvider::install_default((*provider()).clone());
}

#[cfg(target_arch = "x86_64")]
fn ring_has_the_faster_aes_gcm() -> bool {
    std::arch::is_x86_feature_detected!("vaes")
        && std::arch::is_x86_feature_detected!("vpclmulqdq")
        && !std::arch::is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn ring_has_the_faster_aes_gcm() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use rustls::{CipherSuite, NamedGroup};

    use super::*;

    #[test]
    fn the_post_quantum_group_comes_first() {
        assert_eq!(provider().kx_groups.first().map(|group| group.name()), Some(NamedGroup::X25519MLKEM768));
    }

    #[test]
    fn only_aead_suites_with_forward_secrecy() {
        for suite in &provider().cipher_suites {
            let name = format!("{:?}", suite.suite());
            assert!(name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_"), "{name}");
            assert!(name.contains("GCM") || name.contains("CHACHA20"), "{name}");
        }
        assert!(provider().cipher_suites.iter().any(|suite| suite.suite() == CipherSuite::TLS13_AES_256_GCM_SHA384));
    }
}
