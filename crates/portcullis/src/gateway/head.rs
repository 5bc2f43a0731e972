//! The head of a request, read before HTTP is spoken: bounded, within a deadline, and with one reading only. Must not
//! know what is asked for.
//!
//! hyper reads the head again. Here is refused what two programs have ever read differently (RFC 9112 §11.2): two
//! lengths, a length beside `Transfer-Encoding`, which hyper would pass over, folded lines, and lines that end otherwise.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The most bytes of a head, with the empty line at its end.
pub(super) const MAX_BYTES: usize = 16 * 1024;
/// The most header lines.
pub(super) const MAX_LINES: usize = 64;

/// Why there is no head.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeadFault {
    /// The peer has left without a word, or in the middle of one.
    #[error("the connection ended before a request")]
    Gone,
    #[error("the request's head did not come within {} seconds", .0.as_secs())]
    Slow(Duration),
    #[error("this is no HTTP/1.1: the gateway speaks plain HTTP, without TLS")]
    NotHttp,
    #[error("the request's head has more than {MAX_BYTES} bytes or {MAX_LINES} header lines")]
    TooLarge,
    #[error("the request's head can be read in two ways: {0}")]
    Ambiguous(&'static str),
}

/// Reads up to the end of the head, and maybe beyond it.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), deadline: Duration) -> Result<Bytes, HeadFault> {
    let reading = async {
        let mut bytes = BytesMut::with_capacity(MAX_BYTES);
        let mut searched = 0;
        loop {
            if let Some(length) = end_of(&bytes, searched)? {
                check(&bytes[..length])?;
                return Ok(bytes.freeze());
            }
            searched = bytes.len();
            if read_some(stream, &mut bytes).await.unwrap_or(0) == 0 {
                return Err(HeadFault::Gone);
            }
        }
    };
    tokio::time::timeout(deadline, reading).await.unwrap_or(Err(HeadFault::Slow(deadline)))
}

async fn read_some(stream: &mut (impl AsyncRead + Unpin), bytes: &mut BytesMut) -> io::Result<usize> {
    let room = MAX_BYTES.saturating_sub(bytes.len()) as u64;
    stream.take(room).read_buf(bytes).await
}

/// Where the head ends; `None`: not yet. Its first `searched` bytes were looked at before.
fn end_of(bytes: &[u8], searched: usize) -> Result<Option<usize>, HeadFault> {
    // Every method of HTTP begins so. A TLS handshake, which waits for an answer, does not.
    if bytes.first().is_some_and(|first| !first.is_ascii_uppercase()) {
        return Err(HeadFault::NotHttp);
    }
    let from = searched.saturating_sub(3);
    match bytes[from..].windows(4).position(|four| four == b"\r\n\r\n") {
        Some(at) => Ok(Some(from + at + 4)),
        None if bytes.len() >= MAX_BYTES => Err(HeadFault::TooLarge),
        None => Ok(None),
    }
}

fn check(head: &[u8]) -> Result<(), HeadFault> {
    let lines = head.strip_suffix(b"\r\n\r\n").unwrap_or_default();
    let lines = std::str::from_utf8(lines).map_err(|_| HeadFault::Ambiguous("it is no text"))?;
    let mut lines = lines.split("\r\n");
    if lines.clone().any(|line| line.contains(['\r', '\n', '\0'])) {
        return Err(HeadFault::Ambiguous("a line ends in the middle"));
    }
    let request = lines.next().unwrap_or_default();
    if !request.ends_with(" HTTP/1.1") && !request.ends_with(" HTTP/1.0") {
        return Err(HeadFault::NotHttp);
    }
    if lines.clone().count() > MAX_LINES {
        return Err(HeadFault::TooLarge);
    }
    let (mut hosts, mut lengths, mut encodings) = (0, 0, 0);
    for line in lines {
        let (name, _) = line.split_once(':').ok_or(HeadFault::Ambiguous("a header line has no name"))?;
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(HeadFault::Ambiguous("a header line is folded, or its name has blanks"));
        }
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "content-length" => lengths += 1,
            "transfer-encoding" => encodings += 1,
            _ => {}
        }
    }
    match (hosts, lengths, encodings) {
        (2.., _, _) => Err(HeadFault::Ambiguous("it has several Host headers")),
        (_, 2.., _) => Err(HeadFault::Ambiguous("it has several Content-Length headers")),
        (_, _, 2..) => Err(HeadFault::Ambiguous("it has several Transfer-Encoding headers")),
        (_, 1, 1) => Err(HeadFault::Ambiguous("it has both Content-Length and Transfer-Encoding")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_mins(1);

    async fn read_all(bytes: &[u8]) -> Result<Bytes, HeadFault> {
        read(&mut &*bytes, DEADLINE).await
    }

    #[tokio::test]
    async fn one_reading_only() {
        let head = |lines: &str| format!("GET /v2/ HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        for lines in ["", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "X-Colon: a:b\r\n"] {
            let whole = format!("{}abc", head(lines));
            assert_eq!(read_all(whole.as_bytes()).await.unwrap(), whole, "what follows is kept");
        }
        for lines in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
            "Host: b\r\n",
            "X: 1\r\n folded: 2\r\n",
            "Content-Length : 3\r\n",
            "X: 1\nContent-Length: 3\r\n",
            "X: 1\rContent-Length: 3\r\n",
            "no colon\r\n",
            ": no name\r\n",
        ] {
            let read = read_all(head(lines).as_bytes()).await;
            assert!(matches!(read, Err(HeadFault::Ambiguous(_))), "{lines:?}: {read:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_http() {
        for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"get / HTTP/1.1\r\n", b"GET /\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
        {
            assert!(matches!(read_all(bytes).await, Err(HeadFault::NotHttp)), "{bytes:?}");
        }
        for bytes in [&b""[..], b"GET /v2/ HTTP/1.1\r\nHost: a\r\n"] {
            assert!(matches!(read_all(bytes).await, Err(HeadFault::Gone)), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn the_bounds() {
        let begin = "GET /v2/ HTTP/1.1\r\nX: ";
        let head = |bytes: usize| format!("{begin}{}\r\n\r\n", "x".repeat(bytes - begin.len() - 4));
        assert_eq!(read_all(head(MAX_BYTES).as_bytes()).await.unwrap().len(), MAX_BYTES);
        assert!(matches!(read_all(head(MAX_BYTES + 1).as_bytes()).await, Err(HeadFault::TooLarge)));
        let lines = |count: usize| format!("GET /v2/ HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(count));
        assert!(read_all(lines(MAX_LINES).as_bytes()).await.is_ok());
        assert!(matches!(read_all(lines(MAX_LINES + 1).as_bytes()).await, Err(HeadFault::TooLarge)));
    }

    #[tokio::test]
    async fn a_head_that_comes_byte_by_byte_or_not_at_all() {
        let (mut writer, mut reader) = tokio::io::duplex(1);
        let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let writing = async move { tokio::io::AsyncWriteExt::write_all(&mut writer, whole).await.map(|()| writer) };
        let (written, read_bytes) = tokio::join!(writing, read(&mut reader, DEADLINE));
        assert_eq!(read_bytes.unwrap(), whole.as_slice());
        let _kept_open = written.unwrap();
        assert!(matches!(read(&mut reader, Duration::from_millis(20)).await, Err(HeadFault::Slow(_))));
    }
}
