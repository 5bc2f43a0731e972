//! Every operation that is measured, in the order of the table. Must not know how a server is started.

use std::time::Duration;

use crate::args::Depth;
use crate::content::{Image, Variants};
use crate::load::{Load, REPOSITORY, Step, TAG};
use crate::wire::Http;

/// Bytes of the blob that is pulled and pushed.
pub(crate) const BLOB: usize = 100_000_000;

pub(crate) const BLOB_GET: &str = "blob GET 100 MB, HTTP/1.1, 1 connection";
pub(crate) const BLOB_GET_8: &str = "blob GET 100 MB, HTTP/1.1, 8 connections";
pub(crate) const BLOB_GET_H2: &str = "blob GET 100 MB, HTTP/2, frames of 16 KiB";
pub(crate) const BLOB_GET_H2_LARGE: &str = "blob GET 100 MB, HTTP/2, frames of 1 MiB";
pub(crate) const MANIFEST_GET: &str = "manifest GET by tag, 8 connections";
pub(crate) const MANIFEST_GET_H2: &str = "manifest GET by tag, HTTP/2, 8 connections";
pub(crate) const BLOB_HEAD: &str = "blob HEAD, 8 connections";
pub(crate) const HANDSHAKE: &str = "full mutual handshake and one request";
pub(crate) const PULLS_64: &str = "64 pulls of 100 MB at once";
pub(crate) const PUSH: &str = "push of 100 MB, durable, on one core";
pub(crate) const PUSH_TWO: &str = "push of 100 MB, durable, on two cores";
pub(crate) const IMAGES: &str = "push of small images, 16 clients, durable";

/// What an operation needs of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// The image.
    Image,
    /// That it takes pushes.
    Pushes,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    http: Http,
    connections: usize,
    /// How often, with `--quick` (0: it takes too long) and without.
    counts: (u64, u64),
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    BlobGet,
    BlobHead,
    ManifestGet,
    Handshake,
    Push,
    Images,
}

const fn read(name: &'static str, http: Http, connections: usize, quick: u64, full: u64, what: What) -> Operation {
    Operation { name, needs: Needs::Image, http, connections, counts: (quick, full), what }
}

const fn write(name: &'static str, connections: usize, quick: u64, full: u64, what: What) -> Operation {
    Operation { name, needs: Needs::Pushes, http: Http::One, connections, counts: (quick, full), what }
}

/// With the servers on one core.
pub(crate) const ON_ONE_CORE: [Operation; 11] = [
    read(BLOB_GET, Http::One, 1, 10, 30, What::BlobGet),
    read(BLOB_GET_8, Http::One, 8, 8, 48, What::BlobGet),
    read(BLOB_GET_H2, Http::Two, 1, 8, 30, What::BlobGet),
    read(BLOB_GET_H2_LARGE, Http::TwoLarge, 1, 8, 30, What::BlobGet),
    read(MANIFEST_GET, Http::One, 8, 3000, 20_000, What::ManifestGet),
    read(MANIFEST_GET_H2, Http::Two, 8, 2000, 10_000, What::ManifestGet),
    read(BLOB_HEAD, Http::One, 8, 3000, 20_000, What::BlobHead),
    read(HANDSHAKE, Http::One, 8, 400, 3000, What::Handshake),
    read(PULLS_64, Http::One, 64, 0, 128, What::BlobGet),
    write(PUSH, 1, 5, 10, What::Push),
    write(IMAGES, 16, 200, 2000, What::Images),
];

/// With the servers on two.
pub(crate) const ON_TWO_CORES: [Operation; 1] = [write(PUSH_TWO, 1, 5, 10, What::Push)];

impl Operation {
    /// `round` makes what is pushed new each time.
    pub(crate) fn step(&self, image: &Image, round: u64) -> Step {
        let layer = image.blobs.last().map_or("", |layer| layer.digest.as_str());
        let blob = format!("/v2/{REPOSITORY}/blobs/{layer}");
        // Unique for this run too: a registry that is measured by address keeps what it has.
        let first = unique() + round * 1_000_000;
        match self.what {
            What::BlobGet => Step::Get { path: blob, length: BLOB as u64 },
            What::BlobHead => Step::Head { path: blob },
            What::ManifestGet => manifest_get(REPOSITORY, TAG, image),
            What::Handshake => Step::Handshake,
            What::Push => Step::Push { variants: Variants::new(11, BLOB), first },
            What::Images => Step::PushImage { first },
        }
    }

    /// Whether it is a part of such a run.
    pub(crate) fn belongs_to(&self, depth: Depth) -> bool {
        depth == Depth::Full || self.counts.0 > 0
    }

    pub(crate) fn load(&self, depth: Depth) -> Load {
        let (quick, full) = self.counts;
        let (count, most) = match depth {
            Depth::Quick => (quick, Duration::from_secs(4)),
            Depth::Full => (full, Duration::from_mins(1)),
        };
        Load { http: self.http, connections: self.connections, count, most }
    }
}

pub(crate) fn manifest_get(repository: &str, tag: &str, image: &Image) -> Step {
    let path = format!("/v2/{repository}/manifests/{tag}");
    Step::Get { path, length: image.manifest.bytes.len() as u64 }
}

pub(crate) fn manifest_head(repository: &str, tag: &str) -> Step {
    Step::Head { path: format!("/v2/{repository}/manifests/{tag}") }
}

fn unique() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_secs() * 1_000_000_000
}
