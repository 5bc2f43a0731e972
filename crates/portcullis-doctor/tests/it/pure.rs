//! Checks on facts that no test machine has by itself: the facts of a machine, with one of them changed.

use crate::machine::{HOST, Machine, lasting};
use portcullis_certs::{EngineProfile, Fault, Finding, Outcome, Severity, Version};
use portcullis_doctor::{Environment, Facts, Options, Reach, Target, examine, gather};
use portcullis_testkit::pki::{Authority, LeafSpec, write_file};
use std::fs;
use time::{Duration, OffsetDateTime};

/// The findings with this code, as `severity what`.
fn found(facts: &Facts, code: &str) -> Vec<String> {
    let findings = examine(facts).findings;
    let wanted = findings.iter().filter(|finding| finding.code == code);
    wanted.map(|finding| format!("{} {}", finding.severity, finding.what)).collect()
}

#[test]
fn the_systems_roots_are_newer_than_dockerd() {
    let machine = Machine::new();
    let mut facts = machine.facts(Reach::Files);
    let now = OffsetDateTime::now_utc();
    let (started, changed) = (&mut facts.machine.docker_started, &mut facts.machine.store_changed);
    (*started, *changed) = (Some(now - Duration::HOUR), Some(now));
    assert_eq!(found(&facts, "D87"), ["warning the system's roots are newer than the running dockerd"]);
    facts.machine.docker_started = facts.machine.store_changed;
    assert_eq!(found(&facts, "D87"), [""; 0]);
    facts.machine.docker_started = None;
    let report = examine(&facts);
    assert!(
        report.skipped.iter().any(|skipped| skipped.code == "D87" && skipped.reason == "dockerd does not run here")
    );
}

#[test]
fn docker_29_and_the_token_server() {
    let machine = Machine::new();
    for (version, expected) in [("29.0.0", 1), ("29.4.9", 1), ("29.5.0", 0), ("28.5.0", 0)] {
        machine.write("var/lib/dpkg/status", &format!("Package: docker-ce\nVersion: 5:{version}-1\n"));
        machine.write("etc/docker/daemon.json", r#"{"features": {"containerd-snapshotter": true}}"#);
        assert_eq!(found(&machine.facts(Reach::Files), "D84").len(), expected, "{version}");
    }
}

#[test]
fn which_store_docker_uses() {
    let machine = Machine::new();
    let engine = || machine.facts(Reach::Files).engines[0].profile.name;
    assert_eq!(engine(), "docker");
    machine.write("var/lib/dpkg/status", "Package: docker-ce\nVersion: 5:29.1.0-1\n");
    assert_eq!(engine(), "docker-containerd");
    fs::create_dir_all(machine.root().join("var/lib/docker/image/overlay2")).unwrap();
    assert_eq!(engine(), "docker");
    machine.write("etc/docker/daemon.json", r#"{"features": {"containerd-snapshotter": true}}"#);
    assert_eq!(engine(), "docker-containerd");
}

#[test]
fn which_engines_are_looked_at() {
    let engines = |machine: &Machine| -> Vec<&'static str> {
        machine.facts(Reach::Files).engines.iter().map(|engine| engine.profile.name).collect()
    };
    let machine = Machine::new();
    // containerd comes along with Docker.
    machine.engine("usr/bin/containerd", "containerd", "1.6.20");
    assert_eq!(engines(&machine), ["docker", "podman"]);
    fs::create_dir_all(machine.root().join("etc/containerd/certs.d")).unwrap();
    assert_eq!(engines(&machine), ["docker", "podman", "containerd"]);
    for program in ["usr/sbin/dockerd", "usr/bin/podman", "usr/bin/containerd"] {
        machine.without(program);
    }
    assert_eq!(engines(&machine), ["docker-docs"]);
    let target: Target = HOST.parse().unwrap();
    let options = Options {
        root: machine.root().to_owned(),
        reach: Reach::Files,
        engines: vec![&EngineProfile::K3S, &EngineProfile::PODMAN],
    };
    let facts = gather(&target, &options, &Environment::default(), OffsetDateTime::now_utc());
    let names: Vec<&str> = facts.engines.iter().map(|engine| engine.profile.name).collect();
    assert_eq!(names, ["podman", "k3s"]);
    assert!(facts.engines[1].version.is_none() && facts.engines[1].programs.is_empty());
}

#[test]
fn the_version_is_named_with_the_verdict() {
    let machine = Machine::new();
    machine.good();
    let facts = machine.facts(Reach::Files);
    assert_eq!(facts.engine("docker").unwrap().version, Some(Version::new(20, 10, 24)));
    let report = examine(&facts);
    assert_eq!(report.verdicts[0].version.as_deref(), Some("20.10.24"));
    assert!(report.verdicts[0].basis.contains("dockerd 20.10.24"), "{}", report.verdicts[0].basis);
}

#[test]
fn an_insecure_entry_counts_by_host_and_by_range() {
    let machine = Machine::new();
    machine.good();
    for (entry, expected) in [(HOST, 1), ("registry.test", 0), ("10.0.0.0/8", 1), ("10.1.0.0/16", 0)] {
        machine.write("etc/hosts", "10.0.0.7 registry.test\n");
        machine.write("etc/docker/daemon.json", &format!("{{\"insecure-registries\": [{entry:?}]}}"));
        assert_eq!(found(&machine.facts(Reach::Files), "D80").len(), expected, "{entry}");
    }
}

/// `localhost` without certificates is how many people begin: nothing is lost there.
#[test]
fn loopback_without_certificates_is_only_a_note() {
    let mut machine = Machine::new();
    machine.target = "localhost:5000".to_owned();
    let facts = machine.facts(Reach::Files);
    assert_eq!(
        found(&facts, "D80"),
        ["note localhost:5000 is 127.0.0.1, loopback: the certificate directory is not read"]
    );
    machine.host_directory("localhost:5000");
    assert!(found(&machine.facts(Reach::Files), "D80")[0].starts_with("fatal"));
}

/// Other engines are not hurt by what is an error to some.
#[test]
fn a_finding_names_who_takes_it_worst_and_who_less() {
    let machine = Machine::new();
    let directory = machine.good();
    std::os::unix::fs::symlink("gone", directory.join("old.crt")).unwrap();
    let report = machine.report();
    let finding = report.findings.iter().find(|finding| finding.code == "D36").unwrap();
    assert_eq!(
        (finding.engines.as_slice(), finding.milder.as_slice()),
        (&["docker"][..], &[("podman", Severity::Warning)][..])
    );
}

/// That we may not read a key of root's is right, and no fault of the daemon that may.
#[test]
fn what_only_root_may_read_is_no_fault() {
    let machine = Machine::new();
    let at = machine.good().join("client.key");
    let mut facts = machine.facts(Reach::Files);
    let unreadable = Fault::Unreadable { error: std::io::ErrorKind::PermissionDenied };
    let docker = &mut facts.engines[0].prediction;
    docker.findings.push(Finding::new(&at, Severity::Fatal, unreadable.clone()));
    docker.outcome = Outcome::CannotTell { at: at.clone() };
    assert_eq!(found(&facts, "D36"), ["note client.key: cannot be read: permission denied"]);
    let report = examine(&facts);
    let finding = report.findings.iter().find(|finding| finding.code == "D36").unwrap();
    assert_eq!(finding.fix.to_string(), "sudo portcullis doctor registry.test:5443");
    // Podman is the caller's own, and stops there.
    facts.engines[1].prediction.findings.push(Finding::new(&at, Severity::Fatal, unreadable));
    assert_eq!(found(&facts, "D36"), ["fatal client.key: cannot be read: permission denied"]);
}

#[test]
fn a_key_of_somebody_else() {
    let machine = Machine::new();
    let directory = machine.directory();
    machine.ca.write_ca(&directory);
    machine.ca.issue(&lasting("ci-7")).write_pair(&directory, "client");
    write_file(&directory.join("x.txt"), b"", 0o644);
    let mut facts = machine.facts(Reach::Files);
    assert_eq!(found(&facts, "D35"), [""; 0]);
    let keys = facts.directories[0].files.iter_mut().filter(|file| file.path.extension().is_some_and(|e| e == "key"));
    for owner in keys.filter_map(|file| file.ownership.as_mut()) {
        owner.uid = 12_345;
    }
    assert_eq!(found(&facts, "D35"), ["warning client.key belongs to user 12345, who is neither root nor the caller"]);
}

/// A renewal takes people a while: thirty days before the end they are told.
#[test]
fn days_before_the_end() {
    let machine = Machine::new();
    machine.good();
    let mut facts = machine.facts(Reach::Files);
    let ends = OffsetDateTime::now_utc() + Duration::days(90);
    for (before, expected) in [(Duration::days(31), 0), (Duration::days(29), 1), (Duration::days(1), 1)] {
        facts.now = ends - before;
        assert_eq!(found(&facts, "D40").len(), expected, "{before}");
    }
}

#[test]
fn an_engine_that_is_asked_for_keeps_its_version() {
    let machine = Machine::new();
    let target: Target = HOST.parse().unwrap();
    let options = Options {
        root: machine.root().to_owned(),
        reach: Reach::Files,
        engines: vec![&EngineProfile::DOCKER_CONTAINERD],
    };
    let facts = gather(&target, &options, &Environment::default(), OffsetDateTime::now_utc());
    assert_eq!(facts.engines[0].version, Some(Version::new(20, 10, 24)));
}

#[test]
fn what_peers_refuse_in_a_certificate() {
    let machine = Machine::new();
    let directory = machine.directory();
    let long = LeafSpec { serial: Some(vec![1; 21]), ..lasting("long") };
    machine.ca.issue(&long).write_pair(&directory, "client");
    let what = found(&machine.facts(Reach::Files), "D45");
    assert_eq!(what, ["warning certificate `CN=long`: its serial number has 21 octets, 20 are allowed"]);
    let twenty = LeafSpec { serial: Some(vec![1; 20]), ..lasting("twenty") };
    machine.ca.issue(&twenty).write_pair(&directory, "client");
    assert_eq!(found(&machine.facts(Reach::Files), "D45"), [""; 0]);
}

#[test]
fn a_constrained_ca_is_told() {
    let machine = Machine::new();
    let spec = LeafSpec { permitted_dns: vec!["test".to_owned()], ..LeafSpec::authority("only .test") };
    Authority::from_spec(&spec).write_ca(&machine.directory());
    assert_eq!(found(&machine.facts(Reach::Files), "D46"), ["note CA `CN=only .test` is constrained to certain names"]);
    let spec = LeafSpec { permitted_dns: vec!["example.com".to_owned()], ..LeafSpec::authority("elsewhere") };
    Authority::from_spec(&spec).write_ca(&machine.directory());
    let facts = machine.facts(Reach::Files);
    assert_eq!(found(&facts, "D46"), ["warning CA `CN=elsewhere` may not vouch for registry.test"]);
    let report = examine(&facts);
    let finding = report.findings.iter().find(|finding| finding.code == "D46").unwrap();
    assert_eq!(finding.evidence[0].value, "permitted DNS example.com");
}

#[test]
fn nerdctl_takes_default_first() {
    let mut machine = Machine::new();
    machine.engine("usr/local/bin/nerdctl", "nerdctl", "2.1.0");
    machine.target = "registry.test".to_owned();
    for name in ["_default", "registry.test"] {
        machine.ca.write_ca(&machine.root().join("etc/containerd/certs.d").join(name));
    }
    let what = found(&machine.facts(Reach::Files), "D11");
    assert_eq!(what.len(), 1, "{what:?}");
}

/// `ca.pem` beside `ca.crt` is left as it is; of two files that would get one name only the first does.
#[test]
fn no_repair_wants_a_name_that_is_taken() {
    let mends = |machine: &Machine| -> Vec<String> {
        let report = machine.report();
        let mends = report.findings.iter().filter_map(|finding| finding.mend.as_ref());
        mends.map(|mend| mend.path().file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let machine = Machine::new();
    let directory = machine.directory();
    for name in ["ca.cer", "ca.pem"] {
        write_file(&directory.join(name), machine.ca.cert_pem().as_bytes(), 0o644);
    }
    assert_eq!(mends(&machine), ["ca.cer"]);
    machine.ca.write_ca(&directory);
    assert_eq!(mends(&machine), [""; 0]);
}
