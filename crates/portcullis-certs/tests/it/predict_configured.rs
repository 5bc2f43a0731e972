//! Engines whose files are named by a configuration: containerd, Docker's containerd store, nerdctl, BuildKit, k3s.

use crate::fixture::{bytes, tree, write};
use portcullis_certs::{
    EngineProfile, Finding, Outcome, Places, Prediction, Scheme, Situation, UnreadReason, Version, predict,
};
use std::fs;
use std::path::Path;
use time::OffsetDateTime;

const HOST: &str = "r.test:5000";
const CONTAINERD: &EngineProfile = &EngineProfile::CONTAINERD;
const STORE: &EngineProfile = &EngineProfile::DOCKER_CONTAINERD;
const PATH_SET: &[u8] =
    b"version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";

fn ask(profile: &EngineProfile, root: &Path, host: &str) -> Prediction {
    predict(profile, &Situation::here(root, OffsetDateTime::now_utc()), &host.parse().unwrap())
}

fn of_version(profile: &EngineProfile, root: &Path, version: Version) -> Prediction {
    let here = Situation { version: Some(version), ..Situation::here(root, OffsetDateTime::now_utc()) };
    predict(profile, &here, &HOST.parse().unwrap())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Endpoints as `authority: roots / pairs`, or the engine's words.
fn verdict(made: &Prediction) -> String {
    let endpoint = |endpoint: &portcullis_certs::Endpoint| {
        let roots: Vec<String> = endpoint.roots.iter().map(|root| name(&root.path)).collect();
        let pairs: Vec<String> = endpoint.pairs.iter().map(|pair| name(&pair.cert_path)).collect();
        format!("{}: {} / {}", endpoint.authority, roots.join(" "), pairs.join(" "))
    };
    match &made.outcome {
        Outcome::Loaded => made.endpoints.iter().map(endpoint).collect::<Vec<_>>().join("; "),
        Outcome::Fails { text, .. } => text.clone(),
        other => format!("{other:?}"),
    }
}

fn codes(made: &Prediction) -> Vec<String> {
    made.findings.iter().map(|finding| format!("{} {}", finding.code(), name(&finding.path))).collect()
}

/// What containerd makes of these files in the host's directory.
fn in_containerd(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Prediction) {
    let dir = tree(&[("etc/containerd/config.toml", PATH_SET)]);
    for (file, content) in files {
        write(&dir.path().join("etc/containerd/certs.d").join(HOST).join(file), content);
    }
    fs::create_dir_all(dir.path().join("etc/containerd/certs.d").join(HOST)).unwrap();
    let made = ask(CONTAINERD, dir.path(), HOST);
    (dir, made)
}

fn check(files: &[(&str, &[u8])], expected: &str, found: &[&str]) {
    let (_dir, made) = in_containerd(files);
    assert_eq!((verdict(&made).as_str(), codes(&made)), (expected, found.iter().map(ToString::to_string).collect()));
}

#[test]
fn certificate_files_in_containerds_way() {
    let (ca, cert, key) = (bytes("ca.crt"), bytes("recipe.cert"), bytes("rsa.key"));
    let both = [cert.clone(), key.clone()].concat();
    let at = "/etc/containerd/certs.d/r.test:5000";
    check(&[("ca.crt", &ca), ("c.cert", &cert), ("c.key", &key)], "r.test:5000: ca.crt / c.cert", &[]);
    check(&[("c.cert", &both)], "r.test:5000:  / c.cert", &[]);
    check(&[("c.key", &key)], "r.test:5000:  / ", &["D21 c.key"]);
    let as_key =
        "failed to load X509 key pair: tls: found a certificate rather than a key in the PEM for the private key";
    check(&[("c.cert", &cert)], as_key, &["D32 c.cert"]);
    // All roots before all pairs, whatever their names.
    let useless = format!("unable to load CA cert \"{at}/z.crt\"");
    check(&[("c.cert", &cert), ("z.crt", b"garbage")], &useless, &["D32 c.cert", "D26 z.crt"]);
    let (dir, _) = in_containerd(&[("ca.crt", &ca)]);
    fs::create_dir(dir.path().join("etc/containerd/certs.d/r.test:5000/a.crt")).unwrap();
    assert_eq!(verdict(&ask(CONTAINERD, dir.path(), HOST)), "r.test:5000: ca.crt / ", "a real directory is skipped");
}

#[test]
fn hosts_toml_counts_alone() {
    let (ca, cert, key) = (bytes("ca.crt"), bytes("recipe.cert"), bytes("rsa.key"));
    let text = b"server = \"https://r.test:5000\"\nca = \"ca.crt\"\nclient = [[\"c.cert\", \"c.key\"]]\n[host.\"https://m.test\"]\ncapabilities = [\"pull\"]\n";
    let files: [(&str, &[u8]); 5] =
        [("hosts.toml", text), ("ca.crt", &ca), ("c.cert", &cert), ("c.key", &key), ("other.crt", &ca)];
    check(&files, "m.test:  / ; r.test:5000: ca.crt / c.cert", &["D81 other.crt", "D81 hosts.toml"]);
    let (_dir, made) = in_containerd(&files);
    assert!(!made.endpoints[0].pushes && made.endpoints[1].pushes);
    // The file that is named and not there, in the words of each.
    let missing = "unable to read CA cert \"/etc/containerd/certs.d/r.test:5000/ca.crt\": open /etc/containerd/certs.d/r.test:5000/ca.crt: no such file or directory";
    check(&[("hosts.toml", b"ca = \"ca.crt\"\n")], missing, &["D36 ca.crt"]);
}

#[test]
fn hosts_toml_that_is_not_taken() {
    let ca = bytes("ca.crt");
    check(&[("hosts.toml", b"ca = ["), ("ca.crt", &ca)], "r.test:5000: ca.crt / ", &["D81 hosts.toml"]);
    check(&[("hosts.toml", b""), ("ca.crt", &ca)], "r.test:5000: ca.crt / ", &[]);
    check(&[("host.toml", b"ca = 'x'"), ("ca.crt", &ca)], "r.test:5000: ca.crt / ", &["D81 host.toml"]);
}

/// Without a table `host`, containerd 1.x takes the file for broken (b5615caf1, 2.0).
#[test]
fn hosts_toml_without_a_host_table() {
    let text = b"ca = \"other.crt\"\n";
    let (dir, made) =
        in_containerd(&[("hosts.toml", text), ("ca.crt", &bytes("ca.crt")), ("other.crt", &bytes("v1.crt"))]);
    assert_eq!(verdict(&made), "r.test:5000: other.crt / ");
    let old = of_version(CONTAINERD, dir.path(), Version::new(1, 6, 20));
    assert_eq!(verdict(&old), "r.test:5000: ca.crt other.crt / ");
    assert_eq!(codes(&old)[0], "D81 hosts.toml");
}

/// The two traps of `client`.
#[test]
fn pairs_in_hosts_toml() {
    let (cert, key) = (bytes("recipe.cert"), bytes("rsa.key"));
    let files = |text: &'static [u8]| -> [(&str, Vec<u8>); 3] {
        [("hosts.toml", text.to_vec()), ("c.cert", cert.clone()), ("c.key", key.clone())]
    };
    let ask = |text: &'static [u8]| {
        let files = files(text);
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (*name, content.as_slice())).collect();
        let (_dir, made) = in_containerd(&files);
        (verdict(&made), codes(&made)[0].clone())
    };
    let (words, code) = ask(b"client = [\"c.cert\", \"c.key\"]\n");
    assert!(words.ends_with("tls: found a certificate rather than a key in the PEM for the private key"), "{words}");
    assert_eq!(code, "D81 hosts.toml");
    let (words, _) = ask(b"client = [[\"c.cert\", \"\"]]\n");
    assert!(words.starts_with("unable to read CERT file") && words.ends_with("is a directory"), "{words}");
}

#[test]
fn names_of_directories_and_what_they_mask() {
    let ca = bytes("ca.crt");
    let dir = tree(&[
        ("etc/docker/certs.d/r.test_5000_/a.crt", &ca),
        ("etc/docker/certs.d/r.test:5000/b.crt", &ca),
        ("etc/docker/certs.d/_default/d.crt", &ca),
    ]);
    let made = ask(STORE, dir.path(), HOST);
    assert_eq!((verdict(&made).as_str(), made.masked().count()), ("r.test:5000: a.crt / ", 2));
    assert_eq!(verdict(&ask(STORE, dir.path(), "other.test")), "other.test: d.crt / ");
    fs::create_dir(dir.path().join("etc/docker/certs.d/s.test")).unwrap();
    let nerdctl = ask(&EngineProfile::NERDCTL, dir.path(), "s.test");
    assert_eq!((verdict(&nerdctl).as_str(), codes(&nerdctl)), ("s.test: d.crt / ", vec!["D11 _default".to_owned()]));
    let hub = ask(STORE, dir.path(), "docker.io");
    assert_eq!(verdict(&hub), "registry-1.docker.io: d.crt / ");
}

#[test]
fn where_containerd_is_told_to_look() {
    let dir = tree(&[("etc/containerd/certs.d/r.test:5000/ca.crt", &bytes("ca.crt"))]);
    let config = |text: &str| write(&dir.path().join("etc/containerd/config.toml"), text.as_bytes());
    let at = |major, minor| of_version(CONTAINERD, dir.path(), Version::new(major, minor, 0));
    let unset = at(1, 7);
    assert_eq!(unset.outcome, Outcome::NotRead(UnreadReason::NoConfigPath));
    assert_eq!(codes(&unset), ["D82 config.toml"]);
    // The default of 2.2 is a list, which is taken for one directory.
    let default = at(2, 2);
    assert_eq!((default.outcome.clone(), codes(&default)), (Outcome::NoFiles, vec!["D82 config.toml".to_owned()]));
    config(
        "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n",
    );
    assert_eq!(verdict(&at(1, 7)), "r.test:5000: ca.crt / ");
    assert_eq!(at(2, 1).outcome, Outcome::NoFiles);
    config(
        "version = 3\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
    );
    assert_eq!(codes(&at(2, 1)), ["D82 config.toml", "D82 config.toml"], "the plugin of another version");
    config("not toml");
    assert!(matches!(at(2, 1).outcome, Outcome::Fails { .. }));
    // `ctr --hosts-dir` knows no config.toml.
    let roots = [dir.path().join("etc/containerd/certs.d")];
    let here = Situation { places: Places::Roots(&roots), ..Situation::here(dir.path(), OffsetDateTime::now_utc()) };
    assert_eq!(verdict(&predict(CONTAINERD, &here, &HOST.parse().unwrap())), "r.test:5000: ca.crt / ");
}

#[test]
fn loopback_in_containerd() {
    let dir = tree(&[("etc/docker/certs.d/localhost:5000/ca.crt", &bytes("ca.crt"))]);
    let of = |made: &Prediction| made.registry().map(|endpoint| (endpoint.scheme, endpoint.verifies)).unwrap();
    assert_eq!(of(&ask(STORE, dir.path(), "localhost:5000")), (Scheme::HttpsThenHttp, false));
    assert_eq!(of(&ask(STORE, dir.path(), "localhost")), (Scheme::Https, false));
    assert_eq!(of(&ask(STORE, dir.path(), "r.test:5000")), (Scheme::Https, true));
    let roots = [dir.path().join("etc/docker/certs.d")];
    let here = Situation {
        places: Places::Roots(&roots),
        version: Some(Version::new(1, 6, 20)),
        ..Situation::here(dir.path(), OffsetDateTime::now_utc())
    };
    let old = predict(CONTAINERD, &here, &"localhost:5000".parse().unwrap());
    assert_eq!(old.outcome, Outcome::NotRead(UnreadReason::PlainHttp));
    let nerdctl = ask(&EngineProfile::NERDCTL, dir.path(), "localhost:5000");
    assert_eq!(of(&nerdctl), (Scheme::HttpsThenHttp, true), "files are explicit TLS");
}

fn buildkit(text: &str, files: &[(&str, &[u8])]) -> Prediction {
    let dir = tree(files);
    write(&dir.path().join("etc/buildkit/buildkitd.toml"), text.as_bytes());
    ask(&EngineProfile::BUILDKIT, dir.path(), HOST)
}

#[test]
fn buildkitd_toml() {
    let (ca, cert, key) = (bytes("ca.crt"), bytes("recipe.cert"), bytes("rsa.key"));
    let files: [(&str, &[u8]); 4] =
        [("c/ca.crt", &ca), ("c/c.cert", &cert), ("c/c.key", &key), ("d/x.crt", b"garbage")];
    let ask = |text: &str| buildkit(text, &files);
    let whole = "[registry.\"r.test:5000\"]\nca = [\"/c/ca.crt\"]\n[[registry.\"r.test:5000\".keypair]]\nkey = \"/c/c.key\"\ncert = \"/c/c.cert\"\n";
    assert_eq!(verdict(&ask(whole)), "r.test:5000: ca.crt / c.cert");
    let directory = "[registry.\"r.test:5000\"]\ntlsconfigdir = [\"/c\", \"/none\", \"/d\"]\n";
    assert_eq!(verdict(&ask(directory)), "r.test:5000: ca.crt / c.cert", "garbage is silent");
    assert_eq!(ask("[registry.\"r.test\"]\nca = [\"/none\"]\n").outcome, Outcome::NoFiles);
    let missing =
        "[registry.\"r.test:5000\"]\n[[registry.\"r.test:5000\".keypair]]\nkey = \"/c/no.key\"\ncert = \"/c/c.cert\"\n";
    assert!(verdict(&ask(missing)).contains("open /c/no.key: no such file or directory"), "{}", verdict(&ask(missing)));
    assert!(verdict(&ask(missing)).starts_with("failed to load keypair for /c/c.cert: "), "{}", verdict(&ask(missing)));
    let insecure = ask("[registry.\"r.test:5000\"]\ninsecure = true\nca = [\"/c/ca.crt\"]\n");
    assert!(!insecure.registry().unwrap().verifies && insecure.registry().unwrap().roots.len() == 1);
    assert_eq!(ask("[registry.\"r.test:5000\"]\nhttp = true\n").outcome, Outcome::NotRead(UnreadReason::PlainHttp));
    let mirrored =
        ask("[registry.\"r.test:5000\"]\nmirrors = [\"m.test/v2\"]\n[registry.\"m.test\"]\nca = [\"/c/ca.crt\"]\n");
    assert_eq!(verdict(&mirrored), "m.test: ca.crt / ; r.test:5000:  / ");
    let broken = ask("[registry.\"r.test:5000\"]\nca = 5\n");
    assert_eq!((broken.findings[0].line, broken.findings[0].code()), (Some(2), "D81"));
    assert!(matches!(broken.outcome, Outcome::Fails { .. }));
    assert_eq!(ask_nothing().outcome, Outcome::NoFiles);
}

fn ask_nothing() -> Prediction {
    ask(&EngineProfile::BUILDKIT, tree(&[]).path(), HOST)
}

fn k3s(text: &str) -> Prediction {
    let dir =
        tree(&[("c/ca.crt", &bytes("ca.crt")), ("c/c.cert", &bytes("recipe.cert")), ("c/c.key", &bytes("rsa.key"))]);
    write(&dir.path().join("etc/rancher/k3s/registries.yaml"), text.as_bytes());
    ask(&EngineProfile::K3S, dir.path(), HOST)
}

#[test]
fn registries_yaml() {
    let tls = "    tls:\n      ca_file: /c/ca.crt\n      cert_file: /c/c.cert\n      key_file: /c/c.key\n";
    assert_eq!(verdict(&k3s(&format!("configs:\n  \"r.test:5000\":\n{tls}"))), "r.test:5000: ca.crt / c.cert");
    assert_eq!(verdict(&k3s(&format!("configs:\n  \"*\":\n{tls}"))), "r.test:5000: ca.crt / c.cert");
    assert_eq!(k3s(&format!("configs:\n  r.test:\n{tls}")).outcome, Outcome::NoFiles, "the port is part of the key");
    let mirrored =
        k3s(&format!("mirrors:\n  r.test:5000:\n    endpoint: [\"https://m.test/v2\"]\nconfigs:\n  m.test:\n{tls}"));
    assert_eq!(verdict(&mirrored), "m.test: ca.crt / c.cert; r.test:5000:  / ");
    let half = k3s("configs:\n  r.test:5000:\n    tls:\n      cert_file: /c/c.cert\n");
    assert_eq!(verdict(&half), "cert file \"/c/c.cert\" was specified, but no corresponding key file was specified");
    let scheme = k3s(&format!("configs:\n  https://r.test:5000:\n{tls}"));
    assert_eq!((scheme.outcome.clone(), codes(&scheme)), (Outcome::NoFiles, vec!["D81 registries.yaml".to_owned()]));
    assert_eq!(scheme.findings.iter().map(|finding: &Finding| finding.line).collect::<Vec<_>>(), [Some(2)]);
    let skip = k3s("configs:\n  r.test:5000:\n    tls:\n      insecure_skip_verify: yes\n");
    assert!(!skip.registry().unwrap().verifies);
}

#[test]
fn predictions_say_whether_a_test_has_run_the_engine() {
    let nothing = tree(&[]);
    let basis = |profile: &EngineProfile| ask(profile, nothing.path(), HOST).basis();
    for profile in [STORE, &EngineProfile::NERDCTL, &EngineProfile::BUILDKIT, &EngineProfile::K3S] {
        assert!(basis(profile).contains("no test has run it"), "{}", basis(profile));
    }
    assert!(basis(CONTAINERD).contains("checked against ctr 1.6.20"));
}

/// With another root every name in the machine's files means a place below it: absolute ones, and those that climb.
#[test]
fn absolute_names_stay_below_the_root() {
    let outside = tree(&[("outside.crt", bytes("ca.crt").as_slice())]);
    let climbing = format!("{}{}", "../".repeat(20), outside.path().join("outside.crt").display());
    let text = format!(
        "server = \"https://{HOST}\"\nca = [\"/opt/pki/ca.crt\", \"{climbing}\", \"{}\"]\n",
        outside.path().join("outside.crt").display()
    );
    let dir = tree(&[("etc/containerd/config.toml", PATH_SET), ("opt/pki/ca.crt", bytes("ca.crt").as_slice())]);
    write(&dir.path().join("etc/containerd/certs.d").join(HOST).join("hosts.toml"), text.as_bytes());
    let made = of_version(CONTAINERD, dir.path(), Version::new(2, 0, 0));
    let Outcome::Fails { at, .. } = &made.outcome else { panic!("{:?}", made.outcome) };
    assert!(at.starts_with(dir.path()), "{}", at.display());
    let text = format!("server = \"https://{HOST}\"\nca = \"/opt/pki/ca.crt\"\n");
    write(&dir.path().join("etc/containerd/certs.d").join(HOST).join("hosts.toml"), text.as_bytes());
    let made = of_version(CONTAINERD, dir.path(), Version::new(2, 0, 0));
    assert_eq!(made.registry().unwrap().roots[0].path, dir.path().join("opt/pki/ca.crt"));
}
