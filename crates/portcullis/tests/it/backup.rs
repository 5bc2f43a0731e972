//! docs/backup.md, word for word: its commands copy a registry that takes pushes, and what they copy is whole.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use portcullis_testkit::image::Image;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{IP, Machine, NSENTER};
use crate::process::{DEADLINE, eventually};
use crate::registry::{PORTCULLIS, Registry};

const PAGE: &str = include_str!("../../../../docs/backup.md");

/// The commands of the page, in order: the copy, and the look at it.
fn commands() -> [&'static str; 2] {
    let blocks: Vec<&str> = PAGE.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    blocks.try_into().expect("the page has two blocks of commands")
}

/// Pushes one image after the other, each with a tag of its own and two layers that are new.
fn push_on(machine: &Machine, registry: &Registry<'_>, pusher: u64, pushed: &AtomicU64, stop: &AtomicBool) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let layout = format!("layout-{pusher}-{number}");
        Image::new(1000 * (pusher + 1) + number, &[20_000, 300]).write_layout(&machine.dir().join(&layout), "v1");
        let reference = registry.reference(&format!("team/app-{pusher}:{number}"));
        machine.run(PORTCULLIS, &["push", &format!("oci:{layout}:v1"), &reference, "--quiet"]).ok();
        pushed.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_copy_of_a_registry_that_takes_pushes_is_whole() {
    skip_unless!(IP, NSENTER, Need::Program("tar"), Need::Program("find"), Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    registry.fill_certs(&machine.docker_certs(&registry.host()), &registry.new_client("ci-7"));
    let (pushed, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let [copy, look] = commands();
    let to = machine.dir().join("copy");
    let program = Path::new(PORTCULLIS).parent().unwrap().display();
    let typed = |commands: &str| {
        format!("set -eu\nPATH={program}:$PATH from={} to={}\n{commands}", registry.home().display(), to.display())
    };
    let before = thread::scope(|scope| {
        for pusher in 0..2 {
            let (machine, registry, pushed, stop) = (&machine, &registry, &pushed, &stop);
            scope.spawn(move || push_on(machine, registry, pusher, pushed, stop));
        }
        let begun = eventually(DEADLINE, || pushed.load(Ordering::Relaxed) >= 4);
        let before = pushed.load(Ordering::Relaxed);
        // A failure must not leave the others pushing for ever.
        let copied = begun.then(|| machine.run("sh", &["-c", &typed(copy)]));
        stop.store(true, Ordering::Relaxed);
        copied.expect("nothing is pushed").ok();
        before
    });
    machine.run("sh", &["-c", &typed(look)]).ok().says("all is well");

    registry.stop();
    let copy = Registry::up_in(&machine, "copy", 5443);
    let of = |pusher: u64| {
        let tags = machine.run(PORTCULLIS, &["tags", &copy.reference(&format!("team/app-{pusher}"))]).ok();
        tags.stdout.lines().count() as u64
    };
    assert!(of(0) + of(1) >= before, "what was there before the copy began is in it");
    for pusher in 0..2 {
        let reference = copy.reference(&format!("team/app-{pusher}:0"));
        machine.run(PORTCULLIS, &["pull", &reference, "--to", &format!("oci:pulled-{pusher}")]).ok();
    }
}
