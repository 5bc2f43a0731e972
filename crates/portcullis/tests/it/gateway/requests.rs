//! Which requests pass, and what is in them when they do.

use std::fs;

use portcullis_testkit::image::Image;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use super::{AUTHORITY, Gateway, with_certs};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::CURL;
use crate::process::{DEADLINE, eventually};
use crate::registry::{PORTCULLIS, Registry};

fn with_image(machine: &Machine) -> (Registry<'_>, Image) {
    let (registry, _) = with_certs(machine);
    let image = Image::new(1, &[1000]);
    image.write_layout(&machine.dir().join("layout"), "v1");
    for name in ["team/app:1", "other/app:1"] {
        machine.run(PORTCULLIS, &["push", "oci:layout:v1", &registry.reference(name)]).ok();
    }
    (registry, image)
}

#[test]
fn no_web_page_and_no_other_name() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_image(&machine);
    let gateway = Gateway::start(&machine, &registry.host(), &["--push"]);
    let uploads = "/v2/team/app/blobs/uploads/";
    let posted = || registry.log().matches("method=POST").count();
    let before = posted();
    for header in [
        "Host: evil.test:5000",
        "Host: localhost:5000",
        "Host: 127.0.0.1",
        "Host: 127.0.0.1:5001",
        "Origin: http://evil.test",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "sec-fetch-mode: no-cors",
    ] {
        for (method, path) in [("POST", uploads), ("GET", "/v2/")] {
            let answer = gateway.curl(&["--request", method, "--header", header], path);
            assert_eq!((answer.status, answer.error_code().as_str()), (403, "DENIED"), "{method} {header}");
        }
    }
    assert_eq!(gateway.curl(&["--request", "POST"], uploads).status, 202, "without them it passes");
    assert!(eventually(DEADLINE, || posted() > before) && posted() == before + 1, "that one alone");
    for request in [
        "GET /v2/ HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET http://{AUTHORITY}/v2/ HTTP/1.1\r\nHost: {AUTHORITY}\r\n\r\n"),
        format!("GET /v2/ HTTP/1.1\r\nHost: {AUTHORITY}\r\nHost: evil.test\r\n\r\n"),
    ] {
        let answer = gateway.raw(&request);
        assert!(answer.starts_with("HTTP/1.1 40"), "{request}: {answer}");
    }
}

#[test]
fn only_what_it_was_opened_for() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let (registry, image) = with_image(&machine);
    let blob = format!("/v2/team/app/blobs/{}", image.config.digest);
    let reads = Gateway::start(&machine, &registry.host(), &[]);
    assert_eq!(reads.curl(&[], "/v2/team/app/manifests/1").body, image.manifest.bytes);
    assert_eq!(reads.curl(&["--head"], &blob).header("content-length").unwrap(), image.config.bytes.len().to_string());
    assert_eq!(reads.curl(&["--range", "2-4"], &blob).body, image.config.bytes[2..5]);
    assert_eq!(reads.curl(&[], "/v2/_catalog").status, 200);
    for (method, path) in [
        ("POST", "/v2/team/app/blobs/uploads/"),
        ("PUT", "/v2/team/app/manifests/2"),
        ("DELETE", "/v2/team/app/manifests/1"),
        ("DELETE", blob.as_str()),
    ] {
        assert_eq!(reads.curl(&["--request", method], path).status, 403, "{method} {path}");
    }
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
        ("GET", "/v2/team/../../metrics", 404),
        ("GET", "/v2/team%2fapp/manifests/1", 404),
        ("TRACE", "/v2/", 405),
        ("OPTIONS", "/v2/", 405),
    ] {
        assert_eq!(reads.curl(&["--request", method], path).status, status, "{method} {path}");
    }
    assert_eq!(reads.curl(&["--request", "GET", "--data", "x"], "/v2/").status, 400, "no body is asked for");
    drop(reads);

    let some = Gateway::start(&machine, &registry.host(), &["--repo", "team/*", "--push"]);
    assert_eq!(some.curl(&[], "/v2/team/app/manifests/1").status, 200);
    assert_eq!(some.curl(&[], "/v2/other/app/manifests/1").status, 403);
    assert_eq!(some.curl(&[], "/v2/other/app/tags/list").status, 403);
    assert_eq!(some.curl(&[], "/v2/_catalog").status, 403);
    // A mount from outside is an upload to be filled.
    let mount = |from: &str| {
        let path = format!("/v2/team/new/blobs/uploads/?mount={}&from={from}", image.config.digest);
        some.curl(&["--request", "POST"], &path).status
    };
    assert_eq!((mount("other/app"), mount("team/app")), (202, 201));
}

#[test]
fn deletion_is_a_right_of_its_own() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_image(&machine);
    // The admin's: the default policy lets nobody else delete.
    let admin = portcullis_testkit::pki::PairFiles::named(&registry.home().join("pki/clients/admin"), "client");
    registry.fill_certs(&machine.docker_certs(&registry.host()), &admin);
    let gateway = Gateway::start(&machine, &registry.host(), &["--delete"]);
    assert_eq!(gateway.curl(&["--request", "POST"], "/v2/team/app/blobs/uploads/").status, 403);
    assert_eq!(gateway.curl(&["--request", "DELETE"], "/v2/team/app/manifests/1").status, 202);
    assert_eq!(gateway.curl(&[], "/v2/team/app/manifests/1").status, 404, "the registry's own answer");
}

#[test]
fn an_upload_keeps_to_the_gateway() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    let gateway = Gateway::start(&machine, &registry.host(), &["--push"]);
    let begun = gateway.curl(&["--request", "POST"], "/v2/team/app/blobs/uploads/");
    let location = begun.header("location").unwrap();
    assert!(location.starts_with("/v2/team/app/blobs/uploads/"), "{location}");
    assert!(location.ends_with(&begun.header("docker-upload-uuid").unwrap()));
    let there = fs::read_dir(registry.home().join("data/portcullis/uploads")).unwrap();
    let there: Vec<_> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!there.is_empty() && there.iter().all(|name| !location.contains(name)), "{location} {there:?}");

    let patched = gateway.curl(&["--request", "PATCH", "--data-binary", "hello"], &location);
    assert_eq!((patched.status, patched.header("range").as_deref()), (202, Some("0-4")));
    let status = gateway.curl(&[], &location);
    assert_eq!((status.status, status.header("range").as_deref()), (204, Some("0-4")));
    // The name is for this repository, and is the gateway's own.
    let elsewhere = location.replace("team/app", "team/other");
    assert_eq!(gateway.curl(&[], &elsewhere).error_code(), "BLOB_UPLOAD_UNKNOWN");
    let guessed = format!("/v2/team/app/blobs/uploads/{}", there[0]);
    assert_eq!(gateway.curl(&[], &guessed).error_code(), "BLOB_UPLOAD_UNKNOWN");
    let hello = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let finished = gateway.curl(&["--request", "PUT"], &format!("{location}?digest={hello}"));
    assert_eq!(finished.status, 201);
    assert_eq!(finished.header("location").as_deref(), Some(format!("/v2/team/app/blobs/{hello}").as_str()));
    assert_eq!(gateway.curl(&[], &location).status, 404, "it is over");
    assert_eq!(gateway.curl(&[], &format!("/v2/team/app/blobs/{hello}")).body, b"hello");
}

/// The pair was replaced beneath a gateway that runs, and the old one is denied.
#[test]
fn a_new_certificate_is_found_without_a_restart() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_image(&machine);
    let gateway = Gateway::start(&machine, &registry.host(), &["--push"]);
    assert_eq!(gateway.curl(&[], "/v2/team/app/tags/list").status, 200);
    registry.portcullis(&["cert", "revoke", "ci-7"]).ok();
    let refused = gateway.curl(&[], "/v2/team/app/tags/list");
    assert_eq!((refused.status, refused.error_code().as_str()), (403, "DENIED"));
    assert!(String::from_utf8_lossy(&refused.body).contains("revoked"), "{refused:?}");
    let next = registry.new_client("ci-8");
    registry.fill_certs(&machine.docker_certs(&registry.host()), &next);
    assert_eq!(gateway.curl(&[], "/v2/team/app/tags/list").status, 200);
    registry.log_line(&["ci-8", "tags/list"]);
}
