//! What was ever denied stays denied: `state/` remembers it apart from `trust/`.

use std::fs;
use std::path::Path;

use portcullis_certs::Certificate;
use portcullis_certs::state_dir::StateDir;
use portcullis_server::{Status, admin};
use portcullis_testkit::pki::{CrlSpec, Pair, write_file};

use crate::fixture::{Home, Site, within};

fn fingerprint(pair: &Pair) -> String {
    Certificate::from_der(pair.cert_der().to_vec().into()).unwrap().fingerprint().to_string()
}

fn home() -> Home {
    Home { top: "probe = \"off\"\n".to_owned(), ..Home::new() }
}

async fn status(socket: &Path) -> Status {
    within("the socket", async {
        loop {
            match admin::status(socket).await {
                Ok(status) => return status,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

async fn is_out(site: &Site, pair: &Pair) {
    assert!(site.client(pair).refusal().await.contains("CertificateRevoked"));
}

async fn is_in(site: &Site, pair: &Pair) {
    site.client(pair).http1().await.get("/v2/").await.expect(200);
}

/// A backup of `trust/`, or a deployment of yesterday's, is put back while the server is stopped.
#[tokio::test]
async fn a_deny_list_of_an_earlier_day_lets_nobody_in_again() {
    let home = home();
    let [one, two] = ["one", "two"].map(|name| home.client_ca.client(name));
    let deny = home.path("trust/deny");
    write_file(&deny, format!("{} # ops, lost\n", fingerprint(&one)).as_bytes(), 0o644);
    let site = home.serve().await;
    // Appended while it runs.
    write_file(&deny, format!("{}\n{}\n", fingerprint(&one), fingerprint(&two)).as_bytes(), 0o644);
    site.reload();
    let home = site.stopped().await;
    fs::remove_file(&deny).unwrap();
    let socket = home.path("run/admin.sock");
    let site = home.serve().await;
    is_out(&site, &one).await;
    is_out(&site, &two).await;
    let told = status(&socket).await.degraded;
    for pair in [&one, &two] {
        let command = format!("portcullis trust forgive {}", fingerprint(pair));
        assert!(told.iter().any(|line| line.contains("trust/deny") && line.contains(&command)), "{told:?}");
    }
    // Taken out of both, it is forgiven; only that one.
    let state = StateDir::new(site.home.path("state"));
    let lock = state.lock().unwrap();
    assert!(
        state.forget_deny(&lock, &fingerprint(&one).parse::<portcullis_certs::trust_dir::DenyRule>().unwrap()).unwrap()
    );
    drop(lock);
    site.reload();
    is_in(&site, &one).await;
    is_out(&site, &two).await;
}

#[tokio::test]
async fn an_older_revocation_list_is_told() {
    let home = home();
    let bad = home.client_ca.client("bad");
    home.write_crl("clients", &CrlSpec::new(5, &[&bad]));
    let home = home.serve().await.stopped().await;
    home.write_crl("clients", &CrlSpec::new(4, &[&bad]));
    let socket = home.path("run/admin.sock");
    let site = home.serve().await;
    let told = status(&socket).await.degraded;
    assert!(told.iter().any(|line| line.contains("number 05") && line.contains("forgive crl:clients")), "{told:?}");
    is_out(&site, &bad).await;
    site.home.write_crl("clients", &CrlSpec::new(6, &[]));
    site.reload();
    assert_eq!(status(&socket).await.degraded, [""; 0]);
}

/// A CA that was set up anew under its old key counts from 1 again.
#[tokio::test]
async fn a_list_that_is_newer_by_its_date_alone_counts_beside_the_other() {
    let home = home();
    let [old, new] = ["old", "new"].map(|name| home.client_ca.client(name));
    home.write_crl("clients", &CrlSpec::new(500, &[&old]));
    let socket = home.path("run/admin.sock");
    let site = home.serve().await;
    let spec = CrlSpec::new(1, &[&new]);
    site.home.write_crl("clients", &CrlSpec { this_update: spec.this_update + time::Duration::MINUTE, ..spec });
    site.reload();
    is_out(&site, &old).await;
    is_out(&site, &new).await;
    let told = status(&socket).await.degraded;
    assert!(told.iter().any(|line| line.contains("disagree") && line.contains("forgive crl:clients")), "{told:?}");
    let state = StateDir::new(site.home.path("state"));
    let key = Certificate::from_der(site.home.client_ca.cert_der().to_vec().into()).unwrap().facts().key_hash;
    assert!(state.forget_crl(&state.lock().unwrap(), key).unwrap());
    site.reload();
    is_in(&site, &old).await;
    is_out(&site, &new).await;
    assert_eq!(status(&socket).await.degraded, [""; 0]);
}

/// `trust forgive` is the only way back, also for who can write both files.
#[tokio::test]
async fn a_line_that_was_taken_out_by_hand_everywhere_stays_denied() {
    let home = home();
    let one = home.client_ca.client("one");
    let (deny, copy, socket) = (home.path("trust/deny"), home.path("state/deny"), home.path("run/admin.sock"));
    let line = format!("{}\n", fingerprint(&one));
    write_file(&deny, line.as_bytes(), 0o644);
    let site = home.serve().await;
    let state = StateDir::new(site.home.path("state"));
    for _ in 0..2 {
        fs::write(&deny, "").unwrap();
        fs::write(&copy, "").unwrap();
        site.reload();
        is_out(&site, &one).await;
        let told = status(&socket).await.degraded;
        let command = format!("portcullis trust forgive {}", fingerprint(&one));
        assert!(told.iter().any(|line| line.contains(&command)), "{told:?}");
        assert!(fs::read_to_string(&copy).unwrap().contains(&fingerprint(&one)), "remembered again");
        let rule: portcullis_certs::trust_dir::DenyRule = fingerprint(&one).parse().unwrap();
        assert!(state.forget_deny(&state.lock().unwrap(), &rule).unwrap());
        site.reload();
        is_in(&site, &one).await;
        assert_eq!(status(&socket).await.degraded, [""; 0]);
        // Denied again: what was forgiven once is not forgiven for good.
        fs::write(&deny, &line).unwrap();
        site.reload();
        is_out(&site, &one).await;
    }
}

/// Kubernetes: everything is mounted read-only. The registry works, and lets go of nothing that it knows.
#[tokio::test]
async fn a_server_that_cannot_write_remembers_while_it_runs() {
    let home = home();
    // Not even root can make a directory there.
    std::os::unix::fs::symlink("/proc/1/none/state", home.path("state")).unwrap();
    let one = home.client_ca.client("one");
    let (deny, socket) = (home.path("trust/deny"), home.path("run/admin.sock"));
    write_file(&deny, format!("{}\n", fingerprint(&one)).as_bytes(), 0o644);
    let site = home.serve().await;
    is_out(&site, &one).await;
    let told = status(&socket).await.degraded;
    assert!(told.iter().any(|line| line.contains("cannot be written down") && line.contains("tls.state")), "{told:?}");
    fs::remove_file(&deny).unwrap();
    // The second time too: what the first could not write down is still known here only.
    for _ in 0..2 {
        site.reload();
        is_out(&site, &one).await;
        assert!(status(&socket).await.degraded.iter().any(|line| line.contains("cannot be written down")));
    }
    // And when it can be written at last, it is.
    fs::remove_file(site.home.path("state")).unwrap();
    site.reload();
    is_out(&site, &one).await;
    let written = fs::read_to_string(site.home.path("state/deny")).unwrap();
    assert!(written.contains(&fingerprint(&one)), "{written}");
}

/// What is remembered decides on trust too.
#[test]
fn a_state_that_cannot_be_trusted_is_refused() {
    let home = Home::new();
    write_file(&home.path("state/deny"), b"", 0o666);
    let refused = portcullis_server::Server::check(&home.config()).expect_err("others can write it").to_string();
    assert!(refused.contains("state/deny") && refused.contains("chmod"), "{refused}");
    fs::remove_file(home.path("state/deny")).unwrap();
    fs::create_dir(home.path("state/deny")).unwrap();
    let refused = portcullis_server::Server::check(&home.config()).expect_err("unreadable").to_string();
    assert!(refused.contains("state/deny"), "{refused}");
    fs::remove_dir(home.path("state/deny")).unwrap();
    // A line that a crash cut short was never acknowledged.
    write_file(&home.path("state/deny"), b"sha256:00", 0o600);
    portcullis_server::Server::check(&home.config()).unwrap();
}
