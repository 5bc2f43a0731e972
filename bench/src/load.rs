//! The load: so many connections, each asking again as soon as it was answered, until a number or a time is reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http::{Method, StatusCode};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::content::{Content, Image, Variants};
use crate::proc::Processes;
use crate::wire::{Connection, Http, Pieces, Target};

/// Where the image of the reading operations lies.
pub(crate) const REPOSITORY: &str = "bench/app";
pub(crate) const TAG: &str = "latest";

/// What one connection does again and again.
#[derive(Debug)]
pub(crate) enum Step {
    /// GET of a body that has so many bytes.
    Get {
        path: String,
        length: u64,
    },
    Head {
        path: String,
    },
    /// GET of a list that may have any length.
    List {
        path: String,
    },
    /// A connection of its own, and one request on it.
    Handshake,
    /// A blob in three requests, as engines push it, with bytes that nobody has pushed before.
    Push {
        variants: Variants,
        first: u64,
    },
    /// Config, two layers of 4 KiB and the manifest, none of which was pushed before.
    PushImage {
        first: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) http: Http,
    pub(crate) connections: usize,
    pub(crate) count: u64,
    pub(crate) most: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    pub(crate) wall: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// User and system time of the server's processes for each operation; unknown for a server elsewhere.
    pub(crate) cpu: Option<Duration>,
    /// The most memory without file pages that the server's processes had meanwhile.
    pub(crate) memory: Option<u64>,
}

struct Shared {
    target: Target,
    step: Step,
    load: Load,
    next: AtomicU64,
    start: Barrier,
}

/// Runs the load. The clocks start when all connections are there.
pub(crate) async fn run(
    target: &Target,
    processes: Option<Processes>,
    step: Step,
    load: Load,
) -> anyhow::Result<Outcome> {
    let connections = load.connections;
    let start = Barrier::new(connections + 1);
    let shared = Arc::new(Shared { target: target.clone(), step, load, next: AtomicU64::new(0), start });
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        workers.spawn(work(Arc::clone(&shared)));
    }
    let memory = processes.map(Processes::watch_memory);
    // Who cannot connect would keep the others waiting.
    tokio::time::timeout(Duration::from_mins(1), shared.start.wait()).await.context("not all could connect")?;
    let (begun, cpu) = (Instant::now(), processes.map(Processes::cpu));
    let (mut latencies, mut bytes) = (Vec::new(), 0);
    while let Some(done) = workers.join_next().await {
        let (some, more) = done??;
        latencies.extend(some);
        bytes += more;
    }
    let wall = begun.elapsed();
    let memory = memory.map(crate::proc::PeakMemory::end);
    let cpu = processes.map(Processes::cpu).zip(cpu).map(|(after, before)| after.saturating_sub(before));
    latencies.sort_unstable();
    let operations = latencies.len() as u64;
    let at = |share: usize| latencies.get((latencies.len() * share / 100).min(latencies.len() - 1)).copied();
    let (Some(p50), Some(p99)) = (at(50), at(99)) else { anyhow::bail!("nothing was done") };
    let each = u32::try_from(operations)?;
    Ok(Outcome { operations, bytes, wall, p50, p99, cpu: cpu.map(|cpu| cpu / each), memory })
}

async fn work(shared: Arc<Shared>) -> anyhow::Result<(Vec<Duration>, u64)> {
    let Shared { target, step, load, next, start } = &*shared;
    let mut connection = match step {
        Step::Handshake => None,
        _ => Some(Connection::open(target, load.http).await?),
    };
    start.wait().await;
    let (begun, mut latencies, mut bytes) = (Instant::now(), Vec::new(), 0);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.count || begun.elapsed() >= load.most {
            return Ok((latencies, bytes));
        }
        let asked = Instant::now();
        bytes += match &mut connection {
            Some(connection) => step.take(connection, number).await?,
            None => handshake(target, load.http).await?,
        };
        latencies.push(asked.elapsed());
    }
}

async fn handshake(target: &Target, http: Http) -> anyhow::Result<u64> {
    let mut connection = Connection::open(target, http).await?;
    Ok(connection.ask(Method::GET, "/v2/", StatusCode::OK).await?.length)
}

impl Step {
    /// The `number`th operation; returns how many bytes it moved.
    async fn take(&self, connection: &mut Connection, number: u64) -> anyhow::Result<u64> {
        match self {
            Self::Get { path, length } => {
                let answer = connection.ask(Method::GET, path, StatusCode::OK).await?;
                ensure!(answer.length == *length, "{path} has {} bytes instead of {length}", answer.length);
                Ok(answer.length)
            }
            Self::List { path } => Ok(connection.ask(Method::GET, path, StatusCode::OK).await?.length),
            Self::Head { path } => Ok(connection.ask(Method::HEAD, path, StatusCode::OK).await?.length),
            Self::Handshake => Ok(0),
            Self::Push { variants, first } => {
                let (body, digest) = variants.body(first + number);
                push_blob(connection, "bench/pushed", body, &digest).await
            }
            Self::PushImage { first } => {
                let image = Image::new(first + number, &[4096, 4096]);
                push_image(connection, &format!("small/{}", number % 16), &format!("t{number}"), &image).await
            }
        }
    }
}

/// The three requests of docker's push: POST, PATCH, PUT.
async fn push_blob(connection: &mut Connection, repository: &str, body: Pieces, digest: &str) -> anyhow::Result<u64> {
    let length = http_body::Body::size_hint(&body).exact().unwrap_or_default();
    let begun = connection.ask(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), StatusCode::ACCEPTED).await?;
    let headers = [("content-type", "application/octet-stream")];
    let sent = connection.send(Method::PATCH, &begun.location()?, &headers, body, StatusCode::ACCEPTED).await?;
    let location = sent.location()?;
    let sign = if location.contains('?') { '&' } else { '?' };
    connection.ask(Method::PUT, &format!("{location}{sign}digest={digest}"), StatusCode::CREATED).await?;
    Ok(length)
}

/// All of an image under one tag.
pub(crate) async fn push_image(
    connection: &mut Connection,
    repository: &str,
    tag: &str,
    image: &Image,
) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for Content { bytes: content, digest } in &image.blobs {
        let body = Content { bytes: content.clone(), digest: digest.clone() }.body();
        bytes += push_blob(connection, repository, body, digest).await?;
    }
    let path = format!("/v2/{repository}/manifests/{tag}");
    let headers = [("content-type", Image::MEDIA_TYPE)];
    connection.send(Method::PUT, &path, &headers, image.manifest.body(), StatusCode::CREATED).await?;
    Ok(bytes + image.manifest.bytes.len() as u64)
}
