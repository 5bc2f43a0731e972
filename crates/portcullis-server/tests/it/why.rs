//! Why a certificate was refused, asked over the admin socket.

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
    std::fs::remove_file(site.home.path("state/deny")).unwrap();
    site.home.write_policy("[[rule]]\nca = \"clients\"\nrepositories = [\"team/**\"]\nallow = [\"pull\"]\n");
    site.reload();
    site.client(&bob).http1().await.get("/v2/other/tags/list").await.expect_error(403, "DENIED");
    let allowed = why(&bob).await;
    let codes: Vec<&str> = allowed.refusals.iter().map(|seen| seen.code.as_str()).collect();
    assert_eq!(codes, ["not-allowed", "revoked"]);
    assert_eq!(allowed.verdict.unwrap().trusted_by.as_deref(), Some("ca:clients"));
    assert_eq!(why(&expired).await.refusals[0].code, "expired");
}
