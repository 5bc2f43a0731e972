//! `client_auth = "explain"`: whoever is not let in is told why, in an answer, and gets nothing else.

use portcullis_certs::Certificate;
use portcullis_testkit::pki::{Authority, KeyAlg, LeafSpec, Pair, recipe_shaped, self_signed_client};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::client::{Answer, Client, Protocol, full, request};
use crate::fixture::{Home, Site, until, within};
use crate::log;

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
/// How the sentences about a certificate begin, as [`shown`] abbreviates them.
const OWN: &str = "the client certificate NAME (serial SERIAL, sha256:PRINT, valid FROM to UNTIL)";
const ANOTHER: &str = "who runs this registry can make another: portcullis cert new client NAME";
const PIN: &str =
    "who runs this registry can trust exactly this certificate: portcullis trust add client.cert --as pin --name NAME";
const NONE: &str = "no client certificate was presented, and this registry lets in only those who have one; put it where your engine looks: portcullis install registry.test --from DIR (with ca.crt, client.cert and client.key; who runs this registry can make one: portcullis cert new client NAME)";

fn explaining() -> Home {
    Home::with_client_auth("explain")
}

fn certificate(pair: &Pair) -> Certificate {
    Certificate::from_der(CertificateDer::from(pair.cert_der().to_vec())).unwrap()
}

/// The sentence with what differs from run to run replaced by what it is.
fn shown(sentence: &str, pair: &Pair) -> String {
    let certificate = certificate(pair);
    let facts = certificate.facts();
    let date = |time: OffsetDateTime| time.format(&Rfc3339).unwrap();
    sentence
        .replace(&certificate.fingerprint().to_string(), "sha256:PRINT")
        .replace(&format!("serial {}", facts.serial), "serial SERIAL")
        .replace(&format!("valid {} to {}", date(facts.not_before), date(facts.not_after)), "valid FROM to UNTIL")
        .replace(&date(facts.not_before), "FROM")
        .replace(&date(facts.not_after), "UNTIL")
        .replace(&format!("certificate {} (", facts.subject), "certificate NAME (")
}

/// 401 where engines ask whether they may come in, 403 with the same sentence everywhere else.
async fn refused(site: &Site, pair: Option<&Pair>, code: &str) -> String {
    let client = pair.map_or_else(|| site.anonymous(), |pair| site.client(pair));
    let mut message = None;
    for protocol in BOTH {
        for (path, status, error) in [
            ("/v2/", 401, "UNAUTHORIZED"),
            ("/v2/team/app/manifests/tag", 403, "DENIED"),
            ("/v2/_catalog", 403, "DENIED"),
            ("/nowhere", 403, "DENIED"),
        ] {
            let answer = client.connect(protocol).await.get(path).await;
            assert_eq!(answer.header("portcullis-reason"), code, "{path}");
            assert_eq!(answer.json()["errors"][0]["detail"], serde_json::json!({ "reason": code }));
            let challenge = answer.headers.get("www-authenticate").map(|value| value.to_str().unwrap());
            assert_eq!(challenge, (status == 401).then_some("Mutual realm=\"client certificate\""));
            assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
            let told = answer.expect_error(status, error);
            // One of them says what time it is.
            let timeless = |told: &str| told.split("here it is").next().unwrap().to_owned();
            assert_eq!(timeless(message.get_or_insert_with(|| told.clone())), timeless(&told));
        }
    }
    message.unwrap()
}

#[track_caller]
fn same(message: &str, pair: &Pair, expected: &str) {
    assert_eq!(shown(message, pair), format!("{OWN} {expected}"));
}

#[tokio::test]
async fn no_certificate() {
    let site = explaining().serve().await;
    assert_eq!(refused(&site, None, "no-certificate").await, NONE);
}

/// In front of the registry may stand something with another port: the name is one of its own, or it is not used.
#[tokio::test]
async fn the_registry_is_named_as_it_was_typed() {
    let site = explaining().serve().await;
    let own = format!("registry.test:{}", site.address.port());
    for (typed, named) in [
        ("registry.test:8443", "registry.test:8443"),
        ("REGISTRY.test", "registry.test"),
        ("evil.test;rm", own.as_str()),
        ("evil.test", own.as_str()),
    ] {
        let mut stream = site.anonymous().tls(Protocol::Http1).await.unwrap();
        stream.write_all(format!("GET /v2/ HTTP/1.1\r\nhost: {typed}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.contains(&format!("portcullis install {named} --from DIR")), "{typed}: {answer}");
    }
}

#[tokio::test]
async fn a_ca_that_is_not_trusted() {
    let site = explaining().serve().await;
    let eve = Authority::new("another CA").client("eve");
    let message = refused(&site, Some(&eve), "issuer-not-sent").await;
    same(
        &message,
        &eve,
        &format!(
            "was issued by CN=another CA, which is no CA that is trusted here and whose certificate was not sent; if that is an intermediate CA, append its certificate: cat intermediate.crt >> client.cert; else {ANOTHER}"
        ),
    );
    let below = Authority::new("another CA").intermediate("its intermediate").client("eve");
    let message = refused(&site, Some(&below), "unknown-ca").await;
    same(
        &message,
        &below,
        &format!(
            "was sent with the certificates of its issuers, and they lead to no CA that is trusted here; {ANOTHER}"
        ),
    );
}

/// No names of CAs are sent in this mode: whoever tries one after the other shall not be told which it is.
#[tokio::test]
async fn a_ca_of_the_name_of_one_that_is_trusted() {
    let site = explaining().serve().await;
    let of_another_kind = LeafSpec { alg: KeyAlg::P384, ..LeafSpec::authority("client CA") };
    for namesake in [Authority::new("client CA"), Authority::from_spec(&of_another_kind)] {
        let eve = namesake.client("eve");
        let message = refused(&site, Some(&eve), "issuer-not-sent").await;
        same(
            &message,
            &eve,
            &format!(
                "was issued by CN=client CA, which is no CA that is trusted here and whose certificate was not sent; if that is an intermediate CA, append its certificate: cat intermediate.crt >> client.cert; else {ANOTHER}"
            ),
        );
        // Who runs the registry is told.
        let lines = log::with("fingerprint", &certificate(&eve).fingerprint().to_string());
        let reason = lines.first().expect("a line").get("reason").to_owned();
        assert!(reason.contains("another key than that of the CA"), "{reason}");
    }
    // It names itself, and another key signed it.
    for name in ["client CA", "no CA here"] {
        let own = Authority::new(name).client(name);
        let message = refused(&site, Some(&own), "self-signed").await;
        same(&message, &own, &format!("is self-signed and not pinned here; {PIN}"));
    }
}

#[tokio::test]
async fn an_intermediate_that_is_missing() {
    let home = explaining();
    let intermediate = home.client_ca.intermediate("issuing CA");
    let bob = intermediate.client("bob");
    let site = home.serve().await;
    site.client(&bob).http1().await.get("/v2/").await.expect(200);
    let alone = bob.without_chain();
    let message = refused(&site, Some(&alone), "issuer-not-sent").await;
    same(
        &message,
        &alone,
        &format!(
            "was issued by CN=issuing CA, which is no CA that is trusted here and whose certificate was not sent; if that is an intermediate CA, append its certificate: cat intermediate.crt >> client.cert; else {ANOTHER}"
        ),
    );
    // The registry may hold it too: then nobody has to send it.
    intermediate.pair.write_crt(&site.home.path("trust/cas"), "issuing");
    site.reload();
    site.client(&alone).http1().await.get("/v2/").await.expect(200);
}

#[tokio::test]
async fn dates() {
    let site = explaining().serve().await;
    let late = site.home.client_ca.issue(&LeafSpec::client("late").expired());
    same(&refused(&site, Some(&late), "expired").await, &late, &format!("expired on UNTIL; {ANOTHER}"));
    let early = site.home.client_ca.issue(&LeafSpec::client("early").not_yet_valid());
    let message = shown(&refused(&site, Some(&early), "not-yet-valid").await, &early);
    let (before, clock) = message.split_once("here it is ").unwrap();
    assert_eq!(before, format!("{OWN} is not valid before FROM, and "));
    let (clock, rest) = clock.split_at("2026-01-01T00:00:00Z".len());
    assert!(OffsetDateTime::parse(clock, &Rfc3339).is_ok(), "{clock}");
    assert_eq!(rest, format!(": set the clock that is wrong; else {ANOTHER}"));
}

#[tokio::test]
async fn a_revoked_certificate() {
    let home = explaining();
    let lost = home.client_ca.client("lost");
    std::fs::write(home.path("trust/deny"), format!("# a line\n{} # stolen\n", certificate(&lost).fingerprint()))
        .unwrap();
    let site = home.serve().await;
    let message = refused(&site, Some(&lost), "revoked").await;
    same(&message, &lost, &format!("is revoked; {ANOTHER}"));
}

#[tokio::test]
async fn the_wrong_usage() {
    let site = explaining().serve().await;
    let web = site.home.client_ca.issue(&LeafSpec::client("web").server_auth_only());
    let message = refused(&site, Some(&web), "wrong-usage").await;
    same(
        &message,
        &web,
        &format!("may not be used by a TLS client: its extendedKeyUsage, or an issuer's, lacks clientAuth; {ANOTHER}"),
    );
}

#[tokio::test]
async fn a_ca_as_a_client() {
    let site = explaining().serve().await;
    let expected =
        format!("is a CA's (CA:TRUE), and a CA is no client: as one it is let in only when it is pinned; {PIN}");
    let intermediate = site.home.client_ca.intermediate("issuing CA").pair;
    for pair in [&recipe_shaped("bob"), &site.home.client_ca.pair, &intermediate] {
        same(&refused(&site, Some(pair), "ca-certificate").await, pair, &expected);
    }
    let message = refused(&site, Some(&self_signed_client("bob")), "self-signed").await;
    assert!(message.ends_with(&format!("is self-signed and not pinned here; {PIN}")), "{message}");
    site.alice().http1().await.get("/v2/").await.expect(200);
}

/// What a pin signs is a stranger's, and who is pinned is not told to it.
#[tokio::test]
async fn a_child_of_a_pin() {
    let site = explaining().serve().await;
    let child = site.home.alice.mint(&LeafSpec::client("mallory"));
    let message = refused(&site, Some(&child), "issuer-not-sent").await;
    assert!(!message.contains("pin"), "{message}");
}

#[tokio::test]
async fn what_the_policy_denies_carries_its_sentence_in_every_mode() {
    for mode in ["require", "explain", "optional"] {
        let site = Home::with_client_auth(mode).serve().await;
        let conn = site.alice().http1().await;
        let answer = conn.post("/v2/team/app/blobs/uploads/", "").await;
        assert_eq!(answer.header("portcullis-reason"), "not-allowed");
        let message = shown(&answer.expect_error(403, "DENIED"), &site.home.alice);
        assert_eq!(
            message,
            "pin:alice (serial SERIAL, sha256:PRINT) may not push in team/app; who runs this registry sees why, and what would allow it, with: portcullis policy check --cert client.cert push REPOSITORY"
        );
    }
}

/// The log has the sentence that the peer is told, in the mode that tells it and in the one that has alerts only.
#[tokio::test]
async fn the_log_has_the_sentence() {
    let mut sentences = Vec::new();
    let eve = Authority::new("another CA").client("eve");
    for (mode, key_proven) in [("explain", "true"), ("require", "false")] {
        let site = Home::with_client_auth(mode).serve().await;
        for pair in [Some(&eve), None] {
            let client = pair.map_or_else(|| site.anonymous(), |pair| site.client(pair));
            let mut stream = client.tls(Protocol::Http1).await.unwrap();
            let local = stream.get_ref().0.local_addr().unwrap().to_string();
            until("a line in the log", || !log::with("peer", &local).is_empty()).await;
            let line = log::with("peer", &local).remove(0);
            let told = line.get("told").replace(&format!(":{} ", site.address.port()), " ");
            let proven = line.fields.get("key_proven").map(String::as_str);
            assert_eq!(proven, pair.map(|_| key_proven));
            if mode == "explain" {
                stream.write_all(b"GET /v2/ HTTP/1.1\r\nhost: registry.test\r\n\r\n").await.unwrap();
                let mut answer = String::new();
                within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
                assert!(answer.contains(&told), "{told}: {answer}");
            }
            sentences.push(told);
        }
    }
    assert_eq!(sentences[..2], sentences[2..]);
}

/// Nothing that a stranger sends is read, and its connection is good for one answer.
#[tokio::test]
async fn no_body_is_read_and_the_connection_ends() {
    let site = explaining().serve().await;
    let mut stream = site.anonymous().tls(Protocol::Http1).await.unwrap();
    let head =
        "POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(format!("{head}12345{head}12345").as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("connection: close"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    let mut conn = site.anonymous().http2().await;
    conn.put_manifest("team/app", "tag", &vec![b' '; 1 << 20]).await.expect_error(403, "DENIED");
    conn.closed().await;
    assert!(site.home.stored().is_empty() && site.home.leftovers().is_empty());
}

/// As an engine does: a `HEAD` has the status and no body.
#[tokio::test]
async fn head() {
    let site = explaining().serve().await;
    for protocol in BOTH {
        let Answer { status, body, .. } =
            site.anonymous().connect(protocol).await.head("/v2/team/app/manifests/x").await;
        assert_eq!((status, body.len()), (403, 0));
    }
}

/// A stranger that asks nothing goes after ten seconds; until then it takes a stranger's place and nobody else's.
#[tokio::test]
async fn strangers_have_few_places_and_a_short_life() {
    let home = Home { limits: "strangers = 4\nconnections = 2".to_owned(), ..explaining() };
    let site = home.serve().await;
    let clients = [site.anonymous(), site.anonymous(), site.anonymous(), site.anonymous()];
    let mut idle = park(&clients[0]).await;
    // A quarter of the places is one address'.
    assert!(!is_answered(&clients[0]).await);
    let mut others = Vec::new();
    for client in &clients[1..] {
        others.push(park(client).await);
    }
    assert!(!is_answered(&site.anonymous()).await);
    // The two connections that there may be are still to be had.
    until_answered(&site.admin()).await;
    let mut rest = Vec::new();
    within("the connection ends", idle.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    until_answered(&clients[0]).await;
}

async fn until_answered(client: &Client) {
    within("an answer", Box::pin(async { while !is_answered(client).await {} })).await;
}

/// Open, in its place, and silent.
async fn park(client: &Client) -> TlsStream<TcpStream> {
    within("a place", async {
        loop {
            if let Ok(stream) = client.tls(Protocol::Http1).await {
                let local = stream.get_ref().0.local_addr().unwrap().to_string();
                until("it is known as a stranger", || !log::with("peer", &local).is_empty()).await;
                return stream;
            }
        }
    })
    .await
}

/// Whether there was any answer.
async fn is_answered(client: &Client) -> bool {
    // The connection before is gone from the server's books a moment after it was closed.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let Ok(conn) = client.try_connect(Protocol::Http1).await else { return false };
    conn.try_send(request("GET", "/v2/").body(full("")).unwrap()).await.is_ok()
}

/// Trust that ends while a connection is open.
#[tokio::test]
async fn an_open_connection_is_told_when_its_trust_ends() {
    for protocol in BOTH {
        let site = explaining().serve().await;
        let (mut first, mut second) = (site.alice().connect(protocol).await, site.alice().connect(protocol).await);
        first.get("/v2/").await.expect(200);
        second.get("/v2/team/app/tags/list").await.expect(404);
        site.home.remove_pin("alice");
        site.reload();
        let answer = first.get("/v2/").await;
        assert_eq!(answer.header("portcullis-reason"), "ca-certificate");
        let message = answer.expect_error(401, "UNAUTHORIZED");
        assert_eq!(second.get("/v2/team/app/tags/list").await.expect_error(403, "DENIED"), message);
        first.closed().await;
        second.closed().await;
        assert_eq!(refused(&site, Some(&site.home.alice), "ca-certificate").await, message);
    }
}

mod optional {
    use super::*;

    const RULES: &str = r#"
[[rule]]
ca = "clients"
repositories = ["**"]
allow = ["pull", "push"]

[[rule]]
anonymous = true
repositories = ["public/**"]
allow = ["pull"]
"#;

    #[tokio::test]
    async fn whoever_shows_nothing_has_the_rights_of_anonymous() {
        let home = Home::with_client_auth("optional");
        home.write_policy(RULES);
        let site = home.serve().await;
        let admin = site.admin().http1().await;
        for repository in ["public/app", "team/app"] {
            admin.push_blob(repository, b"a layer").await;
            admin.put_manifest(repository, "tag", br#"{"schemaVersion":2,"manifests":[]}"#).await.expect(201);
        }
        for protocol in BOTH {
            let nobody = site.anonymous().connect(protocol).await;
            nobody.get("/v2/").await.expect(200);
            nobody.get("/v2/public/app/manifests/tag").await.expect(200);
            assert_eq!(nobody.get("/v2/_catalog").await.json()["repositories"], serde_json::json!(["public/app"]));
            let denied = nobody.get("/v2/team/app/manifests/tag").await;
            assert_eq!(denied.header("portcullis-reason"), "not-allowed");
            assert_eq!(
                denied.expect_error(403, "DENIED"),
                "no client certificate was presented, and without one nobody may pull in team/app; who runs this registry can make one: portcullis cert new client NAME"
            );
            nobody.post("/v2/public/app/blobs/uploads/", "").await.expect_error(403, "DENIED");
        }
        // A rule for anonymous is for no one else.
        assert_eq!(site.alice().http1().await.get("/v2/public/app/manifests/tag").await.status, 403);
        let lines = log::with("who", "anonymous");
        assert!(lines.iter().any(|line| line.get("message") == "request denied"), "{lines:?}");
    }

    /// None by default, and who takes them away takes them from open connections.
    #[tokio::test]
    async fn anonymous_has_no_rights_that_no_rule_gives() {
        let site = Home::with_client_auth("optional").serve().await;
        let nobody = site.anonymous().http1().await;
        let answer = nobody.get("/v2/").await;
        assert_eq!(answer.header("portcullis-reason"), "no-certificate");
        assert_eq!(answer.expect_error(401, "UNAUTHORIZED"), NONE);
        nobody.get("/v2/public/app/manifests/tag").await.expect_error(403, "DENIED");
        assert_eq!(nobody.get("/v2/_catalog").await.json()["repositories"], serde_json::json!([]));
        site.home.write_policy(RULES);
        site.reload();
        nobody.get("/v2/").await.expect(200);
        nobody.get("/v2/public/app/manifests/tag").await.expect(404);
    }

    /// A certificate that is presented and refused never becomes anonymous.
    #[tokio::test]
    async fn what_is_presented_and_refused_ends_the_handshake() {
        let home = Home::with_client_auth("optional");
        home.write_policy(RULES);
        let site = home.serve().await;
        let expired = site.home.client_ca.issue(&LeafSpec::client("late").expired());
        for (pair, alert) in [(Authority::new("x").client("eve"), "UnknownCA"), (expired, "CertificateExpired")] {
            let refusal = site.client(&pair).refusal().await;
            assert!(refusal.contains(alert), "{refusal}");
        }
        site.admin().http1().await.get("/v2/").await.expect(200);
    }

    /// A pin that is removed leaves no anonymous peer behind.
    #[tokio::test]
    async fn whoever_loses_its_trust_does_not_become_anonymous() {
        let home = Home::with_client_auth("optional");
        home.write_policy(RULES);
        let site = home.serve().await;
        let mut alice = site.alice().http1().await;
        alice.get("/v2/").await.expect(200);
        site.home.remove_pin("alice");
        site.reload();
        alice.get("/v2/public/app/manifests/tag").await.expect_error(403, "DENIED");
        alice.closed().await;
    }
}
