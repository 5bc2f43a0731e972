//! `portcullis doctor` as it is typed: exit codes, repairs that touch nothing they should not, and a real registry.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_testkit::pki::{Authority, write_file};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use tempfile::TempDir;

use crate::netns::{IP, Machine, NSENTER};
use crate::process::{DEADLINE, Ran, run};
use crate::registry::{PORTCULLIS, Registry};

const HOST: &str = "registry.test:5443";

/// Another root with Podman in it, and the directory of the registry.
struct Tree {
    root: TempDir,
    ca: Authority,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { root: tempfile::tempdir().unwrap(), ca: Authority::new("registry CA") };
        write_file(&tree.root.path().join("usr/bin/podman"), b"", 0o755);
        fs::create_dir_all(tree.directory()).unwrap();
        tree
    }

    /// With its CA and a pair.
    fn good() -> Self {
        let tree = Self::new();
        tree.ca.write_ca(&tree.directory());
        tree.ca.client("ci-7").write_pair(&tree.directory(), "client");
        tree
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("etc/containers/certs.d").join(HOST)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(["doctor", HOST, "--offline", "--root"]).arg(self.root.path()).args(args).env_clear();
        command
    }

    fn doctor(&self, args: &[&str]) -> Ran {
        run(self.command(Path::new(PORTCULLIS), args), self.root.path(), DEADLINE)
    }
}

fn portcullis(dir: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(PORTCULLIS);
    command.args(args).current_dir(dir).env_clear();
    run(command, dir, DEADLINE)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn exit_codes_tell_what_was_found() {
    let tree = Tree::good();
    let ran = tree.doctor(&[]).exits(0);
    assert_eq!(ran.stderr, "");
    fs::remove_file(tree.at("client.key")).unwrap();
    tree.doctor(&[]).exits(4).says("D20").says("✗");
    tree.doctor(&["--engine", "rkt"]).exits(2);
    tree.doctor(&["--dry-run"]).exits(2);
    portcullis(tree.root.path(), &["doctor", "https://registry.test"]).exits(2);
    let json: serde_json::Value = serde_json::from_str(&tree.doctor(&["--json"]).exits(4).stdout).unwrap();
    assert_eq!((&json["schema"], &json["verdicts"][0]["engine"]), (&1.into(), &"podman".into()));
    // An engine that is not there is looked at when it is asked for.
    tree.doctor(&["--engine", "k3s"]).says("k3s");
}

#[test]
fn repairs_are_shown_done_and_can_be_undone() {
    let tree = Tree::good();
    fs::rename(tree.at("client.cert"), tree.at("client.crt")).unwrap();
    write_file(&tree.at("other-ca.crt"), Authority::new("another CA").cert_der(), 0o640);
    fs::set_permissions(tree.at("client.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let before = listing(&tree.directory());
    tree.doctor(&["--fix", "--dry-run"]).exits(4).says("fix: rename").says("nothing was changed");
    assert_eq!(listing(&tree.directory()), before);

    // The key is looked at once its certificate has its name, and that is mended too.
    tree.doctor(&["--fix"]).exits(0).says("to undo it: mv -i").says("to undo it: chmod 0644");
    assert!(tree.at("client.cert").exists() && !tree.at("client.crt").exists());
    assert_eq!(mode(&tree.at("client.key")), 0o600);
    assert!(fs::read_to_string(tree.at("other-ca.crt")).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(mode(&tree.at("other-ca.crt")), 0o640);
    assert_eq!(fs::read(tree.at("other-ca.crt.before-fix")).unwrap()[0], 0x30);
    tree.doctor(&["--fix"]).exits(0).says("nothing that --fix could do safely");
}

fn listing(directory: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    let own_mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    all.into_iter().map(|path| (path.clone(), own_mode(&path), fs::read(&path).unwrap_or_default())).collect()
}

#[test]
fn a_chain_is_put_in_order() {
    let tree = Tree::good();
    let issuing = tree.ca.intermediate("issuing CA");
    let pair = issuing.client("ci-7");
    let good = pair.chain_pem();
    let bad = format!("{}{}", issuing.cert_pem(), pair.cert_pem());
    write_file(&tree.at("client.cert"), bad.as_bytes(), 0o644);
    write_file(&tree.at("client.key"), pair.key_pem().as_bytes(), 0o600);
    tree.doctor(&["--fix"]).exits(0);
    assert_eq!(fs::read_to_string(tree.at("client.cert")).unwrap(), good);
    assert_eq!(fs::read_to_string(tree.at("client.cert.before-fix")).unwrap(), bad);
}

#[test]
fn nothing_is_overwritten_and_no_link_is_followed() {
    // The name that the file should have is taken.
    let tree = Tree::new();
    write_file(&tree.at("ca.pem"), tree.ca.cert_pem().as_bytes(), 0o644);
    symlink("/nowhere", tree.at("ca.crt")).unwrap();
    tree.doctor(&["--fix"]).exits(4).says("nothing that --fix could do safely");
    assert!(tree.at("ca.pem").exists() && tree.at("ca.crt").is_symlink());

    // The host's directory is a link: what it leads to is somebody else's.
    let tree = Tree::good();
    let elsewhere = tree.root.path().join("elsewhere");
    fs::rename(tree.directory(), &elsewhere).unwrap();
    symlink(&elsewhere, tree.directory()).unwrap();
    fs::set_permissions(elsewhere.join("client.key"), fs::Permissions::from_mode(0o644)).unwrap();
    tree.doctor(&["--fix"]).exits(1).says("is a link");
    assert_eq!(mode(&elsewhere.join("client.key")), 0o644);

    // The key is a link, or has a second name.
    let tree = Tree::good();
    let key = tree.root.path().join("key");
    fs::rename(tree.at("client.key"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    symlink(&key, tree.at("client.key")).unwrap();
    tree.doctor(&["--fix"]).exits(1).says("not done");
    fs::remove_file(tree.at("client.key")).unwrap();
    fs::hard_link(&key, tree.at("client.key")).unwrap();
    tree.doctor(&["--fix"]).exits(1).says("no regular file with one name");
    assert_eq!(mode(&key), 0o644);
}

/// Files beside the host directories, in a misspelled parent, under a near miss of the name: they get to where engines look.
#[test]
fn files_in_the_wrong_place_are_moved() {
    let tree = Tree::good();
    let certs = tree.directory().parent().unwrap().to_owned();
    for name in ["ca.crt", "client.cert", "client.key"] {
        fs::rename(tree.at(name), certs.join(name)).unwrap();
    }
    fs::remove_dir(tree.directory()).unwrap();
    tree.doctor(&["--fix", "--dry-run"]).exits(4).says("fix: make the directory").says("nothing was changed");
    assert!(certs.join("ca.crt").exists() && !tree.directory().exists());
    tree.doctor(&["--fix"]).exits(0).says("to undo it: mv -i").says("&& rmdir");
    assert_eq!((mode(&tree.directory()), mode(&tree.at("client.key"))), (0o755, 0o600));
    assert!(tree.at("ca.crt").exists() && tree.at("client.cert").exists() && !certs.join("client.key").exists());

    let misspelled = certs.with_file_name("cert.d");
    fs::rename(&certs, &misspelled).unwrap();
    tree.doctor(&["--fix"]).exits(0).says("fix: move").says("&& rmdir");
    assert!(tree.at("client.key").exists() && misspelled.is_dir());

    for near in ["https:registry.test:5443", "registry.test.:5443", "Registry.test:5443"] {
        fs::rename(tree.directory(), certs.join(near)).unwrap();
        tree.doctor(&["--fix"]).exits(0).says("fix: rename");
        assert!(tree.at("client.key").exists(), "{near}");
    }
}

#[test]
fn what_could_be_meant_otherwise_is_not_moved() {
    let tree = Tree::new();
    let certs = tree.directory().parent().unwrap().to_owned();
    fs::remove_dir(tree.directory()).unwrap();
    let stays = || {
        let before = listing(&certs);
        tree.doctor(&["--fix"]).says("nothing that --fix could do safely");
        assert_eq!(listing(&certs), before);
    };
    // Two pairs, two CAs, half a pair, a link among the files.
    tree.ca.client("a").write_pair(&certs, "a");
    tree.ca.client("b").write_pair(&certs, "b");
    stays();
    fs::remove_file(certs.join("b.cert")).unwrap();
    stays();
    fs::remove_file(certs.join("b.key")).unwrap();
    tree.ca.write_ca(&certs);
    fs::copy(certs.join("ca.crt"), certs.join("old.crt")).unwrap();
    stays();
    fs::remove_file(certs.join("old.crt")).unwrap();
    symlink("a.cert", certs.join("old.crt")).unwrap();
    stays();
    fs::remove_file(certs.join("old.crt")).unwrap();
    // Something has the directory's name.
    symlink("nowhere", tree.directory()).unwrap();
    stays();
    fs::remove_file(tree.directory()).unwrap();
    // Another set could be meant too.
    fs::create_dir(certs.join("https:registry.test:5443")).unwrap();
    stays();
    fs::remove_dir(certs.join("https:registry.test:5443")).unwrap();
    // Another port's directory is another registry's.
    fs::create_dir_all(certs.join("registry.test:5000")).unwrap();
    tree.doctor(&["--fix"]).exits(0);
    assert!(tree.at("a.key").exists() && certs.join("registry.test:5000").exists());
}

#[test]
fn a_directory_with_port_443_is_renamed_for_whoever_asks_without() {
    let tree = Tree::new();
    let certs = tree.directory().parent().unwrap().to_owned();
    tree.ca.write_ca(&certs.join("registry.test:443"));
    let ask = |host: &str| {
        let mut command = Command::new(PORTCULLIS);
        command.args(["doctor", host, "--offline", "--fix", "--root"]).arg(tree.root.path()).env_clear();
        run(command, tree.root.path(), DEADLINE)
    };
    ask("registry.test").exits(0).says("fix: rename");
    assert!(certs.join("registry.test/ca.crt").exists());
    // The other way round it would be taken from those who ask without port.
    ask("registry.test:443").says("nothing that --fix could do safely");
    assert!(certs.join("registry.test/ca.crt").exists());
}

#[test]
fn what_belongs_to_others_is_left_alone() {
    skip_unless!(Need::Namespaces);
    let tree = Tree::good();
    fs::set_permissions(tree.at("client.key"), fs::Permissions::from_mode(0o644)).unwrap();
    chown(tree.directory(), Some(12_345), None).unwrap();
    tree.doctor(&["--fix"]).exits(1).says("belongs to user 12345");
    chown(tree.directory(), Some(0), None).unwrap();
    fs::set_permissions(tree.directory(), fs::Permissions::from_mode(0o777)).unwrap();
    // Everybody could exchange the key meanwhile: the directory is mended first, the key in the next round.
    tree.doctor(&["--fix"]).exits(0);
    assert_eq!((mode(&tree.directory()), mode(&tree.at("client.key"))), (0o755, 0o600));

    // The directory that the files would leave, or a file itself, is somebody else's.
    let tree = Tree::new();
    let certs = tree.directory().parent().unwrap().to_owned();
    fs::remove_dir(tree.directory()).unwrap();
    tree.ca.write_ca(&certs);
    chown(&certs, Some(12_345), None).unwrap();
    tree.doctor(&["--fix"]).exits(1).says("belongs to user 12345");
    chown(&certs, Some(0), None).unwrap();
    chown(certs.join("ca.crt"), Some(12_345), None).unwrap();
    tree.doctor(&["--fix"]).exits(1).says("belongs to user 12345");
    assert!(certs.join("ca.crt").exists() && !tree.directory().exists());
}

#[test]
fn without_root_it_says_what_it_could_not_read() {
    skip_unless!(Need::Namespaces);
    let tree = Tree::good();
    let program = tree.root.path().join("portcullis");
    // By a process of its own: what another test forks meanwhile would hold our file open for writing, and nobody could run it.
    let mut copy = Command::new("install");
    copy.args(["-m", "755", PORTCULLIS]).arg(&program);
    run(copy, tree.root.path(), DEADLINE).ok();
    fs::set_permissions(tree.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    write_file(&tree.root.path().join("usr/sbin/dockerd"), b"", 0o755);
    let docker = tree.root.path().join("etc/docker/certs.d").join(HOST);
    fs::create_dir_all(&docker).unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = tree.command(&program, &[]);
    command.uid(65_534).gid(65_534);
    run(command, tree.root.path(), DEADLINE).says("could not be read by this user").says("client.key");
}

#[test]
fn files_by_themselves() {
    let tree = Tree::good();
    portcullis(&tree.directory(), &["cert", "lint", "ca.crt"]).exits(0).says("nothing to find fault with");
    write_file(&tree.at("bad.crt"), b"", 0o644);
    portcullis(&tree.directory(), &["cert", "lint", "."]).exits(4).says("bad.crt: is empty");
    portcullis(&tree.directory(), &["cert", "lint", "gone"]).exits(1).says("gone does not exist");
    let shown = portcullis(&tree.directory(), &["cert", "show", "client.cert"]).exits(0);
    let shown = shown.says("is           a client").says("issued by    CN=registry CA");
    assert_eq!(shown.stderr, "");
    let json = portcullis(&tree.directory(), &["cert", "show", "--json", "client.cert"]).exits(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json[0]["file"], &json[0]["role"]), (&"client.cert".into(), &"a client".into()));
}

#[test]
fn errors_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let say = |args: &[&str]| portcullis(dir.path(), &[&["explain"], args].concat());
    say(&["d20"]).exits(0).says("D20  a .cert has no .key beside it");
    say(&["remote error: tls: certificate required"]).exits(0).says("1. no client certificate was sent").says("(D67)");
    // Without quotes the shell makes words of it.
    say(&["x509:", "certificate", "signed", "by", "unknown", "authority"]).exits(0).says("(D66)");
    say(&["out of cheese"]).exits(1).says("portcullis doctor");
    let json = say(&["--json", "D61"]).exits(0).stdout;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["code"], "D61");
}

/// The verdict is what the engine and the registry then do.
#[test]
fn a_real_registry_lets_in_and_refuses() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    registry.new_client("ci-7");
    let ask = |args: &[&str]| {
        let engines = ["--engine", "docker", "--engine", "podman"];
        machine.run(PORTCULLIS, &[&["doctor", HOST], engines.as_slice(), args].concat())
    };
    ask(&[]).exits(3).says("D66");
    let from = registry.home().join("pki/clients/ci-7").display().to_string();
    machine.run(PORTCULLIS, &["install", HOST, "--from", &from, "--engine", "all"]).ok();
    let good = ask(&[]).exits(0);
    assert_eq!(good.stdout.matches("sends client.cert, and is let in").count(), 2, "{good}");
    registry.portcullis(&["cert", "revoke", "ci-7"]).ok();
    ask(&[]).exits(3).says("certificate_revoked").says("and is not let in");
    let home = registry.home().display().to_string();
    ask(&["--home", &home]).exits(3).says("the server says: ").says("deny");
    ask(&["--offline"]).exits(0);
}

/// In explain mode the registry itself tells the reason, and the doctor shows it.
#[test]
fn a_registry_in_explain_mode_says_why() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up(&machine);
    registry.new_client("ci-7");
    let config = registry.home().join("config.toml");
    let before = fs::read_to_string(&config).unwrap();
    let after = before.replace("# client_auth = \"require\"", "client_auth = \"explain\"");
    assert_ne!(before, after);
    fs::write(&config, after).unwrap();
    registry.stop();
    registry.start_again();
    let from = registry.home().join("pki/clients/ci-7").display().to_string();
    machine.run(PORTCULLIS, &["install", HOST, "--from", &from, "--engine", "podman"]).ok();
    let ask = || machine.run(PORTCULLIS, &["doctor", HOST, "--engine", "podman"]);
    ask().exits(0);
    registry.portcullis(&["cert", "revoke", "ci-7"]).ok();
    ask().exits(3).says("D68").says("the registry answered 401");
}
