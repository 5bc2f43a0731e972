//! Plain HTTP: for who asks for it, and for nobody else.

use portcullis_client::{Client, ClientError, ClientOptions, Failure, ProtocolFault, Transport};

use crate::site::{Site, options};
use crate::stub::{plain, reply, with};

#[tokio::test]
async fn plain_http_is_refused_on_loopback_too() {
    let (address, heard) = plain().await;
    for host in [address.to_string(), format!("localhost:{}", address.port())] {
        let error = Client::connect(&host.parse().unwrap(), &options()).await.unwrap_err();
        assert!(matches!(&error, ClientError::Connection { failure: Failure::NotTls, .. }), "{error}");
        assert!(error.advice().unwrap().contains("--plain-http"), "{error}");
    }
    assert!(heard.lock().unwrap().iter().all(|heard| !heard.contains("HTTP/1.1")), "no request in the clear");
}

#[tokio::test]
async fn plain_http_for_who_asks_for_it() {
    let (address, heard) = plain().await;
    let options = ClientOptions { transport: Transport::PlainHttp, ..options() };
    let client = Client::connect(&address.to_string().parse().unwrap(), &options).await.unwrap();
    assert_eq!(client.pair_used(), None);
    assert!(heard.lock().unwrap()[0].starts_with("GET /v2/ HTTP/1.1"));
}

#[tokio::test]
async fn tls_is_never_left_for_plain_http() {
    let (address, heard) = plain().await;
    let site = Site::good().await;
    let target = format!("http://{address}/v2/");
    site.stub.rule(move |seen| (seen.target != "/v2/").then(|| with(reply(307, ""), "location", &target)));
    let client = site.client().await;
    let error = client.manifest(&"a".parse().unwrap(), &"1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Protocol { fault: ProtocolFault::InsecureRedirect { .. }, .. }), "{error}");
    assert!(heard.lock().unwrap().is_empty());
}
