//! What is wrong before HTTP begins: no name, no listener, no TLS, no answer.

use std::time::Duration;

use portcullis_client::{Client, ClientError, Failure, Wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::site::{Site, options};
use crate::stub::{End, faulty, never};

async fn failure_at(host: &str) -> Failure {
    let mut options = options();
    options.certs.location = portcullis_client::Location::Root("/nonexistent".into());
    options.timeouts.connect = Duration::from_millis(400);
    match Client::connect(&host.parse().unwrap(), &options).await {
        Err(ClientError::Connection { failure, .. }) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    assert_eq!(failure_at(&host).await, Failure::ConnectionRefused);
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    let failure = failure_at("no-such-registry.invalid:5000").await;
    // Without a name server in reach the lookup may take longer than the deadline.
    let expected = Failure::NameNotFound { name: "no-such-registry.invalid".to_owned() };
    assert!(failure == expected || failure == Failure::TimedOut { waiting_for: Wait::Connection }, "{failure}");
}

#[tokio::test]
async fn plain_http_on_the_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut hello = [0; 16];
        tcp.read_exact(&mut hello).await.unwrap();
        let answer =
            "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nClient sent an HTTPS request to an HTTP server.\n";
        tcp.write_all(answer.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        drop(tcp.read_to_end(&mut rest).await);
    });
    assert_eq!(failure_at(&host).await, Failure::NotTls);
}

#[tokio::test]
async fn a_listener_that_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    assert_eq!(failure_at(&host).await, Failure::TimedOut { waiting_for: Wait::Connection });
    drop(listener);
}

#[tokio::test]
async fn an_answer_that_does_not_come() {
    let site = Site::good().await;
    let client = impatient(&site).await;
    site.stub.rule(|_| Some(never()));
    let error = client.manifest(&"a".parse().unwrap(), &"latest".parse().unwrap()).await.unwrap_err();
    let ClientError::Connection { failure, .. } = &error else { panic!("{error}") };
    assert_eq!(*failure, Failure::TimedOut { waiting_for: Wait::Answer });
    assert_eq!(site.stub.lines().len(), 1, "a deadline that passed is not repeated");
}

#[tokio::test]
async fn a_body_that_stops_coming() {
    let site = Site::good().await;
    let client = impatient(&site).await;
    site.stub.rule(|_| Some(faulty(200, Some(10), b"half", End::Hang)));
    let error = client.manifest(&"a".parse().unwrap(), &"latest".parse().unwrap()).await.unwrap_err();
    let ClientError::Connection { failure, .. } = &error else { panic!("{error}") };
    assert_eq!(*failure, Failure::TimedOut { waiting_for: Wait::Bytes });
}

async fn impatient(site: &Site) -> Client {
    let mut options = site.options();
    options.timeouts.header = Duration::from_millis(300);
    options.timeouts.idle = Duration::from_millis(300);
    options.timeouts.connect = Duration::from_secs(2);
    Client::connect(&site.host, &options).await.unwrap()
}

#[tokio::test]
async fn a_host_that_a_url_would_take_for_another() {
    let error = Client::connect(&"127.1:5000".parse().unwrap(), &options()).await.unwrap_err();
    assert!(matches!(error, ClientError::Host { .. }), "{error}");
}
