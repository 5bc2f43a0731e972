//! What a program here can cost the gateway, and what it can make of a request's borders.

use std::io::{Read as _, Write as _};

use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use super::{AUTHORITY, Gateway, with_certs};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::CURL;
use crate::process::{DEADLINE, eventually};

fn get(lines: &str) -> String {
    format!("GET /v2/ HTTP/1.1\r\nHost: {AUTHORITY}\r\n{lines}\r\n")
}

#[test]
fn a_request_has_one_reading() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    let gateway = Gateway::start(&machine, &registry.host(), &["--push"]);
    let smuggled = "GET /v2/smuggled/tags/list HTTP/1.1\r\nHost: 127.0.0.1:5000\r\n\r\n";
    let post = |lines: &str, body: &str| {
        format!("POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nHost: {AUTHORITY}\r\n{lines}\r\n{body}")
    };
    for request in [
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{smuggled}")),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &format!("0\r\n\r\n{smuggled}")),
        post("Content-Length: 0\r\nContent-Length: 5\r\n", smuggled),
        post("Transfer-Encoding: chunked, identity\r\n", smuggled),
        post("Transfer-Encoding: xchunked\r\n", smuggled),
        post("Transfer-Encoding : chunked\r\n", smuggled),
        post("X: 1\nTransfer-Encoding: chunked\r\n", smuggled),
        get("X: 1\r\n folded\r\n"),
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".to_owned(),
    ] {
        let answer = gateway.raw(&request);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request:?}: {answer}");
    }
    // What follows a request on its connection is never one.
    for request in [post("Content-Length: 0\r\n", smuggled), get("") + smuggled] {
        let answer = gateway.raw(&request);
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    assert!(!gateway.log().contains("smuggled") && !registry.log().contains("smuggled"));
}

#[test]
fn a_head_has_its_bounds() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    let gateway = Gateway::start(&machine, &registry.host(), &[]);
    let fill = |bytes: usize| get(&format!("X: {}\r\n", "x".repeat(bytes - get("X: \r\n").len())));
    assert!(gateway.raw(&fill(16 * 1024)).starts_with("HTTP/1.1 200 "));
    assert!(gateway.raw(&fill(16 * 1024 + 1)).starts_with("HTTP/1.1 431 "));
    assert!(gateway.raw(&get(&"X: 1\r\n".repeat(63))).starts_with("HTTP/1.1 200 "));
    assert!(gateway.raw(&get(&"X: 1\r\n".repeat(64))).starts_with("HTTP/1.1 431 "));
}

#[test]
fn connections_have_their_bound_and_stalled_ones_end() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    let args = ["--connections", "2", "--stall", "3", "--push"];
    let gateway = Gateway::start(&machine, &registry.host(), &args);
    let mut silent = gateway.connect();
    assert_eq!(gateway.curl(&[], "/v2/").status, 200, "two at once");
    let mut begun = gateway.connect();
    begun.write_all(b"GET /v2/ HTTP/1.1\r\nHos").unwrap();
    let refused = gateway.curl(&[], "/v2/");
    assert_eq!((refused.status, refused.error_code().as_str()), (429, "TOOMANYREQUESTS"));
    // Both are told, and cut.
    for stalled in [&mut silent, &mut begun] {
        let mut answer = String::new();
        stalled.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert!(eventually(DEADLINE, || gateway.curl(&[], "/v2/").status == 200));
}

#[test]
fn a_body_that_stalls_ends_in_either_direction() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    let gateway = Gateway::start(&machine, &registry.host(), &["--stall", "2", "--push"]);
    let begin = || gateway.curl(&["--request", "POST"], "/v2/team/app/blobs/uploads/").header("location").unwrap();
    let mut sender = gateway.connect();
    let patch = format!("PATCH {} HTTP/1.1\r\nHost: {AUTHORITY}\r\nContent-Length: 1000\r\n\r\nhalf", begin());
    sender.write_all(patch.as_bytes()).unwrap();
    let mut answer = String::new();
    sender.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("BLOB_UPLOAD_INVALID"), "{answer}");

    // A blob that no socket buffer takes in, and a reader that stops.
    let size = 30_000_000;
    let blob = portcullis_testkit::image::random_bytes(1, size);
    let digest = portcullis_oci::Digest::of(portcullis_oci::Algorithm::Sha256, &blob);
    std::fs::write(machine.dir().join("blob"), &blob).unwrap();
    let path = format!("{}?digest={digest}", begin());
    assert_eq!(gateway.curl(&["--request", "PUT", "--data-binary", "@blob"], &path).status, 201);
    let mut reader = gateway.connect();
    let request = format!("GET /v2/team/app/blobs/{digest} HTTP/1.1\r\nHost: {AUTHORITY}\r\n\r\n");
    reader.write_all(request.as_bytes()).unwrap();
    let cut = gateway.log_line(&["request", "method=GET", &digest.to_string(), "complete=false"]);
    assert!(cut.contains("status=200"), "{cut}");
    let mut got = Vec::new();
    drop(reader.read_to_end(&mut got));
    assert!(got.len() < size, "it was cut");
}
