//! The verdict bites everywhere: each way of withdrawing trust, at each place where a peer can be.
//!
//! Every cell is a test of its own: `matrix::deny_line::patch_in_flight`. Only files are changed, as an operator or a
//! mounted volume changes them; nobody asks for a reload. A bystander goes on undisturbed.

use std::fs;
use std::time::Duration;

use http_body_util::BodyExt;
use portcullis_testkit::image::random_bytes;
use portcullis_testkit::pki::{Authority, CrlSpec, LeafSpec, Pair, recipe_shaped};
use time::OffsetDateTime;

use crate::client::{Conn, Protocol, empty, request, stream};
use crate::fixture::{Home, PATIENCE, Site, fingerprint, within};

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
/// Everybody may push and pull below `guest/`; the bystander may everywhere.
const POLICY: &str = r#"
[[rule]]
ca = "clients"
repositories = ["**"]
allow = ["pull", "push", "delete"]

[[rule]]
ca = "*"
repositories = ["guest/**"]
allow = ["pull", "push"]

[[rule]]
pin = "*"
repositories = ["guest/**"]
allow = ["pull", "push"]
"#;
/// The same without the guests.
const NARROWED: &str = r#"
[[rule]]
ca = "clients"
repositories = ["**"]
allow = ["pull", "push", "delete"]
"#;
const TAGS: &str = "/v2/guest/app/tags/list";
/// How long a certificate lives that ends while it is used: a busy machine must still get it connected.
const LIFE: Duration = Duration::from_secs(8);
const LARGE: usize = 64 << 20;
const _: () = assert!(PATIENCE.as_secs() > 2 * LIFE.as_secs());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    DenyLine,
    Crl,
    PinRemoved,
    CaRemoved,
    PolicyChange,
    Expiry,
}

/// A server with somebody who is trusted, and will not be for long.
struct Cell {
    cause: Cause,
    site: Site,
    guests: Authority,
    guest: Pair,
    bystander: Conn,
}

impl Cause {
    /// What a new handshake is refused with; `None`: it is not refused.
    fn alert(self) -> Option<&'static str> {
        match self {
            Self::DenyLine | Self::Crl => Some("CertificateRevoked"),
            Self::PinRemoved | Self::CaRemoved => Some("UnknownCA"),
            Self::Expiry => Some("CertificateExpired"),
            Self::PolicyChange => None,
        }
    }
}

impl Cell {
    async fn new(cause: Cause) -> Self {
        let home = Home::new();
        let guests = Authority::new("guests' CA");
        guests.pair.write_crt(&home.path("trust/cas"), "guests");
        let guest = if cause == Cause::PinRemoved { recipe_shaped("guest") } else { guests.client("guest") };
        if cause == Cause::PinRemoved {
            home.add_pin("guest", &guest);
        }
        home.write_policy(POLICY);
        let site = home.serve().await;
        let bystander = site.admin().http1().await;
        bystander.get("/v2/").await.expect(200);
        Self { cause, site, guests, guest, bystander }
    }

    /// The life of a certificate that expires begins here, when everything slow is done.
    fn begin(&mut self) {
        if self.cause == Cause::Expiry {
            let not_after = OffsetDateTime::now_utc() + LIFE;
            self.guest = self.guests.issue(&LeafSpec { not_after, ..LeafSpec::client("guest") });
        }
    }

    /// Changes the files; expiry needs no change.
    fn withdraw(&self) {
        let home = &self.site.home;
        match self.cause {
            Cause::DenyLine => {
                fs::write(home.path("trust/deny"), format!("{}  # test\n", fingerprint(&self.guest))).unwrap();
            }
            Cause::Crl => {
                let list = self.guests.crl(&CrlSpec::new(7, &[&self.guest]));
                fs::create_dir_all(home.path("trust/crls")).unwrap();
                fs::write(home.path("new.crl"), list).unwrap();
                fs::rename(home.path("new.crl"), home.path("trust/crls/guests.crl")).unwrap();
            }
            Cause::PinRemoved => home.remove_pin("guest"),
            Cause::CaRemoved => fs::rename(home.path("trust/cas/guests.crt"), home.path("guests.crt")).unwrap(),
            Cause::PolicyChange => {
                fs::write(home.path("new.toml"), NARROWED).unwrap();
                fs::rename(home.path("new.toml"), home.path("policy.toml")).unwrap();
            }
            Cause::Expiry => {}
        }
    }

    async fn connect(&self, protocol: Protocol) -> Conn {
        let conn = self.site.client(&self.guest).connect(protocol).await;
        assert_ne!(conn.get(TAGS).await.status, 403);
        conn
    }

    /// Until whoever comes now is refused.
    async fn in_force(&self) {
        let refused = async || Box::pin(self.is_refused_anew()).await;
        self.poll("new connections are refused", refused).await;
    }

    async fn is_refused_anew(&self) -> bool {
        let client = self.site.client(&self.guest);
        let answer = match client.try_connect(Protocol::Http1).await {
            Ok(conn) => conn.try_send(request("GET", TAGS).body(empty()).unwrap()).await,
            Err(_) => return self.cause.alert().is_some(),
        };
        match answer {
            Ok(answer) => answer.status == 403,
            Err(_) => self.cause.alert().is_some(),
        }
    }

    async fn poll(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let what = format!("{:?}: {what}", self.cause);
        let poll = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        within(&what, poll).await;
    }

    /// Nobody else was disturbed.
    async fn end(self) {
        self.bystander.get("/v2/").await.expect(200);
        assert!(!self.bystander.is_closed());
    }
}

async fn new_connection(cause: Cause) {
    let mut cell = Cell::new(cause).await;
    cell.begin();
    drop(cell.connect(Protocol::Http1).await);
    cell.withdraw();
    cell.in_force().await;
    if let Some(alert) = cause.alert() {
        let refusal = cell.site.client(&cell.guest).refusal().await;
        assert!(refusal.contains(alert), "{refusal}");
    }
    cell.end().await;
}

async fn open_connection(cause: Cause, protocol: Protocol) {
    let mut cell = Cell::new(cause).await;
    cell.begin();
    let mut conn = cell.connect(protocol).await;
    cell.withdraw();
    // On this very connection: a new one would prove nothing.
    cell.poll("the next request is denied", async || match conn.get(TAGS).await {
        answer if answer.status != 403 => false,
        answer => !answer.expect_error(403, "DENIED").is_empty(),
    })
    .await;
    if cause == Cause::PolicyChange {
        // Whose certificate is trusted may stay.
        conn.get("/v2/").await.expect(200);
    } else {
        conn.closed().await;
    }
    cell.end().await;
}

async fn patch_in_flight(cause: Cause) {
    for protocol in BOTH {
        let mut cell = Cell::new(cause).await;
        cell.begin();
        let conn = cell.connect(protocol).await;
        let location = conn.start_upload("guest/app").await;
        let (writer, body) = stream();
        let patch = request("PATCH", &location).body(body).unwrap();
        let sending = tokio::spawn(async move { conn.try_send(patch).await });
        assert!(writer.write(vec![1; 1 << 20]).await, "{protocol}");
        cell.withdraw();
        let drip = async {
            // Its sender never ends by itself, and is slow: time counts, not bytes.
            while !sending.is_finished() && writer.write(vec![1; 16 << 10]).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        within(&format!("{cause:?} {protocol}: the upload is stopped"), drip).await;
        let answer = within("an answer", sending).await.unwrap();
        answer.unwrap_or_else(|error| panic!("{protocol}: {error:?}")).expect_error(403, "DENIED");
        drop(writer);
        cell.end().await;
    }
}

async fn get_in_flight(cause: Cause) {
    for protocol in BOTH {
        let mut cell = Cell::new(cause).await;
        let digest = cell.bystander.push_blob("guest/app", &random_bytes(1, LARGE)).await;
        cell.begin();
        let conn = cell.connect(protocol).await;
        let get = request("GET", &format!("/v2/guest/app/blobs/{digest}")).body(empty()).unwrap();
        let mut body = conn.begin(get).await.unwrap().into_body();
        let mut got = within("the first bytes", body.frame()).await.unwrap().unwrap().into_data().unwrap().len();
        cell.withdraw();
        cell.in_force().await;
        let cut = loop {
            match within("the body goes on or ends", body.frame()).await {
                Some(Ok(frame)) => got += frame.into_data().map_or(0, |bytes| bytes.len()),
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        // What was on its way, 8 MiB, and what two sockets hold.
        assert!(cut && got < LARGE / 2, "{cause:?} {protocol}: {got} bytes came, cut: {cut}");
        cell.end().await;
    }
}

macro_rules! cells {
    ($($name:ident: $cause:ident),*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn new_connection() {
                super::new_connection(Cause::$cause).await;
            }

            #[tokio::test]
            async fn open_http1() {
                super::open_connection(Cause::$cause, Protocol::Http1).await;
            }

            #[tokio::test]
            async fn open_http2() {
                super::open_connection(Cause::$cause, Protocol::Http2).await;
            }

            #[tokio::test]
            async fn patch_in_flight() {
                super::patch_in_flight(Cause::$cause).await;
            }

            #[tokio::test]
            async fn get_in_flight() {
                super::get_in_flight(Cause::$cause).await;
            }
        }
    )*};
}

cells! {
    deny_line: DenyLine,
    crl: Crl,
    pin_removed: PinRemoved,
    ca_removed: CaRemoved,
    policy_change: PolicyChange,
    expiry: Expiry
}
