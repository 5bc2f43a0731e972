//! Predictions against the real programs: a corpus of trees, each given to dockerd, skopeo, podman and containerd's `ctr`
//! in front of a live registry, and what `portcullis-certs` predicted compared with what they did.
//!
//! It asserts the versions it runs and no others; the table is kept in `docs/engines.md`.

mod corpus;
mod observed;
mod page;
mod servers;
mod world;

use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::dockerd::{DOCKER, DOCKERD, Dockerd};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{CURL, OPENSSL, PODMAN, SKOPEO};
use observed::{Engine, Line};
use world::World;

const CTR: Need = Need::Program("ctr");

#[test]
fn every_prediction_holds() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, SKOPEO, PODMAN, CTR, CURL, OPENSSL, servers::NGINX, Need::Namespaces);
    let machine = Machine::new();
    let world = World::new(&machine);
    let docker = Dockerd::start_with(&machine, &observed::proxied());
    let mut lines = Vec::new();
    for case in corpus::all() {
        world.lay_out(&case);
        lines.extend(case.engines.iter().map(|engine| ask(&world, &docker, &case, *engine)));
    }
    let (with, without) = world.servers().shown_to_proxy();
    assert!(with >= 4 && without == 0, "the proxy was shown a certificate {with} times, and none {without} times");
    let wrong: Vec<String> = lines.iter().filter(|line| !line.holds()).map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "{} of {} predictions are wrong:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
    page::check(&machine, &docker, &lines);
    assert!(lines.iter().map(|line| line.case).collect::<std::collections::BTreeSet<_>>().len() >= 60);
}

fn ask(world: &World<'_>, docker: &Dockerd<'_>, case: &corpus::Case, engine: Engine) -> Line {
    let predicted = world.predict(case, engine);
    let (worked, said) = engine.run(world, docker, case);
    Line { group: case.group, case: case.name, engine, predicted, worked, said }
}
