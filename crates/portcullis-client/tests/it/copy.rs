//! Copy, between two registries and within one: what is streamed, mounted or left alone, and what either side can do
//! wrong on the way.

use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_client::{ClientError, Copied, Event, MAX_MANIFEST_BYTES, Progress, ProtocolFault, copy};
use portcullis_oci::{Tag, media};
use serde_json::{Value, json};

use crate::image::{self, Image, describe, noise};
use crate::site::{Pki, Site, recorder};
use crate::stub::{End, Reply, Seen, Stub, faulty, reply, with};
use crate::tls::{H1, H2};

/// Two registries with nothing in common, certificates included.
async fn two() -> (Site, Site) {
    (Site::good().await, Site::good().await)
}

async fn site_with(alpn: &'static [&'static [u8]]) -> Site {
    let pki = Pki::new();
    let mut tls = pki.tls();
    tls.alpn = alpn;
    Site::with_good_pair(&pki, tls).await
}

async fn copy_app(source: &Site, target: &Site) -> Result<Copied, ClientError> {
    copy_telling(source, target, "mirror/app:2", &Progress::none()).await
}

async fn copy_telling(source: &Site, target: &Site, to: &str, progress: &Progress) -> Result<Copied, ClientError> {
    let (from, to) = (source.reference("team/app:1"), target.reference(to));
    copy(&source.client().await, &from, &target.client().await, &to, progress).await
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn is_at(image: &Image, stub: &Stub, repository: &str) -> bool {
    image.blobs.iter().all(|bytes| stub.blob(repository, &image::digest(bytes)).is_some_and(|there| there == *bytes))
        && stub.manifest(repository, &image.digest().to_string()).is_some_and(|there| there == image.manifest)
}

fn is_blob(seen: &Seen) -> bool {
    seen.method == http::Method::GET && seen.target.contains("/blobs/")
}

fn count(site: &Site, method: &str, part: &str) -> usize {
    site.stub.lines().iter().filter(|line| line.starts_with(method) && line.contains(part)).count()
}

/// Neither a tag nor a manifest came of it, and every upload that was begun was given up.
fn assert_nothing_became_of_it(target: &Site) {
    assert!(target.stub.manifest("mirror/app", "2").is_none());
    assert_eq!(count(target, "PUT", "/manifests/"), 0, "{:?}", target.stub.lines());
    let given_up = |line: &&String| line.starts_with("DELETE /v2/mirror/app/blobs/uploads/");
    assert!(target.stub.lines().iter().any(|line| given_up(&line)), "{:?}", target.stub.lines());
}

#[tokio::test]
async fn an_image_is_streamed_whole_and_only_once() {
    for (at_source, at_target) in [(H1, H1), (H1, H2), (H2, H1), (H2, H2)] {
        let (source, target) = (site_with(at_source).await, site_with(at_target).await);
        let image = Image::new(&[&noise(1, 3_000_000), b"small", b""]);
        image.put(&source.stub, "team/app", "1");
        let (progress, events) = recorder();
        let copied = copy_telling(&source, &target, "mirror/app:2", &progress).await.unwrap();
        assert_eq!((copied.manifests, copied.sent, copied.mounted, copied.existing), (1, 4, 0, 0));
        assert_eq!((copied.image.digest, &copied.tag), (image.digest(), &Some(tag("2"))));
        assert!(is_at(&image, &target.stub, "mirror/app"));
        assert_eq!(target.stub.manifest("mirror/app", "2").unwrap(), image.manifest);
        {
            let events = events.lock().unwrap();
            assert!(matches!(events.first(), Some(Event::Planned { blobs: 4, .. })), "{events:?}");
            assert_eq!(events.last(), Some(&Event::Tagged { tag: Some(tag("2")), digest: image.digest() }));
            let advanced = |event: &Event| if let Event::BlobAdvanced { bytes, .. } = event { *bytes } else { 0 };
            assert_eq!(events.iter().map(advanced).sum::<u64>(), copied.sent_bytes);
            let finished = events.iter().filter(|event| matches!(event, Event::BlobFinished { .. })).count();
            assert_eq!(finished, 4);
        }
        let again = copy_app(&source, &target).await.unwrap();
        assert_eq!((again.sent, again.existing), (0, 4));
        assert_eq!(count(&source, "GET", "/blobs/"), 4, "what the target has is not asked for");
    }
}

#[tokio::test]
async fn an_index_is_copied_whole_children_first_and_the_tag_last() {
    let (source, target) = two().await;
    let images = [Image::new(&[b"amd64", b"common"]), Image::new(&[b"arm64", b"common"])];
    let types = |image: &Image| describe(media::OCI_IMAGE_MANIFEST, &image.manifest);
    let cache = b"a layer in an index";
    let inner = image::index(&[types(&images[1]), describe("application/vnd.example.cache", cache)]);
    let outer = image::index(&[types(&images[1]), describe(media::OCI_IMAGE_INDEX, &inner), types(&images[0])]);
    for image in &images {
        image.put(&source.stub, "team/app", "part");
    }
    source.stub.put_blob("team/app", cache);
    source.stub.put_manifest("team/app", "inner", &inner);
    source.stub.put_manifest("team/app", "1", &outer);

    // The stub refuses a manifest whose parts it does not have.
    let copied = copy_app(&source, &target).await.unwrap();
    assert_eq!((copied.manifests, copied.sent), (4, 5));
    assert!(images.iter().all(|image| is_at(image, &target.stub, "mirror/app")));
    assert_eq!(target.stub.manifest("mirror/app", "2").unwrap(), outer);
    let lines = target.stub.lines();
    assert_eq!(lines.last().unwrap(), "PUT /v2/mirror/app/manifests/2");
    let first = lines.iter().position(|line| line.contains("/manifests/")).unwrap();
    assert!(lines[first..].iter().all(|line| line.starts_with("PUT /v2/mirror/app/manifests/")), "{lines:?}");
}

#[tokio::test]
async fn within_one_registry_blobs_are_mounted() {
    let site = Site::good().await;
    let image = Image::new(&[&noise(1, 100_000), b"small"]);
    image.put(&site.stub, "team/app", "1");
    let (progress, events) = recorder();
    let copied = copy_telling(&site, &site, "mirror/app:2", &progress).await.unwrap();
    assert_eq!((copied.sent, copied.mounted, copied.existing), (0, 3, 0));
    assert!(is_at(&image, &site.stub, "mirror/app"));
    let mounts = count(&site, "POST /v2/mirror/app/blobs/uploads/?mount=sha256", "&from=team%2Fapp");
    assert_eq!(mounts, 3, "{:?}", site.stub.lines());
    assert_eq!((count(&site, "GET", "/blobs/"), count(&site, "PUT", "/blobs/")), (0, 0));
    let layer = Event::BlobMounted { digest: image::digest(b"small"), size: 5 };
    assert!(events.lock().unwrap().contains(&layer));

    // Within one repository there is nothing to mount.
    let copied = copy_telling(&site, &site, "team/app:3", &Progress::none()).await.unwrap();
    assert_eq!((copied.sent, copied.mounted, copied.existing), (0, 0, 3));
    assert_eq!(count(&site, "POST", ""), 3);
    assert_eq!(site.stub.manifest("team/app", "3").unwrap(), image.manifest);
}

/// The upload that the registry began instead is the one that is used.
#[tokio::test]
async fn a_mount_that_is_declined_becomes_an_upload() {
    let site = Site::good().await;
    let image = Image::new(&[&noise(1, 400_000), b""]);
    image.put(&site.stub, "team/app", "1");
    let begun = "/v2/mirror/app/blobs/uploads/00000000-0000-0000-0000-0000000000aa";
    site.stub.rule(move |seen| seen.target.contains("?mount=").then(|| with(reply(202, ""), "location", begun)));
    let copied = copy_app(&site, &site).await.unwrap();
    assert_eq!((copied.sent, copied.mounted), (3, 0));
    assert!(is_at(&image, &site.stub, "mirror/app"));
    assert_eq!((count(&site, "POST", ""), count(&site, "PUT", begun)), (3, 3), "{:?}", site.stub.lines());
}

#[tokio::test]
async fn a_mount_that_lies_or_is_refused() {
    let image = Image::new(&[b"layer"]);
    let wrong = image::digest(b"wrong").to_string();
    let cases = [
        ("other", 201, "docker-content-digest", wrong.as_str()),
        ("refused", 403, "x", "y"),
        ("foreign", 202, "location", "https://elsewhere.test/x"),
    ];
    for (name, status, header, value) in cases {
        let site = Site::good().await;
        image.put(&site.stub, "team/app", "1");
        let value = value.to_owned();
        site.stub.rule(move |seen| seen.target.contains("?mount=").then(|| with(reply(status, ""), header, &value)));
        let error = copy_app(&site, &site).await.unwrap_err();
        let expected = match &error {
            ClientError::Protocol { fault: ProtocolFault::StoredOther { .. }, .. } => name == "other",
            ClientError::Protocol { fault: ProtocolFault::ForeignUpload { .. }, .. } => name == "foreign",
            error => name == "refused" && error.is_refusal(),
        };
        assert!(expected, "{name}: {error}");
        assert!(site.stub.manifest("mirror/app", "2").is_none());
    }
}

/// What came is not what it is called: the source is named, and the target never has it.
#[tokio::test]
async fn a_source_that_lies_is_caught_and_named() {
    for (at_source, at_target) in [(H1, H1), (H2, H2)] {
        for size in [5, 2_000_000] {
            let (source, target) = (site_with(at_source).await, site_with(at_target).await);
            let layer = noise(1, size);
            let image = Image::new(&[&layer]);
            image.put(&source.stub, "team/app", "1");
            let digest = image::digest(&layer).to_string();
            source.stub.rule(move |seen| {
                (is_blob(seen) && seen.target.ends_with(&digest)).then(|| reply(200, noise(2, size)))
            });
            let error = copy_app(&source, &target).await.unwrap_err();
            let ClientError::Digest(mismatch) = &error else { panic!("{size}: {error}") };
            assert_eq!((&mismatch.from, mismatch.expected), (&source.host.to_string(), image::digest(&layer)));
            assert!(!target.stub.blobs().values().any(|bytes| bytes.len() == size), "{size}");
            assert!(target.stub.manifest("mirror/app", "2").is_none());
            // A blob of one piece was not even begun.
            if size > 5 {
                assert_nothing_became_of_it(&target);
            }
        }
    }
}

#[tokio::test]
async fn a_source_that_sends_too_much_or_too_little() {
    type Made = fn(&[u8]) -> Reply;
    let cases: [(&str, usize, Made); 4] = [
        ("more", 400_000, |good| faulty(200, None, &[good, b"x"].concat(), End::Clean)),
        ("less", 400_000, |good| faulty(200, None, &good[1..], End::Clean)),
        ("more than nothing", 0, |_| faulty(200, None, b"x", End::Clean)),
        ("nothing for a name of something", 0, |_| reply(200, "")),
    ];
    for (name, size, made) in cases {
        let (source, target) = two().await;
        let layer = noise(1, size);
        let mut image = Image::new(&[&layer]);
        let mut digest = image::digest(&layer).to_string();
        if name.ends_with("of something") {
            let manifest = String::from_utf8(image.manifest).unwrap();
            let other = image::digest(b"something").to_string();
            image.manifest = manifest.replace(&digest, &other).into_bytes();
            digest = other;
        }
        image.put(&source.stub, "team/app", "1");
        source.stub.rule(move |seen| (is_blob(seen) && seen.target.ends_with(&digest)).then(|| made(&layer)));
        let error = copy_app(&source, &target).await.unwrap_err();
        let host = match &error {
            ClientError::Protocol {
                host, fault: ProtocolFault::TooLong { .. } | ProtocolFault::Length { .. }, ..
            } => host.to_string(),
            ClientError::Digest(mismatch) => mismatch.from.clone(),
            error => panic!("{name}: {error}"),
        };
        assert_eq!(host, source.host.to_string(), "{name}");
        assert_eq!(count(&target, "PUT", "/manifests/"), 0, "{name}");
    }
}

#[tokio::test]
async fn an_index_that_lies_about_a_size_is_caught_and_named() {
    let (source, target) = two().await;
    let image = Image::new(&[b"layer"]);
    image.put(&source.stub, "team/app", "part");
    let mut child = describe(media::OCI_IMAGE_MANIFEST, &image.manifest);
    child["size"] = json!(image.manifest.len() + 1);
    source.stub.put_manifest("team/app", "1", &image::index(&[child]));
    let error = copy_app(&source, &target).await.unwrap_err();
    let ClientError::Protocol { host, fault: ProtocolFault::Length { .. }, .. } = &error else { panic!("{error}") };
    assert_eq!(*host, source.host);
    assert!(target.stub.lines().is_empty());
}

#[tokio::test]
async fn a_source_that_breaks_off_is_read_on() {
    for alpn in [H1, H2] {
        let (source, target) = (site_with(alpn).await, site_with(alpn).await);
        let layer = noise(1, 900_000);
        let image = Image::new(&[&layer]);
        image.put(&source.stub, "team/app", "1");
        let digest = image::digest(&layer).to_string();
        source.stub.rule(move |seen| {
            let first = is_blob(seen) && seen.target.ends_with(&digest) && seen.range.is_none();
            first.then(|| faulty(200, Some(layer.len()), &layer[..500_000], End::Break))
        });
        let copied = copy_app(&source, &target).await.unwrap();
        assert_eq!(copied.sent, 2);
        assert!(is_at(&image, &target.stub, "mirror/app"));
        assert_eq!(source.stub.log().iter().filter(|seen| seen.range.is_some()).count(), 1);
    }
}

#[tokio::test]
async fn a_source_that_always_breaks_off_is_given_up_and_named() {
    let (source, target) = two().await;
    let layer = noise(1, 900_000);
    Image::new(&[&layer]).put(&source.stub, "team/app", "1");
    source.stub.rule(move |seen| match &seen.range {
        Some(_) => Some(reply(404, "gone")),
        None if is_blob(seen) && seen.target.ends_with(&image::digest(&layer).to_string()) => {
            Some(faulty(200, Some(layer.len()), &layer[..500_000], End::Break))
        }
        None => None,
    });
    let error = copy_app(&source, &target).await.unwrap_err();
    assert!(matches!(&error, ClientError::Status { host, .. } if *host == source.host), "{error}");
    assert_nothing_became_of_it(&target);
}

#[tokio::test]
async fn a_target_that_refuses_is_named_and_asked_no_more_than_it_helps() {
    for (method, part) in [("POST", "/blobs/uploads/"), ("PUT", "/blobs/uploads/"), ("PUT", "/manifests/")] {
        for (status, requests) in [(403, 1), (429, 4), (500, 4), (507, 1)] {
            let (source, target) = two().await;
            Image::new(&[]).put(&source.stub, "team/app", "1");
            target
                .stub
                .rule(move |seen| (seen.method == method && seen.target.contains(part)).then(|| reply(status, "")));
            let error = copy_app(&source, &target).await.unwrap_err();
            let ClientError::Status { host, answer, .. } = &error else { panic!("{error}") };
            assert_eq!((host, answer.status), (&target.host, status));
            assert_eq!(error.is_refusal(), status == 403);
            assert_eq!(count(&target, method, part), requests, "{:?}", target.stub.lines());
            assert!(target.stub.manifest("mirror/app", "2").is_none());
        }
    }
}

/// The target answers before it has taken the whole body; the reader of the source must not wait for ever.
#[tokio::test]
async fn a_refusal_in_the_middle_of_the_body_is_shown() {
    for alpn in [H1, H2] {
        let (source, target) = (site_with(alpn).await, site_with(alpn).await);
        Image::new(&[&noise(1, 20_000_000)]).put(&source.stub, "team/app", "1");
        target.stub.rule(|seen| (seen.method == http::Method::PUT).then(|| reply(413, "too large")));
        let error = copy_app(&source, &target).await.unwrap_err();
        assert!(matches!(&error, ClientError::Status { answer, .. } if answer.status == 413), "{alpn:?}: {error}");
        assert_nothing_became_of_it(&target);
    }
}

#[tokio::test]
async fn a_target_that_lies_is_caught() {
    let (source, target) = two().await;
    Image::new(&[b"layer"]).put(&source.stub, "team/app", "1");
    target.stub.rule(|seen| (seen.method == "HEAD").then(|| with(reply(200, ""), "content-length", "77")));
    let error = copy_app(&source, &target).await.unwrap_err();
    let ClientError::Protocol { host, fault: ProtocolFault::Length { actual: 77, .. }, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*host, target.host);
}

#[tokio::test]
async fn the_names_at_the_target() {
    let (source, target) = two().await;
    let image = Image::new(&[b"layer"]);
    image.put(&source.stub, "team/app", "1");
    let to = async |rest: String| copy_telling(&source, &target, &rest, &Progress::none()).await;
    let error = to(format!("mirror/app@{}", image::digest(b"other"))).await.unwrap_err();
    assert!(matches!(error, ClientError::OtherDigest(_)), "{error}");
    assert!(target.stub.lines().is_empty());
    assert_eq!(to(format!("mirror/app@{}", image.digest())).await.unwrap().tag, None);
    assert!(target.stub.manifest("mirror/app", "latest").is_none());
    assert_eq!(to(format!("mirror/app:2@{}", image.digest())).await.unwrap().tag, Some(tag("2")));
    assert_eq!(to("mirror/app".into()).await.unwrap().tag, Some(tag("latest")));

    let (client, reference) = (source.client().await, source.reference("team/app:1"));
    let error = copy(&client, &reference, &client, &target.reference("a:1"), &Progress::none()).await.unwrap_err();
    assert!(matches!(error, ClientError::OtherHost { .. }), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_not_copied() {
    let (source, target) = two().await;
    let host = source.host.clone();
    let at_target = target.client().await;
    let to = target.reference("mirror/app:2");
    // On a task of its own, as a server or a pool of workers has it.
    let copying = async move {
        let client = source.client().await;
        copy(&client, &source.reference("team/app:1"), &at_target, &to, &Progress::none()).await
    };
    let error = tokio::spawn(copying).await.unwrap().unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains(host.as_str()), "{error}");
    assert!(target.stub.lines().is_empty());
}

/// Also where a mount was declined: the upload that it began is given up.
#[tokio::test]
async fn a_layer_from_elsewhere_may_be_missing() {
    let (source, target) = two().await;
    let own = Image::new(&[b"own"]);
    let both = Image::new(&[b"foreign", b"own"]);
    let mut manifest: Value = serde_json::from_slice(&both.manifest).unwrap();
    manifest["layers"][0]["urls"] = json!(["https://elsewhere.test/layer"]);
    own.put(&source.stub, "team/app", "own");
    source.stub.put_manifest("team/app", "1", manifest.to_string().as_bytes());
    let (progress, events) = recorder();
    for (target, sent, mounted) in [(&target, 2, 0), (&source, 0, 2)] {
        let copied = copy_telling(&source, target, "mirror/app:2", &progress).await.unwrap();
        assert_eq!((copied.sent, copied.mounted), (sent, mounted));
    }
    let posts = count(&source, "POST", "");
    copy_telling(&source, &source, "team/app:3", &progress).await.unwrap();
    assert_eq!(count(&source, "POST", ""), posts, "a repository is not asked to mount from itself");
    let foreign = Event::BlobForeign { digest: image::digest(b"foreign") };
    assert!(events.lock().unwrap().contains(&foreign));
    assert_eq!(count(&source, "DELETE", "/blobs/uploads/"), 1);
}

/// Manifests are in memory until the blobs are there: more than the bound is refused before anything is sent.
#[tokio::test]
async fn manifests_are_bounded_in_all() {
    let (source, target) = two().await;
    let served = std::sync::Arc::new(AtomicUsize::new(0));
    let filler = "x".repeat(4_000_000);
    let children: Vec<Vec<u8>> = (0..12)
        .map(|number| json!({"schemaVersion": 2, "mediaType": media::OCI_IMAGE_INDEX, "manifests": [], "annotations": {"n": number.to_string(), "x": filler}}))
        .map(|manifest| manifest.to_string().into_bytes())
        .collect();
    for child in &children {
        source.stub.put_manifest("team/app", "part", child);
    }
    let types: Vec<_> = children.iter().map(|child| describe(media::OCI_IMAGE_INDEX, child)).collect();
    source.stub.put_manifest("team/app", "1", &image::index(&types));
    let counted = std::sync::Arc::clone(&served);
    source.stub.rule(move |seen| {
        counted.fetch_add(usize::from(seen.target.contains("/manifests/sha256")), Ordering::Relaxed);
        None
    });
    let error = copy_app(&source, &target).await.unwrap_err();
    assert!(matches!(error, ClientError::TooMany { limit: MAX_MANIFEST_BYTES, .. }), "{error}");
    assert_eq!(served.load(Ordering::Relaxed), MAX_MANIFEST_BYTES / 4_000_000 + 1);
    assert!(target.stub.lines().is_empty());
}
