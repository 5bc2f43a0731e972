//! What engines make of trees of files, as tables: the same tree, each engine's verdict.

use crate::fixture::{bytes, certificate, tree, write};
use portcullis_certs::{
    CertificateRequest, Choice, EngineProfile, EngineUser, Finding, Look, Outcome, Places, Prediction, Situation,
    Skipped, TlsVersion, UnreadReason, Version, predict,
};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use time::OffsetDateTime;

const HOST: &str = "r.test:5000";

fn situation(root: &Path) -> Situation<'_> {
    Situation::here(root, OffsetDateTime::now_utc())
}

fn ask(profile: &EngineProfile, root: &Path, host: &str) -> Prediction {
    predict(profile, &situation(root), &host.parse().unwrap())
}

/// The files in the directory that Docker and Podman share.
fn in_docker(files: &[(&str, &[u8])]) -> TempDir {
    let files: Vec<(String, &[u8])> =
        files.iter().map(|(name, content)| (format!("etc/docker/certs.d/{HOST}/{name}"), *content)).collect();
    tree(&files.iter().map(|(name, content)| (name.as_str(), *content)).collect::<Vec<_>>())
}

fn names(paths: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    paths.into_iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

/// `loaded: roots / pairs`, or the engine's words.
fn verdict(made: &Prediction) -> String {
    match &made.outcome {
        Outcome::Loaded => {
            let endpoint = made.registry().unwrap();
            let roots = names(endpoint.roots.iter().map(|root| root.path.clone())).join(" ");
            let pairs = names(endpoint.pairs.iter().map(|pair| pair.cert_path.clone())).join(" ");
            format!("loaded: {roots} / {pairs}")
        }
        Outcome::Fails { text, .. } => text.clone(),
        other => format!("{other:?}"),
    }
}

fn verdicts(files: &[(&str, &[u8])]) -> [String; 2] {
    let dir = in_docker(files);
    [EngineProfile::DOCKER, EngineProfile::PODMAN].map(|profile| verdict(&ask(&profile, dir.path(), HOST)))
}

#[test]
fn a_whole_directory_is_loaded_by_each() {
    let files: [(&str, &[u8]); 5] = [
        ("ca.crt", &bytes("ca.crt")),
        ("b.cert", &bytes("recipe.cert")),
        ("b.key", &bytes("rsa.key")),
        ("a.cert", &bytes("leaf.crt")),
        ("a.key", &bytes("p256.key")),
    ];
    assert_eq!(verdicts(&files), ["loaded: ca.crt / a.cert b.cert"; 2].map(str::to_owned));
    let dir = in_docker(&files);
    let made = ask(&EngineProfile::PODMAN, dir.path(), HOST);
    let looks: Vec<Look> = made.tried.iter().map(|tried| tried.look).collect();
    assert_eq!(looks, [Look::Missing, Look::Missing, Look::Taken]);
    assert!(made.taken().unwrap().ends_with("etc/docker/certs.d/r.test:5000"));
    let endpoint = made.registry().unwrap();
    assert!(endpoint.verifies && endpoint.system_roots);
    assert_eq!(endpoint.roots[0].certificate, certificate("ca.crt"));
}

/// The first fault in the engine's own order, in its own words.
#[test]
fn each_engine_stops_at_its_first_fault() {
    let (cert, key) = (bytes("recipe.cert"), bytes("rsa.key"));
    let in_docker_and_podman = [
        (
            vec![("client.cert", &cert[..])],
            "missing key client.key for client certificate client.cert. CA certificates must use the extension .crt",
            "missing key client.key for client certificate client.cert. Note that CA certificates should use the extension .crt",
        ),
        (
            vec![("client.key", &key[..])],
            "missing client certificate client.cert for key client.key",
            "missing client certificate client.cert for key client.key",
        ),
        // The certificate's name comes before the orphan's: a pair fails where its `.cert` stands.
        (
            vec![("b.cert", &cert[..]), ("b.key", b""), ("c.key", &key)],
            "tls: failed to find any PEM data in key input",
            "tls: failed to find any PEM data in key input",
        ),
        (
            vec![("a.key", &key[..]), ("b.cert", &cert[..])],
            "missing client certificate a.cert for key a.key",
            "missing client certificate a.cert for key a.key",
        ),
    ];
    for (files, docker, podman) in in_docker_and_podman {
        assert_eq!(verdicts(&files), [docker.to_owned(), podman.to_owned()]);
    }
}

#[test]
fn pairs_in_gos_words() {
    let (cert, key) = (bytes("recipe.cert"), bytes("rsa.key"));
    let bundle = [bytes("ca.crt"), cert.clone()].concat();
    let cases: [(&[u8], &[u8], &str); 13] = [
        (b"", &key, "tls: failed to find any PEM data in certificate input"),
        (&bytes("ca.der"), &key, "tls: failed to find any PEM data in certificate input"),
        (
            &key,
            &cert,
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched",
        ),
        (&cert, &cert, "tls: found a certificate rather than a key in the PEM for the private key"),
        (&cert, &bytes("rsa.der"), "tls: failed to find any PEM data in key input"),
        (&cert, &bytes("encrypted.pkcs8.key"), "tls: failed to parse private key"),
        (&cert, &bytes("encrypted.traditional.key"), "tls: failed to parse private key"),
        (&cert, &bytes("ed448.key"), "tls: failed to parse private key"),
        (&cert, &bytes("p256.key"), "tls: private key type does not match public key type"),
        (&bytes("p384.crt"), &bytes("p256.key"), "tls: private key does not match public key"),
        (&bundle, &key, "tls: private key type does not match public key type"),
        (
            &bytes("trusted.crt"),
            &key,
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [TRUSTED CERTIFICATE]",
        ),
        (
            &cert,
            &bytes("public.pem"),
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [PUBLIC KEY]",
        ),
    ];
    for (cert, key, text) in cases {
        assert_eq!(verdicts(&[("c.cert", cert), ("c.key", key)]), [text.to_owned(), text.to_owned()]);
    }
}

/// What our own client does not take for a key is a pair to Go.
#[test]
fn short_rsa_keys_are_loaded_by_go() {
    let files: [(&str, &[u8]); 2] = [("c.cert", &bytes("rsa1024.crt")), ("c.key", &bytes("rsa1024.key"))];
    assert_eq!(verdicts(&files), ["loaded:  / c.cert"; 2].map(str::to_owned));
}

#[test]
fn the_words_are_those_of_the_version() {
    let dir = in_docker(&[("c.cert", &bytes("recipe.cert"))]);
    let words = |major, minor| {
        let version = Version::new(major, minor, 0);
        let here = Situation { version: Some(version), ..situation(dir.path()) };
        let made = predict(&EngineProfile::DOCKER, &here, &HOST.parse().unwrap());
        assert!(made.version_found && made.row.unwrap().0.holds(version));
        verdict(&made)
    };
    assert_eq!(words(1, 10), "Missing key c.key for certificate c.cert");
    assert!(words(17, 8).ends_with("Note that CA certificates should use the extension .crt."));
    assert!(words(20, 10).starts_with("missing key c.key") && words(20, 10).ends_with("should use the extension .crt"));
    assert!(words(29, 0).ends_with("CA certificates must use the extension .crt"));
    let assumed = ask(&EngineProfile::DOCKER, dir.path(), HOST);
    assert!(!assumed.version_found);
    assert!(assumed.basis().starts_with("Docker Engine 29.0.0 (assumed)"), "{}", assumed.basis());
}

#[test]
fn roots_that_are_no_files() {
    let dir = in_docker(&[("ok.crt", &bytes("ca.crt")), ("zz.crt", b"garbage")]);
    let at = |name: &str| dir.path().join(format!("etc/docker/certs.d/{HOST}/{name}"));
    let both =
        || [EngineProfile::DOCKER, EngineProfile::PODMAN].map(|profile| verdict(&ask(&profile, dir.path(), HOST)));
    assert_eq!(both(), ["loaded: ok.crt / "; 2].map(str::to_owned));
    symlink("nowhere", at("gone.crt")).unwrap();
    let gone = "open /etc/docker/certs.d/r.test:5000/gone.crt: no such file or directory";
    assert_eq!(both(), [gone, "loaded: ok.crt / "].map(str::to_owned));
    fs::create_dir(at("dir.crt")).unwrap();
    let directory = "read /etc/docker/certs.d/r.test:5000/dir.crt: is a directory";
    assert_eq!(both(), [directory; 2].map(str::to_owned));
    assert!(std::process::Command::new("mkfifo").arg(at("a.crt")).status().unwrap().success());
    assert!(both().iter().all(|verdict| verdict.starts_with("Hangs")));
}

#[test]
fn what_stands_in_the_directorys_place() {
    let dir = tree(&[("etc/docker/certs.d/r.test:5000", b"")]);
    let text = "readdirent /etc/docker/certs.d/r.test:5000: not a directory";
    for profile in [EngineProfile::DOCKER, EngineProfile::PODMAN] {
        assert_eq!(verdict(&ask(&profile, dir.path(), HOST)), text);
    }
    let nothing = tree(&[]);
    for profile in [EngineProfile::DOCKER, EngineProfile::PODMAN] {
        let made = ask(&profile, nothing.path(), HOST);
        assert_eq!(made.outcome, Outcome::NoFiles);
        assert!(made.registry().unwrap().system_roots && made.taken().is_none());
    }
}

/// The first that exists wins, also when it is empty; only Podman has several.
#[test]
fn podman_takes_the_first_of_three() {
    let dir = in_docker(&[("ca.crt", &bytes("ca.crt"))]);
    let home = dir.path().join("root/.config/containers/certs.d").join(HOST);
    fs::create_dir_all(&home).unwrap();
    let made = ask(&EngineProfile::PODMAN, dir.path(), HOST);
    assert_eq!((made.taken(), verdict(&made)), (Some(home.as_path()), "loaded:  / ".to_owned()));
    assert_eq!(made.masked().count(), 1);
    let other = EngineUser::Rootless { home: Path::new("/home/a"), config_home: Some(Path::new("/xdg")) };
    let rootless = Situation { user: other, ..situation(dir.path()) };
    assert_eq!(verdict(&predict(&EngineProfile::PODMAN, &rootless, &HOST.parse().unwrap())), "loaded: ca.crt / ");
    let docker = predict(&EngineProfile::DOCKER, &rootless, &HOST.parse().unwrap());
    assert_eq!(docker.outcome, Outcome::NoFiles, "rootless Docker never reads /etc/docker");
    assert_eq!(docker.tried[0].path, dir.path().join("xdg/docker/certs.d").join(HOST));
}

/// `--cert-dir` names the host's directory itself.
#[test]
fn a_directory_of_ones_own() {
    let dir = in_docker(&[("ca.crt", &bytes("ca.crt"))]);
    let given = |path: &Path| {
        let situation = Situation { places: Places::HostDirectory(path), ..situation(dir.path()) };
        predict(&EngineProfile::PODMAN, &situation, &HOST.parse().unwrap())
    };
    let parent = dir.path().join("etc/docker/certs.d");
    assert_eq!(verdict(&given(&parent.join(HOST))), "loaded: ca.crt / ");
    assert_eq!(verdict(&given(&parent)), "loaded:  / ");
    assert_eq!(given(&dir.path().join("none")).outcome, Outcome::NoFiles);
}

#[test]
fn an_insecure_registry_has_no_directory_in_docker() {
    let dir = in_docker(&[("client.cert", &bytes("recipe.cert"))]);
    let loopback: [IpAddr; 1] = ["127.0.1.1".parse().unwrap()];
    let here = Situation { addresses: &loopback, ..situation(dir.path()) };
    let made = predict(&EngineProfile::DOCKER, &here, &HOST.parse().unwrap());
    assert_eq!(made.outcome, Outcome::NotRead(UnreadReason::Loopback(loopback[0])));
    assert!(!made.registry().unwrap().verifies);
    let listed = ["r.test:5000".to_owned()];
    let here = Situation { insecure_registries: &listed, ..situation(dir.path()) };
    let made = predict(&EngineProfile::DOCKER, &here, &HOST.parse().unwrap());
    assert_eq!(made.outcome, Outcome::NotRead(UnreadReason::Insecure(listed[0].clone())));
    // Podman reads it all the same, and stops at the fault.
    let made = predict(&EngineProfile::PODMAN, &here, &HOST.parse().unwrap());
    assert!(matches!(made.outcome, Outcome::Fails { .. }));
    let hub = ask(&EngineProfile::DOCKER, dir.path(), "docker.io");
    assert_eq!(hub.outcome, Outcome::NotRead(UnreadReason::DockerHub));
}

#[test]
fn a_go_client_sends_the_first_pair_that_fits() {
    let files: [(&str, &[u8]); 4] = [
        ("a.cert", &bytes("recipe.cert")),
        ("a.key", &bytes("rsa.key")),
        ("b.cert", &bytes("direct.crt")),
        ("b.key", &bytes("p384.key")),
    ];
    let dir = in_docker(&files);
    let made = ask(&EngineProfile::DOCKER, dir.path(), HOST);
    let endpoint = made.registry().unwrap();
    let choose = |schemes: &[u16], authorities: &[Vec<u8>]| match endpoint.choose(&CertificateRequest {
        version: TlsVersion::V1_3,
        schemes,
        authorities,
    }) {
        Choice::Sends { pair, skipped } => (names([pair.cert_path.clone()]).remove(0), skipped),
        Choice::SendsNothing { skipped } => ("nothing".to_owned(), skipped),
    };
    let subject = |name: &str| certificate(name).facts().subject.der().to_vec();
    assert_eq!(choose(&[], &[]), ("a.cert".to_owned(), vec![]), "no hints: the first in byte order");
    assert_eq!(choose(&[], &[subject("ca.crt")]), ("b.cert".to_owned(), vec![Skipped::NoListedIssuer]));
    assert_eq!(choose(&[0x0503], &[]), ("b.cert".to_owned(), vec![Skipped::NoScheme]));
    let none = choose(&[0x0503], &[subject("v1.crt")]);
    assert_eq!(none, ("nothing".to_owned(), vec![Skipped::NoScheme, Skipped::NoListedIssuer]));
}

/// moby#21148: a `.cert` without its intermediate is not sent to a server that lists the root only.
#[test]
fn the_intermediate_decides_whether_a_pair_is_sent() {
    let key = bytes("p256.key");
    let hint = [certificate("ca.crt").facts().subject.der().to_vec()];
    let request = CertificateRequest { version: TlsVersion::V1_3, schemes: &[], authorities: &hint };
    let sends = |cert: &[u8]| {
        let dir = in_docker(&[("c.cert", cert), ("c.key", &key)]);
        let made = ask(&EngineProfile::DOCKER, dir.path(), HOST);
        matches!(made.registry().unwrap().choose(&request), Choice::Sends { .. })
    };
    assert!(!sends(&bytes("leaf.crt")));
    assert!(sends(&[bytes("leaf.crt"), bytes("int.crt")].concat()));
}

#[test]
fn near_misses_are_told_where_there_is_no_directory() {
    let dir = tree(&[]);
    write(&dir.path().join("etc/docker/certs.d/r.test/ca.crt"), &bytes("ca.crt"));
    let made = ask(&EngineProfile::DOCKER, dir.path(), HOST);
    assert_eq!(made.findings.iter().map(Finding::code).collect::<Vec<_>>(), ["D06"]);
}
