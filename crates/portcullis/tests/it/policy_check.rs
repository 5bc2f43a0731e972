//! `portcullis policy check`: the server's own verdict, asked of files.

use portcullis_testkit::pki::{Authority, LeafSpec, PairFiles};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use serde_json::Value;

use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{CURL, curl};
use crate::process::Ran;
use crate::registry::Registry;

const POLICY: &str = r#"[groups]
ci = [{ ca = "clients", cn = "ci-*" }]

[[rule]]
group = "ci"
repositories = ["team/**"]
allow = ["pull", "push"]

[[rule]]
ca = "clients"
repositories = ["base/*"]
allow = ["pull"]
"#;

fn with_policy(machine: &Machine) -> Registry<'_> {
    let registry = Registry::up(machine);
    std::fs::write(registry.home().join("policy.toml"), POLICY).unwrap();
    registry.portcullis(&["reload"]).ok();
    registry
}

fn check(registry: &Registry<'_>, pair: &PairFiles, action: &str, repository: &str) -> Ran {
    registry.portcullis(&["policy", "check", "--cert", pair.cert.to_str().unwrap(), action, repository])
}

#[test]
fn the_rule_that_decides_is_named() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let registry = with_policy(&machine);
    let (ci, laptop) = (registry.new_client("ci-7"), registry.new_client("laptop"));
    let policy = registry.home().join("policy.toml").display().to_string();

    let allowed = check(&registry, &ci, "push", "team/app").ok();
    allowed.says("CN=ci-7").says("let in    as ca:clients, until ").says(&format!("push in team/app, by {policy}:4"));
    check(&registry, &laptop, "pull", "base/alpine").ok().says(&format!("by {policy}:9"));

    let refused = check(&registry, &laptop, "push", "team/app").exits(4);
    refused
        .says("push in team/app: no rule allows it")
        .says(&format!("{policy}:4: it is for the group \"ci\", of which no member matches"))
        .says(&format!("{policy}:9: it allows pull, not push; its repositories do not take in team/app"));

    let more = format!("{POLICY}\n[[rule]]\nca = \"gone\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n");
    std::fs::write(registry.home().join("policy.toml"), more).unwrap();
    let warned = check(&registry, &ci, "push", "team/app").ok();
    warned.says(&format!("warning: {policy}:14: there is no CA \"gone\" in trust: nobody matches"));

    // The server says the same, whoever asks it.
    for (pair, path, expected) in [(&ci, "/v2/team/app/tags/list", 404), (&laptop, "/v2/team/app/tags/list", 403)] {
        assert_eq!(curl(&machine, &registry, pair, &[], path).status, expected);
    }
}

#[test]
fn a_certificate_that_would_not_be_let_in() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = with_policy(&machine);
    let dir = |name: &str| machine.subdir(name);
    let eve = Authority::new("another CA").client("eve").write_pair(&dir("eve"), "client");
    check(&registry, &eve, "pull", "team/app")
        .exits(4)
        .says("refused   in the handshake, alert unknown_ca: ")
        .says("told      the client certificate CN=eve (serial ");
    let late = Authority::new("x").issue(&LeafSpec::client("late").expired()).write_pair(&dir("late"), "client");
    check(&registry, &late, "pull", "team/app").exits(4).says("alert certificate_expired").says("expired on ");
    let lost = registry.new_client("ci-lost");
    registry.portcullis(&["cert", "revoke", "ci-lost"]).ok();
    check(&registry, &lost, "pull", "team/app").exits(4).says("alert certificate_revoked").says("deny list (line 1)");
    let anonymous = ["policy", "check", "--anonymous", "pull", "team/app"];
    registry.portcullis(&anonymous).exits(4).says("certificate_required");

    // Each mode has its own way to say no.
    registry.configure("# client_auth = \"require\"", "client_auth = \"explain\"");
    check(&registry, &eve, "pull", "team/app").exits(4).says("refused   at the first request (issuer-not-sent): ");
    registry.portcullis(&anonymous).exits(4).says("at the first request (no-certificate)");
    registry.configure("client_auth = \"explain\"", "client_auth = \"optional\"");
    registry.portcullis(&anonymous).exits(4).says("let in    as anonymous").says("it is for those with a certificate");
}

#[test]
fn as_json() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = with_policy(&machine);
    let laptop = registry.new_client("laptop");
    let cert = laptop.cert.to_str().unwrap();
    let json = |code: i32, words: &[&str]| -> Value {
        let ran = registry.portcullis(&[&["policy", "check", "--cert", cert, "--json"], words].concat()).exits(code);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran}"))
    };
    let allowed = json(0, &["pull", "base/alpine"]);
    assert_eq!((&allowed["allowed"], &allowed["rule"]), (&Value::Bool(true), &Value::from(9)));
    assert_eq!(allowed["identity"]["verdict"], "trusted");
    assert_eq!(allowed["identity"]["by"], "ca:clients");
    let refused = json(4, &["delete", "base/alpine"]);
    assert_eq!((&refused["allowed"], &refused["rule"]), (&Value::Bool(false), &Value::Null));
    assert_eq!(refused["rules"][1]["line"], 9);
    assert_eq!(refused["rules"][1]["misses"][0], "it allows pull, not delete");
    registry.portcullis(&["cert", "revoke", "laptop"]).ok();
    let revoked = json(4, &["pull", "base/alpine"]);
    assert_eq!(revoked["identity"]["verdict"], "refused");
    assert_eq!(revoked["identity"]["code"], "revoked");
    assert_eq!(revoked["identity"]["alert"], "certificate_revoked");
}

/// Where the server could not start there is no answer, least of all "allowed".
#[test]
fn a_policy_that_is_wrong_allows_nothing() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = with_policy(&machine);
    let ci = registry.new_client("ci-7");
    registry.stop();
    check(&registry, &ci, "push", "team/app").ok();
    let policy = registry.home().join("policy.toml");
    for text in ["", "[[rule]]\nca = 5\n", "[[rule]]\ngroup = \"none\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n"]
    {
        std::fs::write(&policy, text).unwrap();
        check(&registry, &ci, "push", "team/app").exits(1).says("policy.toml");
    }
    std::fs::remove_file(&policy).unwrap();
    check(&registry, &ci, "push", "team/app").exits(1).says("the policy cannot be read");
    let garbage = machine.dir().join("garbage.cert");
    std::fs::write(&garbage, "nothing").unwrap();
    std::fs::write(&policy, POLICY).unwrap();
    let garbage = PairFiles { cert: garbage, key: "none".into() };
    check(&registry, &garbage, "push", "team/app").exits(1).says("there is no certificate");
    check(&registry, &ci, "run", "team/app").exits(2).says("pull, push, delete");
    check(&registry, &ci, "push", "Team/App").exits(2);
}
