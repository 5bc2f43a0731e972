//! What an engine's configuration file is refused with.

use portcullis_certs::engine_files::NotTaken;

/// A reason to refuse a file has a line that the file has.
pub(crate) fn check(bytes: &[u8], refused: &NotTaken) {
    let lines = bytes.split(|&b| b == b'\n').count();
    assert!(refused.line >= 1 && refused.line as usize <= lines, "line {} of {lines}", refused.line);
    assert!(!refused.reason.is_empty());
}
