//! Engines whose own file must name the certificates, another client's pair, and taking everything away again.

use super::{Fixture, contents};
use crate::{client_directory, create, names, now};
use portcullis_certs::Outcome;
use portcullis_certs::engine_files::{BuildkitdToml, HostsToml, RegistriesYaml};
use portcullis_pki::install::uninstall::{self, Undo};
use portcullis_pki::install::{Conflict, Engine, OtherPairs, Owner, apply};
use portcullis_pki::{AuthorityKind, ClientRequest, PkiError, issue_client};
use std::fs;
use std::path::Path;

const HOST: &str = "registry.test:5443";

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Everything that is recorded goes; says what became of each.
fn uninstall(fixture: &Fixture, engine: Option<Engine>) -> Vec<Undo> {
    fixture.with_removal(engine.map(Owner::Engine), |request| {
        let removals = uninstall::plan(request).unwrap();
        uninstall::apply(request, &removals).unwrap();
        removals.into_iter().map(|removal| removal.what).collect()
    })
}

#[test]
fn buildkit_gets_a_stanza_and_loses_it_again() {
    let fixture = Fixture::new(HOST, Engine::Buildkit);
    let config = fixture.root().join("etc/buildkit/buildkitd.toml");
    let theirs = "debug = true # mine\n[registry.\"docker.io\"]\n  mirrors = [\"m.test\"]\n";
    write(&config, theirs);
    let plan = fixture.plan().unwrap();
    assert!(plan.config.as_ref().unwrap().added.contains("[registry.\"registry.test:5443\"]"));
    assert_eq!(fs::read_to_string(&config).unwrap(), theirs, "a plan changes nothing");

    let installed = apply(&plan, now()).unwrap();
    assert_eq!((installed.findings.len(), &installed.prediction.outcome), (0, &Outcome::Loaded));
    assert_eq!(installed.prediction.registry().unwrap().pairs.len(), 1);
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.starts_with(theirs));
    let read = BuildkitdToml::parse(text.as_bytes()).unwrap();
    let files = &read.registry(HOST).unwrap().files;
    assert_eq!(files.roots, [Path::new("/etc/buildkit/certs.d/registry.test:5443/ca.crt")], "as the engine sees it");
    assert!(fixture.plan().unwrap().is_done());

    let undone = uninstall(&fixture, None);
    assert_eq!(undone.iter().filter(|what| **what == Undo::Remove).count(), 3);
    assert_eq!(fs::read_to_string(&config).unwrap(), theirs);
    assert!(!fixture.directory().exists());
    assert!(fixture.removals().is_empty(), "the second time there is nothing");
}

#[test]
fn k3s_gets_an_entry_among_comments() {
    let fixture = Fixture::new(HOST, Engine::K3s);
    let config = fixture.root().join("etc/rancher/k3s/registries.yaml");
    let theirs = "# theirs\nconfigs:\n  other.test: # keep\n    tls:\n      ca_file: /x\n";
    write(&config, theirs);
    let installed = fixture.install();
    assert_eq!(installed.prediction.outcome, Outcome::Loaded);
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("# theirs") && text.contains("# keep"));
    assert_eq!(RegistriesYaml::parse(text.as_bytes()).unwrap().configs.len(), 2);
    assert!(fixture.plan().unwrap().is_done());
    uninstall(&fixture, Some(Engine::K3s));
    assert_eq!(fs::read_to_string(&config).unwrap(), theirs);
}

/// A file that was not there is not left behind empty.
#[test]
fn a_configuration_that_we_made_goes_with_its_last_lines() {
    let fixture = Fixture::new(HOST, Engine::K3s);
    fixture.install();
    let config = fixture.root().join("etc/rancher/k3s/registries.yaml");
    assert!(config.exists());
    uninstall(&fixture, None);
    assert!(!config.exists());
}

/// containerd reads the certificate files itself, unless a hosts.toml is there, which then must name them.
#[test]
fn containerd_with_and_without_hosts_toml() {
    let fixture = Fixture::new(HOST, Engine::Containerd);
    write(
        &fixture.root().join("etc/containerd/config.toml"),
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
    );
    let installed = fixture.install();
    assert_eq!((installed.prediction.registry().unwrap().pairs.len(), installed.findings.len()), (1, 0));
    assert_eq!(names(&fixture.directory()), ["ca.crt", "client.cert", "client.key"]);

    let hosts = fixture.directory().join("hosts.toml");
    write(&hosts, "# theirs\n[host.\"https://mirror.test\"]\n  capabilities = [\"pull\"]\n");
    let installed = fixture.install();
    let text = fs::read_to_string(&hosts).unwrap();
    let read = HostsToml::parse(text.as_bytes(), &fixture.directory()).unwrap();
    assert_eq!(read.entries.last().unwrap().files.pairs.len(), 1);
    assert_eq!(installed.prediction.registry().unwrap().pairs.len(), 1);
    assert!(text.contains("# theirs") && fixture.plan().unwrap().is_done());
}

#[test]
fn containerd_that_is_told_nothing_is_a_finding() {
    let fixture = Fixture::new(HOST, Engine::Containerd);
    write(
        &fixture.root().join("etc/containerd/config.toml"),
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n",
    );
    let installed = fixture.install();
    assert_eq!(installed.findings.iter().map(portcullis_certs::Finding::code).collect::<Vec<_>>(), ["D82"]);
}

#[test]
fn an_entry_of_somebody_else_stops_it() {
    let fixture = Fixture::new(HOST, Engine::Buildkit);
    let config = fixture.root().join("etc/buildkit/buildkitd.toml");
    for theirs in ["[registry.\"registry.test:5443\"]\nhttp = true\n", "not toml\n"] {
        write(&config, theirs);
        assert!(matches!(&fixture.conflicts()[..], [Conflict::Config { path, .. }] if *path == config));
        assert_eq!(fs::read_to_string(&config).unwrap(), theirs);
        assert!(!fixture.directory().exists(), "nothing is written");
    }
}

#[test]
fn what_was_changed_since_stays() {
    let fixture = Fixture::docker();
    fixture.install();
    let changed = fixture.directory().join("ca.crt");
    fs::write(&changed, "theirs").unwrap();
    fs::remove_file(fixture.directory().join("client.cert")).unwrap();
    let mut undone = uninstall(&fixture, None);
    undone.sort_by_key(|what| format!("{what:?}"));
    assert_eq!(undone, [Undo::Changed, Undo::Gone, Undo::Remove]);
    assert_eq!(names(&fixture.directory()), ["ca.crt"]);
    assert_eq!(uninstall(&fixture, None), [Undo::Changed], "it is said again");
}

#[test]
fn one_engine_of_two() {
    let docker = Fixture::docker();
    docker.install();
    let podman = Fixture { engine: Engine::Podman, ..docker };
    podman.install();
    assert_eq!(uninstall(&podman, Some(Engine::Podman)).len(), 3);
    assert!(!podman.directory().exists());
    assert!(podman.root().join("etc/docker/certs.d").join(HOST).join("client.key").exists());
    assert!(uninstall(&podman, Some(Engine::Buildkit)).is_empty());
    assert!(Fixture { host: "other.test".parse().unwrap(), ..podman }.removals().is_empty());
}

/// Another client's directory, from CAs of its own.
fn other_client(dir: &Path) {
    let pki = tempfile::tempdir().unwrap();
    let server_ca = create(&pki.path().join("s"), AuthorityKind::Server).unwrap();
    let client_ca = create(&pki.path().join("c"), AuthorityKind::Client).unwrap();
    let issued = issue_client(&client_ca, &ClientRequest::new("other".parse().unwrap()), now()).unwrap();
    issued.write_client(dir, server_ca.certificate()).unwrap();
}

#[test]
fn a_pair_of_ours_for_another_client_is_a_question() {
    let mut fixture = Fixture::docker();
    fixture.install();
    fixture.reissue();
    fixture.install();
    fs::remove_dir_all(fixture.from()).unwrap();
    other_client(&fixture.from());
    let conflicts = fixture.conflicts();
    let [Conflict::OtherClient { old, new, .. }] = &conflicts[..] else { panic!("{conflicts:?}") };
    assert_eq!((old.as_str(), new.as_str()), ("CN=ci-7", "CN=other"));
    assert!(conflicts[0].to_string().contains("--replace"));
    fixture.pairs = OtherPairs::Replace;
    let installed = fixture.install();
    assert_eq!(installed.certs.pairs[0].chain[0].facts().subject.to_string(), "CN=other");
}

#[test]
fn a_pair_beside_another() {
    let mut fixture = Fixture::docker();
    client_directory(&fixture.directory());
    let before = contents(&fixture.directory());
    assert!(!fixture.conflicts().is_empty(), "without a word it stops");
    fixture.pairs = OtherPairs::Add("ci-8");
    let installed = fixture.install();
    assert_eq!(
        names(&fixture.directory()),
        ["ca.crt", "ci-8.cert", "ci-8.crt", "ci-8.key", "client.cert", "client.key"]
    );
    assert_eq!(contents(&fixture.directory()), before, "what was there stays");
    assert_eq!((installed.certs.pairs.len(), installed.certs.roots.len()), (2, 2));
    assert!(fixture.plan().unwrap().is_done());
    assert_eq!(uninstall(&fixture, None), [Undo::Remove, Undo::Remove, Undo::Remove]);
    assert_eq!(contents(&fixture.directory()), before);
    for name in ["", ".x", "a/b", "a b", &"x".repeat(65)] {
        fixture.pairs = OtherPairs::Add(name.to_owned().leak());
        assert!(matches!(fixture.plan(), Err(PkiError::PairName { .. })), "{name}");
    }
    fixture.pairs = OtherPairs::Add("x".repeat(64).leak());
    fixture.plan().unwrap();
}
