//! containerd's `hosts.toml`: whom a read and a push go to, each host with its own files, and what is said of those that fail.

use std::fs;
use std::sync::{Arc, Mutex};

use portcullis_certs::EngineProfile;
use portcullis_client::{
    Client, ClientError, ClientOptions, HostsFault, PassedOver, Progress, Purpose, Transport, pull, push,
};
use portcullis_testkit::pki::Pair;

use crate::image::{self, Image};
use crate::site::{Pki, Site};
use crate::stub::{End, Stub, faulty, plain, reply};

/// A registry on 127.0.0.1 and a mirror called localhost. Both know both certificates, would take either, and remember which
/// they were shown.
struct Mirrored {
    site: Site,
    mirror: Stub,
    mirror_host: String,
    told: Arc<Mutex<Vec<String>>>,
    pki: Pki,
    mirrors: Pair,
}

impl Mirrored {
    async fn new() -> Self {
        let pki = Pki::new();
        let mirrors = pki.client_ca.client("mirrors");
        let tls = || pki.tls().accept("mirrors", &mirrors);
        let mirror = Stub::start(tls()).await;
        let site = Site::with_good_pair(&pki, tls()).await;
        mirrors.write_pair(&site.certs(), "mirrors");
        let mirror_host = format!("localhost:{}", mirror.address.port());
        Self { site, mirror, mirror_host, told: Arc::default(), pki, mirrors }
    }

    /// Each with the files that are its own.
    fn toml(&self, capabilities: &str) -> String {
        let files = |stem: &str| format!("ca = \"ca.crt\"\nclient = [[\"{stem}.cert\", \"{stem}.key\"]]\n");
        let (registrys, mirrors) = (files("good"), files("mirrors"));
        format!(
            "server = \"https://{}\"\n{registrys}[host.\"https://{}\"]\ncapabilities = {capabilities}\n{mirrors}",
            self.site.host, self.mirror_host
        )
    }

    fn write(&self, toml: &str) {
        fs::write(self.site.certs().join("hosts.toml"), toml).unwrap();
    }

    fn options(&self) -> ClientOptions {
        let mut options = self.site.options();
        options.certs.profile = EngineProfile::CONTAINERD;
        options
    }

    async fn connect(&self, purpose: Purpose) -> Result<Client, ClientError> {
        self.connect_with(&self.options(), purpose).await
    }

    async fn connect_with(&self, options: &ClientOptions, purpose: Purpose) -> Result<Client, ClientError> {
        let told = Arc::clone(&self.told);
        let told = PassedOver::new(move |host, error| told.lock().unwrap().push(format!("{host}: {error}")));
        Client::connect_as_containerd(&self.site.host, options, purpose, &told).await
    }

    /// Pulls team/app:1 and says who was passed over.
    async fn pull(&self) -> Vec<String> {
        let client = self.connect(Purpose::Read).await.unwrap();
        let reference = self.site.reference("team/app:1");
        pull(&client, &reference, &self.site.layout(), &Progress::none()).await.unwrap();
        self.told.lock().unwrap().clone()
    }

    /// Nobody was shown what is the other's.
    fn check_certificates(&self) {
        let (at_registry, at_mirror) = (self.site.stub.presented(), self.mirror.presented());
        assert!(at_registry.iter().all(|pair| pair == "good"), "{at_registry:?}");
        assert!(at_mirror.iter().all(|pair| pair == "mirrors"), "{at_mirror:?}");
    }
}

const ALL: &str = "[\"pull\", \"resolve\"]";

#[tokio::test]
async fn a_mirror_that_has_it_all_is_the_only_one_asked() {
    let sites = Mirrored::new().await;
    let image = Image::new(&[b"layer"]);
    image.put(&sites.mirror, "team/app", "1");
    sites.write(&sites.toml(ALL));
    assert!(sites.pull().await.is_empty());
    assert!(image.is_in(&sites.site.layout()));
    assert_eq!(sites.site.stub.connections(), 0);
    assert!(!sites.mirror.presented().is_empty());
    sites.check_certificates();
    // The mirror is told whose place it takes.
    let ns = format!("ns={}", sites.site.host).replace(':', "%3A");
    assert!(sites.mirror.log().iter().all(|seen| seen.target.ends_with(&ns)), "{:?}", sites.mirror.lines());
}

/// The registry's certificate is never shown to the mirror, nor the mirror's to the registry, although both stand in one
/// directory and each would be taken by the other.
#[tokio::test]
async fn what_the_mirror_lacks_comes_from_the_registry_under_its_own_certificate() {
    let sites = Mirrored::new().await;
    let image = Image::new(&[b"layer", b"another"]);
    image.put(&sites.site.stub, "team/app", "1");
    sites.mirror.put_manifest("team/app", "1", &image.manifest);
    sites.mirror.put_blob("team/app", b"layer");
    sites.write(&sites.toml(ALL));
    let told = sites.pull().await;
    assert!(image.is_in(&sites.site.layout()));
    assert_eq!(told.len(), 2, "the config and one layer: {told:?}");
    assert!(told.iter().all(|line| line.starts_with(&sites.mirror_host) && line.contains("404")), "{told:?}");
    assert!(!sites.site.stub.presented().is_empty() && !sites.mirror.presented().is_empty());
    sites.check_certificates();
    assert!(sites.site.stub.log().iter().all(|seen| !seen.target.contains("ns=")));
    assert!(sites.site.stub.lines().iter().all(|line| !line.contains("/manifests/")), "the mirror resolves");
}

#[tokio::test]
async fn a_mirror_without_resolve_is_not_asked_for_tags() {
    let sites = Mirrored::new().await;
    let (new, old) = (Image::new(&[b"new"]), Image::new(&[b"old"]));
    new.put(&sites.site.stub, "team/app", "1");
    old.put(&sites.mirror, "team/app", "1");
    for blob in &new.blobs {
        sites.mirror.put_blob("team/app", blob);
    }
    sites.write(&sites.toml("[\"pull\"]"));
    sites.pull().await;
    assert!(new.is_in(&sites.site.layout()) && !old.is_in(&sites.site.layout()));
    let at_mirror = sites.mirror.lines();
    assert_eq!(at_mirror.iter().filter(|line| line.contains("/blobs/")).count(), new.blobs.len());
    assert!(at_mirror.iter().all(|line| !line.contains("/manifests/")), "{at_mirror:?}");
    assert!(sites.site.stub.lines().iter().all(|line| line.contains("/manifests/1")), "{:?}", sites.site.stub.lines());
    let client = sites.connect(Purpose::Read).await.unwrap();
    assert_eq!(client.tags(&"team/app".parse().unwrap()).await.unwrap().len(), 1);
    assert!(sites.mirror.lines().iter().all(|line| !line.contains("/tags/")));
    sites.check_certificates();
}

#[tokio::test]
async fn a_mirror_that_fails_is_named_and_the_next_one_asked() {
    let sites = Mirrored::new().await;
    let image = Image::new(&[b"layer"]);
    image.put(&sites.site.stub, "team/app", "1");
    // Nobody listens there; the second one refuses everything but its first request.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    sites.mirror.rule(|seen| (!seen.target.starts_with("/v2/?")).then(|| reply(500, "broken")));
    let toml = format!("[host.\"https://{closed}\"]\n");
    sites.write(&sites.toml(ALL).replace("[host.", &format!("{toml}[host.")));
    let told = sites.pull().await;
    assert!(image.is_in(&sites.site.layout()));
    assert_eq!(told.len(), 2, "each once: {told:?}");
    assert!(told[0].starts_with(&closed.to_string()), "{told:?}");
    assert!(told[1].starts_with(&sites.mirror_host) && told[1].contains("500"), "{told:?}");
    sites.check_certificates();
}

#[tokio::test]
async fn when_all_fail_the_last_one_has_the_word() {
    let sites = Mirrored::new().await;
    sites.write(&sites.toml(ALL));
    let client = sites.connect(Purpose::Read).await.unwrap();
    let error = client.manifest(&"team/app".parse().unwrap(), &"1".parse().unwrap()).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().starts_with(sites.site.host.as_str()), "{error}");
    assert_eq!(sites.told.lock().unwrap().len(), 1);
    let none = client.head_blob(&"team/app".parse().unwrap(), &Image::new(&[]).digest()).await.unwrap();
    assert!(none.is_none(), "nobody has it, which is no error");
}

#[tokio::test]
async fn a_mirror_without_referrers_has_not_said_that_there_are_none() {
    let sites = Mirrored::new().await;
    let image = Image::new(&[b"layer"]);
    let listed = image::index(&[image::describe("application/x.signature", b"signature")]);
    let target = format!("/v2/team/app/referrers/{}", image.digest());
    sites.mirror.rule(|seen| seen.target.contains("/referrers/").then(|| reply(404, "")));
    sites.site.stub.rule(move |seen| (seen.target == target).then(|| reply(200, listed.clone())));
    sites.write(&sites.toml(ALL));
    let client = sites.connect(Purpose::Read).await.unwrap();
    let found = client.referrers(&"team/app".parse().unwrap(), &image.digest(), None).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(sites.told.lock().unwrap().len(), 1);
    sites.check_certificates();
}

#[tokio::test]
async fn a_mirror_that_lies_about_a_digest_is_caught() {
    let sites = Mirrored::new().await;
    let (asked, given) = (Image::new(&[b"asked"]), Image::new(&[b"given"]));
    let body = given.manifest.clone();
    sites.mirror.rule(move |seen| seen.target.contains("/manifests/").then(|| reply(200, body.clone())));
    sites.write(&sites.toml(ALL));
    let client = sites.connect(Purpose::Read).await.unwrap();
    let reference = asked.digest().to_string().parse().unwrap();
    let error = client.manifest(&"team/app".parse().unwrap(), &reference).await.unwrap_err();
    let ClientError::Digest(mismatch) = &error else { panic!("{error}") };
    assert_eq!(mismatch.from, sites.mirror_host);
}

#[tokio::test]
async fn a_mirror_that_sends_a_wrong_blob_is_named() {
    let sites = Mirrored::new().await;
    let image = Image::new(&[b"layer"]);
    image.put(&sites.mirror, "team/app", "1");
    let layer = image::descriptor(b"layer");
    let digest = layer.digest.to_string();
    sites.mirror.rule(move |seen| seen.target.contains(&digest).then(|| reply(200, "other")));
    sites.write(&sites.toml(ALL));
    let client = sites.connect(Purpose::Read).await.unwrap();
    let mut reader = client.blob(&"team/app".parse().unwrap(), &layer, &Progress::none()).await.unwrap();
    assert!(reader.chunk().await.unwrap().is_some());
    let alone = reader.chunk().await.unwrap_err();
    let reference = sites.site.reference("team/app:1");
    let pulled = pull(&client, &reference, &sites.site.layout(), &Progress::none()).await.unwrap_err();
    for error in [alone, pulled] {
        let ClientError::Digest(mismatch) = &error else { panic!("{error}") };
        assert_eq!(mismatch.from, sites.mirror_host);
    }
}

#[tokio::test]
async fn a_blob_that_breaks_off_for_good_comes_from_the_next_host() {
    let sites = Mirrored::new().await;
    let layer = vec![7; 100_000];
    let image = Image::new(&[&layer]);
    image.put(&sites.site.stub, "team/app", "1");
    image.put(&sites.mirror, "team/app", "1");
    let digest = image::digest(&layer).to_string();
    let start = layer[..60_000].to_vec();
    sites
        .mirror
        .rule(move |seen| seen.target.contains(&digest).then(|| faulty(200, Some(100_000), &start, End::Break)));
    sites.write(&sites.toml(ALL));
    let told = sites.pull().await;
    assert!(image.is_in(&sites.site.layout()));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with(&sites.mirror_host), "{told:?}");
    let at_registry = sites.site.stub.lines();
    assert!(at_registry.len() == 1 && at_registry[0].contains("/blobs/"), "{at_registry:?}");
    sites.check_certificates();
}

#[tokio::test]
async fn a_push_goes_to_whom_takes_pushes() {
    let sites = Mirrored::new().await;
    let image = Image::new(&[b"layer"]);
    let layout = sites.site.layout();
    image.write(&layout);
    layout.set_image(&image.descriptor(), Some(&"1".parse().unwrap())).unwrap();
    sites.write(&sites.toml(ALL));
    let reference = sites.site.reference("team/app:1");
    let client = sites.connect(Purpose::Push).await.unwrap();
    push(&client, &layout, None, &reference, &Progress::none()).await.unwrap();
    assert!(sites.site.stub.manifest("team/app", "1").is_some());
    assert_eq!(sites.mirror.connections(), 0);

    sites.write(&sites.toml("[\"push\"]"));
    let client = sites.connect(Purpose::Push).await.unwrap();
    push(&client, &layout, None, &reference, &Progress::none()).await.unwrap();
    assert!(sites.mirror.manifest("team/app", "1").is_some());
    sites.check_certificates();

    sites.write(&format!("capabilities = [\"pull\"]\n{}", sites.toml("[\"pull\"]")));
    let error = sites.connect(Purpose::Push).await.unwrap_err();
    assert!(matches!(error, ClientError::Hosts { fault: HostsFault::NoPush, .. }), "{error}");
}

#[tokio::test]
async fn what_is_insecure_is_refused_before_anything_is_sent() {
    let sites = Mirrored::new().await;
    for (toml, fault, says) in [
        (format!("{}skip_verify = true\n", sites.toml(ALL)), HostsFault::SkipsVerification, "name its CA"),
        (sites.toml(ALL).replace("https://localhost", "http://localhost"), HostsFault::PlainHttp, "--plain-http"),
    ] {
        sites.write(&toml);
        let error = sites.connect(Purpose::Read).await.unwrap_err();
        assert!(matches!(&error, ClientError::Hosts { fault: other, .. } if *other == fault), "{error}");
        assert!(error.to_string().starts_with(&sites.mirror_host) && error.to_string().contains(says), "{error}");
    }
    // Not even then: a certificate that is not looked at is worth nothing.
    sites.write(&format!("{}skip_verify = true\n", sites.toml(ALL)));
    let options = ClientOptions { transport: Transport::PlainHttp, ..sites.options() };
    let error = sites.connect_with(&options, Purpose::Read).await.unwrap_err();
    assert!(matches!(error, ClientError::Hosts { fault: HostsFault::SkipsVerification, .. }), "{error}");
    assert_eq!((sites.site.stub.connections(), sites.mirror.connections()), (0, 0));
}

#[tokio::test]
async fn plain_http_where_it_is_written_and_allowed() {
    let sites = Mirrored::new().await;
    let (address, heard) = plain().await;
    sites
        .write(&format!("[host.\"http://{address}\"]\nskip_verify = true\n{}", sites.toml(ALL)).replace("server", "#"));
    let options = ClientOptions { transport: Transport::PlainHttp, ..sites.options() };
    let client = sites.connect_with(&options, Purpose::Read).await.unwrap();
    assert_eq!(client.peer().as_str(), address.to_string());
    assert_eq!(client.host(), &sites.site.host);
    assert_eq!(heard.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn faults_of_the_configuration_are_told_and_nothing_is_sent() {
    let sites = Mirrored::new().await;
    for toml in [
        "not toml".to_owned(),
        "[host.\"https://a b\"]\n".to_owned(),
        "[host.\"https://user:secret@-a\"]\n".to_owned(),
        sites.toml(ALL).replace("ca.crt", "none.crt"),
        sites.toml(ALL).replace("[[\"good.cert\", \"good.key\"]]", "[\"good.cert\", \"good.key\"]"),
    ] {
        sites.write(&toml);
        let error = sites.connect(Purpose::Read).await.unwrap_err();
        assert!(matches!(error, ClientError::CertsDir { .. }), "{toml}: {error}");
        let error = error.to_string();
        assert!(!error.contains("secret") && !error.contains("does not start"), "{error}");
    }
    assert_eq!((sites.site.stub.connections(), sites.mirror.connections()), (0, 0));
}

#[tokio::test]
async fn default_and_certificate_files_as_containerd_reads_them() {
    let sites = Mirrored::new().await;
    let image = Image::new(&[b"layer"]);
    image.put(&sites.mirror, "team/app", "1");
    let default = sites.site.certs_of("_default");
    sites.pki.server_ca.write_ca(&default);
    sites.mirrors.write_pair(&default, "mirrors");
    let toml = sites.toml(ALL).replace("good", "mirrors");
    fs::write(default.join("hosts.toml"), toml).unwrap();
    // The directory of the host goes before, with its certificate files, as long as it is there.
    let client = sites.connect(Purpose::Read).await.unwrap();
    assert_eq!((client.peer(), client.pair_used().as_deref()), (&sites.site.host, Some("good")));
    fs::remove_dir_all(sites.site.certs()).unwrap();
    let client = sites.connect(Purpose::Read).await.unwrap();
    assert_eq!(client.peer().as_str(), sites.mirror_host);
}

#[tokio::test]
async fn the_path_of_a_mirror() {
    let sites = Mirrored::new().await;
    let body = Image::new(&[b"layer"]).manifest;
    sites.mirror.rule(|seen| seen.target.starts_with("/v2/cache/?").then(|| reply(200, "{}")));
    sites
        .mirror
        .rule(move |seen| seen.target.starts_with("/v2/cache/team/app/manifests/1?").then(|| reply(200, body.clone())));
    let toml = sites.toml(ALL).replace(&sites.mirror_host, &format!("{}/v2/cache", sites.mirror_host));
    sites.write(&format!("{toml}override_path = true\n"));
    let client = sites.connect(Purpose::Read).await.unwrap();
    client.manifest(&"team/app".parse().unwrap(), &"1".parse().unwrap()).await.unwrap();
    assert_eq!(sites.site.stub.connections(), 0);
}

/// Without mirrors in the way: what `login` and the gateway do.
#[tokio::test]
async fn the_registry_itself_with_the_files_named_for_it() {
    let sites = Mirrored::new().await;
    sites.write(&sites.toml(ALL));
    let client = Client::connect(&sites.site.host, &sites.options()).await.unwrap();
    client.ping().await.unwrap();
    assert_eq!(client.peer(), &sites.site.host);
    assert_eq!(sites.mirror.connections(), 0);
    sites.check_certificates();
}
