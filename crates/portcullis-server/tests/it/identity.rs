//! Which names in a certificate a rule may go by, and when they do not count.

use portcullis_testkit::pki::{Authority, BasicConstraints, KeyUse, LeafSpec, openssl, recipe_shaped};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::client::{Client, Conn};
use crate::fixture::{Home, Site, until};
use crate::log;

/// One rule for each kind of name, each in a repository called after it.
const RULES: &str = r#"
[groups]
ops = [
    { ca = "clients", cn = "root-*" },
    { pin = "alice" },
]

[[rule]]
spiffe = "spiffe://example.org/ci/*"
repositories = ["spiffe"]
allow = ["pull"]

[[rule]]
uri = "https://example.org/**/builder"
repositories = ["uri"]
allow = ["pull"]

[[rule]]
dns = "*.ci.example.org"
repositories = ["dns"]
allow = ["pull"]

[[rule]]
email = "*@example.org"
repositories = ["email"]
allow = ["pull"]

[[rule]]
cn = "ci-*"
repositories = ["cn"]
allow = ["pull"]

[[rule]]
o = "Example"
ou = "Builders"
repositories = ["ou"]
allow = ["pull"]

[[rule]]
group = "ops"
repositories = ["group"]
allow = ["pull"]
"#;

const REPOSITORIES: [&str; 7] = ["spiffe", "uri", "dns", "email", "cn", "ou", "group"];

fn home() -> Home {
    let home = Home::new();
    home.write_policy(RULES);
    home
}

/// The repositories that the peer may pull from.
async fn rights(conn: &Conn) -> Vec<&'static str> {
    let mut rights = Vec::new();
    for repository in REPOSITORIES {
        let answer = conn.get(&format!("/v2/{repository}/manifests/none")).await;
        if answer.status == 404 {
            rights.push(repository);
        } else {
            answer.expect_error(403, "DENIED");
        }
    }
    rights
}

fn nobody() -> LeafSpec {
    LeafSpec { cn: None, ..LeafSpec::client("") }
}

fn with_uris(uris: &[&str]) -> LeafSpec {
    LeafSpec { uris: uris.iter().map(|&uri| uri.to_owned()).collect(), ..nobody() }
}

fn with_dns(dns: &[&str]) -> LeafSpec {
    LeafSpec { dns: dns.iter().map(|&name| name.to_owned()).collect(), ..nobody() }
}

async fn check(site: &Site, name: &str, spec: &LeafSpec, expected: &[&str]) {
    let pair = site.home.client_ca.issue(spec);
    assert_eq!(rights(&site.client(&pair).http1().await).await, expected, "{name}");
}

#[tokio::test]
async fn each_kind_of_name() {
    let site = home().serve().await;
    check(&site, "no name", &nobody(), &[]).await;
    check(&site, "a SPIFFE ID", &with_uris(&["spiffe://example.org/ci/7"]), &["spiffe"]).await;
    check(&site, "one segment only", &with_uris(&["spiffe://example.org/ci/7/x"]), &[]).await;
    check(&site, "another trust domain", &with_uris(&["spiffe://example.com/ci/7"]), &[]).await;
    check(&site, "a URI", &with_uris(&["https://example.org/a/b/builder"]), &["uri"]).await;
    check(&site, "any of several URIs", &with_uris(&["urn:x", "https://example.org/builder"]), &["uri"]).await;
    check(&site, "a DNS name", &with_dns(&["other.test", "A7.CI.example.org"]), &["dns"]).await;
    check(&site, "one label only", &with_dns(&["a.b.ci.example.org"]), &[]).await;
    let email = LeafSpec { emails: vec!["bob@EXAMPLE.org".to_owned()], ..nobody() };
    check(&site, "an address", &email, &["email"]).await;
    check(&site, "a common name", &LeafSpec::client("ci-7"), &["cn"]).await;
    check(&site, "in its case", &LeafSpec::client("CI-7"), &[]).await;
    let unit = |organization: &str| LeafSpec {
        organizations: vec![organization.to_owned()],
        organizational_units: vec!["Builders".to_owned()],
        ..nobody()
    };
    check(&site, "both, as the rule asks", &unit("Example"), &["ou"]).await;
    check(&site, "one of the two", &unit("Other"), &[]).await;
    check(&site, "a member of a group", &LeafSpec::client("root-1"), &["group"]).await;
    assert_eq!(rights(&site.alice().http1().await).await, ["group"]);
}

/// What can be read two ways is nobody's name.
#[tokio::test]
async fn names_that_do_not_count() {
    let site = home().serve().await;
    let ci = "spiffe://example.org/ci/7";
    check(&site, "two SPIFFE IDs", &with_uris(&[ci, "spiffe://example.org/x"]), &[]).await;
    check(&site, "another URI beside it", &with_uris(&[ci, "https://example.org/builder"]), &[]).await;
    check(&site, "twice the same", &with_uris(&[ci, ci]), &[]).await;
    check(&site, "no SPIFFE ID", &with_uris(&["spiffe://example.org/ci/.."]), &[]).await;
    check(&site, "with an encoded separator", &with_uris(&["spiffe://example.org/ci/a%2fb"]), &[]).await;
    check(&site, "with a NUL", &with_uris(&["spiffe://example.org/ci/7\0"]), &[]).await;
    let crl_signer = LeafSpec { key_usages: vec![KeyUse::DigitalSignature, KeyUse::CrlSign], ..with_uris(&[ci]) };
    check(&site, "of whoever signs CRLs", &crl_signer, &[]).await;
    check(&site, "dot segments", &with_uris(&["https://example.org/../builder"]), &[]).await;
    check(&site, "an encoded separator", &with_uris(&["https://example.org/a%2Fbuilder/builder"]), &[]).await;
    check(&site, "a wildcard", &with_dns(&["*.ci.example.org"]), &[]).await;
    check(&site, "a NUL in a DNS name", &with_dns(&["a.ci.example.org\0.evil.test"]), &[]).await;
    check(&site, "a NUL at its end", &LeafSpec::client("ci-7\0"), &[]).await;
    check(&site, "what cannot be seen", &LeafSpec::client("ci-\u{200b}7"), &[]).await;
    let emails = |email: &str| LeafSpec { emails: vec![email.to_owned()], ..nobody() };
    check(&site, "two at signs", &emails("a@evil.test@example.org"), &[]).await;
    // A CA's certificate is refused in the handshake, whatever it is called.
    let ca = LeafSpec {
        is_ca: BasicConstraints::Ca,
        key_usages: vec![KeyUse::DigitalSignature, KeyUse::KeyCertSign],
        ..with_uris(&[ci])
    };
    let refusal = site.client(&site.home.client_ca.issue(&ca)).refusal().await;
    assert!(refusal.contains("UnsupportedCertificate"), "{refusal}");
}

#[tokio::test]
async fn two_common_names() {
    skip_unless!(Need::Program("openssl"));
    let home = home();
    let dir = tempfile::tempdir().unwrap();
    let ca = home.client_ca.pair.write_pair(dir.path(), "ca");
    let one = openssl::child_of(dir.path(), "one", "/CN=ci-7", &ca);
    let two = openssl::child_of(dir.path(), "two", "/CN=ci-7/CN=ci-7", &ca);
    let site = home.serve().await;
    for (files, expected) in [(one, &["cn"][..]), (two, &[])] {
        let client = Client::of_files(site.address, &site.home.server_ca, &files);
        assert_eq!(rights(&client.http1().await).await, expected);
    }
}

/// Beside its group a rule may ask for more, and then for both.
#[tokio::test]
async fn a_group_and_a_matcher() {
    let home = Home::new();
    let rule = "group = \"ops\"\nca = \"clients\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n";
    home.write_policy(&format!("[groups]\nops = [{{ pin = \"alice\" }}, {{ cn = \"admin\" }}]\n[[rule]]\n{rule}"));
    let one = home.client_ca.client("one");
    let site = home.serve().await;
    assert_eq!(rights(&site.admin().http1().await).await, REPOSITORIES);
    for outside in [site.alice(), site.client(&one)] {
        assert_eq!(rights(&outside.http1().await).await, [""; 0]);
    }
}

/// The word of any CA is not the word of one: everybody can write "admin".
#[tokio::test]
async fn self_asserted_names_give_no_rights() {
    let home = Home::new();
    let (pinned, other) = (recipe_shaped("admin"), Authority::new("other CA"));
    home.add_pin("bob", &pinned);
    other.pair.write_crt(&home.path("trust/cas"), "other");
    let stranger = other.client("admin");
    home.write_policy("[[rule]]\nca = \"clients\"\ncn = \"admin\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n");
    let site = home.serve().await;
    assert_eq!(rights(&site.admin().http1().await).await, REPOSITORIES);
    for pair in [&pinned, &stranger] {
        let conn = site.client(pair).http1().await;
        conn.get("/v2/").await.expect(200);
        assert_eq!(rights(&conn).await, [""; 0]);
        assert_eq!(conn.get("/v2/_catalog").await.json()["repositories"], serde_json::json!([]));
    }
}

/// With one CA a name needs none beside it. A second one makes the rule a load error that names its line, and what was in
/// force stays.
#[tokio::test]
async fn a_second_ca_demands_that_names_say_whose_word_they_are() {
    let home = Home::new();
    let policy = |who: &str| format!("\n[[rule]]\n{who}\nrepositories = [\"**\"]\nallow = [\"pull\"]\n");
    home.write_policy(&policy("cn = \"admin\""));
    let site = home.serve().await;
    let admin = site.admin().http1().await;
    assert_eq!(rights(&admin).await, REPOSITORIES);
    let other = Authority::new("other CA");
    other.pair.write_crt(&site.home.path("trust/cas"), "other");
    for who in ["cn = \"admin\"", "cn = \"admin\"\nca = \"*\"", "spiffe = \"spiffe://x/y\"", "group = \"g\""] {
        let groups = "[groups]\ng = [{ dns = \"a.test\" }]\n";
        site.home.write_policy(&format!("{groups}{}", policy(who)));
        let refused = site.handle.reload().expect_err(who);
        assert_eq!(refused.len(), if who.starts_with("group") { 1 } else { 2 }, "{refused:?}");
        assert!(refused.iter().all(|problem| problem.message.contains("clients, other")), "{refused:?}");
        let lines: Vec<_> = refused.iter().filter_map(|problem| problem.line).collect();
        assert_eq!(lines[0], 2, "{refused:?}");
        assert_eq!(lines.get(1), (!who.starts_with("group")).then_some(&4), "{refused:?}");
        assert_eq!(rights(&admin).await, REPOSITORIES, "what was in force stays");
        let refusal = site.client(&other.client("admin")).refusal().await;
        assert!(refusal.contains("UnknownCA"), "{refusal}");
    }
    site.home.write_policy(&policy("cn = \"admin\"\nca = \"clients\""));
    site.reload();
    assert_eq!(rights(&admin).await, REPOSITORIES);
    assert_eq!(rights(&site.client(&other.client("admin")).http1().await).await, [""; 0]);
}

/// Two CAs in one file are two.
#[tokio::test]
async fn a_bundle_of_two_cas() {
    let home = Home::new();
    let other = Authority::new("other CA");
    let bundle = format!("{}{}", home.client_ca.cert_pem(), other.cert_pem());
    std::fs::write(home.path("trust/cas/clients.crt"), bundle).unwrap();
    let policy = |ca: &str| format!("[[rule]]\n{ca}cn = \"admin\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n");
    home.write_policy(&policy(""));
    let refused = portcullis_server::Server::check(&home.config()).expect_err("two CAs");
    assert!(refused.to_string().contains("2 CAs are trusted"), "{refused}");
    // Whoever names the file means both.
    home.write_policy(&policy("ca = \"clients\"\n"));
    portcullis_server::Server::check(&home.config()).unwrap();
}

/// A rule for a CA that is gone must not keep the CA's removal from being in force; it is a finding.
#[tokio::test]
async fn a_rule_for_a_ca_that_does_not_exist() {
    let home = Home::new();
    home.write_policy(
        "[[rule]]\nca = \"gone\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n\
         [[rule]]\npin = \"nobody\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n\
         [[rule]]\npin = \"robot-*\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n",
    );
    let root = home.path("").display().to_string();
    let site = home.serve().await;
    let warnings = || -> Vec<String> {
        let lines = log::with("message", "trust");
        let texts = lines.iter().map(|line| line.get("problem").to_owned());
        texts.filter(|text| text.starts_with(&root)).collect()
    };
    until("two findings", || warnings().len() == 2).await;
    let checked = portcullis_server::Server::check(&site.home.config()).unwrap();
    assert_eq!(checked.iter().map(ToString::to_string).collect::<Vec<_>>(), warnings()[..2]);
    assert!(warnings()[0].contains("policy.toml:1: there is no CA \"gone\""), "{:?}", warnings());
    assert!(warnings()[1].contains("policy.toml:5: there is no pin \"nobody\""), "{:?}", warnings());
    assert_eq!(rights(&site.admin().http1().await).await, [""; 0]);
}

/// A rule for those who are never let in does nothing, and is said to.
#[test]
fn a_rule_for_anonymous_where_nobody_is() {
    for (mode, findings) in [("require", 1), ("explain", 1), ("optional", 0)] {
        let home = Home::with_client_auth(mode);
        home.write_policy("[[rule]]\nanonymous = true\nrepositories = [\"**\"]\nallow = [\"pull\"]\n");
        let found = portcullis_server::Server::check(&home.config()).unwrap();
        assert_eq!(found.len(), findings, "{mode}: {found:?}");
    }
}

/// Whoever edits in place is read in the middle of it: what is cut off is a policy or a problem, and never a panic.
#[test]
fn a_policy_that_is_cut_anywhere() {
    let path = std::path::Path::new("policy.toml");
    for end in (0..RULES.len()).filter(|end| RULES.is_char_boundary(*end)) {
        if let Err(problems) = portcullis_server::Policy::parse(path, &RULES[..end]) {
            assert!(!problems.is_empty(), "{end}");
        }
    }
}

/// The examples of the page are policies, and what it says of one CA holds.
#[test]
fn the_examples_of_the_documentation() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let examples: Vec<&str> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 5);
    for example in examples {
        let home = Home::new();
        home.write_policy(example);
        portcullis_server::Server::check(&home.config()).expect(example);
    }
}
