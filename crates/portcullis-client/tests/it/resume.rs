//! Pulls that go on where an earlier one, of another process, has stopped.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use portcullis_client::{Client, ClientError, Event, LayoutDir, Pulled, pull};

use crate::image::{self, Image, noise};
use crate::site::{Site, recorder};
use crate::stub::{End, Reply, Seen, faulty, handed, reply, with};

const SIZE: usize = 3_000_000;
const PART: usize = 2_000_000;

/// A registry with an image of one large layer.
struct Case {
    site: Site,
    image: Image,
    layer: Vec<u8>,
}

impl Case {
    async fn new() -> Self {
        let (site, layer) = (Site::good().await, noise(1, SIZE));
        let image = Image::new(&[&layer]);
        image.put(&site.stub, "team/app", "1");
        Self { site, image, layer }
    }

    fn part(&self) -> PathBuf {
        let name = format!(".portcullis-partial-sha256-{}", image::digest(&self.layer).hex());
        self.site.layout().path().join(name)
    }

    /// How the registry answers to what is asked of the layer.
    fn answer(&self, answer: impl Fn(&Seen, &[u8]) -> Option<Reply> + Send + Sync + 'static) {
        let (layer, target) = (self.layer.clone(), format!("/blobs/{}", image::digest(&self.layer)));
        self.site.stub.rule(move |seen| {
            let is_asked = seen.method == http::Method::GET && seen.target.ends_with(&target);
            is_asked.then(|| answer(seen, &layer)).flatten()
        });
    }

    /// With a client that knows nothing of those before; what it asked for of the layer.
    async fn pull(&self) -> (Result<Pulled, ClientError>, Vec<Event>, Vec<String>) {
        let (client, before) = (self.site.client().await, self.site.stub.log().len());
        let (progress, events) = recorder();
        let pulled = pull(&client, &self.site.reference("team/app:1"), &self.site.layout(), &progress).await;
        let target = format!("/blobs/{}", image::digest(&self.layer));
        let asked = self.site.stub.log().into_iter().skip(before).filter(|seen| seen.target.ends_with(&target));
        let events = events.lock().unwrap().clone();
        (pulled, events, asked.map(|seen| seen.range.unwrap_or_else(|| ALL.to_owned())).collect())
    }

    #[track_caller]
    fn assert_whole(&self) {
        let layout = self.site.layout();
        assert!(self.image.is_in(&layout));
        assert_eq!(names(&layout), ["blobs", "index.json", "oci-layout"]);
    }
}

fn names(layout: &LayoutDir) -> Vec<String> {
    let entries = fs::read_dir(layout.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn rest(from: usize) -> String {
    format!("bytes={from}-")
}

/// Where there is no range.
const ALL: &str = "all";

/// Where the part is there.
const REST: &str = "bytes=2000000-";

async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited for a minute");
}

/// As Ctrl-C does: the pull is dropped in the middle, and its writer puts away what has come.
#[tokio::test]
async fn a_pull_goes_on_where_another_was_stopped() {
    let case = Case::new().await;
    case.answer(|seen, layer| seen.range.is_none().then(|| faulty(200, Some(layer.len()), &layer[..PART], End::Hang)));
    let (client, layout, reference): (Client, _, _) =
        (case.site.client().await, case.site.layout(), case.site.reference("team/app:1"));
    let pulling = tokio::spawn(async move {
        let none = portcullis_client::Progress::none();
        pull(&client, &reference, &layout, &none).await
    });
    let part = case.part();
    let length = || fs::metadata(&part).map_or(0, |part| part.len());
    until(|| length() > 1024 * 1024).await;
    pulling.abort();
    assert!(pulling.await.unwrap_err().is_cancelled());
    until(|| File::open(&part).unwrap().try_lock().is_ok()).await;
    let had = length();
    assert!(had < SIZE as u64);

    let (pulled, events, asked) = case.pull().await;
    let pulled = pulled.unwrap();
    assert_eq!(asked, [rest(usize::try_from(had).unwrap())]);
    assert_eq!((pulled.fetched, pulled.reused, pulled.fetched_bytes), (1, 1, SIZE as u64 - had), "the config has come");
    let digest = image::digest(&case.layer);
    assert!(events.contains(&Event::BlobResumed { digest, bytes: had }), "{events:?}");
    let moved = events.iter().map(|event| if let Event::BlobAdvanced { bytes, .. } = event { *bytes } else { 0 });
    assert_eq!(moved.sum::<u64>(), pulled.fetched_bytes);
    case.assert_whole();
}

#[tokio::test]
async fn what_has_come_before_the_connection_was_given_up_is_kept() {
    let case = Case::new().await;
    let (sender, body) = tokio::sync::mpsc::unbounded_channel();
    let body = Mutex::new(Some(body));
    case.answer(move |_, layer| {
        Some(body.lock().unwrap().take().map_or_else(|| reply(503, ""), |body| handed(layer.len(), body)))
    });
    sender.send(Ok(case.layer[..PART].to_vec().into())).unwrap();
    let part = case.part();
    let (pulled, ()) = tokio::join!(case.pull(), async {
        until(|| fs::metadata(&part).is_ok_and(|part| part.len() > 1024 * 1024)).await;
        sender.send(Err(io::Error::other("told to break off"))).unwrap();
    });
    assert!(matches!(&pulled.0, Err(ClientError::Status { answer, .. }) if answer.status == 503), "{:?}", pulled.0);
    let had = usize::try_from(fs::metadata(&part).unwrap().len()).unwrap();
    assert!(fs::read(&part).unwrap() == case.layer[..had]);

    let other = Case::new().await;
    fs::copy(&part, other.part()).unwrap();
    let (pulled, _, asked) = other.pull().await;
    assert_eq!(asked, [rest(had)]);
    assert_eq!(pulled.unwrap().fetched_bytes, (SIZE - had + other.image.blobs[0].len()) as u64);
    other.assert_whole();
}

/// Whatever a registry makes of the range, the image is right in the end, and asked for no more than needed.
#[tokio::test]
async fn a_registry_may_give_all_of_it() {
    type Answer = fn(&Seen, &[u8]) -> Option<Reply>;
    let elsewhere: Answer = |seen, layer| {
        let reply = || with(reply(206, layer[PART + 1..].to_vec()), "content-range", "bytes 2000001-2999999/3000000");
        seen.range.as_ref().map(|_| reply())
    };
    let of_another: Answer = |seen, layer| {
        let reply = || with(reply(206, layer[PART..].to_vec()), "content-range", "bytes 2000000-2999999/3000001");
        seen.range.as_ref().map(|_| reply())
    };
    let cases: [(&str, Answer, &[&str]); 5] = [
        ("the rest", |_, _| None, &[REST]),
        ("all of it", |_, layer| Some(reply(200, layer.to_vec())), &[REST]),
        ("416", |seen, _| seen.range.as_ref().map(|_| reply(416, "")), &[REST, ALL]),
        ("another part", elsewhere, &[REST, ALL]),
        ("a part of another size", of_another, &[REST, ALL]),
    ];
    for (name, answer, expected) in cases {
        let case = Case::new().await;
        fs::write(case.part(), &case.layer[..PART]).unwrap();
        case.answer(answer);
        let (pulled, _, asked) = case.pull().await;
        pulled.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(asked, expected, "{name}");
        case.assert_whole();
    }
}

/// Its name, the bytes, and what is asked for then.
type Left<'a> = (&'a str, &'a [u8], &'a [&'a str]);

#[tokio::test]
async fn what_is_left_may_be_anything() {
    let layer = noise(1, SIZE);
    let (mut damaged, mut damaged_whole) = (layer[..PART].to_vec(), layer.clone());
    damaged[PART / 2] ^= 1;
    damaged_whole[SIZE - 1] ^= 1;
    // As a file may be after a power cut: its length is there, its content is not.
    let zeros = vec![0; PART];
    let longer = [&layer[..], b"x"].concat();
    let cases: [Left<'_>; 7] = [
        ("nothing", b"", &[ALL]),
        ("one byte", &layer[..1], &["bytes=1-"]),
        ("all of it", &layer, &[]),
        ("more than that", &longer, &[ALL]),
        ("a damaged part", &damaged, &[REST, ALL]),
        ("zeros", &zeros, &[REST, ALL]),
        ("all of it, damaged", &damaged_whole, &[ALL]),
    ];
    for (name, left, expected) in cases {
        let case = Case::new().await;
        fs::write(case.part(), left).unwrap();
        let (pulled, _, asked) = case.pull().await;
        pulled.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(asked, expected, "{name}");
        case.assert_whole();
    }
}

/// Another process may have fetched the blob meanwhile.
#[tokio::test]
async fn of_a_blob_that_is_there_no_part_is_kept() {
    let case = Case::new().await;
    case.pull().await.0.unwrap();
    fs::write(case.part(), &case.layer[..PART]).unwrap();
    let (pulled, _, asked) = case.pull().await;
    assert_eq!((pulled.unwrap().reused, asked.len()), (2, 0));
    case.assert_whole();
}

/// A registry that lies is asked twice at most, and nothing of what it sent is left.
#[tokio::test]
async fn of_what_a_registry_sends_wrong_nothing_is_left() {
    type Answer = fn(&Seen, &[u8]) -> Option<Reply>;
    let cases: [(&str, Answer, usize); 4] = [
        ("other bytes", |_, layer| Some(reply(200, noise(2, layer.len()))), 1),
        ("more", |_, layer| Some(faulty(200, None, &[layer, b"x"].concat(), End::Clean)), 1),
        ("less", |_, layer| Some(faulty(200, None, &layer[1..], End::Clean)), 1),
        ("nothing any more", |_, _| Some(reply(404, "")), 1),
    ];
    for (left, more) in [(0, 0), (PART, 1)] {
        for (name, answer, asks) in &cases {
            let case = Case::new().await;
            fs::write(case.part(), &case.layer[..left]).unwrap();
            case.answer(*answer);
            let (pulled, _, asked) = case.pull().await;
            pulled.unwrap_err();
            let again = if *name == "other bytes" { more } else { 0 };
            assert_eq!(asked.len(), asks + again, "{name}");
            assert_eq!(names(&case.site.layout()), ["blobs", "index.json", "oci-layout"], "{name}");
        }
    }
}
