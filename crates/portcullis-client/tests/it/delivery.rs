//! Uploads that break: they go on from where the registry says that they are, or begin anew.

use http::Method;
use portcullis_client::{Client, ClientError, Event, LayoutDir, Progress, Pushed, copy, push};

use crate::image::{self, Image, noise};
use crate::site::{Pki, Site, recorder};
use crate::stub::{Cut, Seen, after_body, reply, with};
use crate::tls::{H1, H2};

const SIZE: usize = 1_000_000;
const WHOLE: u64 = u64::MAX;
const CHUNK: u64 = 300_000;

/// A registry that lacks one layer of an image, and the image.
struct Case {
    site: Site,
    image: Image,
    layer: Vec<u8>,
}

impl Case {
    async fn new(alpn: &'static [&'static [u8]]) -> Self {
        Self::of(alpn, SIZE).await
    }

    async fn of(alpn: &'static [&'static [u8]], size: usize) -> Self {
        let pki = Pki::new();
        let mut tls = pki.tls();
        tls.alpn = alpn;
        let site = Site::with_good_pair(&pki, tls).await;
        let layer = noise(1, size);
        let image = Image::new(&[&layer]);
        site.stub.put_blob("team/app", &image.blobs[0]);
        Self { site, image, layer }
    }

    async fn client(&self, chunk: u64) -> Client {
        let mut options = self.site.options();
        options.chunk = chunk;
        Client::connect(&self.site.host, &options).await.unwrap()
    }

    fn layout(&self) -> LayoutDir {
        let layout = self.site.layout();
        self.image.write(&layout);
        layout.set_image(&self.image.descriptor(), None).unwrap();
        layout
    }

    async fn push(&self, chunk: u64) -> (Result<Pushed, ClientError>, Vec<Event>) {
        let (client, (progress, events)) = (self.client(chunk).await, recorder());
        let pushed = push(&client, &self.layout(), None, &self.site.reference("team/app:1"), &progress).await;
        let events = events.lock().unwrap().clone();
        (pushed, events)
    }

    /// The requests about uploads: method, and which bytes a chunk has.
    fn requests(&self) -> Vec<String> {
        let is_about_one = |seen: &Seen| seen.target.contains("/blobs/uploads/");
        let told = |seen: Seen| match seen.content_range {
            Some(range) => format!("{} {range}", seen.method),
            None => seen.method.to_string(),
        };
        self.site.stub.log().into_iter().filter(is_about_one).map(told).collect()
    }

    #[track_caller]
    fn assert_whole(&self) {
        let there = self.site.stub.blob("team/app", &image::digest(&self.layer));
        assert!(there.is_some_and(|bytes| bytes == self.layer));
        assert_eq!(self.site.stub.manifest("team/app", "1").unwrap(), self.image.manifest);
    }
}

fn cut(method: Method, after: usize, kept: usize) -> Cut {
    Cut { method, after, kept }
}

/// How much of the layer need not move again, as it was told.
fn resumed(events: &[Event]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| if let Event::BlobResumed { bytes, .. } = event { Some(*bytes) } else { None })
        .collect()
}

#[tokio::test]
async fn a_large_blob_goes_in_chunks() {
    let chunks = ["POST", "PATCH 0-299999", "PATCH 300000-599999", "PATCH 600000-899999", "PUT 900000-999999"];
    for (chunk, expected) in [
        (CHUNK, &chunks[..]),
        (SIZE as u64, &["POST", "PUT"]),
        (SIZE as u64 - 1, &["POST", "PATCH 0-999998", "PUT 999999-999999"]),
    ] {
        for alpn in [H1, H2] {
            let case = Case::new(alpn).await;
            let (pushed, events) = case.push(chunk).await;
            assert_eq!(pushed.unwrap().sent_bytes, SIZE as u64);
            assert_eq!(case.requests(), expected);
            assert!(resumed(&events).is_empty());
            case.assert_whole();
        }
    }
}

/// Its name, where it breaks, what is asked then, and how much the registry said that it has.
type Broken<'a> = (&'a str, &'a [Cut], &'a [&'a str], &'a [u64]);

async fn check(chunk: u64, (name, cuts, requests, there): Broken<'_>) {
    for alpn in [H1, H2] {
        let case = Case::new(alpn).await;
        case.site.stub.cut(cuts.to_vec());
        let (pushed, events) = case.push(chunk).await;
        pushed.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(case.requests(), requests, "{name}");
        assert_eq!(resumed(&events), there, "{name}");
        case.assert_whole();
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_the_registry_says_that_it_is() {
    let put = |after, kept| cut(Method::PUT, after, kept);
    let once = ["POST", "PUT", "GET", "PUT 400000-999999"];
    check(WHOLE, ("some of it has come", &[put(500_000, 400_000)], &once, &[400_000])).await;
    let twice = ["POST", "PUT", "GET", "PUT 400000-999999", "GET", "PUT 450000-999999"];
    let cuts = [put(500_000, 400_000), put(100_000, 50_000)];
    check(WHOLE, ("twice", &cuts, &twice, &[400_000, 450_000])).await;
    let requests = ["POST", "PUT", "GET", "PUT"];
    check(WHOLE, ("all of it has come, and is no blob yet", &[put(SIZE, SIZE)], &requests, &[SIZE as u64])).await;
}

#[tokio::test]
async fn chunks_that_were_acknowledged_are_not_sent_again() {
    let first = ["POST", "PATCH 0-299999", "GET", "DELETE"];
    let rest = ["PATCH 300000-599999", "PATCH 600000-899999", "PUT 900000-999999"];
    let requests = [&first[..], &first, &first[..2], &rest].concat();
    let cuts = [cut(Method::PATCH, 0, 0), cut(Method::PATCH, 200_000, 0)];
    check(CHUNK, ("the first one broke", &cuts, &requests, &[])).await;
    let requests = [&first[..2], &rest, &["GET", "PUT 900000-999999"]].concat();
    check(CHUNK, ("the last one broke", &[cut(Method::PUT, 50_000, 0)], &requests, &[900_000])).await;
}

/// The next break costs less.
#[tokio::test]
async fn after_a_break_chunks_are_small() {
    let case = Case::of(H1, 40_000_000).await;
    case.site.stub.cut(vec![cut(Method::PUT, 500_000, 0), cut(Method::PATCH, 0, 0), cut(Method::PUT, 500_000, 0)]);
    case.push(WHOLE).await.0.unwrap();
    let chunks = ["PATCH 0-16777215", "PATCH 16777216-33554431", "PUT 33554432-39999999"];
    let anew = ["GET", "DELETE", "POST"];
    let last = ["GET", chunks[2]];
    let requests = [&["POST", "PUT"][..], &anew, &chunks[..1], &anew, &chunks, &last].concat();
    assert_eq!(case.requests(), requests);
    case.assert_whole();

    // Also where the registry takes none.
    let case = Case::of(H1, 20_000_000).await;
    case.site.stub.rule(|seen| (seen.method == Method::PATCH).then(|| reply(405, "")));
    case.site.stub.cut(vec![cut(Method::PUT, 500_000, 0)]);
    case.push(WHOLE).await.0.unwrap();
    let requests = [&["POST", "PUT"][..], &anew, &chunks[..1], &["DELETE", "POST", "PUT"]].concat();
    assert_eq!(case.requests(), requests);
    case.assert_whole();
}

/// The registry has the blob, and its answer was lost: nothing is sent again.
#[tokio::test]
async fn an_answer_that_was_lost_is_found_out() {
    let case = Case::new(H1).await;
    case.site.stub.cut(vec![cut(Method::PUT, usize::MAX, 0)]);
    case.push(WHOLE).await.0.unwrap();
    assert_eq!(case.requests(), ["POST", "PUT", "GET"]);
    case.assert_whole();
}

#[tokio::test]
async fn where_the_registry_knows_nothing_the_upload_begins_anew() {
    // The third: another part than the registry has said.
    for (name, rule) in
        [("nothing came", None), ("it is forgotten", Some(("GET", 404))), ("it may not be asked", Some(("GET", 405)))]
    {
        let case = Case::new(H1).await;
        if let Some((method, status)) = rule {
            let ruled = move |seen: &Seen| seen.method == method && seen.target.contains("/blobs/uploads/");
            case.site.stub.rule(move |seen| ruled(seen).then(|| reply(status, "")));
        }
        let kept = if rule.is_some() { 400_000 } else { 0 };
        case.site.stub.cut(vec![cut(Method::PUT, 500_000, kept)]);
        case.push(WHOLE).await.0.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(case.requests(), ["POST", "PUT", "GET", "DELETE", "POST", "PUT"], "{name}");
        case.assert_whole();
    }
}

/// It has not noticed the break, or has thrown away what it said that it has.
#[tokio::test]
async fn a_registry_that_thinks_otherwise_is_asked_again() {
    for status in [409, 416, 404] {
        let case = Case::new(H1).await;
        let refused = std::sync::atomic::AtomicBool::new(false);
        case.site.stub.rule(move |seen| {
            let is_rest = seen.content_range.as_deref() == Some("400000-999999");
            (is_rest && !refused.swap(true, std::sync::atomic::Ordering::Relaxed)).then(|| reply(status, ""))
        });
        case.site.stub.cut(vec![cut(Method::PUT, 500_000, 400_000)]);
        case.push(WHOLE).await.0.unwrap();
        let rest = "PUT 400000-999999";
        assert_eq!(case.requests(), ["POST", "PUT", "GET", rest, "GET", rest], "{status}");
        case.assert_whole();
    }
}

/// What it says that it has is what counts, also where it acknowledges a chunk.
#[tokio::test]
async fn a_registry_may_have_kept_less_of_a_chunk() {
    let case = Case::new(H1).await;
    let place = "/v2/team/app/blobs/uploads/01010101-0101-0101-0101-010101010101";
    let told = std::sync::atomic::AtomicBool::new(false);
    case.site.stub.rule(move |seen| {
        let is_first = seen.content_range.as_deref() == Some("300000-599999")
            && !told.swap(true, std::sync::atomic::Ordering::Relaxed);
        is_first.then(|| after_body(with(with(reply(202, ""), "location", place), "range", "0-399999")))
    });
    case.push(CHUNK).await.0.unwrap();
    // The stub has kept nothing of it.
    let requests = [
        "POST",
        "PATCH 0-299999",
        "PATCH 300000-599999",
        "GET",
        "PATCH 300000-599999",
        "PATCH 600000-899999",
        "PUT 900000-999999",
    ];
    assert_eq!(case.requests(), requests);
    case.assert_whole();
}

#[tokio::test]
async fn a_registry_without_chunks_gets_all_of_it() {
    for status in [400, 404, 405, 413, 416, 501] {
        let case = Case::new(H1).await;
        case.site.stub.rule(move |seen| (seen.method == Method::PATCH).then(|| reply(status, "")));
        case.push(CHUNK).await.0.unwrap();
        assert_eq!(case.requests(), ["POST", "PATCH 0-299999", "DELETE", "POST", "PUT"], "{status}");
        case.assert_whole();
    }
    for status in [401, 403] {
        let case = Case::new(H1).await;
        case.site.stub.rule(move |seen| (seen.method == Method::PATCH).then(|| reply(status, "")));
        let error = case.push(CHUNK).await.0.unwrap_err();
        assert!(matches!(&error, ClientError::Status { answer, .. } if answer.status == status), "{error}");
        assert_eq!(case.requests(), ["POST", "PATCH 0-299999", "DELETE"], "{status}");
    }
}

#[tokio::test]
async fn an_upload_that_always_breaks_is_given_up() {
    for kept in [0, 1_000] {
        let case = Case::new(H1).await;
        case.site.stub.cut(vec![cut(Method::PUT, 2_000, kept); 20]);
        let error = case.push(WHOLE).await.0.unwrap_err();
        assert!(matches!(error, ClientError::Connection { .. }), "{error}");
        let requests = case.requests();
        assert_eq!(requests.iter().filter(|line| line.starts_with("PUT")).count(), 4, "{requests:?}");
        assert_eq!(requests.last().unwrap(), "DELETE");
        assert!(case.site.stub.manifest("team/app", "1").is_none());
    }
}

/// The blob is read again from its start, verified again, and only the rest of it is sent.
#[tokio::test]
async fn a_copy_goes_on_too() {
    let (from, to) = (Site::good().await, Case::new(H1).await);
    to.image.put(&from.stub, "team/app", "1");
    to.site.stub.cut(vec![cut(Method::PUT, 500_000, 400_000)]);
    let (source, target) = (from.client().await, to.client(WHOLE).await);
    let (reference, nobody) = (from.reference("team/app:1"), Progress::none());
    copy(&source, &reference, &target, &to.site.reference("team/app:1"), &nobody).await.unwrap();
    assert_eq!(to.requests(), ["POST", "PUT", "GET", "PUT 400000-999999"]);
    let layer = format!("/blobs/{}", image::digest(&to.layer));
    assert_eq!(from.stub.lines().iter().filter(|line| line.ends_with(&layer)).count(), 2);
    to.assert_whole();
}
