//! What the store promises when things go wrong after, or at, every single call to the disk.
//!
//! A scenario runs against a model of what may be seen afterwards: an operation under way may or may not have happened,
//! one that was acknowledged has.

use std::time::Duration;

use portcullis_oci::{Algorithm, Digest, ManifestReference};

use super::model::{Loss, ModelDisk, Trap};
use super::world::{End, Run, Subject, World, name, open, sha256};
use crate::{StoreError, layout};

const ENDS: [End; 6] = [
    End::Kill,
    End::PowerCut(Loss::Everything),
    End::PowerCut(Loss::Data),
    End::PowerCut(Loss::Some(0x9E37_79B9)),
    End::PowerCut(Loss::Some(0xB529_7A4D)),
    End::PowerCut(Loss::Some(0x68E3_1DA4)),
];

type Scenario = fn(&mut Run) -> Result<(), StoreError>;

#[test]
fn push_survives_everything() {
    check(
        |_| Ok(()),
        |run| {
            run.push("team/app", b"a first layer")?;
            run.push("team/app", b"a second layer")?;
            run.push("other", b"a first layer")?;
            run.mount("team/app", "third", b"a second layer")
        },
    );
}

#[test]
fn a_push_of_what_is_there_survives_everything() {
    check(
        |run| run.push("team/app", b"a layer"),
        |run| {
            run.push("team/app", b"a layer")?;
            run.push("team/app/sub", b"a layer")
        },
    );
}

#[test]
fn chunked_push_survives_everything() {
    check(
        |_| Ok(()),
        |run| {
            let content = long_content();
            let id = run.start("team/app", &content)?;
            run.append_and_save(id, 1000)?;
            run.append_and_save(id, content.len() - 10)?; // synced: more than a step since the last
            run.append_and_save(id, content.len() - 5)?;
            run.finish(id)
        },
    );
}

#[test]
fn manifest_and_tags_survive_everything() {
    check(
        |_| Ok(()),
        |run| {
            run.push("team/app", b"config")?;
            run.put_manifest("team/app", b"{\"first\":1}", &["1.0", "latest"])?;
            run.put_manifest("team/app", b"{\"second\":2}", &["latest"])?;
            run.put_manifest("team/app", b"{\"second\":2}", &[])
        },
    );
}

#[test]
fn deletes_survive_everything() {
    let fill: Scenario = |run| {
        run.push("team/app", b"config")?;
        run.put_manifest("team/app", br#"{"schemaVersion":2,"manifests":[]}"#, &["1.0", "stable"])?;
        run.put_manifest("team/app", br#"{"schemaVersion":2,"manifests":[],"annotations":{}}"#, &["2.0", "latest"])
    };
    check(fill, |run| {
        run.delete_tag("team/app", "latest")?;
        run.delete_manifest("team/app", br#"{"schemaVersion":2,"manifests":[]}"#, &["1.0", "stable"])?;
        run.delete_blob("team/app", b"config")
    });
}

#[test]
fn a_collection_survives_everything() {
    let fill: Scenario = |run| {
        run.push("team/app", b"config")?;
        run.push("team/app", b"a layer")?;
        run.push("team/app", b"garbage")?;
        run.push("other", b"a layer")?;
        run.push("other", b"more garbage")?;
        let [config, layer] = [b"config".as_slice(), b"a layer"].map(descriptor);
        let image = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
        run.put_manifest("team/app", image.as_bytes(), &["1.0"])
    };
    check(fill, |run| {
        let dead: [(&str, &[u8]); 3] = [("team/app", b"garbage"), ("other", b"a layer"), ("other", b"more garbage")];
        run.collect(&dead)?;
        run.push("team/app", b"garbage")?;
        run.collect(&dead)
    });
}

fn descriptor(content: &[u8]) -> String {
    format!(r#"{{"mediaType":"application/x","digest":"{}","size":{}}}"#, sha256(content), content.len())
}

#[test]
fn what_comes_and_goes_and_comes_again_survives_everything() {
    check(
        |_| Ok(()),
        |run| {
            run.push("app", b"a layer")?;
            run.delete_blob("app", b"a layer")?;
            run.push("app", b"a layer")?;
            run.put_manifest("app", br#"{"schemaVersion":2,"manifests":[]}"#, &["a"])?;
            run.delete_tag("app", "a")?;
            run.put_manifest("app", br#"{"schemaVersion":2,"manifests":[]}"#, &["a"])?;
            run.delete_manifest("app", br#"{"schemaVersion":2,"manifests":[]}"#, &["a"])?;
            run.put_manifest("app", br#"{"schemaVersion":2,"manifests":[]}"#, &["a"])
        },
    );
}

#[test]
fn a_damaged_volume_is_repaired_by_a_push_that_survives_everything() {
    let damage: Scenario = |run| {
        run.push("team/app", b"a layer")?;
        run.put_manifest("team/app", b"{\"first\":1}", &["1.0"])?;
        let backend = &run.store.inner.backend;
        let (blob, manifest) = (sha256(b"a layer"), sha256(b"{\"first\":1}"));
        backend.put(&layout::blob_data(&blob), b"a la")?;
        backend.put(&layout::layer_link(&name("team/app"), &blob), b"")?;
        backend.put(&layout::blob_data(&manifest), b"{\"first\":")?;
        backend.put(&layout::revision_link(&name("team/app"), &manifest), b"sha256:")?;
        let absent = run.world.allowed.values_mut();
        absent.for_each(|allowed| *allowed = vec![None]);
        run.world.damaged = true;
        Ok(())
    };
    check(damage, |run| {
        run.push("team/app", b"a layer")?;
        run.put_manifest("team/app", b"{\"first\":1}", &["1.0"])
    });
}

/// Distribution links what is pushed by a sha512 to data under its sha256. A push of the same by sha512 has its own data,
/// and until its link is there for good the other one leads to the blob.
#[test]
fn a_push_over_an_alias_link_survives_everything() {
    let content = b"a layer";
    let fill: Scenario = |run| {
        run.push("team/app", b"a layer")?;
        let alias = Digest::of(Algorithm::Sha512, b"a layer");
        let link = layout::layer_link(&name("team/app"), &alias);
        run.store.inner.backend.put(&link, sha256(b"a layer").to_string().as_bytes())?;
        run.world.allowed.insert(Subject::Blob(name("team/app"), alias), vec![Some(b"a layer".to_vec())]);
        Ok(())
    };
    check(fill, |run| run.push_sha512("team/app", b"a layer"));
    let (_, mut run) = start(ModelDisk::new, fill);
    run.push_sha512("team/app", content).unwrap();
    let native = Digest::of(Algorithm::Sha512, content);
    let link = layout::layer_link(&name("team/app"), &native);
    assert_eq!(run.store.inner.read_link(&link).unwrap(), Some(native), "it is no alias any more");
}

#[test]
fn what_a_head_finds_while_it_is_pushed_is_durable() {
    let push: Scenario = |run| run.push("team/app", b"a layer");
    let put: Scenario = |run| run.put_manifest("team/app", b"{}", &["1"]);
    for (scenario, tagged) in [(push, false), (put, true)] {
        let (disk, mut run) = start(ModelDisk::new, |_| Ok(()));
        scenario(&mut run).unwrap();
        let calls = disk.calls();
        for at in 1..calls {
            // No answer means that it waits for the push, which is right too: it need not be waited for long.
            check_heads_during(scenario, at, Duration::from_millis(50));
        }
        if tagged {
            let (_, manifest) = check_heads_during(scenario, calls, Duration::from_mins(1));
            assert!(manifest, "a manifest is there while its tag is being written");
        }
    }
}

/// Holds the scenario at one call, and asks meanwhile for its blob and its manifest: what was found.
fn check_heads_during(scenario: Scenario, at: u64, patience: Duration) -> (bool, bool) {
    let (disk, mut run) = start(ModelDisk::new, |_| Ok(()));
    let store = run.store.clone();
    disk.arm(Some(Trap::Hold(at)));
    let (blob, manifest) = (sha256(b"a layer"), sha256(b"{}"));
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| scenario(&mut run));
        while !disk.holds() && !pushing.is_finished() {
            std::thread::yield_now();
        }
        let (tell, told) = std::sync::mpsc::channel();
        let (tell_read, read) = std::sync::mpsc::channel();
        let asking = store.clone();
        scope.spawn(move || {
            let app = name("team/app");
            let reference = ManifestReference::Digest(manifest);
            let _ = tell_read.send(asking.manifest(&app, &reference).unwrap().is_some());
        });
        scope.spawn(move || {
            let app = name("team/app");
            let _ = tell.send((store.has_blob(&app, &blob).unwrap(), store.has_manifest(&app, &manifest).unwrap()));
        });
        let answer = told.recv_timeout(patience).unwrap_or_default();
        let read = read.recv_timeout(patience).unwrap_or_default();
        let after = disk.fork();
        // Released before anything is asserted: a failure must end the test, not leave it waiting for the push.
        disk.arm(None);
        pushing.join().unwrap().unwrap();
        after.power_cut(Loss::Everything);
        let after = open(&after);
        assert!(!answer.0 || after.has_blob(&name("team/app"), &blob).unwrap(), "a blob, at call {at}");
        assert!(!answer.1 || after.has_manifest(&name("team/app"), &manifest).unwrap(), "a manifest, at call {at}");
        assert!(!read || after.has_manifest(&name("team/app"), &manifest).unwrap(), "its bytes, at call {at}");
        answer
    })
}

/// Each upload is synced early once, on a thread of its own: how many calls there are does not depend on who is scheduled
/// first, their order does.
#[test]
fn a_push_that_is_synced_early_survives_everything() {
    check_on(
        || ModelDisk::of_early_syncs(900),
        |_| Ok(()),
        |run| {
            let content = long_content();
            let id = run.start("team/app", &content)?;
            run.append_and_save(id, 1000)?;
            run.append_and_save(id, content.len() - 10)?;
            run.finish(id)?;
            let id = run.start("team/app", &content[1..])?;
            run.finish(id)
        },
    );
}

/// Runs a scenario to its end, to every call with an end of the process after it, and with every call failing.
/// Both with each file synced for itself and with syncs of everything.
fn check(before: Scenario, scenario: Scenario) {
    check_on(ModelDisk::new, before, scenario);
    check_on(ModelDisk::of_shared_syncs, before, scenario);
}

fn check_on(disk: fn() -> ModelDisk, before: Scenario, scenario: Scenario) {
    let new_disk = disk;
    let (disk, mut run) = start(new_disk, before);
    scenario(&mut run).unwrap();
    let calls = disk.calls();
    run.check(&disk, None, "undisturbed");
    for at in 0..=calls {
        for end in ENDS.map(|end| end.at(at)) {
            let what = format!("{end:?} after call {at} of {calls}");
            let (disk, mut run) = start(new_disk, before);
            disk.arm(Some(Trap::PowerCut(at)));
            let done = scenario(&mut run);
            // What is acknowledged before its temporaries are removed may be acknowledged a few calls early.
            assert!(done.is_ok() || at < calls, "{what}: {done:?}");
            run = run.end(&disk, end);
            run.check(&disk, Some(end), &what);
            run.check_that_nothing_is_taken_back(&disk, &what);
            run = again(run, scenario, &what);
            run.check(&disk, None, &format!("again after {what}"));
        }
    }
    for at in 1..=calls {
        for trap in [Trap::Fault(at), Trap::Full(at)] {
            check_fault(new_disk, before, scenario, trap);
        }
    }
}

fn check_fault(new_disk: fn() -> ModelDisk, before: Scenario, scenario: Scenario, trap: Trap) {
    let what = format!("{trap:?}");
    // What is still answered after the fault is promised: the power goes at once.
    let (disk, mut run) = start(new_disk, before);
    disk.arm(Some(trap));
    let done = scenario(&mut run);
    disk.arm(None);
    if done.is_err() {
        run.check(&disk, None, &what);
        let left: Vec<_> = disk.tree().into_keys().filter(|path| path.starts_with("portcullis/tmp/")).collect();
        assert!(left == ["portcullis/tmp/"], "{what} left {left:?}");
    }
    run.promise_what_is_seen();
    run = run.end(&disk, End::PowerCut(Loss::Everything));
    run.check(&disk, Some(End::PowerCut(Loss::Everything)), &what);

    // The same store goes on, and what it then acknowledges survives too.
    let (disk, mut run) = start(new_disk, before);
    disk.arm(Some(trap));
    let _ = scenario(&mut run);
    disk.arm(None);
    run = again(run, scenario, &what);
    run.check(&disk, None, &format!("again after {what}"));
    run = run.end(&disk, End::PowerCut(Loss::Everything));
    run.check(&disk, Some(End::PowerCut(Loss::Everything)), &format!("again after {what}, then a power cut"));
}

fn start(disk: fn() -> ModelDisk, before: Scenario) -> (ModelDisk, Run) {
    let disk = disk();
    let mut run = Run { store: open(&disk), world: World::default() };
    before(&mut run).unwrap();
    disk.arm(None);
    (disk, run)
}

fn again(mut run: Run, scenario: Scenario, what: &str) -> Run {
    run.world.forget_uploads();
    scenario(&mut run).unwrap_or_else(|error| panic!("again after {what}: {error} ({error:?})"));
    run.world.damaged = false;
    run
}

/// Longer than what is saved without a sync.
fn long_content() -> Vec<u8> {
    (0..700_u32).flat_map(u32::to_le_bytes).collect()
}
