//! `/metrics`: an OpenMetrics page with a fixed number of series.

use std::net::SocketAddr;
use std::time::Duration;

use portcullis_server::admin;
use portcullis_testkit::pki::{Authority, CrlSpec, LeafSpec};
use time::OffsetDateTime;

use crate::admin::{probe, status, with_probe};
use crate::fixture::{Home, fingerprint, tcp, within};

pub(crate) async fn page(address: SocketAddr) -> String {
    let answer = probe(address, "GET /metrics").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    body.to_owned()
}

pub(crate) fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until a series has this value: what is counted when a connection ends comes a moment after its end.
async fn becomes(address: SocketAddr, series: &str, expected: f64) {
    let mut last = String::new();
    for _ in 0..500 {
        last = page(address).await;
        if value(&last, series).is_some_and(|value| (value - expected).abs() < 1e-9) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{series} is not {expected}:\n{last}");
}

/// <https://prometheus.io/docs/specs/om/open_metrics_spec/#text-format>
#[tokio::test]
async fn the_page_is_openmetrics() {
    let (site, address) = with_probe("0.0.0.0", Home::new()).await.unwrap();
    site.admin().http1().await.get("/v2/").await.expect(200);
    let page = page(address).await;
    assert!(page.ends_with("\n# EOF\n") && page.matches("# EOF").count() == 1, "{page}");
    let mut families = std::collections::BTreeMap::new();
    for line in page.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let (keyword, rest) = rest.split_once(' ').unwrap();
            let (name, text) = rest.split_once(' ').unwrap();
            assert!(["HELP", "TYPE", "UNIT"].contains(&keyword) && !text.is_empty(), "{line}");
            families.entry(name.to_owned()).or_insert_with(Vec::new).push(keyword.to_owned());
            continue;
        }
        let name = line.split(['{', ' ']).next().unwrap();
        let family = families.keys().find(|family| {
            name == *family || name.strip_prefix(family.as_str()).is_some_and(|end| ["_total", "_info"].contains(&end))
        });
        assert!(family.is_some() && name.starts_with("portcullis_"), "{line}");
        assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
    }
    assert!(
        families
            .values()
            .all(|words| words.iter().any(|word| word == "HELP") && words.iter().any(|word| word == "TYPE")),
        "{families:?}"
    );
}

#[tokio::test]
async fn what_is_counted() {
    let home = Home::new();
    let denied = home.client_ca.client("denied");
    std::fs::write(home.path("trust/deny"), format!("{}\n", fingerprint(&denied))).unwrap();
    let (site, address) = with_probe("127.0.0.1", home).await.unwrap();
    let conn = site.admin().http1().await;
    conn.get("/v2/").await.expect(200);
    conn.get("/v2/").await.expect(200);
    conn.get("/v2/team/app/tags/list").await.expect(404);
    conn.get("/nothing").await.expect(404);
    conn.push_blob("team/app", &vec![7; 300_000]).await;
    site.client(&Authority::new("stranger").client("eve")).refusal().await;
    site.client(&denied).refusal().await;
    site.client(&site.home.client_ca.issue(&LeafSpec::client("late").expired())).refusal().await;
    site.anonymous().refusal().await;
    let mut plain = tcp(site.address).await;
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    for (result, count) in [
        ("accepted", 1.0),
        ("unknown_ca", 1.0),
        ("certificate_revoked", 1.0),
        ("certificate_expired", 1.0),
        ("certificate_required", 1.0),
        ("plain_http", 1.0),
    ] {
        becomes(address, &format!("portcullis_handshakes_total{{result=\"{result}\"}}"), count).await;
    }
    becomes(address, "portcullis_connections", 1.0).await;
    let page = page(address).await;
    for (series, expected) in [
        ("portcullis_requests_total{endpoint=\"base\",status=\"200\"}", 2.0),
        ("portcullis_requests_total{endpoint=\"list_tags\",status=\"404\"}", 1.0),
        ("portcullis_requests_total{endpoint=\"none\",status=\"404\"}", 1.0),
        ("portcullis_trust_generation", 1.0),
        ("portcullis_store_read_only", 0.0),
        ("portcullis_store_damaged_total", 0.0),
        ("portcullis_audit_dropped_total", 0.0),
        ("portcullis_ready", 1.0),
        ("portcullis_trust_stale", 0.0),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series}\n{page}");
    }
    let received = value(&page, "portcullis_received_bytes_total").unwrap();
    let sent = value(&page, "portcullis_sent_bytes_total").unwrap();
    assert!((300_000.0..400_000.0).contains(&received) && (100.0..100_000.0).contains(&sent), "{page}");
    assert!(!page.contains("team/app") && !page.contains("admin") && !page.contains("sha256"), "{page}");
}

#[tokio::test]
async fn reloads_and_ends() {
    let (site, address) = with_probe("127.0.0.1", Home::new()).await.unwrap();
    site.home.write_policy("[[rule]]\nca = 5\n");
    site.handle.reload().unwrap_err();
    becomes(address, "portcullis_trust_stale", 1.0).await;
    let page = page(address).await;
    assert!(value(&page, "portcullis_trust_reloads_refused_total").is_some_and(|count| count >= 1.0), "{page}");
    let own = value(&page, "portcullis_days_left{of=\"server_certificate\"}").unwrap();
    let ca = value(&page, "portcullis_days_left{of=\"client_ca\"}").unwrap();
    assert!((29.0..30.5).contains(&own) && (3600.0..3651.0).contains(&ca), "{page}");
    assert_eq!(value(&page, "portcullis_days_left{of=\"crl\"}"), None, "{page}");
    site.home.write_policy("[[rule]]\nca = \"clients\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n");
    site.home.write_crl("clients", &CrlSpec::new(1, &[]));
    site.handle.reload().unwrap();
    let with_list = self::page(address).await;
    let crl = value(&with_list, "portcullis_days_left{of=\"crl\"}").unwrap();
    assert!((6.0..7.1).contains(&crl), "{with_list}");
    site.home.write_policy("[[rule]]\nca = 5\n");
    site.handle.reload().unwrap_err();
    // Ready all the same, and says on this machine what is wrong, with file and line.
    let ready = probe(address, "GET /readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("policy.toml:2"), "{ready}");
}

#[tokio::test]
async fn clients_by_the_time_they_have_left() {
    let (site, address) = with_probe("127.0.0.1", Home::new()).await.unwrap();
    let lives = [("soon", 3600), ("this-week", 3 * 86_400), ("this-month", 20 * 86_400), ("later", 60 * 86_400)];
    let pairs = lives.map(|(name, seconds)| {
        let not_after = OffsetDateTime::now_utc() + Duration::from_secs(seconds);
        site.home.client_ca.issue(&LeafSpec { not_after, ..LeafSpec::client(name) })
    });
    for pair in &pairs {
        for _ in 0..2 {
            site.client(pair).http1().await.get("/v2/").await.expect(200);
        }
    }
    for (within, count) in [("1d", 1.0), ("7d", 2.0), ("30d", 3.0)] {
        becomes(address, &format!("portcullis_clients_ending{{within=\"{within}\"}}"), count).await;
    }
    becomes(address, "portcullis_clients", 4.0).await;
    // Whoever is no longer let in is no longer waited for.
    std::fs::write(site.home.path("trust/deny"), format!("{}\n", fingerprint(&pairs[0]))).unwrap();
    site.reload();
    site.client(&pairs[0]).refusal().await;
    becomes(address, "portcullis_clients_ending{within=\"1d\"}", 0.0).await;
}

#[tokio::test]
async fn the_list_of_clients_is_for_the_socket_only() {
    let home = Home { top: "probe = \"off\"\n".to_owned(), ..Home::new() };
    let socket = home.path("run/admin.sock");
    let site = home.serve().await;
    status(&socket).await;
    assert_eq!(within("an answer", admin::clients(&socket)).await.unwrap(), []);
    let early = site.home.client_ca.issue(&LeafSpec {
        not_after: OffsetDateTime::now_utc() + Duration::from_hours(1),
        ..LeafSpec::client("early")
    });
    site.alice().http1().await.get("/v2/").await.expect(200);
    site.client(&early).http1().await.get("/v2/").await.expect(200);
    let clients = within("an answer", admin::clients(&socket)).await.unwrap();
    let [first, second] = clients.as_slice() else { panic!("{clients:?}") };
    assert_eq!((first.subject.as_str(), first.trusted_by.as_str()), ("CN=early", "ca:clients"));
    assert_eq!((second.trusted_by.as_str(), &second.fingerprint), ("pin:alice", &fingerprint(&site.home.alice)));
    assert!(first.not_after < second.not_after && first.address.is_loopback(), "{clients:?}");
}
