//! HTTP/2 frames by hand (RFC 9113 §4.1): what no library would send. Knows no connection.

/// The connection preface, then empty settings.
pub(super) fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings()].concat()
}

pub(super) fn settings() -> Vec<u8> {
    frame(4, 0, 0, &[])
}

pub(super) fn ping() -> Vec<u8> {
    frame(6, 0, 0, &[0; 8])
}

/// `GET /v2/`, whole.
pub(super) fn get(stream: u32) -> Vec<u8> {
    // END_STREAM and END_HEADERS.
    frame(1, 0x5, stream, &head())
}

/// The same, not ended.
pub(super) fn open_head(stream: u32) -> Vec<u8> {
    frame(1, 0x1, stream, &head())
}

/// More of a head that is not ended: a field that is new each time, for whoever keeps them.
pub(super) fn continuation(stream: u32) -> Vec<u8> {
    let field = [&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat();
    frame(9, 0, stream, &field.repeat(100))
}

pub(super) fn reset(stream: u32) -> Vec<u8> {
    // CANCEL
    frame(3, 0, stream, &[0, 0, 0, 8])
}

/// HPACK (RFC 7541): two fields of the static table, two literal values.
fn head() -> Vec<u8> {
    let authority = b"registry.test";
    let length = u8::try_from(authority.len()).expect("short");
    [&[0x82, 0x87, 0x04, 4][..], b"/v2/", &[0x01, length], authority].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's").to_be_bytes();
    [&length[1..], &[kind, flags], &(stream & 0x7fff_ffff).to_be_bytes(), payload].concat()
}
