//! `portcullis gc` as it is typed: in a running server, without one, and beside a process that has the data.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use portcullis_testkit::image::Image;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{IP, Machine, NSENTER};
use crate::peers::files_below;
use crate::registry::{PORTCULLIS, Registry};

/// Nothing is younger than the grace any more.
fn age(data: &Path) {
    let time = SystemTime::now() - Duration::from_hours(2);
    for link in files_below(data).iter().filter(|path| path.ends_with("link")) {
        File::options().write(true).open(data.join(link)).unwrap().set_modified(time).unwrap();
    }
}

#[test]
fn a_deleted_image_is_collected_with_and_without_a_server() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    let admin = registry.home().join("pki/clients/admin");
    let certs = machine.docker_certs("registry.test:5443");
    fs::create_dir_all(&certs).unwrap();
    for name in ["ca.crt", "client.cert", "client.key"] {
        fs::copy(admin.join(name), certs.join(name)).unwrap();
    }
    let data = registry.home().join("data");
    let push_and_delete = |seed| {
        let image = Image::new(seed, &[100_000, 5]);
        let layout = format!("layout-{seed}");
        image.write_layout(&machine.dir().join(&layout), "v1");
        let pushed = format!("registry.test:5443/demo/app@{}", image.manifest.digest);
        machine.run(PORTCULLIS, &["push", &format!("oci:{layout}:v1"), "registry.test:5443/demo/app:1"]).ok();
        machine.run(PORTCULLIS, &["delete", &pushed]).ok();
    };

    push_and_delete(1);
    registry.portcullis(&["gc"]).ok().says("removed 0 manifests, 0 links, 1 blobs");
    age(&data);
    let told = registry.portcullis(&["gc", "--dry-run"]).ok().says("would remove 0 manifests, 3 links, 3 blobs");
    assert!(told.stdout.contains("link sha256:") && told.stdout.contains(" of demo/app"), "{told}");
    registry.portcullis(&["gc"]).ok().says("removed 0 manifests, 3 links, 3 blobs").says(", into the trash");
    registry.portcullis(&["status"]).ok().says("gc           last").says("removed 0 manifests, 3 links, 3 blobs");

    // Whoever has the data without a socket to ask it over is named.
    push_and_delete(2);
    age(&data);
    assert_eq!(registry.stop().code(), Some(0));
    let config = registry.home().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("admin_socket = \"off\"\n{text}")).unwrap();
    registry.start_again();
    let lock = data.join("portcullis/lock");
    registry.portcullis(&["gc"]).exits(1).says(&lock.display().to_string()).says("is in use by process ");
    assert_eq!(registry.stop().code(), Some(0));

    let json = registry.portcullis(&["gc", "--dry-run", "--json"]).ok();
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&report["dry_run"], &report["removed"]["links"]), (&true.into(), &3.into()), "{json}");
    registry.portcullis(&["gc"]).ok().says("removed 0 manifests, 3 links, 4 blobs");
    let left: Vec<_> = files_below(&data).into_iter().filter(|path| path.starts_with("docker")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_stops_it_comes_with_what_to_type() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    assert_eq!(registry.stop().code(), Some(0));
    let hex = "aa".repeat(32);
    let revision = format!("data/docker/registry/v2/repositories/demo/app/_manifests/revisions/sha256/{hex}");
    fs::create_dir_all(registry.home().join(&revision)).unwrap();
    fs::write(registry.home().join(revision).join("link"), format!("sha256:{hex}")).unwrap();
    fs::create_dir_all(registry.home().join("data/docker/registry/v2/repositories/demo/Old/_layers")).unwrap();
    registry
        .portcullis(&["gc"])
        .ok()
        .says(&format!("nothing is removed from demo/app, because of manifest sha256:{hex}: its bytes are missing"))
        .says(&format!("fix: portcullis delete HOST/demo/app@sha256:{hex}"))
        .says("no blob is removed while `demo/Old` lies among the repositories");
}
