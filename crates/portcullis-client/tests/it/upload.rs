//! Push: the order of things, the spellings of `Location`, and what must never be sent or sent twice.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_client::{
    BlobFault, Client, ClientError, Event, LayoutDir, Progress, ProtocolFault, Pushed, pull, push,
};
use portcullis_oci::{Tag, media};
use serde_json::json;

use crate::image::{self, Image, describe, noise};
use crate::site::{Pki, Site, recorder};
use crate::stub::{Cut, Spelling, reply, with};
use crate::tls::{H1, H2};

/// A layout with one image, tagged `src`.
fn layout_with(site: &Site, image: &Image) -> LayoutDir {
    let layout = site.layout();
    image.write(&layout);
    layout.set_image(&image.descriptor(), Some(&tag("src"))).unwrap();
    layout
}

async fn push_app(site: &Site, layout: &LayoutDir) -> Result<Pushed, ClientError> {
    push(&site.client().await, layout, None, &site.reference("team/app:1"), &Progress::none()).await
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

#[tokio::test]
async fn an_image_goes_out_whole_and_only_once() {
    for alpn in [H1, H2] {
        let pki = Pki::new();
        let mut tls = pki.tls();
        tls.alpn = alpn;
        let site = Site::with_good_pair(&pki, tls).await;
        let image = Image::new(&[&noise(1, 3_000_000), b"small", b""]);
        let layout = layout_with(&site, &image);
        let (progress, events) = recorder();
        let client = site.client().await;
        let pushed = push(&client, &layout, Some(&tag("src")), &site.reference("team/app:1"), &progress).await.unwrap();
        assert_eq!((pushed.manifests, pushed.sent, pushed.existing), (1, 4, 0));
        assert_eq!(site.stub.manifest("team/app", "1").unwrap(), image.manifest);
        assert_eq!(site.stub.manifest("team/app", &image.digest().to_string()).unwrap(), image.manifest);
        let blobs = site.stub.blobs();
        assert!(image.blobs.iter().all(|bytes| blobs.get(&image::digest(bytes)).is_some_and(|there| there == bytes)));
        let tagged = Event::Tagged { tag: Some(tag("1")), digest: image.digest() };
        assert_eq!(events.lock().unwrap().last(), Some(&tagged));
        let advanced: u64 = events
            .lock()
            .unwrap()
            .iter()
            .map(|event| if let Event::BlobAdvanced { bytes, .. } = event { *bytes } else { 0 })
            .sum();
        assert_eq!(advanced, pushed.sent_bytes);

        let again = push_app(&site, &layout).await.unwrap();
        assert_eq!((again.sent, again.existing), (0, 4));

        let back = LayoutDir::create(&site.dir.path().join("back")).unwrap();
        let pulled = pull(&client, &site.reference("team/app:1"), &back, &Progress::none()).await.unwrap();
        assert_eq!(pulled.image.digest, image.digest());
        assert!(image.is_in(&back));
    }
}

#[tokio::test]
async fn children_come_before_parents_and_the_tag_last() {
    let site = Site::good().await;
    let layout = site.layout();
    let images = [Image::new(&[b"amd64"]), Image::new(&[b"arm64"])];
    let types = |image: &Image| describe(media::OCI_IMAGE_MANIFEST, &image.manifest);
    let cache = b"a layer in an index";
    let inner = image::index(&[types(&images[1]), describe("application/vnd.example.cache", cache)]);
    // Listed before the index that lists it, too.
    let outer = image::index(&[types(&images[1]), types(&images[0]), describe(media::OCI_IMAGE_INDEX, &inner)]);
    for image in &images {
        image.write(&layout);
    }
    for bytes in [&inner[..], &outer, cache] {
        image::write(&layout, bytes);
    }
    let root = serde_json::from_value(describe(media::OCI_IMAGE_INDEX, &outer)).unwrap();
    layout.set_image(&root, None).unwrap();

    // The stub refuses a manifest whose parts it does not have.
    let pushed = push_app(&site, &layout).await.unwrap();
    assert_eq!(pushed.manifests, 4);
    let lines = site.stub.lines();
    assert_eq!(lines.last().unwrap(), "PUT /v2/team/app/manifests/1");
    let first_manifest = lines.iter().position(|line| line.contains("/manifests/")).unwrap();
    assert!(lines[first_manifest..].iter().all(|line| line.starts_with("PUT /v2/team/app/manifests/")), "{lines:?}");
}

#[tokio::test]
async fn every_spelling_of_the_location_within_the_registry() {
    for spelling in [Spelling::Relative, Spelling::RelativeWithState, Spelling::Absolute] {
        let site = Site::good().await;
        site.stub.spell(spelling.clone());
        let layout = layout_with(&site, &Image::new(&[b"layer"]));
        push_app(&site, &layout).await.unwrap_or_else(|error| panic!("{spelling:?}: {error}"));
    }
}

/// What was written must go where the certificate is for, and nowhere else.
#[tokio::test]
async fn an_upload_sent_elsewhere_is_not_followed() {
    let other = Site::good().await;
    for origin in [format!("https://{}", other.host), "http://localhost".into(), "https://user@elsewhere.test".into()] {
        let site = Site::good().await;
        site.stub.spell(Spelling::Origin(origin.clone()));
        let layout = layout_with(&site, &Image::new(&[b"layer"]));
        let error = push_app(&site, &layout).await.unwrap_err();
        let ClientError::Protocol { fault: ProtocolFault::ForeignUpload { .. }, .. } = &error else {
            panic!("{origin}: {error}")
        };
        assert!(error.to_string().contains("X-Forwarded-Proto"));
        assert!(!site.stub.lines().iter().any(|line| line.starts_with("PUT")));
    }
    assert_eq!(other.stub.connections(), 0);
}

/// It would be sent as a login of the registry's choosing.
#[tokio::test]
async fn an_upload_with_a_user_name_is_not_followed() {
    let site = Site::good().await;
    site.stub.spell(Spelling::Origin(format!("https://user:pass@{}", site.host)));
    let layout = layout_with(&site, &Image::new(&[b"layer"]));
    let error = push_app(&site, &layout).await.unwrap_err();
    assert!(matches!(error, ClientError::Protocol { fault: ProtocolFault::ForeignUpload { .. }, .. }), "{error}");
    assert!(!site.stub.lines().iter().any(|line| line.starts_with("PUT")));
}

#[tokio::test]
async fn an_upload_without_a_place() {
    let site = Site::good().await;
    site.stub.spell(Spelling::Missing);
    let layout = layout_with(&site, &Image::new(&[b"layer"]));
    let error = push_app(&site, &layout).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Protocol { fault: ProtocolFault::NoHeader { header: "Location" }, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_write_is_repeated_a_bounded_number_of_times() {
    for (method, part) in [("POST", "/blobs/uploads/"), ("PUT", "/blobs/uploads/"), ("PUT", "/manifests/")] {
        for (status, failures, requests) in [(429, 3, 4), (500, 2, 3), (503, 9, 4), (507, 9, 1), (403, 9, 1)] {
            let site = Site::good().await;
            let count = AtomicUsize::new(0);
            site.stub.rule(move |seen| {
                let is_it = seen.method == method && seen.target.contains(part);
                (is_it && count.fetch_add(1, Ordering::Relaxed) < failures).then(|| reply(status, ""))
            });
            let layout = layout_with(&site, &Image::new(&[]));
            let pushed = push_app(&site, &layout).await;
            let works = requests > failures;
            assert_eq!(pushed.is_ok(), works, "{method} {part} {status}: {pushed:?}");
            if let Err(error) = pushed {
                assert!(matches!(&error, ClientError::Status { answer, .. } if answer.status == status), "{error}");
            }
            let lines = site.stub.lines();
            let sent = lines.iter().filter(|line| line.starts_with(method) && line.contains(part)).count();
            // The manifest is put under its digest first, and then under the tag.
            let expected = if works && part == "/manifests/" { requests + 1 } else { requests };
            assert_eq!(sent, expected, "{status}: {lines:?}");
            assert_eq!(site.stub.manifest("team/app", "1").is_some(), works);
        }
    }
}

#[tokio::test]
async fn a_write_whose_connection_breaks_is_repeated() {
    for alpn in [H1, H2] {
        let pki = Pki::new();
        let mut tls = pki.tls();
        tls.alpn = alpn;
        let site = Site::with_good_pair(&pki, tls).await;
        let cut = |method: &str| Cut { method: method.parse().unwrap(), after: 0, kept: 0 };
        site.stub.cut(vec![cut("POST"), cut("POST")]);
        let layout = layout_with(&site, &Image::new(&[]));
        push_app(&site, &layout).await.unwrap();
        let lines = site.stub.lines();
        assert_eq!(lines.iter().filter(|line| line.starts_with("POST")).count(), 3, "{lines:?}");

        site.stub.cut(vec![cut("PUT"), cut("PUT")]);
        push_app(&site, &layout).await.unwrap();
        let lines = &site.stub.lines()[lines.len()..];
        let puts = lines.iter().filter(|line| line.starts_with("PUT /v2/team/app/manifests/"));
        assert_eq!(puts.count(), 4, "{lines:?}");
    }
}

/// However often it is asked: it sees one identity, and no other is tried when it refuses that in the end.
#[tokio::test]
async fn a_repeated_write_keeps_its_identity() {
    let pki = Pki::new();
    let other = pki.client_ca.client("other");
    let site = Site::with_good_pair(&pki, pki.tls().accept("other", &other)).await;
    other.write_pair(&site.certs(), "other");
    let count = AtomicUsize::new(0);
    site.stub.rule(move |seen| {
        let is_it = seen.method == http::Method::POST;
        is_it.then(|| reply(if count.fetch_add(1, Ordering::Relaxed) < 2 { 503 } else { 403 }, ""))
    });
    let layout = layout_with(&site, &Image::new(&[]));
    let error = push_app(&site, &layout).await.unwrap_err();
    assert!(matches!(&error, ClientError::Status { answer, .. } if answer.status == 403), "{error}");
    assert_eq!(site.stub.lines().iter().filter(|line| line.starts_with("POST")).count(), 3);
    assert!(site.stub.pairs().iter().all(|pair| pair == "good"), "{:?}", site.stub.pairs());
}

/// It says when, and the pause that would have been taken otherwise is not.
#[tokio::test]
async fn a_registry_says_when_a_write_may_come_again() {
    for (method, part) in [("POST", "/blobs/uploads/"), ("PUT", "/blobs/uploads/"), ("PUT", "/manifests/")] {
        let site = Site::good().await;
        let count = AtomicUsize::new(0);
        site.stub.rule(move |seen| {
            let is_it = seen.method == method && seen.target.contains(part);
            let is_first = is_it && count.fetch_add(1, Ordering::Relaxed) == 0;
            is_first.then(|| with(reply(429, ""), "retry-after", "0"))
        });
        let layout = layout_with(&site, &Image::new(&[]));
        let (client, (progress, events)) = (site.client().await, recorder());
        push(&client, &layout, None, &site.reference("team/app:1"), &progress).await.unwrap();
        let events = events.lock().unwrap();
        let pauses: Vec<_> = events
            .iter()
            .filter_map(|event| if let Event::Retrying { pause, .. } = event { Some(*pause) } else { None })
            .collect();
        assert_eq!(pauses, [Duration::ZERO], "{method} {part}");
    }
}

#[tokio::test]
async fn a_failed_upload_is_given_up() {
    let site = Site::good().await;
    site.stub.rule(|seen| (seen.method == http::Method::PUT).then(|| reply(500, "")));
    let layout = layout_with(&site, &Image::new(&[]));
    push_app(&site, &layout).await.unwrap_err();
    assert!(site.stub.lines().last().unwrap().starts_with("DELETE /v2/team/app/blobs/uploads/"));
}

#[tokio::test]
async fn a_damaged_blob_never_arrives() {
    for alpn in [H1, H2] {
        let pki = Pki::new();
        let mut tls = pki.tls();
        tls.alpn = alpn;
        let site = Site::with_good_pair(&pki, tls).await;
        let layer = noise(1, 2_000_000);
        let layout = layout_with(&site, &Image::new(&[&layer]));
        let path = layout.blob_path(&image::digest(&layer));
        let mut damaged = layer.clone();
        damaged[1_999_999] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let error = push_app(&site, &layout).await.unwrap_err();
        let ClientError::LayoutBlob { fault: BlobFault::Damaged, path: named, .. } = &error else { panic!("{error}") };
        assert_eq!(*named, path);
        assert!(site.stub.manifest("team/app", "1").is_none());
        assert!(!site.stub.blobs().values().any(|bytes| *bytes == damaged || *bytes == layer));
    }
}

#[tokio::test]
async fn a_layout_with_a_hole_sends_nothing() {
    let site = Site::good().await;
    let image = Image::new(&[b"layer"]);
    let layout = layout_with(&site, &image);
    let layer = layout.blob_path(&image::digest(b"layer"));
    fs::remove_file(&layer).unwrap();
    let fault = |error: ClientError| match error {
        ClientError::LayoutBlob { fault, .. } => fault,
        other => panic!("{other}"),
    };
    assert_eq!(fault(push_app(&site, &layout).await.unwrap_err()), BlobFault::Missing);
    fs::write(&layer, "laye").unwrap();
    assert_eq!(fault(push_app(&site, &layout).await.unwrap_err()), BlobFault::Size { expected: 5, actual: 4 });
    fs::write(&layer, "layer").unwrap();
    fs::write(layout.blob_path(&image.digest()), vec![b' '; image.manifest.len()]).unwrap();
    assert_eq!(fault(push_app(&site, &layout).await.unwrap_err()), BlobFault::Damaged);
    assert!(site.stub.lines().is_empty());
}

#[tokio::test]
async fn a_reference_with_a_digest_must_name_the_image() {
    let site = Site::good().await;
    let image = Image::new(&[b"layer"]);
    let layout = layout_with(&site, &image);
    let client = site.client().await;
    let to = async |rest: String| push(&client, &layout, None, &site.reference(&rest), &Progress::none()).await;
    let error = to(format!("team/app@{}", image::digest(b"other"))).await.unwrap_err();
    assert!(matches!(error, ClientError::OtherDigest(_)), "{error}");
    assert!(site.stub.lines().is_empty());
    assert_eq!(to(format!("team/app@{}", image.digest())).await.unwrap().tag, None);
    assert!(site.stub.manifest("team/app", "latest").is_none());
    assert_eq!(to(format!("team/app:2@{}", image.digest())).await.unwrap().tag, Some(tag("2")));
    assert_eq!(to("team/app".into()).await.unwrap().tag, Some(tag("latest")));
}

#[tokio::test]
async fn a_registry_that_lies_is_caught() {
    let site = Site::good().await;
    let layout = layout_with(&site, &Image::new(&[b"layer"]));
    let wrong = image::digest(b"wrong").to_string();
    site.stub.rule(move |seen| match seen.method.as_str() {
        "HEAD" => Some(with(reply(200, ""), "content-length", "77")),
        _ => None,
    });
    let error = push_app(&site, &layout).await.unwrap_err();
    assert!(matches!(&error, ClientError::Protocol { fault: ProtocolFault::Length { actual: 77, .. }, .. }), "{error}");

    for part in ["/blobs/uploads/", "/manifests/"] {
        let site = Site::good().await;
        let layout = layout_with(&site, &Image::new(&[b"layer"]));
        let wrong = wrong.clone();
        site.stub.rule(move |seen| {
            let stored = seen.method == http::Method::PUT && seen.target.contains(part);
            stored.then(|| with(reply(201, ""), "docker-content-digest", &wrong))
        });
        let error = push_app(&site, &layout).await.unwrap_err();
        assert!(matches!(&error, ClientError::Protocol { fault: ProtocolFault::StoredOther { .. }, .. }), "{error}");
    }
}

/// The registry answers before it has read the body, and what it says must not get lost.
#[tokio::test]
async fn a_refusal_in_the_middle_of_the_body_is_shown() {
    for alpn in [H1, H2] {
        let pki = Pki::new();
        let mut tls = pki.tls();
        tls.alpn = alpn;
        let site = Site::with_good_pair(&pki, tls).await;
        let layout = layout_with(&site, &Image::new(&[&noise(1, 20_000_000)]));
        site.stub.rule(|seen| {
            let full = r#"{"errors":[{"code":"DENIED","message":"quota"}]}"#;
            (seen.method == http::Method::PUT).then(|| reply(413, full))
        });
        let error = push_app(&site, &layout).await.unwrap_err();
        assert!(matches!(&error, ClientError::Status { answer, .. } if answer.status == 413), "{alpn:?}: {error}");
    }
}

#[tokio::test]
async fn a_foreign_layer_that_is_not_here_is_left_out() {
    let site = Site::good().await;
    let layout = site.layout();
    let image = Image::new(&[b"foreign", b"own"]);
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["layers"][0]["urls"] = json!(["https://elsewhere.test/layer"]);
    image.write(&layout);
    fs::remove_file(layout.blob_path(&image::digest(b"foreign"))).unwrap();
    let manifest = manifest.to_string().into_bytes();
    image::write(&layout, &manifest);
    let root = serde_json::from_value(describe(media::OCI_IMAGE_MANIFEST, &manifest)).unwrap();
    layout.set_image(&root, None).unwrap();
    assert_eq!(push_app(&site, &layout).await.unwrap().sent, 2);
}

/// The calls one by one, as a user of the crate has them.
#[tokio::test]
async fn an_upload_step_by_step() {
    let site = Site::good().await;
    let client: Client = site.client().await;
    let repository = "a".parse().unwrap();
    let bytes = b"some blob";
    let descriptor = image::descriptor(bytes);
    let upload = client.start_upload(&repository, &descriptor.digest).await.unwrap();
    client.cancel_upload(&upload).await.unwrap();
    let upload = client.start_upload(&repository, &descriptor.digest).await.unwrap();
    let source = std::path::Path::new("source");
    client.finish_upload(&upload, &descriptor, &bytes[..], source, &Progress::none()).await.unwrap();
    assert_eq!(client.head_blob(&repository, &descriptor.digest).await.unwrap().unwrap().size, Some(9));
    let upload = client.start_upload(&repository, &descriptor.digest).await.unwrap();
    let error = client.finish_upload(&upload, &descriptor, &bytes[1..], source, &Progress::none()).await.unwrap_err();
    assert!(matches!(error, ClientError::LayoutBlob { fault: BlobFault::Size { .. }, .. }), "{error}");
}
