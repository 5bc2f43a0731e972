//! A redirect: followed, bounded, and never with a certificate that is for another host.

use std::fs;

use portcullis_client::{Client, ClientError, Failure, Location, MAX_REDIRECTS, Progress, ProtocolFault, Pulled, pull};
use portcullis_testkit::pki::Pair;

use crate::image::{self, Image, noise};
use crate::site::{Pki, Site};
use crate::stub::{Stub, reply, with};
use crate::tls::TlsSetup;

/// A registry on 127.0.0.1 that sends its blobs' readers to a store called localhost, which takes any certificate and
/// remembers it.
struct Pair2 {
    registry: Site,
    store: Stub,
    store_host: String,
    image: Image,
    cdn: Pair,
    pki: Pki,
}

async fn registry_and_store(mandatory: bool) -> Pair2 {
    let pki = Pki::new();
    let cdn = pki.client_ca.client("cdn");
    let mut tls = TlsSetup::new(&pki.server).accept("good", &pki.good).accept("cdn", &cdn);
    tls.mandatory = mandatory;
    let store = Stub::start(tls).await;
    let registry = Site::with_good_pair(&pki, pki.tls()).await;
    let image = Image::new(&[&noise(1, 300_000)]);
    image.put(&registry.stub, "team/app", "1");
    image.put(&store, "team/app", "1");
    let store_host = format!("localhost:{}", store.address.port());
    let target = format!("https://{store_host}");
    registry.stub.rule(move |seen| {
        let blob = seen.target.contains("/blobs/");
        blob.then(|| with(reply(307, ""), "location", &format!("{target}{}", seen.target)))
    });
    Pair2 { registry, store, store_host, image, cdn, pki }
}

impl Pair2 {
    async fn pull(&self) -> Result<Pulled, ClientError> {
        let client = self.registry.client().await;
        pull(&client, &self.registry.reference("team/app:1"), &self.registry.layout(), &Progress::none()).await
    }
}

#[tokio::test]
async fn another_host_gets_no_certificate_of_the_registrys() {
    let sites = registry_and_store(false).await;
    sites.pki.server_ca.write_ca(&sites.registry.certs_of(&sites.store_host));
    sites.pull().await.unwrap();
    assert!(sites.image.is_in(&sites.registry.layout()));
    let pairs = sites.store.pairs();
    assert!(!pairs.is_empty() && pairs.iter().all(|pair| pair == "nobody"), "{pairs:?}");
    assert!(sites.store.presented().is_empty());
}

#[tokio::test]
async fn another_host_gets_its_own_certificate() {
    let sites = registry_and_store(true).await;
    let certs = sites.registry.certs_of(&sites.store_host);
    sites.pki.server_ca.write_ca(&certs);
    sites.cdn.write_pair(&certs, "cdn");
    sites.pull().await.unwrap();
    assert!(sites.store.presented().iter().all(|pair| pair == "cdn"), "{:?}", sites.store.presented());
    assert!(sites.registry.stub.presented().iter().all(|pair| pair == "good"));
}

#[tokio::test]
async fn another_host_is_not_trusted_for_the_registrys_ca() {
    let sites = registry_and_store(false).await;
    let error = sites.pull().await.unwrap_err();
    let ClientError::Connection { host, failure: Failure::ServerNotTrusted(_), .. } = &error else { panic!("{error}") };
    assert_eq!(host.as_str(), sites.store_host, "the error names the host that is not trusted");
}

/// `--cert-dir` is the registry's own directory. A store that asks for a certificate must not see what is in it.
#[tokio::test]
async fn a_directory_named_for_the_registry_is_not_another_hosts() {
    let sites = registry_and_store(false).await;
    let mut options = sites.registry.options();
    options.certs.location = Location::HostDirectory(sites.registry.certs());
    let client = Client::connect(&sites.registry.host, &options).await.unwrap();
    let reference = sites.registry.reference("team/app:1");
    let error = pull(&client, &reference, &sites.registry.layout(), &Progress::none()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Connection { failure: Failure::ServerNotTrusted(_), .. }), "{error}");
    assert!(sites.store.presented().is_empty());
}

#[tokio::test]
async fn a_fault_in_the_other_hosts_directory_is_told() {
    let sites = registry_and_store(false).await;
    let certs = sites.registry.certs_of(&sites.store_host);
    sites.cdn.write_pair(&certs, "cdn");
    fs::remove_file(certs.join("cdn.key")).unwrap();
    let error = sites.pull().await.unwrap_err();
    let ClientError::CertsDir { host, .. } = &error else { panic!("{error}") };
    assert_eq!(host.as_str(), sites.store_host);
    assert_eq!(sites.store.connections(), 0);
}

#[tokio::test]
async fn a_refusal_by_the_other_host_names_it() {
    let sites = registry_and_store(false).await;
    sites.pki.server_ca.write_ca(&sites.registry.certs_of(&sites.store_host));
    sites.store.rule(|_| Some(reply(403, "<Error><Code>SignatureDoesNotMatch</Code></Error>")));
    let error = sites.pull().await.unwrap_err();
    let ClientError::Refused { host, .. } = &error else { panic!("{error}") };
    assert_eq!(host.as_str(), sites.store_host);
    assert!(error.to_string().contains("SignatureDoesNotMatch"), "{error}");
}

#[tokio::test]
async fn within_the_registry_the_identity_stays() {
    let site = Site::good().await;
    let image = Image::new(&[b"layer"]);
    image.put(&site.stub, "team/app", "1");
    site.stub.rule(|seen| {
        let moved = seen.target.replace("/v2/other/", "/v2/team/app/");
        (moved != seen.target).then(|| with(reply(302, ""), "location", &moved))
    });
    let client = site.client().await;
    let got = client.manifest(&"other".parse().unwrap(), &"1".parse().unwrap()).await.unwrap();
    assert_eq!(got.digest, image.digest());
    assert!(site.stub.pairs().iter().all(|pair| pair == "good"));
}

#[tokio::test]
async fn redirects_are_bounded() {
    let site = Site::good().await;
    site.stub.rule(|seen| (seen.target != "/v2/").then(|| with(reply(307, ""), "location", &seen.target)));
    let error = blob_of(&site).await;
    let ClientError::Protocol { fault: ProtocolFault::TooManyRedirects { .. }, .. } = &error else { panic!("{error}") };
    assert_eq!(site.stub.lines().len(), 1 + MAX_REDIRECTS);
}

#[tokio::test]
async fn redirects_to_what_is_not_https_are_not_followed() {
    for target in
        ["http://127.0.0.1:1/x", "https://user:secret@127.0.0.1:1/x", "ftp://x/", "file:///etc/passwd", "data:,x"]
    {
        let site = Site::good().await;
        site.stub.rule(move |seen| (seen.target != "/v2/").then(|| with(reply(307, ""), "location", target)));
        let error = blob_of(&site).await;
        let ClientError::Protocol { fault: ProtocolFault::InsecureRedirect { .. }, .. } = &error else {
            panic!("{target}: {error}")
        };
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn redirects_to_nowhere() {
    let site = Site::good().await;
    site.stub.rule(|seen| (seen.target != "/v2/").then(|| reply(307, "")));
    let error = blob_of(&site).await;
    assert!(matches!(&error, ClientError::Protocol { fault: ProtocolFault::NoHeader { .. }, .. }), "{error}");
    let site = Site::good().await;
    site.stub.rule(|seen| (seen.target != "/v2/").then(|| with(reply(307, ""), "location", "https://[::")));
    let error = blob_of(&site).await;
    assert!(matches!(&error, ClientError::Protocol { fault: ProtocolFault::BadHeader { .. }, .. }), "{error}");
}

async fn blob_of(site: &Site) -> ClientError {
    let client = site.client().await;
    client.blob(&"a".parse().unwrap(), &image::descriptor(b"x"), &Progress::none()).await.unwrap_err()
}
