//! A file of certificates or a key, of any bytes: what comes of it keeps its promises.

use std::path::Path;

use portcullis_certs::{Visible, pem, visible_bytes};

/// `bytes`: such a file.
pub(crate) fn run(bytes: &[u8]) {
    let (certificates, findings) = pem::certificates(bytes, Path::new("f"));
    assert!(!certificates.is_empty() || !findings.is_empty(), "a file without a certificate always has a reason");
    let lines = bytes.split(|&b| b == b'\n').count();
    for finding in findings {
        let text = format!("{finding} {}", finding.fix());
        assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
        assert!(finding.line.is_none_or(|line| line >= 1 && line as usize <= lines));
    }
    if let Err(findings) = pem::private_key(bytes, Path::new("f")) {
        assert!(!findings.is_empty(), "a file without a key always has a reason");
    }
    let shown = visible_bytes(bytes);
    assert!(!shown.contains(|c: char| c.is_control()));
    assert_eq!(Visible(&shown).to_string(), shown, "what was made visible stays as it is");
}
