//! Untagged manifests that a collection has judged dead, and what brings them back to life before they are gone.
//!
//! Each test does its deed at every step of a collection: what was there at that moment, and lives because of it, stays
//! for good; what was gone already is not missed.

use portcullis_oci::Manifest;

use super::*;

/// What only the manifests in question name.
const LAYERS: [&[u8]; 4] = [b"layer 0", b"layer 1", b"layer 2", b"layer 3"];

/// Does `deed` at every step of a collection that has all of `manifests`, untagged and old, and looks whether those of
/// `kept` that were there have stayed, with their layers. `deed` may be refused.
fn at_every_step(manifests: &[Vec<u8>], deed: impl Fn(&Store) -> bool, kept: &[Vec<u8>]) {
    let (mut whole, mut gone) = (0, 0);
    for steps in 0.. {
        let (bucket, store) = in_memory(GRACE, true);
        push(&store, APP, b"config");
        for layer in LAYERS {
            push(&store, APP, layer);
        }
        for bytes in manifests {
            store.put_manifest(&name(APP), &digest(bytes), bytes, &[]).unwrap();
        }
        bucket.advance(GRACE * 2);
        let mut collection = store.collect(Removal::Real).unwrap();
        let goes_on = (0..steps).all(|_| collection.step().unwrap());
        // What the deed needs is there, as after a push that found it missing.
        push(&store, APP, b"config");
        push(&store, APP, LAYERS[0]);
        let there: Vec<&Vec<u8>> = kept.iter().filter(|bytes| is_there(&store, bytes)).collect();
        if deed(&store) {
            whole += usize::from(there.len() == kept.len());
            finish(collection);
            bucket.advance(GRACE * 2);
            finish(store.collect(Removal::Real).unwrap());
            for bytes in &there {
                assert!(is_there(&store, bytes), "after {steps} steps: {} is lost", String::from_utf8_lossy(bytes));
                for blob in Manifest::parse(bytes, None).unwrap().required_blobs() {
                    let found = store.open_blob(&name(APP), &blob).unwrap();
                    assert!(found.is_some(), "after {steps} steps: {blob} is lost");
                }
            }
        } else {
            finish(collection);
        }
        gone += usize::from(there.is_empty());
        if !goes_on {
            break;
        }
    }
    assert!(whole > 3, "they went at once: {whole}");
    assert!(gone > 0, "they never were dead");
}

#[test]
fn a_subject_that_is_pushed_brings_its_referrer_back() {
    let subject = image(b"config", &[LAYERS[0]]);
    let signature = referrer(&subject, LAYERS[1]);
    let manifests = [signature];
    at_every_step(&manifests, |store| accepts(store, &subject, Some("1")), &manifests);
}

/// A young manifest keeps what refers to it, as a tagged one does.
#[test]
fn so_does_one_that_is_pushed_without_a_tag() {
    let subject = image(b"config", &[LAYERS[0]]);
    let signature = referrer(&subject, LAYERS[1]);
    let (mut whole, mut gone) = (0, 0);
    for steps in 0.. {
        let (bucket, store) = in_memory(GRACE, true);
        for blob in [b"config".as_slice(), LAYERS[1]] {
            push(&store, APP, blob);
        }
        store.put_manifest(&name(APP), &digest(&signature), &signature, &[]).unwrap();
        bucket.advance(GRACE * 2);
        let mut collection = store.collect(Removal::Real).unwrap();
        let goes_on = (0..steps).all(|_| collection.step().unwrap());
        let there = is_there(&store, &signature);
        push(&store, APP, LAYERS[0]);
        push(&store, APP, b"config");
        assert!(accepts(&store, &subject, None));
        finish(collection);
        finish(store.collect(Removal::Real).unwrap());
        assert_eq!(is_there(&store, &signature), there, "after {steps} steps");
        if there {
            let layer = store.open_blob(&name(APP), &digest(LAYERS[1])).unwrap();
            assert!(layer.is_some(), "after {steps} steps: its layer is lost");
        }
        (whole, gone) = (whole + usize::from(there), gone + usize::from(!there));
        if !goes_on {
            break;
        }
    }
    assert!(whole > 3 && gone > 0, "there {whole} times, gone {gone} times");
}

#[test]
fn and_what_refers_to_the_referrer() {
    let subject = image(b"config", &[LAYERS[0]]);
    let sbom = referrer(&subject, LAYERS[1]);
    let signature = referrer(&sbom, LAYERS[2]);
    let manifests = [signature.clone(), sbom.clone()];
    at_every_step(&manifests, |store| accepts(store, &subject, Some("1")), &[sbom, signature]);
}

/// A referrer may be an index: what it lists comes back with it.
#[test]
fn and_what_a_referrer_lists() {
    let subject = image(b"config", &[LAYERS[0]]);
    let listed = image(b"config", &[LAYERS[1]]);
    let bundle = with_subject(&index(&[&listed]), &subject);
    let manifests = [listed.clone(), bundle.clone()];
    at_every_step(&manifests, |store| accepts(store, &subject, Some("1")), &[bundle, listed]);
}

#[test]
fn a_tag_keeps_a_manifest_and_its_referrer() {
    let subject = image(b"config", &[LAYERS[0]]);
    let signature = referrer(&subject, LAYERS[1]);
    let manifests = [signature.clone(), subject.clone()];
    at_every_step(&manifests, |store| accepts(store, &subject, Some("1")), &[subject.clone(), signature]);
}

#[test]
fn an_index_keeps_what_it_lists_and_what_refers_to_that() {
    let [first, second] = [LAYERS[1], LAYERS[2]].map(|layer| image(b"config", &[layer]));
    let signature = referrer(&second, LAYERS[3]);
    let [inner, lone] = [index(&[&first, &second]), image(b"config", &[LAYERS[0]])];
    let outer = index(&[&inner]);
    let kept = [inner.clone(), first.clone(), second.clone(), signature.clone()];
    let manifests = [first, second, signature, inner, lone];
    at_every_step(&manifests, |store| accepts(store, &outer, Some("1")), &kept);
}

/// More referrers than one step removes: their subject, which goes first, is pushed again between two steps.
#[test]
fn a_manifest_that_is_pushed_again_keeps_the_referrers_that_are_left() {
    let subject = image(b"config", &[LAYERS[0]]);
    let signatures: Vec<Vec<u8>> =
        (0..80).map(|number| annotated(&referrer(&subject, LAYERS[1 + number % 3]), number)).collect();
    let manifests: Vec<Vec<u8>> = signatures.iter().chain([&subject]).cloned().collect();
    at_every_step(&manifests, |store| accepts(store, &subject, Some("1")), &signatures);
}

/// Looks without a question that would promise something.
fn is_there(store: &Store, bytes: &[u8]) -> bool {
    let link = layout::revision_link(&name(APP), &digest(bytes));
    let target = store.inner.read_link(&link).unwrap();
    target.is_some_and(|target| store.inner.manifest_data(&link, &target).unwrap().is_some_and(|found| found == bytes))
}

/// As the server puts it: `false` when something that it names is missing.
fn accepts(store: &Store, bytes: &[u8], tag: Option<&str>) -> bool {
    let repository = name(APP);
    let _putting = store.begin_put(&repository);
    let manifest = Manifest::parse(bytes, None).unwrap();
    let has_all = manifest.required_blobs().iter().all(|blob| store.has_blob(&repository, blob).unwrap())
        && manifest.children().iter().all(|child| store.has_manifest(&repository, &child.digest).unwrap());
    if has_all {
        let tags: Vec<_> = tag.into_iter().map(|tag| tag.parse().unwrap()).collect();
        store.put_manifest(&repository, &digest(bytes), bytes, &tags).unwrap();
    }
    has_all
}

fn referrer(subject: &[u8], layer: &[u8]) -> Vec<u8> {
    with_subject(&image(b"config", &[layer]), subject)
}

pub(super) fn with_subject(bytes: &[u8], subject: &[u8]) -> Vec<u8> {
    with_member(bytes, &format!(r#""subject":{}"#, descriptor(subject)))
}

fn annotated(bytes: &[u8], number: usize) -> Vec<u8> {
    with_member(bytes, &format!(r#""annotations":{{"number":"{number}"}}"#))
}

fn with_member(bytes: &[u8], member: &str) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    format!("{},{member}}}", &text[..text.len() - 1]).into_bytes()
}

pub(super) fn index(listed: &[&[u8]]) -> Vec<u8> {
    let listed: Vec<String> = listed.iter().map(|bytes| descriptor(bytes)).collect();
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, listed.join(",")).into_bytes()
}
