//! Why a certificate was refused, asked over the admin socket.

use portcullis_certs::state_dir::StateDir;
use portcullis_certs::trust_dir::DenyRule;
use portcullis_certs::{Certificate, Fingerprint};
use portcullis_server::{Why, admin};
use portcullis_testkit::pki::{LeafSpec, Pair};
use rustls_pki_types::CertificateDer;

use crate::fixture::{Home, until, within};
use crate::log;

fn fingerprint(pair: &Pair) -> Fingerprint {
    Certificate::from_der(CertificateDer::from(pair.cert_der().to_vec())).unwrap().fingerprint()
}

#[tokio::test]
async fn each_reason_of_late_and_the_verdict_of_now() {
    let home = Home { top: "probe = \"off\"\n".to_owned(), ..Home::new() };
    let socket = home.path("run/admin.sock");
    let bob = home.client_ca.client("bob");
    let expired = home.client_ca.issue(&LeafSpec::client("late").expired());
    std::fs::write(home.path("trust/deny"), format!("{}\n", fingerprint(&bob))).unwrap();
    let site = home.serve().await;
    let why = async |pair: &Pair| -> Why {
        within("an answer", async {
            loop {
                match admin::why(&socket, fingerprint(pair)).await {
                    Ok(why) => return why,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        })
        .await
    };
    let before = why(&bob).await;
    assert_eq!((before.fingerprint.as_str(), before.verdict), (fingerprint(&bob).to_string().as_str(), None));
    assert!(before.refusals.is_empty());

    for _ in 0..3 {
        site.client(&bob).refusal().await;
    }
    site.client(&expired).refusal().await;
    let print = fingerprint(&expired).to_string();
    until("the last refusal", || !log::with("fingerprint", &print).is_empty()).await;
    let denied = why(&bob).await;
    let [seen] = denied.refusals.as_slice() else { panic!("{denied:?}") };
    assert_eq!((seen.code.as_str(), seen.count), ("revoked", 3));
    assert_eq!(seen.reason, "the certificate is on the deny list (line 1)");
    assert!(seen.told.contains("is revoked") && !seen.told.contains("line"), "{seen:?}");
    let now = denied.verdict.unwrap();
    assert_eq!((now.refused.as_deref(), now.trusted_by, now.generation), (Some(seen.reason.as_str()), None, 1));

    // Let in again; what the policy denies it is a refusal too.
    std::fs::write(site.home.path("trust/deny"), "").unwrap();
    // As `trust forgive` does.
    let state = StateDir::new(site.home.path("state"));
    let rule = DenyRule::Certificate(fingerprint(&bob));
    assert!(state.forget_deny(&state.lock().unwrap(), &rule).unwrap());
    site.home.write_policy("[[rule]]\nca = \"clients\"\nrepositories = [\"team/**\"]\nallow = [\"pull\"]\n");
    site.reload();
    site.client(&bob).http1().await.get("/v2/other/tags/list").await.expect_error(403, "DENIED");
    let allowed = why(&bob).await;
    let codes: Vec<&str> = allowed.refusals.iter().map(|seen| seen.code.as_str()).collect();
    assert_eq!(codes, ["not-allowed", "revoked"]);
    assert_eq!(allowed.verdict.unwrap().trusted_by.as_deref(), Some("ca:clients"));
    assert_eq!(why(&expired).await.refusals[0].code, "expired");
}

/// Certificates are public. Whoever shows a client's, without its key and beside a chain that is refused, neither takes it
/// off the list of clients nor leaves a refusal under its name.
#[tokio::test]
async fn a_stranger_with_a_clients_certificate_changes_nothing_about_it() {
    let home = Home { top: "probe = \"off\"\n".to_owned(), ..Home::new() };
    let socket = home.path("run/admin.sock");
    let issuing = home.client_ca.intermediate("issuing CA");
    let (carol, dave) = (issuing.client("carol"), issuing.client("dave"));
    let site = home.serve().await;
    crate::admin::status(&socket).await;
    let listed = async || -> Vec<String> {
        admin::clients(&socket).await.unwrap().into_iter().map(|client| client.fingerprint).collect()
    };
    let why = async |pair: &Pair| admin::why(&socket, fingerprint(pair)).await.unwrap();
    let seen_refused = async |pair: &Pair, times: usize| {
        let print = fingerprint(pair).to_string();
        until("the log's line", || log::with("fingerprint", &print).len() == times).await;
        assert!(log::with("fingerprint", &print).iter().all(|line| line.get("key_proven") == "false"));
    };
    site.client(&carol).http1().await.get("/v2/").await.expect(200);
    assert_eq!(listed().await, [fingerprint(&carol).to_string()]);

    // Without its intermediate the chain leads nowhere. The handshake ends before anybody proves a key.
    site.client(&carol.without_chain()).refusal().await;
    seen_refused(&carol, 1).await;
    assert_eq!(listed().await, [fingerprint(&carol).to_string()]);
    assert!(why(&carol).await.refusals.is_empty());

    // Of one that was never let in it is noted, as unproven, until it is.
    site.client(&dave.without_chain()).refusal().await;
    seen_refused(&dave, 1).await;
    let noted = why(&dave).await.refusals;
    assert!(matches!(noted.as_slice(), [one] if one.code == "issuer-not-sent" && !one.key_proven), "{noted:?}");
    site.client(&dave).http1().await.get("/v2/").await.expect(200);
    assert!(why(&dave).await.refusals.is_empty());

    // What no chain would help is the certificate's own, whoever shows it.
    std::fs::write(site.home.path("trust/deny"), format!("{}\n", fingerprint(&carol))).unwrap();
    site.reload();
    site.client(&carol.without_chain()).refusal().await;
    seen_refused(&carol, 2).await;
    assert_eq!(listed().await, [fingerprint(&dave).to_string()]);
    let refusals = why(&carol).await.refusals;
    assert!(matches!(refusals.as_slice(), [one] if one.code == "revoked" && !one.key_proven), "{refusals:?}");

    // Nor is anybody a client of a CA that is gone.
    std::fs::remove_file(site.home.path("trust/cas/clients.crt")).unwrap();
    site.home.write_policy("[[rule]]\npin = \"alice\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n");
    site.reload();
    site.client(&dave).refusal().await;
    seen_refused(&dave, 2).await;
    assert_eq!(listed().await, [""; 0]);
}

/// Where the reason is told in an answer, the key was proven first.
#[tokio::test]
async fn with_explain_a_refusal_is_proven() {
    let home = Home::with_client_auth("explain");
    let top = "probe = \"off\"\n[tls]\nclient_auth = \"explain\"\n".to_owned();
    let home = Home { top, ..home };
    let socket = home.path("run/admin.sock");
    let eve = portcullis_testkit::pki::Authority::new("stranger").client("eve");
    let site = home.serve().await;
    crate::admin::status(&socket).await;
    site.client(&eve).http1().await.get("/v2/").await.expect(401);
    let refusals = admin::why(&socket, fingerprint(&eve)).await.unwrap().refusals;
    assert!(matches!(refusals.as_slice(), [one] if one.key_proven), "{refusals:?}");
}
