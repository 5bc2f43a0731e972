//! A registry made for these tests: real TLS with client certificates and real HTTP, and as badly behaved as it is told.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_oci::route::{Page, UploadId, UploadStart};
use portcullis_oci::{Algorithm, Digest, Endpoint, Manifest, ManifestReference, RepositoryName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::tls::{self, TlsSetup};

mod body;
mod uploads;

pub(crate) use body::{End, faulty, handed};
pub(crate) use uploads::Cut;

pub(crate) type Reply = Response<BoxBody<Bytes, io::Error>>;
type Rule = Box<dyn Fn(&Seen) -> Option<Reply> + Send + Sync>;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    /// The name under which [`TlsSetup`] knows the client certificate.
    pub(crate) pair: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) content_range: Option<String>,
    pub(crate) if_range: Option<String>,
    pub(crate) authorization: Option<String>,
    /// The body of a form.
    pub(crate) form: Option<String>,
    pub(crate) version: http::Version,
}

impl Seen {
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// A registry that speaks plain HTTP: lets everybody in, and remembers what it was sent.
pub(crate) async fn plain() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut bytes = vec![0; 4096];
            let count = tcp.read(&mut bytes).await.unwrap_or(0);
            sink.lock().unwrap().push(String::from_utf8_lossy(&bytes[..count]).into_owned());
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            drop(tcp.write_all(answer).await);
        }
    });
    (address, heard)
}

/// How the `Location` of an upload is spelled.
#[derive(Clone, Debug, Default)]
pub(crate) enum Spelling {
    #[default]
    Relative,
    RelativeWithState,
    Absolute,
    /// Put before the path.
    Origin(String),
    Missing,
}

#[derive(Default)]
struct Content {
    blobs: HashMap<(String, Digest), Bytes>,
    manifests: HashMap<(String, String), (String, Bytes)>,
    uploads: u8,
    /// What has come of each.
    parts: HashMap<UploadId, Vec<u8>>,
}

pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    tls: TlsSetup,
    content: Mutex<Content>,
    log: Mutex<Vec<Seen>>,
    connections: Mutex<usize>,
    rules: Mutex<Vec<Rule>>,
    spelling: Mutex<Spelling>,
    cuts: Mutex<Vec<Cut>>,
}

impl Stub {
    pub(crate) async fn start(tls: TlsSetup) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(&tls)));
        let shared = Arc::new(Shared {
            tls,
            content: Mutex::default(),
            log: Mutex::default(),
            connections: Mutex::default(),
            rules: Mutex::default(),
            spelling: Mutex::default(),
            cuts: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// Earlier rules win; a request that no rule answers is treated well.
    pub(crate) fn rule(&self, rule: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) {
        self.shared.rules.lock().unwrap().push(Box::new(rule));
    }

    /// The next request with the method of the first cut breaks off, then the next with the second's.
    pub(crate) fn cut(&self, cuts: Vec<Cut>) {
        *self.shared.cuts.lock().unwrap() = cuts;
    }

    pub(crate) fn spell(&self, spelling: Spelling) {
        *self.shared.spelling.lock().unwrap() = spelling;
    }

    pub(crate) fn log(&self) -> Vec<Seen> {
        self.shared.log.lock().unwrap().clone()
    }

    /// The requests after `GET /v2/`, as `METHOD target`.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log().iter().map(Seen::line).filter(|line| line != "GET /v2/").collect()
    }

    /// Who sent the requests, in order.
    pub(crate) fn pairs(&self) -> Vec<String> {
        self.log().into_iter().map(|seen| seen.pair.unwrap_or_else(|| "nobody".into())).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.lock().unwrap()
    }

    pub(crate) fn presented(&self) -> Vec<String> {
        self.shared.tls.presented.lock().unwrap().clone()
    }

    pub(crate) fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let key = (repository.to_owned(), digest);
        self.shared.content.lock().unwrap().blobs.insert(key, Bytes::copy_from_slice(bytes));
        digest
    }

    pub(crate) fn put_manifest(&self, repository: &str, reference: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let media_type = Manifest::parse(bytes, None).map_or_else(|_| "x/y".to_owned(), |manifest| manifest.media_type);
        let mut content = self.shared.content.lock().unwrap();
        for reference in [reference.to_owned(), digest.to_string()] {
            let stored = (media_type.clone(), Bytes::copy_from_slice(bytes));
            content.manifests.insert((repository.to_owned(), reference), stored);
        }
        digest
    }

    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Option<Bytes> {
        let content = self.shared.content.lock().unwrap();
        content.manifests.get(&(repository.to_owned(), reference.to_owned())).map(|(_, bytes)| bytes.clone())
    }

    pub(crate) fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        self.shared.content.lock().unwrap().blobs.get(&(repository.to_owned(), *digest)).cloned()
    }

    pub(crate) fn blobs(&self) -> BTreeMap<Digest, Bytes> {
        let content = self.shared.content.lock().unwrap();
        content.blobs.iter().map(|((_, digest), bytes)| (*digest, bytes.clone())).collect()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed();
    Response::builder().status(status).body(body).unwrap()
}

pub(crate) fn with(mut reply: Reply, header: &'static str, value: &str) -> Reply {
    reply.headers_mut().insert(header, value.parse().unwrap());
    reply
}

#[derive(Clone)]
struct Never;

/// No answer at all.
pub(crate) fn never() -> Reply {
    let mut reply = reply(200, "");
    reply.extensions_mut().insert(Never);
    reply
}

#[derive(Clone)]
struct AfterBody;

/// The same, once the request's body has come whole; else an answer comes at once.
pub(crate) fn after_body(mut reply: Reply) -> Reply {
    reply.extensions_mut().insert(AfterBody);
    reply
}

#[derive(Clone)]
struct Broken;

/// The connection ends instead of an answer.
pub(crate) fn broken() -> Reply {
    let mut reply = reply(200, "");
    reply.extensions_mut().insert(Broken);
    reply
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { return };
        *shared.connections.lock().unwrap() += 1;
        tokio::spawn(connection(tcp, acceptor.clone(), Arc::clone(&shared)));
    }
}

async fn connection(tcp: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let stream = match acceptor.accept(tcp).into_fallible().await {
        Ok(stream) => stream,
        Err((_, mut tcp)) => {
            if !shared.tls.rude {
                // As a careful server does: the alert was written; read what still comes, so that no reset overtakes it.
                drop(tcp.shutdown().await);
                let mut rest = Vec::new();
                drop(tokio::time::timeout(Duration::from_secs(2), tcp.read_to_end(&mut rest)).await);
            }
            return;
        }
    };
    let pair = stream.get_ref().1.peer_certificates().map(|chain| shared.tls.name_of(&chain[0]));
    if pair.as_ref().is_some_and(|pair| shared.tls.hang_up_on.contains(pair)) {
        return;
    }
    let service = service_fn(move |request| {
        let (shared, pair) = (Arc::clone(&shared), pair.clone());
        async move {
            let reply = answer(&shared, pair, request).await;
            // hyper ends the connection, in HTTP/2 the stream.
            if reply.extensions().get::<Broken>().is_some() { Err(io::Error::other("cut")) } else { Ok(reply) }
        }
    });
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // A connection that breaks is what some of the tests ask for.
    drop(server.serve_connection(TokioIo::new(stream), service).await);
}

async fn answer(shared: &Shared, pair: Option<String>, request: Request<Incoming>) -> Reply {
    let target = request.uri().path_and_query().unwrap().to_string();
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (range, if_range, authorization) = (header("range"), header("if-range"), header("authorization"));
    let content_range = header("content-range");
    let is_form = header("content-type").is_some_and(|value| value == "application/x-www-form-urlencoded");
    let (method, version) = (request.method().clone(), request.version());
    let path = request.uri().path().to_owned();
    let query = request.uri().query().map(str::to_owned);
    let mut seen = Seen { method, target, pair, range, content_range, if_range, authorization, form: None, version };
    let request = if is_form {
        seen.form = Some(String::from_utf8(request.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap());
        None
    } else {
        Some(request)
    };
    shared.log.lock().unwrap().push(seen.clone());
    let ruled = shared.rules.lock().unwrap().iter().find_map(|rule| rule(&seen));
    if let Some(reply) = ruled {
        if reply.extensions().get::<Never>().is_some() {
            std::future::pending::<()>().await;
        }
        match request {
            Some(request) if reply.extensions().get::<AfterBody>().is_some() => {
                drop(request.into_body().collect().await);
            }
            Some(request) => drop(tokio::spawn(linger(request.into_body()))),
            None => {}
        }
        return reply;
    }
    let Some(request) = request else { return reply(404, "no form here") };
    match Endpoint::parse(&seen.method, &path, query.as_deref()) {
        Ok(endpoint) => serve(shared, &seen, endpoint, request).await,
        Err(error) => reply(404, error.to_string()),
    }
}

/// An answer that comes before the end of the body is lost where the server closes at once: the reset overtakes it. nginx
/// (`lingering_close`), Go and our own server read on for a while.
async fn linger(mut body: Incoming) {
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    drop(tokio::time::timeout(Duration::from_millis(500), reading).await);
}

async fn serve(shared: &Shared, seen: &Seen, endpoint: Endpoint, request: Request<Incoming>) -> Reply {
    let host = request.headers().get("host").map(|value| value.to_str().unwrap().to_owned());
    let authority = request.uri().authority().map(ToString::to_string).or(host).unwrap_or_default();
    let media_type = request.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let cut = uploads::next_cut(shared, &seen.method);
    let Some(body) = uploads::body(request.into_body(), cut.as_ref()).await else { return reply(400, "cut") };
    if let Some(cut) = cut {
        return uploads::cut_off(shared, &endpoint, &body, &cut);
    }
    let mut content = shared.content.lock().unwrap();
    match endpoint {
        Endpoint::Base => reply(200, "{}"),
        Endpoint::GetManifest { repository, reference } | Endpoint::HeadManifest { repository, reference } => {
            match content.manifests.get(&(repository.to_string(), reference.to_string())) {
                Some((media_type, bytes)) => with(reply(200, bytes.clone()), "content-type", media_type),
                None => reply(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such manifest"}]}"#),
            }
        }
        Endpoint::PutManifest { repository, reference, .. } => {
            put_manifest(&mut content, &repository, &reference, media_type.unwrap_or_default(), body)
        }
        Endpoint::GetBlob { repository, digest } | Endpoint::HeadBlob { repository, digest } => {
            match content.blobs.get(&(repository.to_string(), digest)) {
                Some(bytes) => blob(seen, bytes),
                None => reply(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no such blob"}]}"#),
            }
        }
        Endpoint::StartUpload { repository, start: UploadStart::Mount { digest, from: Some(from) } }
            if content.blobs.contains_key(&(from.to_string(), digest)) =>
        {
            let bytes = content.blobs[&(from.to_string(), digest)].clone();
            content.blobs.insert((repository.to_string(), digest), bytes);
            reply(201, "")
        }
        Endpoint::StartUpload { .. }
        | Endpoint::UploadStatus { .. }
        | Endpoint::AppendUpload { .. }
        | Endpoint::FinishUpload { .. } => {
            let spelling = shared.spelling.lock().unwrap().clone();
            uploads::Uploads { content: &mut content, spelling, authority }.serve(seen, endpoint, &body)
        }
        Endpoint::CancelUpload { .. } => reply(204, ""),
        Endpoint::ListTags { repository, page } => list_tags(&content, &repository, &page),
        Endpoint::DeleteManifest { repository, reference } => delete_manifest(&mut content, &repository, &reference),
        _ => reply(405, ""),
    }
}

/// Three to a page.
fn list_tags(content: &Content, repository: &RepositoryName, page: &Page) -> Reply {
    let own = content.manifests.keys().filter(|(name, _)| name == repository.as_str());
    let mut tags: Vec<&str> = own.map(|(_, tag)| tag.as_str()).filter(|tag| !tag.contains(':')).collect();
    if tags.is_empty() {
        return reply(404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}"#);
    }
    tags.sort_unstable();
    tags.retain(|tag| page.last.as_deref().is_none_or(|last| *tag > last));
    let more = tags.len() > 3;
    tags.truncate(3);
    let answer = reply(200, serde_json::json!({"name": repository.as_str(), "tags": tags}).to_string());
    if !more {
        return answer;
    }
    let page = Page { n: Some(3), last: tags.last().map(ToString::to_string) };
    let next = Endpoint::ListTags { repository: repository.clone(), page }.to_request().1;
    with(answer, "link", &format!("<{next}>; rel=\"next\""))
}

fn delete_manifest(content: &mut Content, repository: &RepositoryName, reference: &ManifestReference) -> Reply {
    let key = (repository.to_string(), reference.to_string());
    let Some((_, bytes)) = content.manifests.remove(&key) else {
        return reply(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such manifest"}]}"#);
    };
    if matches!(reference, ManifestReference::Digest(_)) {
        content.manifests.retain(|(name, _), (_, other)| name != repository.as_str() || *other != bytes);
    }
    reply(202, "")
}

fn put_manifest(
    content: &mut Content,
    repository: &RepositoryName,
    reference: &ManifestReference,
    media_type: String,
    body: Bytes,
) -> Reply {
    let Ok(manifest) = Manifest::parse(&body, Some(&media_type)) else { return reply(400, "bad manifest") };
    let has_blob = |digest: &Digest| content.blobs.contains_key(&(repository.to_string(), *digest));
    let has_manifest = |digest: &Digest| content.manifests.contains_key(&(repository.to_string(), digest.to_string()));
    let whole = manifest.required_blobs().iter().all(has_blob)
        && manifest.children().iter().all(|child| has_manifest(&child.digest) || has_blob(&child.digest));
    if !whole {
        return reply(400, r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"something is missing"}]}"#);
    }
    content.manifests.insert((repository.to_string(), reference.to_string()), (media_type, body));
    reply(201, "")
}

fn blob(seen: &Seen, bytes: &Bytes) -> Reply {
    let from =
        seen.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) if seen.method == Method::GET && from >= bytes.len() => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE.as_u16();
            with(reply(status, ""), "content-range", &format!("bytes */{}", bytes.len()))
        }
        Some(from) if seen.method == Method::GET => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            with(reply(StatusCode::PARTIAL_CONTENT.as_u16(), bytes.slice(from..)), "content-range", &range)
        }
        _ => reply(200, bytes.clone()),
    }
}
