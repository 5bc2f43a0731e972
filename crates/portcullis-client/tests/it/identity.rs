//! Which pair is presented, when the next is tried, and what the error says when none is left.

use std::collections::HashSet;
use std::fs;

use portcullis_client::{Client, ClientError, Distrust, Failure, Location, Refusal};
use portcullis_testkit::pki::{Authority, LeafSpec};
use rustls::CertificateError;

use crate::image::Image;
use crate::site::{Pki, Site};
use crate::stub::{reply, with};
use crate::tls::{H1, H2, TlsSetup};

const NGINX: &str = "<html>\r\n<head><title>400 No required SSL certificate was sent</title></head>\r\n<body>\r\n<center><h1>400 Bad Request</h1></center>\r\n<center>No required SSL certificate was sent</center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n";

/// Every TLS version with every HTTP version: the alert takes another way through the libraries each time.
#[tokio::test]
async fn a_pair_refused_in_tls_makes_way_for_the_next() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for alpn in [H1, H2] {
            let pki = Pki::new();
            let bad = pki.client_ca.client("bad");
            let mut tls = pki.tls().refuse("bad", &bad, CertificateError::UnknownIssuer);
            (tls.version, tls.alpn) = (version, alpn);
            let site = Site::without_pair(&pki, tls).await;
            // Byte order: upper case before lower case, "10" before "2".
            bad.write_pair(&site.certs(), "10");
            pki.good.write_pair(&site.certs(), "2");
            let client = site.client().await;
            assert_eq!(client.pair_used().as_deref(), Some("2"), "{version:?} {alpn:?}");
            assert_eq!(site.stub.presented(), ["bad", "good"], "{version:?} {alpn:?}");
            assert_eq!(site.stub.pairs(), ["good"]);
        }
    }
}

#[tokio::test]
async fn the_first_pair_that_is_taken_is_used() {
    let pki = Pki::new();
    let also_good = pki.client_ca.client("also good");
    let site = Site::without_pair(&pki, pki.tls().accept("also", &also_good)).await;
    also_good.write_pair(&site.certs(), "a");
    pki.good.write_pair(&site.certs(), "B");
    assert_eq!(site.client().await.pair_used().as_deref(), Some("B"));
    assert_eq!(site.stub.presented(), ["good"]);
}

#[tokio::test]
async fn each_alert_has_its_name_in_the_error() {
    let cases = [
        ("a", CertificateError::UnknownIssuer, Failure::UnknownCa),
        ("b", CertificateError::Expired, Failure::CertificateExpired),
        ("c", CertificateError::Revoked, Failure::CertificateRevoked),
        ("d", CertificateError::InvalidPurpose, Failure::UnsupportedCertificate),
        ("e", CertificateError::ApplicationVerificationFailure, Failure::AccessDenied),
        ("f", CertificateError::BadSignature, Failure::DecryptError),
    ];
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for alpn in [H1, H2] {
            let pki = Pki::new();
            let pairs: Vec<_> = cases.iter().map(|(name, ..)| pki.client_ca.client(name)).collect();
            let mut tls = pki.tls();
            for ((name, error, _), pair) in cases.iter().zip(&pairs) {
                tls = tls.refuse(name, pair, error.clone());
            }
            (tls.version, tls.alpn) = (version, alpn);
            let site = Site::without_pair(&pki, tls).await;
            for ((name, ..), pair) in cases.iter().zip(&pairs) {
                pair.write_pair(&site.certs(), name);
            }
            let error = site.connect().await.unwrap_err();
            assert!(error.is_refusal(), "{error}");
            let ClientError::Refused { attempts, .. } = &error else { panic!("{error}") };
            let found: Vec<_> = attempts
                .iter()
                .map(|attempt| match &attempt.refusal {
                    Refusal::Handshake(failure) => (attempt.pair.clone().unwrap(), failure.clone()),
                    Refusal::Answer(answer) => panic!("{answer}"),
                })
                .collect();
            let expected: Vec<_> =
                cases.iter().map(|(name, _, failure)| ((*name).to_owned(), failure.clone())).collect();
            assert_eq!(found, expected, "{version:?} {alpn:?}");
            assert!(site.stub.log().is_empty());
        }
    }
}

#[tokio::test]
async fn without_a_pair_a_strict_registry_asks_for_one() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for alpn in [H1, H2] {
            let pki = Pki::new();
            let mut tls = pki.tls();
            (tls.version, tls.alpn) = (version, alpn);
            let site = Site::without_pair(&pki, tls).await;
            let error = site.connect().await.unwrap_err();
            let ClientError::Refused { attempts, .. } = &error else { panic!("{error}") };
            let [attempt] = attempts.as_slice() else { panic!("{error}") };
            assert!(attempt.pair.is_none());
            assert!(matches!(&attempt.refusal, Refusal::Handshake(Failure::CertificateRequired)), "{error}");
            assert!(error.advice().unwrap().contains("NAME.cert"));
        }
    }
}

#[tokio::test]
async fn without_a_pair_an_open_registry_is_used_without() {
    let pki = Pki::new();
    let mut tls = pki.tls();
    tls.mandatory = false;
    let site = Site::without_pair(&pki, tls).await;
    assert_eq!(site.client().await.pair_used().as_deref(), None);
    assert_eq!(site.stub.pairs(), ["nobody"]);
}

#[tokio::test]
async fn an_authentication_answer_makes_way_for_the_next() {
    for status in [400, 401, 403, 495, 496, 500, 502, 503] {
        let site = two_pairs().await;
        let body = if status == 400 { NGINX } else { "" };
        site.stub.rule(move |seen| (seen.pair.as_deref() == Some("a")).then(|| reply(status, body)));
        assert_eq!(site.client().await.pair_used().as_deref(), Some("b"), "{status}");
        assert_eq!(site.stub.pairs(), ["a", "b"], "{status}");
    }
}

#[tokio::test]
async fn other_answers_do_not() {
    for (status, requests) in [(400, 1), (404, 1), (405, 1), (429, 4), (302, 1)] {
        let site = two_pairs().await;
        site.stub.rule(move |seen| (seen.pair.as_deref() == Some("a")).then(|| reply(status, "something else")));
        let error = site.connect().await.unwrap_err();
        assert!(matches!(&error, ClientError::Status { answer, .. } if answer.status == status), "{error}");
        assert_eq!(site.stub.pairs(), vec!["a"; requests], "{status}");
        assert!(!error.is_refusal());
    }
}

#[tokio::test]
async fn when_all_are_refused_each_reason_is_told() {
    let site = two_pairs().await;
    site.stub.rule(|seen| match seen.pair.as_deref() {
        Some("a") => {
            let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"CN=a \u202e expired"}]}"#;
            Some(with(reply(401, body), "www-authenticate", "Mutual realm=\"client certificate\""))
        }
        _ => Some(reply(400, NGINX)),
    });
    let error = site.connect().await.unwrap_err();
    assert!(error.is_refusal());
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("{} refused every client certificate:", site.host));
    assert_eq!(lines[1], r"  with a.cert: the registry answered 401 Unauthorized: UNAUTHORIZED: CN=a \u{202e} expired");
    assert!(lines[2].starts_with("  with b.cert: the registry answered 400 Bad Request: "), "{text}");
    assert!(lines[2].contains("No required SSL certificate was sent"), "{text}");
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again_and_is_no_refusal() {
    let site = two_pairs().await;
    site.stub.rule(|_| Some(reply(503, "starting")));
    let error = site.connect().await.unwrap_err();
    assert!(!error.is_refusal(), "{error}");
    assert_eq!(site.stub.pairs(), ["a", "b", "a", "b", "a", "b", "a", "b"]);

    let site = two_pairs().await;
    let count = std::sync::atomic::AtomicUsize::new(0);
    site.stub.rule(move |_| {
        let before = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (before < 3).then(|| reply(503, "starting"))
    });
    assert_eq!(site.client().await.pair_used().as_deref(), Some("b"));
}

#[tokio::test]
async fn a_connection_closed_without_a_word_makes_way_for_the_next() {
    for alpn in [H1, H2] {
        let pki = Pki::new();
        let (a, b) = (pki.client_ca.client("a"), pki.client_ca.client("b"));
        let mut tls = pki.tls().accept("a", &a).accept("b", &b);
        tls.hang_up_on = HashSet::from(["a".to_owned()]);
        tls.alpn = alpn;
        let site = Site::without_pair(&pki, tls).await;
        a.write_pair(&site.certs(), "a");
        b.write_pair(&site.certs(), "b");
        assert_eq!(site.client().await.pair_used().as_deref(), Some("b"), "{alpn:?}");
    }
}

/// A server that closes with our request unread resets the connection, which may overtake its alert: the next pair is
/// tried all the same, and the reason is found.
#[tokio::test]
async fn a_rude_server_is_understood() {
    for alpn in [H1, H2] {
        let pki = Pki::new();
        let bad = pki.client_ca.client("bad");
        let mut tls = pki.tls().refuse("bad", &bad, CertificateError::Expired);
        (tls.rude, tls.alpn) = (true, alpn);
        let site = Site::without_pair(&pki, tls).await;
        bad.write_pair(&site.certs(), "a");
        for _ in 0..10 {
            let error = site.connect().await.unwrap_err();
            let ClientError::Refused { attempts, .. } = &error else { panic!("{alpn:?} {error:?}") };
            let [attempt] = attempts.as_slice() else { panic!("{error}") };
            let refusal = &attempt.refusal;
            assert!(matches!(refusal, Refusal::Handshake(Failure::CertificateExpired)), "{alpn:?} {error}");
        }
        pki.good.write_pair(&site.certs(), "b");
        assert_eq!(site.client().await.pair_used().as_deref(), Some("b"), "{alpn:?}");
    }
}

#[tokio::test]
async fn a_missing_key_ends_it_before_anything_is_sent() {
    let site = Site::good().await;
    fs::remove_file(site.certs().join("good.key")).unwrap();
    fs::write(site.certs().join("empty.crt"), "").unwrap();
    let error = site.connect().await.unwrap_err();
    let ClientError::CertsDir { findings, .. } = &error else { panic!("{error}") };
    assert!(findings.len() >= 2, "all findings: {findings:?}");
    let sentence =
        "Missing key good.key for client certificate good.cert. CA certificates should use the extension .crt.";
    assert!(error.to_string().contains(sentence), "{error}");
    assert_eq!(site.stub.connections(), 0);
}

#[tokio::test]
async fn warnings_do_not_stop_anything_and_are_kept() {
    let pki = Pki::new();
    let expired = pki.client_ca.issue(&LeafSpec::client("old").expired());
    let site = Site::without_pair(&pki, pki.tls().refuse("old", &expired, CertificateError::Expired)).await;
    expired.write_pair(&site.certs(), "a");
    pki.good.write_pair(&site.certs(), "b");
    let client = site.client().await;
    assert_eq!(site.stub.presented(), ["old", "good"], "an expired pair is still presented");
    assert!(!client.warnings().is_empty());
}

/// The client's certificate goes to nobody whose own was not verified.
#[tokio::test]
async fn an_untrusted_server_sees_no_certificate() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let pki = Pki::new();
        let mut tls = pki.tls();
        tls.version = version;
        let site = Site::with_good_pair(&pki, tls).await;
        Authority::new("somebody else").write_ca(&site.certs());
        let error = site.connect().await.unwrap_err();
        let ClientError::Connection { failure: Failure::ServerNotTrusted(Distrust::UnknownIssuer), .. } = &error else {
            panic!("{error}")
        };
        assert!(!error.is_refusal());
        assert!(error.advice().unwrap().contains("ca.crt"));
        assert!(site.stub.presented().is_empty());
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_server_is_named() {
    let pki = Pki::new();
    let address = "127.0.0.1".parse().unwrap();
    let server = |spec: LeafSpec| TlsSetup::new(&pki.server_ca.issue(&spec)).accept("good", &pki.good);
    let cases = [
        (
            server(LeafSpec::server(&["other.test"], &[])),
            "not for 127.0.0.1, only for other.test",
            "a name that the certificate has",
        ),
        (server(LeafSpec::server(&[], &[])), "not for any name", "a name that the certificate has"),
        (server(LeafSpec::server(&[], &[address]).expired()), "it expired on 20", "renewed"),
        (server(LeafSpec::server(&[], &[address]).not_yet_valid()), "it is not valid before 20", "clock"),
        (server(LeafSpec { ips: vec![address], ..LeafSpec::client("x") }), "not one for servers", "serverAuth"),
    ];
    for (tls, text, advice) in cases {
        let site = Site::with_good_pair(&pki, tls).await;
        let error = site.connect().await.unwrap_err();
        assert!(matches!(&error, ClientError::Connection { failure: Failure::ServerNotTrusted(_), .. }), "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.advice().unwrap().contains(advice), "{error}");
        assert!(site.stub.presented().is_empty());
    }
}

#[tokio::test]
async fn the_identity_stays_what_it_was_once_chosen() {
    let site = two_pairs().await;
    let image = Image::new(&[b"layer"]);
    let layout = site.layout();
    image.write(&layout);
    layout.set_image(&image.descriptor(), None).unwrap();
    site.stub.rule(|seen| (seen.method == http::Method::POST).then(|| reply(403, "")));
    let client = site.client().await;
    let reference = site.reference("team/app:1");
    let error = portcullis_client::push(&client, &layout, None, &reference, &portcullis_client::Progress::none())
        .await
        .unwrap_err();
    assert!(matches!(&error, ClientError::Status { answer, .. } if answer.status == 403), "{error}");
    assert!(error.is_refusal());
    assert!(site.stub.pairs().iter().all(|pair| pair == "a"), "{:?}", site.stub.pairs());
}

#[tokio::test]
async fn a_directory_of_its_own_can_be_named() {
    let site = Site::good().await;
    let mut options = site.options();
    options.certs.location = Location::HostDirectory(site.certs());
    assert_eq!(Client::connect(&site.host, &options).await.unwrap().pair_used().as_deref(), Some("good"));
}

/// A registry that knows the pairs `a` and `b`, which are both in its directory.
async fn two_pairs() -> Site {
    let pki = Pki::new();
    let (a, b) = (pki.client_ca.client("a"), pki.client_ca.client("b"));
    let site = Site::without_pair(&pki, pki.tls().accept("a", &a).accept("b", &b)).await;
    a.write_pair(&site.certs(), "a");
    b.write_pair(&site.certs(), "b");
    site
}
