//! What a good client never sends and a good operator never writes: the right answer, and nothing of it stays.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use portcullis_oci::{Algorithm, Digest};
use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{CURL, OPENSSL, curl, files_below, s_client};
use crate::process::eventually;
use crate::registry::{PORTCULLIS, Registry};

/// A registry, somebody who may push, and what is on disk before anything is sent.
struct Scene<'m> {
    machine: &'m Machine,
    registry: Registry<'m>,
    pair: PairFiles,
    before: Vec<PathBuf>,
}

impl<'m> Scene<'m> {
    fn new(machine: &'m Machine) -> Self {
        let registry = Registry::up(machine);
        let pair = registry.new_client("ci-7");
        let before = files_below(&registry.home().join("data"));
        Self { machine, registry, pair, before }
    }

    /// Sends one request; the answer must have this status and, in an OCI error body, this code.
    #[track_caller]
    fn answers(&self, args: &[&str], path: &str, status: u16, code: &str) {
        let answer = curl(self.machine, &self.registry, &self.pair, args, path);
        let shown: String = path.chars().take(100).collect();
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{args:?} {shown}: {answer:?}");
        let content_type = answer.header("content-type").unwrap_or_default();
        assert!(content_type.starts_with("application/json"), "{content_type}");
    }

    /// Nothing that was sent is on disk.
    #[track_caller]
    fn nothing_stayed(&self) {
        let data = self.registry.home().join("data");
        let same = || files_below(&data) == self.before;
        // A cut connection is noticed a moment after the client is gone.
        eventually(std::time::Duration::from_secs(20), same);
        assert_eq!(files_below(&data), self.before);
    }
}

const SOME_DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn names_references_paths_and_methods() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let scene = Scene::new(&machine);
    for name in ["..", "demo/..", "../../etc", "demo/../app", ".", "a//b", "demo/%2e%2e/app", "Demo", "-a", "a_", "_a"]
    {
        scene.answers(&[], &format!("/v2/{name}/manifests/latest"), 400, "NAME_INVALID");
        scene.answers(&["--request", "POST"], &format!("/v2/{name}/blobs/uploads/"), 400, "NAME_INVALID");
    }
    let long = "a/".repeat(4000);
    scene.answers(&[], &format!("/v2/{long}a/manifests/latest"), 400, "NAME_INVALID");
    scene.answers(&[], &format!("/v2/{}/tags/list", "a".repeat(256)), 400, "NAME_INVALID");

    scene.answers(&[], "/v2/demo/app/manifests/sha256:123", 400, "DIGEST_INVALID");
    scene.answers(&[], "/v2/demo/app/blobs/sha256:../../../../etc/passwd", 404, "UNSUPPORTED");
    scene.answers(&[], "/v2/demo/app/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID");
    scene.answers(&[], &format!("/v2/demo/app/blobs/{}", SOME_DIGEST.to_uppercase()), 400, "DIGEST_INVALID");
    scene.answers(&[], &format!("/v2/demo/app/blobs/{SOME_DIGEST}"), 404, "BLOB_UNKNOWN");
    scene.answers(&[], "/v2/demo/app/manifests/latest", 404, "MANIFEST_UNKNOWN");

    scene.answers(&[], "/v2/demo/app/nothing/here", 404, "UNSUPPORTED");
    scene.answers(&[], "/", 404, "UNSUPPORTED");
    scene.answers(&["--request", "POST"], "/v2/", 405, "UNSUPPORTED");
    scene.answers(&["--request", "BREW"], "/v2/demo/app/manifests/latest", 405, "UNSUPPORTED");
    let wrong = curl(&machine, &scene.registry, &scene.pair, &["--request", "POST"], "/v2/demo/app/manifests/latest");
    assert!(wrong.header("allow").is_some_and(|allow| allow.contains("GET") && allow.contains("PUT")), "{wrong:?}");

    // Longer than any head the server reads: refused before there is a path, whatever the body says.
    let endless = format!("/v2/{}/manifests/latest", "a".repeat(100_000));
    let refused = curl(&machine, &scene.registry, &scene.pair, &["--http1.1"], &endless);
    assert!([400, 414, 431].contains(&refused.status), "{refused:?}");
    scene.nothing_stayed();
}

#[test]
fn blobs_that_are_not_what_they_say() {
    skip_unless!(IP, NSENTER, CURL, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let scene = Scene::new(&machine);
    fs::write(machine.dir().join("body"), vec![b'x'; 100_000]).unwrap();
    let post = ["--request", "POST", "--header", "Content-Type: application/octet-stream", "--data-binary", "@body"];
    let uploads = "/v2/demo/app/blobs/uploads/";
    scene.answers(&post, &format!("{uploads}?digest={SOME_DIGEST}"), 400, "DIGEST_INVALID");
    scene.answers(&post, &format!("{uploads}?digest=sha256:zz"), 400, "DIGEST_INVALID");
    let unknown = "/v2/demo/app/blobs/uploads/00000000-0000-4000-8000-000000000000";
    scene.answers(&[], unknown, 404, "BLOB_UPLOAD_UNKNOWN");
    scene.answers(&[], &format!("{uploads}../../../../etc/passwd"), 404, "UNSUPPORTED");
    let put = ["--request", "PUT", "--data-binary", "@body"];
    scene.answers(&put, &format!("{unknown}?digest={SOME_DIGEST}"), 404, "BLOB_UPLOAD_UNKNOWN");
    scene.nothing_stayed();

    // A body cut short: the head promises 100,000 bytes, ten come, the client goes.
    let digest = Digest::of(Algorithm::Sha256, &vec![b'x'; 100_000]);
    let host = scene.registry.host();
    let head = format!("POST {uploads}?digest={digest} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\n");
    let request = [head.as_bytes(), b"xxxxxxxxxx"].concat();
    let cut = s_client(&machine, &scene.registry, Some(&scene.pair), &["-no_ign_eof"], &request);
    assert!(!cut.stdout.contains(" 201 "), "{cut}");
    scene.answers(&[], &format!("/v2/demo/app/blobs/{digest}"), 404, "BLOB_UNKNOWN");
    scene.nothing_stayed();
}

#[test]
fn manifests_that_are_not_manifests() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let scene = Scene::new(&machine);
    let oci = "Content-Type: application/vnd.oci.image.manifest.v1+json";
    let put = ["--request", "PUT", "--header", oci, "--header", "Expect:", "--data-binary", "@manifest"];
    let target = "/v2/demo/app/manifests/latest";
    let write = |bytes: &[u8]| fs::write(machine.dir().join("manifest"), bytes).unwrap();

    write(b"not json");
    scene.answers(&put, target, 400, "MANIFEST_INVALID");
    write(b"[]");
    scene.answers(&put, target, 400, "MANIFEST_INVALID");
    write(&vec![b'['; 100_000]);
    scene.answers(&put, target, 400, "MANIFEST_INVALID");
    let descriptor = format!(r#"{{"mediaType":"application/octet-stream","digest":"{SOME_DIGEST}","size":0}}"#);
    let oci_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = |spaces: usize| {
        let head = format!(r#"{{"schemaVersion":2,"mediaType":"{oci_type}","config":{descriptor},"layers":[]"#);
        format!("{head}{}}}", " ".repeat(spaces))
    };
    write(manifest(0).as_bytes());
    scene.answers(&put, target, 404, "MANIFEST_BLOB_UNKNOWN");
    let docker = "Content-Type: application/vnd.docker.distribution.manifest.v2+json";
    scene.answers(
        &["--request", "PUT", "--header", docker, "--data-binary", "@manifest"],
        target,
        400,
        "MANIFEST_INVALID",
    );
    write(manifest(4 << 20).as_bytes());
    scene.answers(&put, target, 413, "SIZE_INVALID");
    scene.nothing_stayed();
}

/// At the limit a manifest is accepted: the limit is where the text says.
#[test]
fn a_manifest_of_exactly_4_mib_is_accepted() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let scene = Scene::new(&machine);
    fs::write(machine.dir().join("empty"), b"{}").unwrap();
    let digest = Digest::of(Algorithm::Sha256, b"{}");
    let post = ["--request", "POST", "--header", "Content-Type: application/octet-stream", "--data-binary", "@empty"];
    let pushed =
        curl(&machine, &scene.registry, &scene.pair, &post, &format!("/v2/demo/app/blobs/uploads/?digest={digest}"));
    assert_eq!(pushed.status, 201, "{pushed:?}");
    let config = format!(r#"{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{digest}","size":2}}"#);
    let head = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]"#);
    let padding = " ".repeat((4 << 20) - head.len() - 1);
    fs::write(machine.dir().join("manifest"), format!("{head}{padding}}}")).unwrap();
    let oci = "Content-Type: application/vnd.oci.image.manifest.v1+json";
    let put = ["--request", "PUT", "--header", oci, "--data-binary", "@manifest"];
    // Everything is right but the digest it is put under.
    scene.answers(&put, &format!("/v2/demo/app/manifests/{SOME_DIGEST}"), 400, "DIGEST_INVALID");
    scene.answers(&[], &format!("/v2/demo/app/manifests/{SOME_DIGEST}"), 404, "MANIFEST_UNKNOWN");
    let put = curl(&machine, &scene.registry, &scene.pair, &put, "/v2/demo/app/manifests/big");
    assert_eq!(put.status, 201, "{put:?}");
}

/// Whoever may not do it gets 403, whether or not what it asks for exists: the policy's default is no.
#[test]
fn a_trusted_certificate_without_a_rule_is_denied() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let scene = Scene::new(&machine);
    let policy = "[[rule]]\nca = \"clients\"\nrepositories = [\"elsewhere/**\"]\nallow = [\"pull\", \"push\"]\n";
    fs::write(scene.registry.home().join("policy.toml"), policy).unwrap();
    scene.registry.portcullis(&["reload"]).ok();
    assert_eq!(curl(&machine, &scene.registry, &scene.pair, &[], "/v2/").status, 200);
    scene.answers(&[], "/v2/demo/app/manifests/latest", 403, "DENIED");
    scene.answers(&[], &format!("/v2/demo/app/blobs/{SOME_DIGEST}"), 403, "DENIED");
    scene.answers(&["--request", "POST"], "/v2/demo/app/blobs/uploads/", 403, "DENIED");
    scene.nothing_stayed();
}

#[test]
fn a_wrong_config_shows_all_its_problems_and_exits_2() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    fs::write(&path, "listen = \"here\"\nlisten_on = 5\n\n[storage]\nreserve = true\n[nonsense]\n").unwrap();
    let mut command = std::process::Command::new(PORTCULLIS);
    command.args(["serve", "--config"]).arg(&path).env_clear();
    let ran = crate::process::run(command, dir.path(), crate::process::DEADLINE).exits(2);
    let at = |line: u32| format!("{}:{line}: ", path.display());
    let ran = ran.says(&at(1)).says(&at(2)).says("listen_on").says(&at(5)).says("reserve").says(&at(6));
    ran.says("nonsense");
    // Nothing was made beside it.
    assert_eq!(
        files_below(dir.path()).iter().filter(|file| file.extension().is_none_or(|e| e != "out" && e != "err")).count(),
        1
    );
}

#[test]
fn a_missing_policy_is_an_error_and_never_everybody() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    registry.stop();
    let policy = registry.home().join("policy.toml");
    fs::remove_file(&policy).unwrap();
    let config = registry.home().join("config.toml").display().to_string();
    machine.run(PORTCULLIS, &["serve", "--config", &config]).exits(1).says("policy.toml");
}

#[test]
fn own_keys_that_others_can_read_are_refused_with_the_chmod() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    registry.stop();
    let home = registry.home().to_owned();
    let config = home.join("config.toml").display().to_string();
    let serve = ["serve", "--config", &config, "--check"];
    machine.run(PORTCULLIS, &serve).ok();

    let key = home.join("pki/server/server.key");
    for mode in [0o640, 0o604, 0o644] {
        set_mode(&key, mode);
        machine.run(PORTCULLIS, &serve).exits(1).says(&format!("chmod 600 {}", key.display()));
    }
    set_mode(&key, 0o600);
    let ca_key = home.join("pki/client-ca/ca.key");
    set_mode(&ca_key, 0o644);
    registry.portcullis(&["cert", "new", "client", "x"]).exits(1).says(&format!("chmod 600 {}", ca_key.display()));
    set_mode(&ca_key, 0o600);
    machine.run(PORTCULLIS, &serve).ok();
}

/// Whoever can write there decides whom the registry trusts; each place is tried, and all that slip through are named.
#[test]
fn what_others_can_write_is_refused_with_the_chmod() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    registry.stop();
    let home = registry.home().to_owned();
    let config = home.join("config.toml").display().to_string();
    let mut accepted = vec![];
    for path in ["", "trust", "policy.toml", "config.toml", "pki"].map(|name| home.join(name)) {
        let was = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        for bit in [0o020, 0o002] {
            set_mode(&path, was | bit);
            let served = machine.run(PORTCULLIS, &["serve", "--config", &config, "--check"]);
            let issued = registry.portcullis(&["cert", "new", "client", "x"]);
            for ran in [served, issued] {
                let is_refused = ran.status.code() == Some(1) && ran.said().contains("chmod");
                if !is_refused || !ran.said().contains(path.to_str().unwrap().trim_end_matches('/')) {
                    accepted.push(format!("{} with {bit:03o}: {ran}", path.display()));
                }
            }
            set_mode(&path, was);
        }
    }
    assert!(accepted.is_empty(), "{}", accepted.join("\n"));
}

/// As in Kubernetes, where a secret belongs to root and is readable through the group: fine up to 0640.
#[test]
fn a_key_of_root_with_our_group_may_be_0640() {
    const NOBODY: u32 = 65534;
    skip_unless!(IP, NSENTER, Need::Program("setpriv"), Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    registry.stop();
    let home = registry.home().to_owned();
    // The build directory may be closed to others.
    let program = machine.dir().join("portcullis");
    fs::copy(PORTCULLIS, &program).unwrap();
    let config = home.join("config.toml").display().to_string();
    let program = program.display().to_string();
    let as_nobody =
        ["--reuid=65534", "--regid=65534", "--clear-groups", "--", &program, "serve", "--config", &config, "--check"];
    for entry in files_below(&home).iter().map(|file| home.join(file)).chain(directories_below(&home)) {
        chown(&entry, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    machine.run("setpriv", &as_nobody).ok();

    let key = home.join("pki/server/server.key");
    chown(&key, Some(0), Some(NOBODY)).unwrap();
    set_mode(&key, 0o640);
    machine.run("setpriv", &as_nobody).ok();
    set_mode(&key, 0o644);
    machine.run("setpriv", &as_nobody).exits(1).says("chmod");
    chown(&key, Some(NOBODY), Some(NOBODY)).unwrap();
    set_mode(&key, 0o640);
    machine.run("setpriv", &as_nobody).exits(1).says(&format!("chmod 600 {}", key.display()));
}

/// Engines read keys of any mode from certs.d: a warning is all we may give.
#[test]
fn keys_in_certs_d_that_others_can_read_are_a_warning() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let pair = registry.new_client("ci-7");
    let dir = machine.docker_certs("registry.test:5443");
    registry.fill_certs(&dir, &pair);
    let image = portcullis_testkit::image::Image::new(12, &[100]);
    image.write_layout(&machine.dir().join("layout"), "v1");
    let push = ["push", "oci:layout:v1", "registry.test:5443/demo/app:1"];
    let quiet = machine.run(PORTCULLIS, &push).ok();
    assert!(!quiet.stderr.contains("warning"), "{quiet}");
    set_mode(&dir.join("client.key"), 0o644);
    machine.run(PORTCULLIS, &push).ok().says("warning").says("client.key");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// `dir` and every directory below it.
fn directories_below(dir: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    std::iter::once(dir.to_owned()).chain(below.flat_map(|path| directories_below(&path))).collect()
}
