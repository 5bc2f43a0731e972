//! `Range` and `Content-Range`: whatever is read lies within what it is of.

use portcullis_oci::{ByteRange, ContentRange};

/// `bytes`: a header's value.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(range) = ByteRange::parse(text) {
        for size in [0, 1, 1000, u64::MAX] {
            if let Some((offset, length)) = range.resolve(size) {
                assert!(length > 0 && offset.checked_add(length).is_some_and(|end| end <= size), "{range:?} of {size}");
            }
        }
    }
    if let Ok(range) = text.parse::<ContentRange>() {
        assert!(range.start <= range.end && !range.is_empty());
        assert_eq!(range.to_string().parse(), Ok(range));
    }
}
