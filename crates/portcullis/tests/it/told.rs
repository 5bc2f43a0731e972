//! `client_auth = "explain"`: what people read on their terminals when they are not let in, engine by engine.

use std::fs;
use std::path::PathBuf;

use portcullis_testkit::image::{Image, rootfs_tar};
use portcullis_testkit::pki::{Authority, LeafSpec, PairFiles, openssl};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::dockerd::{DOCKER, DOCKERD, Dockerd};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{CURL, OPENSSL, PODMAN, SKOPEO, curl};
use crate::process::Ran;
use crate::registry::{PORTCULLIS, Registry};

const HOST: &str = "registry.test:5443";
const PASSWORD: &str = "a-password-of-somebody";
const CTR: Need = Need::Program("ctr");

/// Somebody who may not come in, or may not do what is asked.
struct Case {
    name: &'static str,
    pair: Option<PairFiles>,
    /// What the person is told.
    told: &'static str,
    /// The header's word.
    code: &'static str,
}

fn registry(machine: &Machine) -> Registry<'_> {
    let mut registry = Registry::up(machine);
    registry.configure("# client_auth = \"require\"", "client_auth = \"explain\"");
    registry
}

/// All that the issue of refused clients knows.
fn cases(machine: &Machine, registry: &Registry<'_>) -> Vec<Case> {
    let dir = |name: &str| -> PathBuf { machine.subdir(name) };
    let ca = Authority::new("tests' client CA");
    ca.pair.write_crt(&dir("trusted"), "ca");
    registry.portcullis(&["trust", "add", "trusted/ca.crt", "--as", "ca", "--name", "tests"]).ok();
    let revoked = registry.new_client("lost");
    registry.portcullis(&["cert", "revoke", "lost"]).ok();
    let pair = |name: &str, spec: &LeafSpec| Some(ca.issue(spec).write_pair(&dir(name), "client"));
    let case = |name, pair, told, code| Case { name, pair, told, code };
    vec![
        case(
            "no certificate",
            None,
            "no client certificate was presented, and this registry lets in only those who have one; put it where your engine looks: portcullis install registry.test:5443 --from DIR",
            "no-certificate",
        ),
        case(
            "unknown CA",
            Some(Authority::new("another CA").client("eve").write_pair(&dir("eve"), "client")),
            "was issued by CN=another CA, which is no CA that is trusted here and whose certificate was not sent",
            "issuer-not-sent",
        ),
        case(
            "missing intermediate",
            Some(ca.intermediate("issuing CA").client("bob").without_chain().write_pair(&dir("bob"), "client")),
            "was issued by CN=issuing CA, which is no CA that is trusted here and whose certificate was not sent; if that is an intermediate CA, append its certificate: cat intermediate.crt >> client.cert",
            "issuer-not-sent",
        ),
        case("expired", pair("late", &LeafSpec::client("late").expired()), "expired on 2", "expired"),
        case(
            "not yet valid",
            pair("early", &LeafSpec::client("early").not_yet_valid()),
            "is not valid before 2",
            "not-yet-valid",
        ),
        case(
            "revoked",
            Some(revoked),
            "is revoked; who runs this registry can make another: portcullis cert new client NAME",
            "revoked",
        ),
        case(
            "wrong usage",
            pair("web", &LeafSpec::client("web").server_auth_only()),
            "may not be used by a TLS client: its extendedKeyUsage, or an issuer's, lacks clientAuth",
            "wrong-usage",
        ),
        case(
            "a CA without a pin",
            Some(openssl::docker_page_recipe(&dir("recipe"), "/CN=recipe")),
            "is a CA's (CA:TRUE), and a CA is no client: as one it is let in only when it is pinned; who runs this registry can trust exactly this certificate: portcullis trust add client.cert --as pin --name NAME",
            "ca-certificate",
        ),
        case(
            "denied by policy",
            pair("good", &LeafSpec::client("good")),
            "who runs this registry sees why, and what would allow it, with: portcullis policy check --cert client.cert",
            "not-allowed",
        ),
    ]
}

/// The engine's directory has this pair, and nothing else but the registry's CA.
fn fill(registry: &Registry<'_>, dir: &std::path::Path, case: &Case) {
    let _none_yet = fs::remove_dir_all(dir);
    match &case.pair {
        Some(pair) => registry.fill_certs(dir, pair),
        None => {
            fs::create_dir_all(dir).unwrap();
            fs::copy(registry.ca(), dir.join("ca.crt")).unwrap();
        }
    }
}

#[track_caller]
fn is_told(case: &Case, ran: Ran) {
    eprintln!("{}\n{ran}", case.name);
    let own = case.pair.as_ref().map(|pair| openssl::fingerprint_of(&pair.cert));
    let ran = ran.fails().says(case.told);
    if let Some(own) = own {
        ran.says(&own);
    }
}

#[track_caller]
fn is_logged(registry: &Registry<'_>, case: &Case) {
    let own = case.pair.as_ref().map(|pair| openssl::fingerprint_of(&pair.cert));
    registry.log_line(&["WARN", own.as_deref().unwrap_or("no client certificate"), case.told]);
}

#[test]
fn docker_prints_the_sentence() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = registry(&machine);
    let cases = cases(&machine, &registry);
    let docker = Dockerd::start(&machine);
    let reference = registry.reference("demo/app:1");
    docker.import(&rootfs_tar(1, 1000), &reference);
    for case in &cases {
        fill(&registry, &machine.docker_certs(HOST), case);
        is_told(case, docker.docker(&["pull", &reference]));
        is_told(case, docker.docker(&["push", &reference]));
        // It reads no body: moby registry/auth.go `loginV2`. A trusted peer may log in whatever the policy gives it.
        let login = docker.docker(&["login", "--username", "any", "--password", PASSWORD, HOST]);
        if case.code == "not-allowed" {
            login.ok();
        } else {
            is_told(case, login);
        }
    }
    assert!(!registry.log().contains(PASSWORD));
    assert!(!registry.log().contains("Basic "));
}

/// Docker is the exception: what sends passwords to whoever asks for them is asked by nobody else.
#[test]
fn only_docker_is_asked_for_a_token() {
    skip_unless!(IP, NSENTER, CURL, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = registry(&machine);
    let stranger = Authority::new("another CA").client("eve").write_pair(&machine.subdir("eve"), "client");
    let challenges = |agent: &str| {
        let answer = curl(&machine, &registry, &stranger, &["--http1.1", "--user-agent", agent], "/v2/");
        assert_eq!((answer.status, answer.error_code().as_str()), (401, "UNAUTHORIZED"));
        let lines = answer.headers.lines().filter(|line| line.to_ascii_lowercase().starts_with("www-authenticate:"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let mutual = "www-authenticate: Mutual realm=\"client certificate\"";
    let bearer = "www-authenticate: Bearer realm=\"https://registry.test:5443/v2/\",service=\"registry.test:5443\"";
    assert_eq!(challenges("docker/27.1.1 go/go1.21.12"), [mutual, bearer]);
    for agent in ["containers/5.23.1", "containerd/1.7", "curl/8.0", "Mozilla/5.0 docker/20"] {
        assert_eq!(challenges(agent), [mutual], "{agent}");
    }
}

#[test]
fn skopeo_and_podman_print_the_sentence() {
    skip_unless!(IP, NSENTER, SKOPEO, PODMAN, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = registry(&machine);
    let reference = registry.reference("demo/app:1");
    for case in &cases(&machine, &registry) {
        fill(&registry, &machine.podman_certs(HOST), case);
        is_told(case, machine.run("skopeo", &["inspect", &format!("docker://{reference}")]));
        is_told(case, machine.run("podman", &["pull", &reference]));
    }
}

/// Ours prints it too, and says that it was refused.
#[test]
fn our_own_client_prints_the_sentence() {
    skip_unless!(IP, NSENTER, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = registry(&machine);
    let reference = registry.reference("demo/app:1");
    for case in &cases(&machine, &registry) {
        fill(&registry, &machine.docker_certs(HOST), case);
        is_told(case, machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci:out"]).exits(3));
    }
}

/// What shows no body finds the sentence in the registry's log; programs have the header.
#[test]
fn for_those_who_show_no_answer_it_is_in_the_log() {
    skip_unless!(IP, NSENTER, SKOPEO, CURL, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = registry(&machine);
    let reference = registry.reference("demo/app:1");
    Image::new(3, &[1000]).write_layout(&machine.dir().join("layout"), "v1");
    for case in &cases(&machine, &registry) {
        eprintln!("{}", case.name);
        fill(&registry, &machine.podman_certs(HOST), case);
        machine.run("skopeo", &["copy", "oci:layout:v1", &format!("docker://{reference}")]).fails();
        is_logged(&registry, case);
        if let Some(pair) = &case.pair {
            let answer = curl(&machine, &registry, pair, &[], "/v2/demo/app/tags/list");
            assert_eq!((answer.status, answer.error_code().as_str()), (403, "DENIED"));
            assert_eq!(answer.header("portcullis-reason").as_deref(), Some(case.code));
        }
    }
}

/// The daemon that `ctr` speaks to is dockerd's own.
#[test]
fn for_ctr_it_is_in_the_log() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, CTR, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = registry(&machine);
    let docker = Dockerd::start(&machine);
    let reference = registry.reference("demo/app:1");
    let hosts = machine.subdir("ctr-hosts");
    for case in &cases(&machine, &registry) {
        fill(&registry, &hosts.join(HOST), case);
        let address = docker.containerd().display().to_string();
        let words = ["--address", &address, "images", "pull", "--hosts-dir", hosts.to_str().unwrap(), &reference];
        is_told(case, machine.run("ctr", &words));
        is_logged(&registry, case);
    }
}

/// In `require` mode the alert is exact, and the log has the sentence.
#[test]
fn with_alerts_only_the_log_has_the_sentence() {
    skip_unless!(IP, NSENTER, SKOPEO, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let reference = registry.reference("demo/app:1");
    let request = crate::peers::ping_request(&registry);
    for case in &cases(&machine, &registry) {
        eprintln!("{}", case.name);
        if case.code == "not-allowed" {
            fill(&registry, &machine.podman_certs(HOST), case);
            is_told(case, machine.run("skopeo", &["inspect", &format!("docker://{reference}")]));
            continue;
        }
        let refused = crate::peers::s_client(&machine, &registry, case.pair.as_ref(), &[], &request);
        assert!(!refused.stdout.contains("HTTP/"), "{refused}");
        is_logged(&registry, case);
    }
}
