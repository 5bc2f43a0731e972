//! A disk that fails, as the kernel tells it: strace answers the server's own disk calls with EIO, and lets go again.

use std::fs;
use std::time::Duration;

use portcullis_oci::{Algorithm, Digest};
use portcullis_testkit::image::random_bytes;
use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use rustix::process::Signal;

use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{Answer, CURL, curl, files_below};
use crate::process::{DEADLINE, Running, eventually, read_lossy};
use crate::registry::Registry;

const STRACE: Need = Need::Program("strace");
const MANIFEST: &[&str] = &[
    "--request",
    "PUT",
    "--header",
    "Content-Type: application/vnd.oci.image.index.v1+json",
    "--data",
    r#"{"schemaVersion":2,"manifests":[]}"#,
];
const SYNCS: &str = "fsync,fdatasync,syncfs";

struct Site<'m> {
    machine: &'m Machine,
    registry: Registry<'m>,
    pair: PairFiles,
}

impl<'m> Site<'m> {
    fn new(machine: &'m Machine) -> Self {
        let registry = Registry::up(machine);
        let pair = PairFiles::named(&registry.home().join("pki/clients/admin"), "client");
        Self { machine, registry, pair }
    }

    /// All threads of the server get EIO from these calls while it lives.
    fn failing(&self, calls: &str) -> Running {
        let mut command = self.machine.command("strace");
        let pid = self.registry.pid().to_string();
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={calls}:error=EIO"), "-p", &pid]);
        let tracer = Running::start(command, &self.machine.logs());
        let traced = eventually(DEADLINE, || self.threads().iter().all(|status| !status.contains("TracerPid:\t0\n")));
        assert!(traced, "strace does not attach: {}", tracer.said());
        tracer
    }

    fn works_again(&self, tracer: &Running) {
        tracer.signal(Signal::INT);
        let left = eventually(DEADLINE, || self.threads().iter().all(|status| status.contains("TracerPid:\t0\n")));
        assert!(left, "strace does not let go: {}", tracer.said());
    }

    fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.registry.pid())).unwrap();
        // A thread may end between the two.
        let status = |task: std::io::Result<fs::DirEntry>| read_lossy(&task.unwrap().path().join("status"));
        tasks.map(status).filter(|status| !status.is_empty()).collect()
    }

    fn ask(&self, args: &[&str], path: &str) -> Answer {
        curl(self.machine, &self.registry, &self.pair, args, path)
    }

    fn post(&self, bytes: &[u8]) -> Answer {
        fs::write(self.machine.dir().join("blob"), bytes).unwrap();
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let post = ["--header", "Content-Type: application/octet-stream", "--data-binary", "@blob"];
        self.ask(&post, &format!("/v2/demo/app/blobs/uploads/?digest={digest}"))
    }

    fn probe(&self, path: &str) -> String {
        let url = format!("http://127.0.0.1:5444{path}");
        self.machine.run("curl", &["--silent", "--include", &url]).ok().stdout
    }

    fn stored(&self) -> Vec<std::path::PathBuf> {
        files_below(&self.registry.home().join("data"))
    }
}

/// What the peer is told names what is its own and never where it lies.
#[track_caller]
fn told(site: &Site<'_>, answer: &Answer, status: u16, words: &[&str]) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.error_code(), "UNKNOWN");
    let text = String::from_utf8_lossy(&answer.body);
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    let home = site.registry.home().display().to_string();
    assert!(!text.contains(&home) && !text.contains("/docker/") && !text.contains("/portcullis/"), "{text}");
}

#[test]
fn a_failed_sync_makes_it_read_only_until_the_disk_works() {
    skip_unless!(IP, NSENTER, CURL, STRACE, Need::Namespaces);
    let machine = Machine::new();
    let site = Site::new(&machine);
    let kept = random_bytes(1, 2_000_000);
    assert_eq!(site.post(&kept).status, 201);
    let (before, lost) = (site.stored(), random_bytes(2, 2_000_000));
    let digest = Digest::of(Algorithm::Sha256, &lost).to_string();

    let tracer = site.failing(SYNCS);
    let first = site.post(&lost);
    let cause = "Input/output error (os error 5)";
    told(&site, &first, 500, &["(sync: ", &format!("demo/app@{digest}"), cause, "dmesg", "nothing was acknowledged"]);
    for _ in 0..3 {
        let next = site.post(&lost);
        told(&site, &next, 507, &["since its disk failed to sync", cause, "pulls go on", "`portcullis status`"]);
    }
    told(&site, &site.ask(MANIFEST, "/v2/demo/app/manifests/v1"), 507, &["nothing for demo/app:v1", cause]);
    let stored = Digest::of(Algorithm::Sha256, &kept);
    let delete = site.ask(&["--request", "DELETE"], &format!("/v2/demo/app/blobs/{stored}"));
    told(&site, &delete, 507, &[&format!("nothing for demo/app@{stored}")]);

    let pulled = site.ask(&[], &format!("/v2/demo/app/blobs/{stored}"));
    assert!(pulled.status == 200 && pulled.body == kept, "{}", pulled.status);
    assert_eq!(site.stored(), before, "something half-written stays");
    let ready = site.probe("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("degraded: the store is read-only"), "{ready}");
    assert!(ready.contains(cause), "{ready}");
    assert!(site.probe("/metrics").contains("portcullis_store_read_only 1\n"));
    site.registry.portcullis(&["status"]).ok().says("the store is read-only").says(cause);
    site.registry.log_line(&["a sync failed", "data/portcullis"]);

    site.works_again(&tracer);
    // A disk that fails is tried once a second.
    assert!(eventually(Duration::from_secs(20), || site.post(&lost).status == 201));
    assert!(!site.probe("/readyz").contains("degraded"));
    let pulled = site.ask(&[], &format!("/v2/demo/app/blobs/{digest}"));
    assert!(pulled.status == 200 && pulled.body == lost);
}

/// Any other failure is one request's, which is told what failed; the next one is served.
#[test]
fn a_failed_call_is_told_with_its_reason() {
    skip_unless!(IP, NSENTER, CURL, STRACE, Need::Namespaces);
    let machine = Machine::new();
    let site = Site::new(&machine);
    assert_eq!(site.post(b"layer").status, 201);
    assert_eq!(site.ask(MANIFEST, "/v2/demo/app/manifests/v1").status, 201);
    let before = site.stored();
    let cause = "Input/output error (os error 5)";

    let tracer = site.failing("/^rename");
    let digest = Digest::of(Algorithm::Sha256, b"another");
    told(&site, &site.post(b"another"), 500, &["(make: ", &format!("demo/app@{digest}"), cause]);
    site.works_again(&tracer);
    assert_eq!(site.stored(), before, "something half-written stays");
    let tracer = site.failing("pread64");
    told(&site, &site.ask(&[], "/v2/demo/app/manifests/v1"), 500, &["(read: ", "demo/app:v1", cause]);
    site.works_again(&tracer);
    assert_eq!(site.post(b"another").status, 201);
    assert_eq!(site.ask(&[], "/v2/demo/app/manifests/v1").status, 200);
    // The operator has the file.
    site.registry.log_line(&["a request failed", "demo/app:v1", "/docker/registry/v2/"]);
}
