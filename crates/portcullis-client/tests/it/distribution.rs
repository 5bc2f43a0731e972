//! Debian's `docker-registry` (CNCF Distribution 2.8 on Go's TLS) as a mutual-TLS registry: how the most used registry
//! of all really refuses, names its uploads and answers.

use portcullis_client::{
    Client, ClientError, ClientOptions, Event, Failure, LayoutDir, Progress, Refusal, copy, pull, push,
};
use portcullis_oci::{ManifestReference, Reference, Tag};
use portcullis_testkit::pki::{Authority, LeafSpec};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::breaking::BreakingWay;
use crate::image::{Image, noise};
use crate::served::{Served, Setting};
use crate::site::{Site, recorder};

const PROGRAM: &str = "docker-registry";

#[test]
fn an_image_goes_there_and_comes_back() {
    skip_unless!(Need::Program(PROGRAM));
    run(async |registry| {
        let stranger = Authority::new("another CA").client("stranger");
        stranger.write_pair(&registry.certs(), "10-stranger");
        registry.pki.good.write_pair(&registry.certs(), "2-good");
        let client = registry.connect().await.unwrap();
        assert_eq!(client.pair_used().as_deref(), Some("2-good"));

        let image = Image::new(&[&noise(1, 5_000_000), b"small", b""]);
        let layout = LayoutDir::create(&registry.dir.path().join("out")).unwrap();
        image.write(&layout);
        layout.set_image(&image.descriptor(), None).unwrap();
        let reference = format!("{}/team/app:1", registry.host).parse().unwrap();
        let pushed = push(&client, &layout, None, &reference, &Progress::none()).await.unwrap();
        assert_eq!((pushed.sent, pushed.existing), (4, 0));
        let again = push(&client, &layout, None, &reference, &Progress::none()).await.unwrap();
        assert_eq!((again.sent, again.existing), (0, 4));

        let back = LayoutDir::create(&registry.dir.path().join("back")).unwrap();
        let pulled = pull(&client, &reference, &back, &Progress::none()).await.unwrap();
        assert_eq!(pulled.image.digest, image.digest());
        assert!(image.is_in(&back));

        let missing = format!("{}/team/app:none", registry.host).parse().unwrap();
        let error = pull(&client, &missing, &back, &Progress::none()).await.unwrap_err();
        assert!(error.is_not_found() && error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");
    });
}

/// Within it, blobs are mounted; from it to another registry and back, they are streamed. Deletion is off there by default.
#[test]
fn an_image_is_copied_and_its_tags_are_listed() {
    skip_unless!(Need::Program(PROGRAM));
    run(async |registry| {
        registry.pki.good.write_pair(&registry.certs(), "good");
        let client = registry.connect().await.unwrap();
        let stub = Site::good().await;
        let image = Image::new(&[&noise(1, 2_000_000), b"small", b""]);
        image.put(&stub.stub, "team/app", "1");
        let reference = |rest: &str| -> Reference { format!("{}/{rest}", registry.host).parse().unwrap() };
        let none = Progress::none();

        let (from, to) = (stub.reference("team/app:1"), reference("team/app:1"));
        let there = copy(&stub.client().await, &from, &client, &to, &none).await.unwrap();
        assert_eq!((there.image.digest, there.sent), (image.digest(), 4));
        let within = copy(&client, &to, &client, &reference("other/app:2"), &none).await.unwrap();
        assert_eq!((within.sent, within.mounted), (0, 4));
        copy(&client, &to, &client, &reference("other/app:1"), &none).await.unwrap();
        let back = stub.reference("back/app:1");
        let back = copy(&client, &reference("other/app:2"), &stub.client().await, &back, &none).await.unwrap();
        assert_eq!((back.image.digest, back.sent), (image.digest(), 4));
        assert_eq!(stub.stub.manifest("back/app", "1").unwrap(), image.manifest);

        let mut tags = client.tags(&"other/app".parse().unwrap()).await.unwrap();
        tags.sort();
        assert_eq!(tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["1", "2"]);
        let error = client.tags(&"no/such".parse().unwrap()).await.unwrap_err();
        assert!(error.is_not_found() && error.to_string().contains("NAME_UNKNOWN"), "{error}");
        let by_digest = ManifestReference::Digest(image.digest());
        let error = client.delete_manifest(&"other/app".parse().unwrap(), &by_digest).await.unwrap_err();
        assert!(matches!(&error, ClientError::Status { answer, .. } if answer.status == 405), "{error}");
        assert!(error.advice().unwrap().contains("turned off"), "{error}");
    });
}

/// Of a request that broke off it keeps what has come, and then knows nothing of the upload under the state that it has
/// given out (404, `upload resumed at wrong offest` in its log): all of the blob is sent again, in another upload.
#[test]
fn an_upload_that_breaks_arrives_in_the_end() {
    skip_unless!(Need::Program(PROGRAM));
    run(async |registry| {
        // In the first chunk, in a later one, and in the last request.
        for (number, after) in [500_000, 2_500_000, 4_800_000].into_iter().enumerate() {
            let way = BreakingWay::open(registry.host.as_str().parse().unwrap(), after).await;
            let certs = registry.certs_of(way.host.as_str());
            registry.pki.server_ca.write_ca(&certs);
            registry.pki.good.write_pair(&certs, "good");
            let options = ClientOptions { chunk: 1_000_000, ..registry.options() };
            let client = Client::connect(&way.host, &options).await.unwrap();

            let image = Image::new(&[&noise(number as u64, 5_000_000)]);
            let layout = LayoutDir::create(&registry.dir.path().join(format!("out{number}"))).unwrap();
            image.write(&layout);
            layout.set_image(&image.descriptor(), None).unwrap();
            let reference = format!("{}/team/app{number}:1", way.host).parse().unwrap();
            let (progress, events) = recorder();
            push(&client, &layout, None, &reference, &progress).await.unwrap();
            assert!(way.has_broken());
            let is_retried = |event: &Event| matches!(event, Event::Retrying { .. });
            assert!(events.lock().unwrap().iter().any(is_retried), "{after}");

            let back = LayoutDir::create(&registry.dir.path().join(format!("back{number}"))).unwrap();
            pull(&client, &reference, &back, &Progress::none()).await.unwrap();
            assert!(image.is_in(&back), "{after}");
        }
    });
}

#[test]
fn every_refusal_has_its_reason() {
    skip_unless!(Need::Program(PROGRAM));
    run(async |registry| {
        let error = registry.connect().await.unwrap_err();
        // Debian's is built with Go 1.19, which says `bad_certificate` to everybody; newer ones name the reason.
        let none = failures(&error);
        assert!(
            matches!(none.as_slice(), [(None, Failure::CertificateRequired | Failure::BadCertificate)]),
            "{none:?}"
        );
        assert!(error.advice().unwrap().contains("NAME.cert"));

        let client_ca = &registry.pki.client_ca;
        let pairs = [
            ("a", Authority::new("another CA").client("stranger")),
            ("b", client_ca.issue(&LeafSpec::client("old").expired())),
            ("c", client_ca.issue(&LeafSpec::client("server").server_auth_only())),
        ];
        for (name, pair) in &pairs {
            pair.write_pair(&registry.certs(), name);
        }
        let error = registry.connect().await.unwrap_err();
        assert!(error.is_refusal());
        let expected =
            [("a", Failure::UnknownCa), ("b", Failure::CertificateExpired), ("c", Failure::UnsupportedCertificate)];
        let found = failures(&error);
        assert_eq!(found.len(), expected.len(), "{error}");
        for ((pair, failure), (name, exact)) in found.into_iter().zip(expected) {
            assert_eq!(pair.as_deref(), Some(name));
            assert!(failure == exact || failure == Failure::BadCertificate, "{error}");
        }
    });
}

fn failures(error: &ClientError) -> Vec<(Option<String>, Failure)> {
    let ClientError::Refused { attempts, .. } = error else { panic!("{error:?}") };
    let failure = |refusal: &Refusal| match refusal {
        Refusal::Handshake(failure) => failure.clone(),
        Refusal::Answer(answer) => panic!("{answer}"),
    };
    attempts.iter().map(|attempt| (attempt.pair.clone(), failure(&attempt.refusal))).collect()
}

fn run(test: impl AsyncFnOnce(&Served)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let registry = start().await;
        test(&registry).await;
    });
}

async fn start() -> Served {
    let configure = |setting: &Setting<'_>| {
        format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {data}\nhttp:\n  addr: {address}\n  tls:\n    certificate: {cert}\n    key: {key}\n    clientcas: [{ca}]\n",
            data = setting.own.join("data").display(),
            address = setting.address,
            cert = setting.server.cert.display(),
            key = setting.server.key.display(),
            ca = setting.own.join("ca.crt").display(),
        )
    };
    Served::start(PROGRAM, configure, |command, _, config| {
        command.arg("serve").arg(config);
    })
    .await
}
