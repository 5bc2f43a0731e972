//! Revocation lists in `trust/crls`: in force while the server runs, and never held back by what else is wrong.

use std::fs;

use portcullis_testkit::pki::{Authority, CrlSpec, Pair, write_file};

use crate::client::{Protocol, empty, request};
use crate::fixture::{Home, Site, until, within};

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const ALL: &str = "[[rule]]\nca = \"*\"\nrepositories = [\"**\"]\nallow = [\"pull\", \"push\"]\n";

/// Asks until the watch has seen the change: there is no reload by hand here.
async fn is_out(site: &Site, pair: &Pair) {
    within(
        "it is refused",
        Box::pin(async {
            while let Ok(conn) = site.client(pair).try_connect(Protocol::Http1).await {
                if conn.try_send(request("GET", "/v2/").body(empty()).unwrap()).await.is_err() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }),
    )
    .await;
    assert!(site.client(pair).refusal().await.contains("CertificateRevoked"));
}

async fn is_in(site: &Site, pair: &Pair) {
    site.client(pair).http1().await.get("/v2/").await.expect(200);
}

#[tokio::test]
async fn a_listed_certificate_ends_its_open_connections() {
    let site = Site::start().await;
    let (bad, good) = (site.home.client_ca.client("bad"), site.home.client_ca.client("good"));
    for (number, protocol) in (1..).zip(BOTH) {
        site.home.write_crl("clients", &CrlSpec::new(number * 2, &[]));
        if number > 1 {
            // A list without it is newer: whoever is on hold can come back.
            site.reload();
        }
        let mut conn = site.client(&bad).connect(protocol).await;
        conn.get("/v2/").await.expect(200);
        site.home.write_crl("clients", &CrlSpec::new(number * 2 + 1, &[&bad]));
        site.reload();
        conn.get("/v2/").await.expect_error(401, "UNAUTHORIZED");
        conn.closed().await;
        is_out(&site, &bad).await;
        is_in(&site, &good).await;
    }
}

/// The worst day: everything else is broken, and somebody must be kept out at once.
#[tokio::test]
async fn restrictions_bite_although_everything_else_is_broken() {
    let site = Site::start().await;
    let [listed, denied, good] = ["listed", "denied", "good"].map(|name| site.home.client_ca.client(name));
    let cas = site.home.path("trust/cas");
    Authority::expired("old CA").pair.write_crt(&cas, "old");
    write_file(&cas.join("garbage.crt"), b"garbage", 0o644);
    site.home.write_policy("[[rule]\n");
    let line = certificate(&denied).fingerprint();
    write_file(&site.home.path("trust/deny"), format!("what is this\n{line}\n").as_bytes(), 0o644);
    site.home.write_crl("clients", &CrlSpec::new(1, &[&listed]));
    write_file(&site.home.path("trust/crls/garbage.crl"), b"garbage", 0o644);
    is_out(&site, &denied).await;
    is_out(&site, &listed).await;
    is_in(&site, &good).await;
    let problems = site.handle.reload().expect_err("broken");
    for place in ["garbage.crt", "policy.toml:1", "deny:1", "garbage.crl"] {
        assert!(problems.iter().any(|problem| problem.to_string().contains(place)), "{place}: {problems:#?}");
    }
}

#[tokio::test]
async fn a_list_that_does_not_check_leaves_the_one_before_in_force() {
    let home = Home::new();
    let [bad, good] = ["bad", "good"].map(|name| home.client_ca.client(name));
    home.write_crl("clients", &CrlSpec::new(5, &[&bad]));
    let site = home.serve().await;
    let namesake = Authority::new("client CA");
    let path = site.home.path("trust/crls/clients.crl");
    for broken in [b"garbage".to_vec(), namesake.crl(&CrlSpec::new(6, &[])).into_bytes()] {
        write_file(&path, &broken, 0o644);
        let problems = site.handle.reload().expect_err("broken");
        assert!(problems.iter().any(|problem| problem.path == path), "{problems:?}");
        is_out(&site, &bad).await;
        is_in(&site, &good).await;
    }
    // Older, or gone: neither lets the revoked in again while this server runs.
    site.home.write_crl("clients", &CrlSpec::new(4, &[]));
    site.reload();
    is_out(&site, &bad).await;
    fs::remove_file(&path).unwrap();
    site.reload();
    is_out(&site, &bad).await;
    site.home.write_crl("clients", &CrlSpec::new(6, &[]));
    site.reload();
    is_in(&site, &bad).await;
}

/// To trust a CA no longer is a restriction: the list it leaves behind must not hold it back.
#[tokio::test]
async fn a_ca_is_removed_although_its_list_is_there() {
    let home = Home::new();
    let other = Authority::new("other CA");
    let (one, list) = (other.client("one"), other.crl(&CrlSpec::new(1, &[])));
    other.pair.write_crt(&home.path("trust/cas"), "other");
    write_file(&home.path("trust/crls/other.crl"), list.as_bytes(), 0o644);
    let site = home.serve().await;
    is_in(&site, &one).await;
    site.home.write_policy(&format!("{ALL}[ca.other]\ncrl = \"required\"\n"));
    fs::remove_file(site.home.path("trust/cas/other.crt")).unwrap();
    site.reload();
    assert!(site.client(&one).refusal().await.contains("UnknownCA"));
}

/// The rules are part of a generation: nothing is restarted for them.
#[tokio::test]
async fn the_rules_change_while_it_runs() {
    let site = Site::start().await;
    let one = site.home.client_ca.client("one");
    site.home.write_policy(&format!("{ALL}[ca.clients]\ncrl = \"required\"\n"));
    site.reload();
    assert!(site.client(&one).refusal().await.contains("UnknownCA"));
    site.home.write_crl("clients", &CrlSpec::new(1, &[]).stale());
    site.reload();
    is_in(&site, &one).await;
    site.home.write_policy(&format!("{ALL}[ca.clients]\ncrl = \"required\"\ncrl_stale = \"reject\"\n"));
    site.reload();
    assert!(site.client(&one).refusal().await.contains("UnknownCA"));
    site.home.write_crl("clients", &CrlSpec::new(2, &[]));
    site.reload();
    is_in(&site, &one).await;
    site.home.write_crl("clients", &CrlSpec::new(3, &[&one]));
    site.home.write_policy(&format!("{ALL}[ca.clients]\ncrl = \"off\"\n"));
    site.reload();
    is_in(&site, &one).await;
}

/// Each is a way in which lists are replaced; nobody asks for a reload.
#[tokio::test]
async fn every_way_to_replace_a_list_is_seen() {
    let site = Site::start().await;
    let crls = site.home.path("trust/crls");
    let mut number = 0;
    let mut next = |bad: &Pair| {
        number += 1;
        site.home.client_ca.crl(&CrlSpec::new(number, &[bad]))
    };
    let [in_place, moved, swapped, again] = ["a", "b", "c", "d"].map(|name| site.home.client_ca.client(name));
    write_file(&crls.join("clients.crl"), next(&in_place).as_bytes(), 0o644);
    is_out(&site, &in_place).await;
    write_file(&crls.join(".new"), next(&moved).as_bytes(), 0o644);
    fs::rename(crls.join(".new"), crls.join("clients.crl")).unwrap();
    is_out(&site, &moved).await;
    // As the kubelet does it: the link `..data` is swapped, the names below it stay.
    for (version, bad) in [("..1", &swapped), ("..2", &again)] {
        write_file(&crls.join(version).join("clients.crl"), next(bad).as_bytes(), 0o644);
        std::os::unix::fs::symlink(version, crls.join("..data_tmp")).unwrap();
        fs::rename(crls.join("..data_tmp"), crls.join("..data")).unwrap();
        if version == "..1" {
            fs::remove_file(crls.join("clients.crl")).unwrap();
            std::os::unix::fs::symlink("..data/clients.crl", crls.join("clients.crl")).unwrap();
        }
        is_out(&site, bad).await;
    }
    until("the last generation stays", || site.handle.reload().is_ok()).await;
}

fn certificate(pair: &Pair) -> portcullis_certs::Certificate {
    portcullis_certs::Certificate::from_der(pair.cert_der().to_vec().into()).unwrap()
}
