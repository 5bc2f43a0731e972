//! Host directories, as each profile takes them.

use crate::fixture::{bytes, certificate, tree, write};
use portcullis_certs::{
    CertsLocation, EngineProfile, Fault, Finding, Fix, HostCerts, LookAlike, Severity, read_host_certs,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use time::{Duration, OffsetDateTime};

const DOCS: &EngineProfile = &EngineProfile::DOCKER_DOCS;
const PODMAN: &EngineProfile = &EngineProfile::PODMAN;

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn read_root(profile: &EngineProfile, root: &Path, host: &str) -> (HostCerts, Vec<Finding>) {
    read_host_certs(profile, CertsLocation::Root(root), &host.parse().unwrap(), now())
}

/// Reads a directory of these files.
fn read_at(profile: &EngineProfile, files: &[(&str, &[u8])], now: OffsetDateTime) -> (HostCerts, Vec<Finding>) {
    let dir = tree(files);
    read_host_certs(profile, CertsLocation::HostDirectory(dir.path()), &"r.test".parse().unwrap(), now)
}

/// What came of a directory: pairs' names, number of roots, findings as `severity code file:line`.
fn summary(certs: &HostCerts, findings: &[Finding]) -> (Vec<String>, usize, Vec<String>) {
    let pairs = certs.pairs.iter().map(|pair| pair.name.clone()).collect();
    let line = |finding: &Finding| {
        let name = finding.path.file_name().unwrap().to_string_lossy();
        let line = finding.line.map_or(String::new(), |line| format!(":{line}"));
        format!("{} {} {name}{line}", finding.severity, finding.code())
    };
    (pairs, certs.roots.len(), findings.iter().map(line).collect())
}

fn check(
    profile: &EngineProfile,
    files: &[(&str, &[u8])],
    pairs: &[&str],
    roots: usize,
    expected: &[&str],
) -> Vec<Finding> {
    let (certs, findings) = read_at(profile, files, now());
    let (found_pairs, found_roots, found) = summary(&certs, &findings);
    assert_eq!(
        (found_pairs.as_slice(), found_roots, found.as_slice()),
        (
            &pairs.iter().map(ToString::to_string).collect::<Vec<_>>()[..],
            roots,
            &expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..]
        )
    );
    findings
}

fn text_of(finding: &Finding) -> String {
    finding.fault.to_string()
}

#[test]
fn the_pages_directory() {
    let dir = tree(&[
        ("localhost:5000/ca.crt", &bytes("ca.crt")),
        ("localhost:5000/client.cert", &bytes("recipe.cert")),
        ("localhost:5000/client.key", &bytes("rsa.key")),
    ]);
    for profile in [DOCS, PODMAN] {
        let (certs, findings) = read_root(profile, dir.path(), "localhost:5000");
        assert_eq!(findings, []);
        assert_eq!(certs.directory.as_deref(), Some(dir.path().join("localhost:5000").as_path()));
        assert_eq!(certs.roots, [certificate("ca.crt")]);
        let [pair] = &certs.pairs[..] else { panic!("{certs:?}") };
        assert_eq!((pair.name.as_str(), &pair.chain[..]), ("client", &[certificate("recipe.cert")][..]));
        assert!(pair.cert_path.ends_with("localhost:5000/client.cert") && pair.key_path.ends_with("client.key"));
        assert!(pair.key.matches(&pair.chain[0]));
    }
}

#[test]
fn a_missing_key_is_told_in_the_pages_words() {
    let findings = check(DOCS, &[("client.cert", &bytes("leaf.crt"))], &[], 0, &["fatal D20 client.cert"]);
    assert_eq!(
        text_of(&findings[0]),
        "Missing key client.key for client certificate client.cert. CA certificates should use the extension .crt."
    );
    assert!(matches!(findings[0].fix(), Fix::Say { .. }));
    let findings = check(PODMAN, &[("ca.cert", &bytes("ca.crt"))], &[], 0, &["fatal D20 ca.cert"]);
    let Fix::Run(command) = findings[0].fix() else { panic!() };
    assert!(command.to_string().starts_with("mv -i ") && command.to_string().ends_with("/ca.crt"), "{command}");
}

#[test]
fn an_orphan_key_is_a_warning_to_the_page_and_fatal_to_podman() {
    let key = bytes("p256.key");
    for (profile, severity) in [(DOCS, "warning"), (PODMAN, "fatal")] {
        check(profile, &[("client.key", &key)], &[], 0, &[&format!("{severity} D21 client.key")]);
        let files: [(&str, &[u8]); 2] = [("r.crt", &bytes("p256.crt")), ("r.key", &key)];
        let findings = check(profile, &files, &[], 1, &[&format!("{severity} D21 r.key")]);
        assert!(findings[0].fix().to_string().ends_with("r.cert"), "rename it to .cert: {}", findings[0].fix());
        let kubernetes: [(&str, &[u8]); 2] = [("tls.crt", &bytes("p256.crt")), ("tls.key", &key)];
        check(profile, &kubernetes, &[], 1, &[&format!("{severity} D24 tls.key")]);
    }
}

#[test]
fn the_key_of_a_ca_is_recognized() {
    let files: [(&str, &[u8]); 2] = [("mine.crt", &bytes("ca.crt")), ("other.key", &bytes("ca.key"))];
    check(DOCS, &files, &[], 1, &["warning D22 other.key"]);
    // `openssl req -x509` writes no keyUsage: only the name tells this one from a client's certificate.
    let files: [(&str, &[u8]); 2] = [("ca.crt", &bytes("p256.crt")), ("ca.key", &bytes("p256.key"))];
    check(DOCS, &files, &[], 1, &["warning D22 ca.key"]);
}

#[test]
fn several_pairs_come_in_byte_order_and_names_are_taken_byte_for_byte() {
    let (cert, key) = (bytes("recipe.cert"), bytes("rsa.key"));
    let names = ["10", "2", "Z", "a", "é", "x y", ".hidden", ""];
    let files: Vec<(String, &[u8])> = names
        .iter()
        .flat_map(|name| [(format!("{name}.cert"), &cert[..]), (format!("{name}.key"), &key[..])])
        .collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (name.as_str(), *content)).collect();
    let hidden = ["note D25 .cert", "note D25 .hidden.cert", "note D25 .hidden.key", "note D25 .key"];
    check(DOCS, &files, &["", ".hidden", "10", "2", "Z", "a", "x y", "é"], 0, &hidden);
}

#[test]
fn names_that_engines_pass_over_are_told() {
    let (leaf, key) = (bytes("leaf.crt"), bytes("p256.key"));
    let files: [(&str, &[u8]); 10] = [
        ("CA.CRT", &bytes("ca.crt")),
        ("b.pem", &bytes("ca.crt")),
        ("c.cer", &leaf),
        ("d.pem", &key),
        ("e.p12", &bytes("client.p12")),
        ("f.crt", &bytes("ca.crt")),
        ("f.pem", &bytes("ca.crt")),
        ("g.Key", &key),
        ("h.crt.bak", b"old"),
        ("README", b"text"),
    ];
    let expected = [
        "warning D23 CA.CRT",
        "warning D23 b.pem",
        "warning D23 c.cer",
        "warning D23 d.pem",
        "warning D26 e.p12",
        "note D23 f.pem",
        "warning D23 g.Key",
    ];
    let findings = check(DOCS, &files, &[], 1, &expected);
    let wanted: Vec<String> = findings
        .iter()
        .filter_map(|finding| match &finding.fault {
            Fault::IgnoredName { wanted } => Some(wanted.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(wanted, ["CA.crt", "b.crt", "c.cert", "d.key", "f.crt", "g.key"]);
}

#[test]
fn a_crt_without_one_usable_certificate_is_fatal_to_the_page_and_silent_in_podman() {
    let apple = [0, 5, 0x16, 7, 0, 2, 0, 0];
    let contents: [(&[u8], &str); 6] = [
        (b"", "D26 x.crt"),
        (b"garbage", "D26 x.crt"),
        (&bytes("ca.der"), "D26 x.crt"),
        (&bytes("ca.key"), "D32 x.crt:1"),
        (&apple, "D25 x.crt"),
        (b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n", "D27 x.crt:1"),
    ];
    for (content, code) in contents {
        check(DOCS, &[("x.crt", content)], &[], 0, &[&format!("fatal {code}")]);
        check(PODMAN, &[("x.crt", content)], &[], 0, &[&format!("warning {code}")]);
    }
    let bundle =
        [bytes("ca.crt"), b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n".to_vec(), bytes("v1.crt")]
            .concat();
    let line = bytes("ca.crt").iter().filter(|&&b| b == b'\n').count() + 1;
    check(DOCS, &[("x.crt", &bundle)], &[], 2, &[&format!("warning D27 x.crt:{line}")]);
}

#[test]
fn what_is_no_file_is_never_opened() {
    let dir = tree(&[("ok.crt", &bytes("ca.crt"))]);
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("dir.crt")).unwrap();
    fs::create_dir(path("sub")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path("fifo.crt")).status().unwrap().success());
    symlink("nowhere", path("gone.crt")).unwrap();
    symlink("ok.crt", path("link.crt")).unwrap();
    symlink("/dev/zero", path("zero.cert")).unwrap();
    write(&path("zero.key"), &bytes("rsa.key"));
    let read = |profile| {
        let (certs, findings) =
            read_host_certs(profile, CertsLocation::HostDirectory(dir.path()), &"r.test".parse().unwrap(), now());
        summary(&certs, &findings)
    };
    let rest = ["fatal D36 zero.cert"];
    assert_eq!(
        read(DOCS),
        (
            vec![],
            2,
            [&["fatal D36 dir.crt", "fatal D36 fifo.crt", "fatal D36 gone.crt"][..], &rest]
                .concat()
                .iter()
                .map(ToString::to_string)
                .collect()
        )
    );
    assert_eq!(
        read(PODMAN),
        (
            vec![],
            2,
            [&["fatal D36 dir.crt", "fatal D36 fifo.crt", "warning D36 gone.crt"][..], &rest]
                .concat()
                .iter()
                .map(ToString::to_string)
                .collect()
        )
    );
}

#[test]
fn pairs_that_do_not_load_say_why() {
    let (cert, key) = (bytes("recipe.cert"), bytes("rsa.key"));
    let encrypted = bytes("encrypted.pkcs8.key");
    let other = bytes("p384.key");
    let cases: [(&[u8], &[u8], &str); 7] = [
        (b"", &key, "fatal D26 a.cert"),
        (&cert, b"", "fatal D26 a.key"),
        (&cert, &encrypted, "fatal D29 a.key"),
        (&cert, &bytes("rsa1024.key"), "fatal D30 a.key"),
        (&cert, &other, "fatal D31 a.key"),
        (&key, &cert, "fatal D32 a.cert"),
        (&cert, &cert, "fatal D32 a.key"),
    ];
    for (cert, key, expected) in cases {
        for profile in [DOCS, PODMAN] {
            let (certs, findings) = read_at(profile, &[("a.cert", cert), ("a.key", key)], now());
            let (pairs, _, found) = summary(&certs, &findings);
            let found: Vec<String> = found.iter().map(|text| text.split(':').next().unwrap().to_owned()).collect();
            assert_eq!((pairs, found), (vec![], vec![expected.to_owned()]));
        }
    }
}

#[test]
fn a_mismatched_key_is_told_whose_it_is() {
    let files: [(&str, &[u8]); 4] = [
        ("a.cert", &bytes("recipe.cert")),
        ("a.key", &bytes("p256.key")),
        ("b.cert", &bytes("p256.crt")),
        ("b.key", &bytes("rsa.key")),
    ];
    let findings = check(DOCS, &files, &[], 0, &["fatal D31 a.key", "fatal D31 b.key"]);
    assert_eq!(text_of(&findings[0]), "key a.key does not belong to certificate a.cert; it belongs to b.cert");
    assert_eq!(text_of(&findings[1]), "key b.key does not belong to certificate b.cert; it belongs to a.cert");
    assert!(
        findings.iter().all(|finding| matches!(finding.fix(), Fix::Say { .. })),
        "no command may overwrite the other key"
    );
}

#[test]
fn swapped_files_can_be_swapped_back_by_the_command() {
    let dir = tree(&[("a.cert", &bytes("rsa.key")), ("a.key", &bytes("recipe.cert"))]);
    let read = || read_host_certs(DOCS, CertsLocation::HostDirectory(dir.path()), &"r.test".parse().unwrap(), now());
    let command = read().1[0].fix().to_string();
    assert!(std::process::Command::new("sh").arg("-c").arg(&command).status().unwrap().success(), "{command}");
    let (certs, findings) = read();
    assert_eq!(summary(&certs, &findings), (vec!["a".to_owned()], 0, vec![]));
}

#[test]
fn the_order_of_the_chain() {
    let (leaf, int, key) = (bytes("leaf.crt"), bytes("int.crt"), bytes("p256.key"));
    let right = [leaf.clone(), int.clone(), bytes("ca.crt")].concat();
    let (certs, findings) = read_at(DOCS, &[("a.cert", &right), ("a.key", &key)], now());
    assert_eq!((certs.pairs[0].chain.len(), findings), (3, Vec::new()));
    let lines = |content: &[u8]| content.iter().filter(|&&b| b == b'\n').count();
    let wrong = [int.clone(), leaf.clone()].concat();
    let second = lines(&int) + 1;
    let expected = format!("fatal D33 a.cert:{second}");
    let findings = check(DOCS, &[("a.cert", &wrong), ("a.key", &key)], &[], 0, &[&expected]);
    assert!(text_of(&findings[0]).contains("number 2"));
    let stray = [leaf.clone(), bytes("v1.crt")].concat();
    let line = lines(&leaf) + 1;
    check(DOCS, &[("a.cert", &stray), ("a.key", &key)], &["a"], 0, &[&format!("warning D33 a.cert:{line}")]);
}

#[test]
fn what_will_be_refused_is_a_warning_and_still_presented() {
    let files: [(&str, &[u8]); 4] = [
        ("a.cert", &bytes("leaf.crt")),
        ("a.key", &bytes("p256.key")),
        ("b.cert", &bytes("server.crt")),
        ("b.key", &bytes("p256.key")),
    ];
    check(DOCS, &files, &["a", "b"], 0, &["warning D44 b.cert:1"]);
    let (certs, findings) = read_at(DOCS, &files[..2], now() + Duration::days(400));
    assert_eq!(summary(&certs, &findings), (vec!["a".into()], 0, vec!["warning D40 a.cert:1".into()]));
    let (certs, findings) = read_at(DOCS, &files[..2], now() - Duration::days(400));
    assert_eq!(summary(&certs, &findings), (vec!["a".into()], 0, vec!["warning D40 a.cert:1".into()]));
}

#[test]
fn roots_that_engines_take_otherwise_than_people_think() {
    check(DOCS, &[("a.crt", &bytes("leaf.crt"))], &[], 1, &["note D43 a.crt:1"]);
    check(DOCS, &[("a.crt", &bytes("odd.crt"))], &[], 1, &["warning D42 a.crt:1"]);
    check(DOCS, &[("a.crt", &bytes("v1.crt"))], &[], 1, &[]);
    let (certs, findings) = read_at(DOCS, &[("a.crt", &bytes("ca.crt"))], now() + Duration::days(400));
    assert_eq!(summary(&certs, &findings), (vec![], 1, vec!["warning D41 a.crt:1".into()]));
}

#[test]
fn keys_that_others_can_read_are_a_warning() {
    let dir = tree(&[("a.cert", &bytes("recipe.cert")), ("a.key", &bytes("rsa.key"))]);
    let by_user = usize::from(fs::metadata(dir.path()).unwrap().uid() != 0);
    for (mode, expected) in [(0o600, 0), (0o400, 0), (0o640, by_user), (0o644, 1), (0o604, 1), (0o660, 1)] {
        fs::set_permissions(dir.path().join("a.key"), fs::Permissions::from_mode(mode)).unwrap();
        let (certs, findings) =
            read_host_certs(DOCS, CertsLocation::HostDirectory(dir.path()), &"r.test".parse().unwrap(), now());
        assert_eq!((certs.pairs.len(), findings.len()), (1, expected), "{mode:o}");
        for finding in findings {
            assert_eq!((finding.severity, finding.fault), (Severity::Warning, Fault::KeyReadable { mode }));
        }
    }
}

#[test]
fn a_host_without_directory_is_fine() {
    let dir = tree(&[("s.test/ca.crt", &bytes("ca.crt"))]);
    let (certs, findings) = read_root(DOCS, dir.path(), "r.test");
    assert_eq!((certs.directory, certs.roots.len(), certs.pairs.len(), findings), (None, 0, 0, Vec::new()));
}

#[test]
fn a_directory_that_looks_like_the_wanted_one_is_noted() {
    let (wanted, parent) = ("r.test:5443", tree(&[]));
    let root = parent.path().join("certs.d");
    for (other, how) in [
        ("certs.d/r.test", LookAlike::OtherPort),
        ("certs.d/R.test:5443", LookAlike::Spelling),
        ("certs.d/r.test_5443_", LookAlike::OtherForm),
        ("cert.d/r.test:5443", LookAlike::Root),
    ] {
        let other = parent.path().join(other);
        fs::create_dir_all(&other).unwrap();
        fs::create_dir_all(&root).unwrap();
        let (certs, findings) = read_root(DOCS, &root, wanted);
        let expected = Finding::new(&other, Severity::Note, Fault::LookAlike { wanted: root.join(wanted), how });
        assert_eq!((certs.directory, findings), (None, vec![expected]));
        fs::remove_dir(&other).unwrap();
    }
    write(&root.join("ca.crt"), &bytes("ca.crt"));
    assert_eq!(read_root(DOCS, &root, wanted).1, [Finding::new(&root, Severity::Note, Fault::FilesInRoot)]);
    fs::create_dir_all(root.join("r.test:443")).unwrap();
    let found: Vec<Fault> = read_root(DOCS, &root, "r.test").1.into_iter().map(|finding| finding.fault).collect();
    assert!(found.contains(&Fault::LookAlike { wanted: root.join("r.test"), how: LookAlike::DefaultPort }));
    assert!(read_root(DOCS, &root, "r.test:443").1.is_empty());
}

#[test]
fn a_directory_given_by_name() {
    let dir = tree(&[("r.test/ca.crt", &bytes("ca.crt")), ("file", b"")]);
    let read = |path: &Path| {
        let (certs, findings) =
            read_host_certs(DOCS, CertsLocation::HostDirectory(path), &"r.test".parse().unwrap(), now());
        (certs.roots.len(), findings.into_iter().map(|f| (f.severity, f.code())).collect::<Vec<_>>())
    };
    assert_eq!(read(&dir.path().join("r.test")), (1, vec![]));
    assert_eq!(read(dir.path()), (0, vec![(Severity::Warning, "D03")]));
    assert_eq!(read(&dir.path().join("none")), (0, vec![(Severity::Warning, "D01")]));
    assert_eq!(read(&dir.path().join("file")), (0, vec![(Severity::Fatal, "D12")]));
}

#[test]
fn podman_takes_the_first_directory_that_exists_and_merges_nothing() {
    let dir = tree(&[
        ("etc/containers/certs.d/r.test/ca.crt", &bytes("ca.crt")),
        ("etc/docker/certs.d/r.test/ca.crt", &bytes("v1.crt")),
        ("home/a/.config/containers/certs.d/s.test/ca.crt", &bytes("ca.crt")),
    ]);
    let location = CertsLocation::SearchBelow { root: dir.path(), home: Some(Path::new("/home/a")) };
    let read = |profile: &EngineProfile, host: &str| read_host_certs(profile, location, &host.parse().unwrap(), now());
    let (certs, findings) = read(PODMAN, "r.test");
    assert_eq!(certs.roots, [certificate("ca.crt")]);
    let masked = dir.path().join("etc/docker/certs.d/r.test");
    let by = dir.path().join("etc/containers/certs.d/r.test");
    assert_eq!(findings, [Finding::new(&masked, Severity::Note, Fault::Masked { by: by.clone() })]);
    assert_eq!(read(DOCS, "r.test").0.roots, [certificate("v1.crt")]);
    let own = dir.path().join("home/a/.config/containers/certs.d/r.test");
    fs::create_dir(&own).unwrap();
    let (certs, findings) = read(PODMAN, "r.test");
    assert_eq!(
        (certs.directory.as_ref(), certs.roots.len(), findings.len()),
        (Some(&own), 0, 2),
        "an empty directory masks too"
    );
    assert_eq!(read(PODMAN, "s.test").0.roots.len(), 1);
    assert_eq!(read(DOCS, "s.test").0.directory, None);
}

#[test]
fn a_directory_that_cannot_be_read() {
    let dir = tree(&[("file", b""), ("crowd/r.test/x", b"")]);
    let (_, findings) = read_root(DOCS, &dir.path().join("file"), "r.test");
    assert_eq!((findings[0].severity, findings[0].code()), (Severity::Fatal, "D12"));
    symlink("r.test", dir.path().join("r.test")).unwrap();
    let (_, findings) = read_root(DOCS, dir.path(), "r.test");
    assert!(matches!(findings[0], Finding { severity: Severity::Fatal, fault: Fault::DirectoryUnreadable { .. }, .. }));
    let crowd = dir.path().join("crowd/r.test");
    for i in 0..1024 {
        fs::write(crowd.join(format!("{i}.crt")), b"").unwrap();
    }
    let (certs, findings) = read_root(DOCS, &dir.path().join("crowd"), "r.test");
    assert_eq!(certs.roots.len(), 0);
    assert_eq!(findings, [Finding::new(&crowd, Severity::Fatal, Fault::TooManyEntries { limit: 1024 })]);
}

#[test]
fn hostile_names_stay_visible_and_quoted() {
    let name = "a';id;'\u{202e}\n.cert";
    let findings = check(DOCS, &[(name, &bytes("ca.crt"))], &[], 0, &[&format!("fatal D20 {name}")]);
    let shown = format!("{} {}", findings[0], findings[0].fix());
    assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'), "{shown}");
    assert!(findings[0].fix().to_string().contains(r"a\';id;\'\342\200\256\012.crt'"), "{shown}");
}
