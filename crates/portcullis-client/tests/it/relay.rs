//! Requests of another program, sent on and answered as the registry answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use portcullis_client::{Client, ClientError, Failure, ProtocolFault, RelayTo, Relayed, Wait};
use portcullis_oci::Endpoint;

use crate::image::{digest, noise};
use crate::site::{Pki, Site};
use crate::stub::{End, Spelling, faulty, reply, with};
use crate::tls::{H1, H2};

fn endpoint(method: &Method, path: &str) -> Endpoint {
    Endpoint::parse(method, path, None).unwrap()
}

async fn read(client: &Client, method: Method, path: &str) -> Result<Relayed, ClientError> {
    client.relay_read(&method, RelayTo::Endpoint(&endpoint(&method, path)), &HeaderMap::new()).await
}

#[tokio::test]
async fn an_answer_is_given_back_whatever_it_is() {
    let site = Site::good().await;
    let blob = site.stub.put_blob("team/app", b"content");
    let client = site.client().await;
    let answer = read(&client, Method::GET, &format!("/v2/team/app/blobs/{blob}")).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "7");
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "content");
    let answer = read(&client, Method::GET, "/v2/team/app/manifests/none").await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert!(answer.into_answer().await.is_not_found());
    // HEAD of what the grammar calls a GET.
    let answer = read(&client, Method::HEAD, "/v2/").await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(site.stub.log().last().unwrap().method, Method::HEAD);
}

/// The first one too: it chooses no identity, and no other is asked.
#[tokio::test]
async fn a_refusal_is_given_back_as_it_is() {
    let pki = Pki::new();
    let other = pki.client_ca.client("other");
    let site = Site::with_good_pair(&pki, pki.tls().accept("other", &other)).await;
    other.write_pair(&site.certs(), "other");
    site.stub.rule(|seen| seen.target.starts_with("/v2/denied/").then(|| with(reply(403, "why"), "x-why", "so")));
    let client = site.client().await;
    for _ in 0..2 {
        let answer = read(&client, Method::GET, "/v2/denied/manifests/1").await.unwrap();
        assert_eq!((answer.status(), &answer.headers()["x-why"]), (StatusCode::FORBIDDEN, &"so".parse().unwrap()));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "why");
    }
    assert!(site.stub.pairs().iter().all(|pair| pair == "good"), "{:?}", site.stub.pairs());
}

#[tokio::test]
async fn a_blob_goes_up_as_it_comes() {
    for (alpn, spelling) in
        [(H1, Spelling::RelativeWithState), (H1, Spelling::Absolute), (H2, Spelling::RelativeWithState)]
    {
        let pki = Pki::new();
        let mut tls = pki.tls();
        tls.alpn = alpn;
        let site = Site::with_good_pair(&pki, tls).await;
        site.stub.spell(spelling);
        let client = site.client().await;
        let start = endpoint(&Method::POST, "/v2/team/app/blobs/uploads/");
        for (seed, sized) in [(1, true), (2, false)] {
            let to = RelayTo::Endpoint(&start);
            let begun = client.relay_write(&Method::POST, to, HeaderMap::new(), Empty::new()).await.unwrap();
            let upload = client.relayed_upload(&begun).unwrap();
            let content = Bytes::from(noise(seed, 2_000_000));
            let digest = digest(&content);
            let to = RelayTo::Upload(&upload, Some(&digest));
            let answer = if sized {
                client.relay_write(&Method::PUT, to, HeaderMap::new(), Full::new(content.clone())).await
            } else {
                let body = faulty(200, None, &content, End::Clean).into_body();
                client.relay_write(&Method::PUT, to, HeaderMap::new(), body).await
            };
            assert_eq!(answer.unwrap().status(), StatusCode::CREATED);
            assert!(site.stub.blob("team/app", &digest) == Some(content));
        }
    }
}

#[tokio::test]
async fn where_an_answer_leads() {
    let site = Site::good().await;
    let origin = format!("https://{}", site.host);
    site.stub.rule(move |seen| {
        let next = match seen.target.as_str() {
            "/v2/here/tags/list" => format!("<{origin}/v2/here/tags/list?token=a%2Fb&n=1>; rel=\"next\""),
            "/v2/there/tags/list" => "<https://other.test/v2/there/tags/list?n=1>; rel=\"next\"".to_owned(),
            _ => return None,
        };
        let answer = with(reply(200, "{}"), "link", &next);
        Some(with(answer, "location", next.split(['<', '>']).nth(1).unwrap()))
    });
    let client = site.client().await;
    let here = read(&client, Method::GET, "/v2/here/tags/list").await.unwrap();
    let next = "/v2/here/tags/list?token=a%2Fb&n=1";
    assert_eq!(client.relayed_next_page(&here).unwrap().as_deref(), Some(next));
    assert_eq!(client.relayed_location(&here).as_deref(), Some(next));
    let there = read(&client, Method::GET, "/v2/there/tags/list").await.unwrap();
    assert!(client.relayed_next_page(&there).is_err());
    assert_eq!(client.relayed_location(&there), None);
    assert!(matches!(
        client.relayed_upload(&there),
        Err(ClientError::Protocol { fault: ProtocolFault::ForeignUpload { .. }, .. })
    ));
    // The registry's own words for a page arrive as they are.
    let list = endpoint(&Method::GET, "/v2/here/tags/list");
    let page = RelayTo::Page(&list, "token=a%2Fb&n=1");
    drop(client.relay_read(&Method::GET, page, &HeaderMap::new()).await.unwrap());
    assert_eq!(site.stub.lines().last().unwrap(), "GET /v2/here/tags/list?token=a%2Fb&n=1");
}

#[tokio::test]
async fn a_body_that_stalls_or_breaks_is_an_error() {
    let site = Site::good().await;
    site.stub.rule(|seen| {
        let end = if seen.target.ends_with("stall") { End::Hang } else { End::Break };
        seen.target.contains("/manifests/").then(|| faulty(200, Some(100), b"begun", end))
    });
    let mut options = site.options();
    options.timeouts.idle = Duration::from_millis(200);
    let client = Client::connect(&site.host, &options).await.unwrap();
    for (tag, timed_out) in [("stall", true), ("break", false)] {
        let mut body = read(&client, Method::GET, &format!("/v2/app/manifests/{tag}")).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");
        let error = body.frame().await.unwrap().unwrap_err();
        let ClientError::Connection { failure, .. } = &error else { panic!("{error}") };
        assert_eq!(*failure == Failure::TimedOut { waiting_for: Wait::Bytes }, timed_out, "{error}");
    }
}

#[tokio::test]
async fn a_write_whose_source_stalls_or_breaks_is_an_error() {
    let site = Site::good().await;
    let mut options = site.options();
    options.timeouts.idle = Duration::from_millis(100);
    options.timeouts.connect = Duration::from_secs(2);
    let client = Client::connect(&site.host, &options).await.unwrap();
    let put = endpoint(&Method::PUT, "/v2/app/manifests/1");
    for (end, timed_out) in [(End::Hang, true), (End::Break, false)] {
        let body = faulty(200, None, b"begun", end).into_body();
        let sent = client.relay_write(&Method::PUT, RelayTo::Endpoint(&put), HeaderMap::new(), body).await;
        let error = sent.unwrap_err();
        let ClientError::Connection { failure, .. } = &error else { panic!("{error}") };
        assert_eq!(*failure == Failure::TimedOut { waiting_for: Wait::Bytes }, timed_out, "{error}");
    }
}
