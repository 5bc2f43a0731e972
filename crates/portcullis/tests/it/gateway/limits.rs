//! What a program here can cost the gateway, and what it can make of a request's borders.

use std::io::{Read as _, Write as _};

use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use rustix::process::Signal;

use super::{AUTHORITY, Gateway, PORT, with_certs};
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

#[test]
fn what_is_under_way_ends_when_it_stops() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    let mut gateway = Gateway::start(&machine, &registry.host(), &["--push"]);
    let location = gateway.curl(&["--request", "POST"], "/v2/team/app/blobs/uploads/").header("location").unwrap();
    let mut silent = gateway.connect();
    let mut busy = gateway.connect();
    let length = "Content-Length: 8\r\nExpect: 100-continue";
    busy.write_all(format!("PATCH {location} HTTP/1.1\r\nHost: {AUTHORITY}\r\n{length}\r\n\r\n").as_bytes()).unwrap();
    let mut asked = [0; 25];
    busy.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    busy.write_all(b"half").unwrap();

    gateway.program.signal(Signal::TERM);
    assert!(eventually(DEADLINE, || !machine.listens_on(PORT)));
    assert_eq!(silent.read(&mut [0; 16]).unwrap(), 0, "nothing was asked on it");
    assert!(!gateway.program.has_ended());
    busy.write_all(b"half").unwrap();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 ") && answer.contains("range: 0-7"), "{answer}");
    assert!(eventually(DEADLINE, || gateway.program.has_ended()));
    assert!(gateway.program.ended().unwrap().success());
}

/// A registry that dies in the middle of a blob is no end of the blob.
#[test]
fn half_a_blob_does_not_look_whole() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let (mut registry, _) = with_certs(&machine);
    let gateway = Gateway::start(&machine, &registry.host(), &["--push"]);
    let blob = portcullis_testkit::image::random_bytes(2, 50_000_000);
    let digest = portcullis_oci::Digest::of(portcullis_oci::Algorithm::Sha256, &blob);
    std::fs::write(machine.dir().join("blob"), &blob).unwrap();
    let begun = gateway.curl(&["--request", "POST"], "/v2/team/app/blobs/uploads/").header("location").unwrap();
    let put = ["--request", "PUT", "--data-binary", "@blob"];
    assert_eq!(gateway.curl(&put, &format!("{begun}?digest={digest}")).status, 201);
    let mut reader = gateway.connect();
    let request = format!("GET /v2/team/app/blobs/{digest} HTTP/1.1\r\nHost: {AUTHORITY}\r\n\r\n");
    reader.write_all(request.as_bytes()).unwrap();
    let mut got = vec![0; 1000];
    reader.read_exact(&mut got).unwrap();
    assert!(String::from_utf8_lossy(&got).contains("content-length: 50000000"));
    registry.kill9();
    drop(reader.read_to_end(&mut got));
    assert!(got.len() < blob.len(), "{}", got.len());
    gateway.log_line(&["request", "method=GET", &digest.to_string(), "complete=false", "reason="]);
    // And it says so to the next one.
    let next = gateway.curl(&[], "/v2/team/app/tags/list");
    assert_eq!(next.status, 502);
    assert!(String::from_utf8_lossy(&next.body).contains("connection refused"), "{next:?}");
}
