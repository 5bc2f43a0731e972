//! Pull, and what a registry can do wrong on the way.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_client::{Client, ClientError, Event, LayoutDir, Progress, ProtocolFault, Pulled, pull};
use portcullis_oci::{ManifestReference, media};
use serde_json::json;

use crate::image::{self, Image, describe, noise};
use crate::site::{Pki, Site, recorder};
use crate::stub::{End, Reply, Seen, faulty, reply, with};
use crate::tls::{H1, H2};

async fn pull_app(site: &Site) -> Result<Pulled, ClientError> {
    let client = site.client().await;
    pull(&client, &site.reference("team/app:1"), &site.layout(), &Progress::none()).await
}

/// Nothing is listed, nothing unverified has a name, no temporary is left.
fn assert_untouched(layout: &LayoutDir) {
    assert!(layout.images().unwrap().is_empty());
    for entry in fs::read_dir(layout.path()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(["blobs", "index.json", "oci-layout"].contains(&name.to_str().unwrap()), "{}", name.display());
    }
    let Ok(blobs) = fs::read_dir(layout.path().join("blobs/sha256")) else { return };
    for entry in blobs {
        let path = entry.unwrap().path();
        let digest = image::digest(&fs::read(&path).unwrap());
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), digest.hex());
    }
}

type Made = fn(&[u8]) -> Reply;
type Answer = Box<dyn Fn() -> Reply + Send + Sync>;

fn is_blob(seen: &Seen) -> bool {
    seen.method == http::Method::GET && seen.target.contains("/blobs/")
}

#[tokio::test]
async fn an_image_comes_whole_and_only_once() {
    for alpn in [H1, H2] {
        let pki = Pki::new();
        let mut tls = pki.tls();
        tls.alpn = alpn;
        let site = Site::with_good_pair(&pki, tls).await;
        let big = noise(1, 3_000_000);
        let image = Image::new(&[&big, b"small", b"", &big]);
        image.put(&site.stub, "team/app", "1");
        let (progress, events) = recorder();
        let client = site.client().await;
        let pulled = pull(&client, &site.reference("team/app:1"), &site.layout(), &progress).await.unwrap();
        assert!(image.is_in(&site.layout()));
        assert_eq!(pulled.image.digest, image.digest());
        assert_eq!((pulled.manifests, pulled.fetched, pulled.reused), (1, 4, 0), "one layer stands there twice");
        assert_eq!(site.layout().image(Some(&"1".parse().unwrap())).unwrap(), {
            let mut listed = pulled.image.clone();
            listed.annotations.insert("org.opencontainers.image.ref.name".into(), "1".into());
            listed
        });
        let advanced: u64 = events
            .lock()
            .unwrap()
            .iter()
            .map(|event| if let Event::BlobAdvanced { bytes, .. } = event { *bytes } else { 0 })
            .sum();
        assert_eq!(advanced, pulled.fetched_bytes);
        let version = if alpn == H2 { http::Version::HTTP_2 } else { http::Version::HTTP_11 };
        assert!(site.stub.log().iter().all(|seen| seen.version == version));

        let before = site.stub.lines().len();
        let again = pull_app(&site).await.unwrap();
        assert_eq!((again.fetched, again.reused), (0, 4));
        assert_eq!(site.stub.lines()[before..], ["GET /v2/team/app/manifests/1"]);
        assert_eq!(site.layout().images().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn an_index_comes_whole() {
    let site = Site::good().await;
    let images = [Image::new(&[b"amd64", b"common"]), Image::new(&[b"arm64", b"common"])];
    let types = |image: &Image| describe(media::OCI_IMAGE_MANIFEST, &image.manifest);
    // As BuildKit lists the layers of its cache: in an index, with types that are no manifests'.
    let cache = b"a layer in an index";
    let inner = image::index(&[types(&images[1]), describe("application/vnd.example.cache", cache)]);
    let outer = image::index(&[types(&images[0]), describe(media::OCI_IMAGE_INDEX, &inner), types(&images[1])]);
    for image in &images {
        image.put(&site.stub, "team/app", "part");
    }
    site.stub.put_blob("team/app", cache);
    site.stub.put_manifest("team/app", "inner", &inner);
    site.stub.put_manifest("team/app", "1", &outer);
    let pulled = pull_app(&site).await.unwrap();
    let layout = site.layout();
    assert!(images.iter().all(|image| image.is_in(&layout)));
    for bytes in [inner.as_slice(), &outer, cache] {
        assert!(layout.has_blob(&image::descriptor(bytes)));
    }
    assert_eq!((pulled.manifests, pulled.fetched), (4, 5), "the two configs are one, and so are the common layers");
}

#[tokio::test]
async fn by_digest_there_is_no_tag_and_without_either_it_is_latest() {
    let site = Site::good().await;
    let image = Image::new(&[b"layer"]);
    image.put(&site.stub, "team/app", "latest");
    let client = site.client().await;
    let layout = site.layout();
    let by_digest = site.reference(&format!("team/app@{}", image.digest()));
    assert_eq!(pull(&client, &by_digest, &layout, &Progress::none()).await.unwrap().tag, None);
    let neither = site.reference("team/app");
    let tag = pull(&client, &neither, &layout, &Progress::none()).await.unwrap().tag;
    assert_eq!(tag.unwrap().as_str(), "latest");
}

#[tokio::test]
async fn a_manifest_that_is_not_there() {
    let site = Site::good().await;
    let error = pull_app(&site).await.unwrap_err();
    assert!(error.is_not_found() && !error.is_refusal());
    let text = error.to_string();
    assert!(text.contains("GET /v2/team/app/manifests/1: 404 Not Found: MANIFEST_UNKNOWN: no such manifest"), "{text}");
    assert_untouched(&site.layout());
}

#[tokio::test]
async fn a_part_that_is_not_there() {
    let site = Site::good().await;
    let image = Image::new(&[b"here"]);
    let index = image::index(&[describe(media::OCI_IMAGE_MANIFEST, &image.manifest)]);
    site.stub.put_manifest("team/app", "1", &index);
    assert!(pull_app(&site).await.unwrap_err().is_not_found(), "a manifest that an index lists");
    image.put(&site.stub, "team/app", "part");
    let missing = Image::new(&[b"missing"]);
    site.stub.put_manifest("team/app", "1", &missing.manifest);
    assert!(pull_app(&site).await.unwrap_err().is_not_found(), "a layer");
    assert_untouched(&site.layout());
}

#[tokio::test]
async fn bytes_with_another_digest_never_get_a_name() {
    let site = Site::good().await;
    let image = Image::new(&[&noise(1, 100_000)]);
    image.put(&site.stub, "team/app", "1");
    site.stub.rule(|seen| is_blob(seen).then(|| reply(200, noise(2, if seen.range.is_some() { 1 } else { 100_000 }))));
    let error = pull_app(&site).await.unwrap_err();
    // The config has another length and fails by that, whichever comes first.
    match &error {
        ClientError::Digest(mismatch) => assert_eq!(mismatch.from, site.host.to_string()),
        ClientError::Protocol { fault: ProtocolFault::Length { .. }, .. } => {}
        _ => panic!("{error}"),
    }
    assert_untouched(&site.layout());
}

/// The reader alone, as a user of the crate has it.
#[tokio::test]
async fn a_blob_is_held_against_its_descriptor() {
    let site = Site::good().await;
    let good = noise(1, 200_000);
    let descriptor = image::descriptor(&good);
    let target = format!("/v2/a/blobs/{}", descriptor.digest);
    let cases: [(&str, Made); 6] = [
        ("other", |good| reply(200, noise(2, good.len()))),
        ("more, said in advance", |good| reply(200, [good, b"x"].concat())),
        ("more, in pieces", |good| faulty(200, None, &[good, b"x"].concat(), End::Clean)),
        ("less, said in advance", |good| reply(200, good[1..].to_vec())),
        ("less, in pieces", |good| faulty(200, None, &good[1..], End::Clean)),
        ("nothing", |_| reply(204, "")),
    ];
    for (index, (name, _)) in cases.iter().enumerate() {
        let (target, good, case) = (target.clone(), good.clone(), cases[index].1);
        let repository = format!("case{index}");
        let ruled = target.replace("/a/", &format!("/{repository}/"));
        site.stub.rule(move |seen| (seen.target == ruled).then(|| case(&good)));
        let error = read(&site.client().await, &repository, &descriptor).await.unwrap_err();
        let expected = match *name {
            "other" => matches!(error, ClientError::Digest(_)),
            "more, in pieces" => matches!(error, ClientError::Protocol { fault: ProtocolFault::TooLong { .. }, .. }),
            "nothing" => matches!(error, ClientError::Status { .. }),
            _ => matches!(error, ClientError::Protocol { fault: ProtocolFault::Length { .. }, .. }),
        };
        assert!(expected, "{name}: {error}");
    }
}

async fn read(
    client: &Client,
    repository: &str,
    descriptor: &portcullis_oci::Descriptor,
) -> Result<Vec<u8>, ClientError> {
    let mut reader = client.blob(&repository.parse().unwrap(), descriptor, &Progress::none()).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reader.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_broken_body_is_continued_where_it_broke() {
    for alpn in [H1, H2] {
        for ranges in [true, false] {
            let pki = Pki::new();
            let mut tls = pki.tls();
            tls.alpn = alpn;
            let site = Site::with_good_pair(&pki, tls).await;
            let good = noise(1, 500_000);
            let descriptor = image::descriptor(&good);
            site.stub.put_blob("a", &good);
            let whole = good.clone();
            site.stub.rule(move |seen| match (is_blob(seen), &seen.range) {
                (true, None) => Some(faulty(200, Some(whole.len()), &whole[..300_000], End::Break)),
                // A server that does not know ranges sends everything again.
                (true, Some(_)) if !ranges => Some(reply(200, whole.clone())),
                _ => None,
            });
            let read = read(&site.client().await, "a", &descriptor).await.unwrap();
            assert!(read == good, "{alpn:?} {ranges}");
            let asked: Vec<_> = site.stub.log().into_iter().filter_map(|seen| seen.range).collect();
            assert_eq!(asked.len(), 1);
            assert!(asked[0].starts_with("bytes=") && asked[0] != "bytes=0-", "{asked:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_always_breaks_is_given_up() {
    let site = Site::good().await;
    let image = Image::new(&[&noise(1, 500_000)]);
    image.put(&site.stub, "team/app", "1");
    site.stub.rule(|seen| {
        is_blob(seen).then(|| match &seen.range {
            None => faulty(200, None, &noise(1, 5), End::Break),
            Some(range) => {
                let range = range.replace("bytes=", "bytes ") + "5/*";
                with(faulty(206, None, b"", End::Break), "content-range", &range)
            }
        })
    });
    let error = pull_app(&site).await.unwrap_err();
    assert!(matches!(error, ClientError::Connection { .. }), "{error}");
    assert!(site.stub.lines().len() <= 1 + 2 * 4, "{:?}", site.stub.lines());
    assert_untouched(&site.layout());
}

#[tokio::test]
async fn a_part_of_somewhere_else_is_refused() {
    for range in [
        "bytes 49999-99999/100000",
        "bytes 50001-99999/100000",
        "bytes 50000-99999/100001",
        "bytes 50000-100000/100000",
        "bytes 50000-99999",
        "bytes */100000",
        "bytes 500000-99999/100000",
        "",
    ] {
        let site = Site::good().await;
        let good = noise(1, 100_000);
        let descriptor = image::descriptor(&good);
        site.stub.rule(move |seen| {
            is_blob(seen).then(|| match &seen.range {
                None => faulty(200, Some(good.len()), &good[..50_000], End::Break),
                Some(_) => with(reply(206, good[50_000..].to_vec()), "content-range", range),
            })
        });
        let error = read(&site.client().await, "a", &descriptor).await.unwrap_err();
        let ClientError::Protocol { fault: ProtocolFault::BadHeader { header: "Content-Range", .. }, .. } = &error
        else {
            panic!("{range}: {error}")
        };
    }
}

/// What was read before is of no use when the content has changed: the registry is told so, and sends all of it.
#[tokio::test]
async fn the_rest_is_asked_for_of_the_same_content_only() {
    for (etag, sent) in [("\"a\"", Some("\"a\"")), ("W/\"a\"", None)] {
        let site = Site::good().await;
        let good = noise(1, 100_000);
        let descriptor = image::descriptor(&good);
        site.stub.put_blob("a", &good);
        site.stub.rule(move |seen| {
            let broken = is_blob(seen) && seen.range.is_none();
            broken.then(|| with(faulty(200, Some(good.len()), &good[..50_000], End::Break), "etag", etag))
        });
        read(&site.client().await, "a", &descriptor).await.unwrap();
        assert_eq!(site.stub.log().last().unwrap().if_range.as_deref(), sent);
    }
}

#[tokio::test]
async fn manifests_are_held_against_what_they_were_asked_for_by() {
    let site = Site::good().await;
    let image = Image::new(&[b"layer"]);
    let other = Image::new(&[b"other"]).manifest;
    let (digest, ask) = (image.digest(), |text: String| text.parse::<ManifestReference>().unwrap());
    let rules: Vec<(&str, Answer)> = vec![
        ("other", Box::new(move || reply(200, other.clone()))),
        ("lying", {
            let (manifest, wrong) = (image.manifest.clone(), image::digest(b"wrong"));
            Box::new(move || with(reply(200, manifest.clone()), "docker-content-digest", &wrong.to_string()))
        }),
        ("type", {
            let manifest = image.manifest.clone();
            Box::new(move || with(reply(200, manifest.clone()), "content-type", media::OCI_IMAGE_INDEX))
        }),
        ("huge", Box::new(|| reply(200, vec![b' '; 4 * 1024 * 1024 + 1]))),
        ("endless", Box::new(|| faulty(200, None, &vec![b' '; 5_000_000], End::Hang))),
        ("page", Box::new(|| reply(200, "<html>login</html>"))),
        ("json", {
            let manifest = image.manifest.clone();
            Box::new(move || with(reply(200, manifest.clone()), "content-type", "application/json"))
        }),
    ];
    for (name, make) in rules {
        let prefix = format!("/v2/{name}/");
        site.stub.rule(move |seen| seen.target.starts_with(&prefix).then(&make));
    }
    let client = site.client().await;
    let get = async |repository: &str, reference: ManifestReference| {
        client.manifest(&repository.parse().unwrap(), &reference).await
    };
    let by_digest = ask(digest.to_string());
    let by_tag = ask("1".to_owned());
    assert!(matches!(get("other", by_digest.clone()).await, Err(ClientError::Digest(_))));
    assert!(matches!(get("lying", by_tag.clone()).await, Err(ClientError::Digest(_))));
    assert!(get("lying", by_digest).await.is_ok(), "what we asked for is what counts");
    assert!(matches!(get("type", by_tag.clone()).await, Err(ClientError::Manifest { .. })));
    for repository in ["huge", "endless"] {
        let error = get(repository, by_tag.clone()).await.unwrap_err();
        let ClientError::Protocol { fault: ProtocolFault::TooLong { limit: 4_194_304 }, .. } = &error else {
            panic!("{error}")
        };
    }
    assert!(matches!(get("page", by_tag.clone()).await, Err(ClientError::Manifest { .. })));
    assert_eq!(get("json", by_tag).await.unwrap().digest, digest);
}

#[tokio::test]
async fn a_read_is_repeated_a_bounded_number_of_times() {
    for (status, failures, requests) in [(503, 2, 3), (429, 3, 4), (500, 3, 4), (502, 4, 4), (504, 9, 4), (501, 9, 1)] {
        let site = Site::good().await;
        let image = Image::new(&[b"layer"]);
        image.put(&site.stub, "team/app", "1");
        let count = AtomicUsize::new(0);
        site.stub.rule(move |seen| {
            let failing = seen.target.contains("/manifests/") && count.fetch_add(1, Ordering::Relaxed) < failures;
            failing.then(|| reply(status, ""))
        });
        let result = pull_app(&site).await;
        assert_eq!(result.is_ok(), failures < 4 && status != 501, "{status}: {result:?}");
        let manifests = site.stub.lines().iter().filter(|line| line.contains("/manifests/")).count();
        assert_eq!(manifests, requests, "{status}");
    }
}

#[tokio::test]
async fn a_layer_from_elsewhere_may_be_missing() {
    let site = Site::good().await;
    let image = Image::new(&[b"foreign", b"own"]);
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["layers"][0]["urls"] = json!(["https://elsewhere.test/layer"]);
    image.put(&site.stub, "team/app", "whole");
    let absent = Image::new(&[b"own"]);
    absent.put(&site.stub, "team/other", "x");
    site.stub.put_manifest("team/other", "1", manifest.to_string().as_bytes());
    let client = site.client().await;
    let (progress, events) = recorder();
    let pulled = pull(&client, &site.reference("team/other:1"), &site.layout(), &progress).await.unwrap();
    assert_eq!(pulled.fetched, 2);
    let foreign = Event::BlobForeign { digest: image::digest(b"foreign") };
    assert!(events.lock().unwrap().contains(&foreign));
}

#[tokio::test]
async fn a_client_pulls_from_its_own_registry_only() {
    let site = Site::good().await;
    let client = site.client().await;
    let reference = "other.test/team/app:1".parse().unwrap();
    let error = pull(&client, &reference, &site.layout(), &Progress::none()).await.unwrap_err();
    assert!(matches!(error, ClientError::OtherHost { .. }), "{error}");
}

#[tokio::test]
async fn heads() {
    let site = Site::good().await;
    let image = Image::new(&[b"layer"]);
    image.put(&site.stub, "team/app", "1");
    let client = site.client().await;
    let repository = "team/app".parse().unwrap();
    let head = client.head_manifest(&repository, &"1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(head.size, Some(image.manifest.len() as u64));
    assert_eq!(head.media_type.as_deref(), Some(media::OCI_IMAGE_MANIFEST));
    assert_eq!(client.head_manifest(&repository, &"2".parse().unwrap()).await.unwrap(), None);
    let blob = client.head_blob(&repository, &image::digest(b"layer")).await.unwrap().unwrap();
    assert_eq!(blob.size, Some(5));
    assert_eq!(client.head_blob(&repository, &image::digest(b"none")).await.unwrap(), None);
    client.ping().await.unwrap();
}
