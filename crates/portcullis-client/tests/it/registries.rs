//! Podman's `registries.conf`: whom a pull goes to and under which name, each host with its own directory, and what is refused.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use portcullis_certs::EngineProfile;
use portcullis_certs::engine_files::{PullBy, RegistriesConf, RegistryFault};
use portcullis_client::{
    Client, ClientError, ClientOptions, HostsFault, Location, PassedOver, Progress, Transport,
    check_registry_as_podman, pull,
};
use portcullis_oci::{Reference, RegistryHost};

use crate::image::Image;
use crate::site::{Pki, Site};
use crate::stub::{Stub, plain, reply};

/// A registry on 127.0.0.1 and a mirror called localhost, each with a directory and a certificate of its own. Both would take
/// either certificate, and remember which they were shown.
struct Sites {
    site: Site,
    mirror: Stub,
    mirror_host: String,
    told: Arc<Mutex<Vec<String>>>,
}

impl Sites {
    async fn new() -> Self {
        let pki = Pki::new();
        let pair = pki.client_ca.client("mirrors");
        let tls = || pki.tls().accept("mirrors", &pair);
        let mirror = Stub::start(tls()).await;
        let site = Site::with_good_pair(&pki, tls()).await;
        let mirror_host = format!("localhost:{}", mirror.address.port());
        pki.server_ca.write_ca(&site.certs_of(&mirror_host));
        pair.write_pair(&site.certs_of(&mirror_host), "mirrors");
        Self { site, mirror, mirror_host, told: Arc::default() }
    }

    fn options(&self) -> ClientOptions {
        let mut options = self.site.options();
        options.certs.profile = EngineProfile::PODMAN;
        options
    }

    /// A table for images below team, read from the mirror's mirrored/team and then from the location.
    fn conf(&self, location: &str, rest: &str) -> String {
        let (host, mirror) = (&self.site.host, &self.mirror_host);
        format!(
            "[[registry]]\nprefix = \"{host}/team\"\nlocation = \"{location}\"\n[[registry.mirror]]\nlocation = \"{mirror}/mirrored/team\"\n{rest}\n"
        )
    }

    /// The same, where the location is what is typed.
    fn in_place(&self, rest: &str) -> String {
        self.conf(&format!("{}/team", self.site.host), rest)
    }

    async fn connect_with(&self, conf: &str, by: PullBy, options: &ClientOptions) -> Result<Client, ClientError> {
        let told = Arc::clone(&self.told);
        let told = PassedOver::new(move |host, error| told.lock().unwrap().push(format!("{host}: {error}")));
        let repository = "team/app".parse().unwrap();
        Client::connect_as_podman(&read(conf), (&self.site.host, &repository), by, options, &told).await
    }

    async fn connect(&self, conf: &str, by: PullBy) -> Result<Client, ClientError> {
        self.connect_with(conf, by, &self.options()).await
    }

    fn reference(&self) -> Reference {
        self.site.reference("team/app:1")
    }

    /// Pulls team/app:1 and says who was passed over.
    async fn pull(&self, conf: &str) -> Vec<String> {
        let client = self.connect(conf, PullBy::Tag).await.unwrap();
        pull(&client, &self.reference(), &self.site.layout(), &Progress::none()).await.unwrap();
        self.told.lock().unwrap().clone()
    }

    /// Nobody was shown what is the other's.
    fn check_certificates(&self) {
        let (at_registry, at_mirror) = (self.site.stub.presented(), self.mirror.presented());
        assert!(at_registry.iter().all(|pair| pair == "good"), "{at_registry:?}");
        assert!(at_mirror.iter().all(|pair| pair == "mirrors"), "{at_mirror:?}");
    }
}

fn read(conf: &str) -> RegistriesConf {
    RegistriesConf::parse(conf.as_bytes(), Path::new("/r.conf")).unwrap()
}

#[tokio::test]
async fn a_mirror_is_asked_under_the_name_that_it_has_there() {
    let sites = Sites::new().await;
    let image = Image::new(&[b"layer"]);
    image.put(&sites.mirror, "mirrored/team/app", "1");
    assert!(sites.pull(&sites.in_place("")).await.is_empty());
    assert!(image.is_in(&sites.site.layout()));
    assert_eq!(sites.site.stub.connections(), 0);
    let asked = sites.mirror.lines();
    assert!(asked.iter().all(|line| line.contains(" /v2/mirrored/team/app/") && !line.contains('?')), "{asked:?}");
    sites.check_certificates();
}

/// Podman takes an image from one host: what the mirror lacks comes from the registry, and so does the rest.
#[tokio::test]
async fn what_a_mirror_lacks_comes_from_the_location_under_its_own_certificate() {
    let sites = Sites::new().await;
    let image = Image::new(&[b"layer", b"another"]);
    image.put(&sites.site.stub, "inner/x/app", "1");
    let told = sites.pull(&sites.conf(&format!("{}/inner/x", sites.site.host), "")).await;
    assert!(image.is_in(&sites.site.layout()));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with(&sites.mirror_host) && told[0].contains("404"), "{told:?}");
    assert_eq!(sites.mirror.lines(), ["GET /v2/mirrored/team/app/manifests/1"]);
    let asked = sites.site.stub.lines();
    assert!(asked.iter().all(|line| line.contains(" /v2/inner/x/app/")), "{asked:?}");
    sites.check_certificates();
}

#[tokio::test]
async fn a_mirror_that_fails_is_named_and_the_next_one_asked() {
    let sites = Sites::new().await;
    let image = Image::new(&[b"layer"]);
    image.put(&sites.site.stub, "team/app", "1");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let missing = sites.site.certs_of("localhost:1");
    fs::write(missing.join("lonely.cert"), "").unwrap();
    sites.mirror.rule(|seen| (seen.target != "/v2/").then(|| reply(500, "broken")));
    let mirrors = format!(
        "[[registry.mirror]]\nlocation = \"{closed}\"\n[[registry.mirror]]\nlocation = \"localhost:1/x\"\n[[registry.mirror]]\nlocation = \"blocked.test\"\n[[registry]]\nlocation = \"blocked.test\"\nblocked = true\n"
    );
    let told = sites.pull(&sites.in_place(&mirrors)).await;
    assert!(image.is_in(&sites.site.layout()));
    let starts =
        [sites.mirror_host.as_str(), &closed.to_string(), "the certificate directory for localhost:1", "blocked"];
    assert_eq!(told.len(), starts.len(), "each once: {told:?}");
    for (line, start) in told.iter().zip(starts) {
        assert!(line.contains(start), "{start}: {line}");
    }
    assert!(told[3].contains("/r.conf:12 blocks blocked.test"), "{}", told[3]);
    sites.check_certificates();
}

#[tokio::test]
async fn when_all_fail_the_last_one_has_the_word() {
    let sites = Sites::new().await;
    let client = sites.connect(&sites.in_place(""), PullBy::Tag).await.unwrap();
    let error = client.manifest(&"team/app".parse().unwrap(), &"1".parse().unwrap()).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().starts_with(sites.site.host.as_str()), "{error}");
    assert_eq!(sites.told.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn mirrors_for_digests_are_not_asked_for_tags() {
    let sites = Sites::new().await;
    for (rest, by, asks_mirror) in [
        ("pull-from-mirror = \"digest-only\"", PullBy::Tag, false),
        ("pull-from-mirror = \"digest-only\"", PullBy::Digest, true),
        ("pull-from-mirror = \"tag-only\"", PullBy::Tag, true),
        ("pull-from-mirror = \"tag-only\"", PullBy::Digest, false),
    ] {
        let client = sites.connect(&sites.in_place(rest), by).await.unwrap();
        assert_eq!(client.peer().as_str() == sites.mirror_host, asks_mirror, "{rest} {by:?}");
        assert_eq!(client.host(), &sites.site.host);
    }
}

#[tokio::test]
async fn another_repository_is_another_connection() {
    let sites = Sites::new().await;
    let client = sites.connect(&sites.in_place(""), PullBy::Tag).await.unwrap();
    let error = client.tags(&"team/other".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, ClientError::Hosts { fault: HostsFault::OtherRepository { .. }, .. }), "{error}");
    assert!(sites.mirror.lines().is_empty() && sites.site.stub.lines().is_empty());
}

#[tokio::test]
async fn what_is_blocked_or_insecure_is_refused_before_anything_is_sent() {
    let sites = Sites::new().await;
    let blocked =
        format!("{}[[registry]]\nlocation = \"{}/team/app\"\nblocked = true\n", sites.in_place(""), sites.site.host);
    for (conf, host, says) in [
        (blocked.clone(), sites.site.host.as_str(), "/r.conf:7 blocks "),
        (sites.in_place("insecure = true"), &sites.mirror_host, "/r.conf:4 calls it insecure"),
        (
            sites.in_place("").replacen("location", "insecure = true\nlocation", 1),
            sites.site.host.as_str(),
            "/r.conf:1 calls",
        ),
        (sites.conf("in.test:x", ""), sites.site.host.as_str(), "/r.conf:1 leads to in.test:x/app"),
    ] {
        let error = sites.connect(&conf, PullBy::Tag).await.unwrap_err();
        assert!(matches!(&error, ClientError::Hosts { fault: HostsFault::Registries(_), .. }), "{error}");
        let error = error.to_string();
        assert!(error.starts_with(host) && error.contains(says), "{error}");
    }
    assert_eq!((sites.site.stub.connections(), sites.mirror.connections()), (0, 0));

    // What is asked as it is typed.
    let conf = read(&blocked);
    let check = |repository: &str, options: &ClientOptions| {
        check_registry_as_podman(&conf, &sites.site.host, Some(&repository.parse().unwrap()), options)
    };
    let error = check("team/app", &sites.options()).unwrap_err();
    let ClientError::Hosts { fault: HostsFault::Registries(fault), .. } = &error else { panic!("{error}") };
    assert!(matches!(**fault, RegistryFault::Blocked { .. }));
    check("team/other", &sites.options()).unwrap();
    let insecure = read("[[registry]]\nlocation = \"r.test\"\ninsecure = true\n");
    let host: RegistryHost = "r.test".parse().unwrap();
    assert!(check_registry_as_podman(&insecure, &host, None, &sites.options()).is_err());
    let plain = ClientOptions { transport: Transport::PlainHttp, ..sites.options() };
    check_registry_as_podman(&insecure, &host, None, &plain).unwrap();
}

#[tokio::test]
async fn plain_http_where_it_is_insecure_and_allowed() {
    let sites = Sites::new().await;
    let (address, heard) = plain().await;
    let conf = sites.in_place("").replace(&sites.mirror_host, &address.to_string());
    let options = ClientOptions { transport: Transport::PlainHttp, ..sites.options() };
    // Plain HTTP was asked for, and this mirror is not for it.
    let told = |sites: &Sites| sites.told.lock().unwrap().len();
    drop(sites.connect_with(&conf, PullBy::Tag, &options).await);
    assert_eq!(told(&sites), 1);
    assert!(heard.lock().unwrap().iter().all(|request| !request.starts_with("GET ")), "{:?}", heard.lock().unwrap());
    let conf = conf.replace("mirrored/team\"", "mirrored/team\"\ninsecure = true");
    let client = sites.connect_with(&conf, PullBy::Tag, &options).await.unwrap();
    assert_eq!(client.peer().as_str(), address.to_string());
    assert!(heard.lock().unwrap().last().unwrap().starts_with("GET /v2/ "));
}

/// `--cert-dir` is the registry's: Podman would take it for the mirrors as well.
#[tokio::test]
async fn the_registrys_own_directory_is_no_mirrors() {
    let sites = Sites::new().await;
    Image::new(&[]).put(&sites.site.stub, "team/app", "1");
    let mut options = sites.options();
    options.certs.location = Location::HostDirectory(sites.site.certs());
    let client = sites.connect_with(&sites.in_place(""), PullBy::Tag, &options).await.unwrap();
    assert_eq!(client.peer(), &sites.site.host, "the mirror's CA is nowhere");
    assert!(sites.told.lock().unwrap()[0].starts_with(&sites.mirror_host));
    sites.check_certificates();
}
