//! A whole run: servers started, every operation on each of them in turn, then memory and the large stores.

use std::path::Path;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use crate::args::{Depth, Options};
use crate::content::{Content, Image, random};
use crate::cores::{Cores, Share};
use crate::floor;
use crate::load::{self, Load, Outcome, Step};
use crate::operations::{BLOB, Needs, ON_ONE_CORE, ON_TWO_CORES, Operation, manifest_get, manifest_head};
use crate::peers::{DISTRIBUTION, Data, Garbage, NGINX, Peer, Site};
use crate::proc::Processes;
use crate::results::{Results, Row};
use crate::store::Seed;
use crate::wire::{Connection, Http};

pub(crate) const IDLE: &str = "idle after start";
pub(crate) const IDLE_2000: &str = "2,000 idle connections";
pub(crate) const START_LARGE: &str = "start on a large store";
pub(crate) const TAGS_FIRST: &str = "first 1,000 of 100,000 tags, the first time";
pub(crate) const TAGS_WARM: &str = "first 1,000 of 100,000 tags, again";
pub(crate) const GET_SMALL: &str = "manifest GET, small store";
pub(crate) const GET_LARGE: &str = "manifest GET, large store";
pub(crate) const HEAD_SMALL: &str = "manifest HEAD, small store";
pub(crate) const HEAD_LARGE: &str = "manifest HEAD, large store";
pub(crate) const BLOB_HEAD_REST: &str = "blob HEAD, at rest";
pub(crate) const BLOB_HEAD_GC: &str = "blob HEAD, while 100,000 blobs are collected";
pub(crate) const GET_REST: &str = "manifest GET, at rest";
pub(crate) const GET_GC: &str = "manifest GET, while 100,000 blobs are collected";

/// What a server is left out of that is not there.
const EVERYTHING: &str = "everything";

const REPOSITORIES: u32 = 10_000;
const TAGS: u32 = 100_000;
const GARBAGE: u32 = 100_000;

/// What every part of a run needs.
struct Run<'a> {
    options: &'a Options,
    site: Site,
    image: Image,
    results: Results,
}

pub(crate) async fn registries(options: &Options, directory: &Path, portcullis: &Path) -> anyhow::Result<Results> {
    let cores = Cores::of_this_machine()?;
    let site = Site::prepare(directory, portcullis, &cores)?;
    cores.pin_load()?;
    let image =
        Image::with(Content::of("{\"architecture\":\"amd64\",\"os\":\"linux\"}"), vec![Content::of(random(1, BLOB))]);
    let floor = floor::measure(&cores, directory, &image.blobs[1].bytes)?;
    let mut run = Run { options, site, image, results: Results::new(cores.count(), floor, options.depth) };
    run.on_one_core().await?;
    run.on_two_cores().await?;
    run.memory().await?;
    if options.depth == Depth::Full {
        run.large_store().await?;
        run.collection().await?;
    }
    Ok(run.results)
}

impl Run<'_> {
    async fn on_one_core(&mut self) -> anyhow::Result<()> {
        let mut peers = self.on_the_servers_core()?;
        peers.extend(self.options.peers.iter().map(|foreign| self.site.foreign(foreign)));
        let mut filled = Vec::new();
        for peer in peers {
            match peer.fill(&self.image).await {
                Ok(()) => filled.push(peer),
                Err(error) => self.results.leave_out(EVERYTHING, &peer.name, &error),
            }
        }
        self.results.peers(&filled);
        self.operations(&ON_ONE_CORE, &filled).await;
        Ok(())
    }

    async fn on_two_cores(&mut self) -> anyhow::Result<()> {
        let mut peers = vec![self.site.portcullis(Share::Two, Data::Fresh("portcullis-two-cores"))?];
        peers.extend(self.site.distribution(Share::Two).ok());
        self.operations(&ON_TWO_CORES, &peers).await;
        Ok(())
    }

    /// Ours, and those that are installed.
    fn on_the_servers_core(&mut self) -> anyhow::Result<Vec<Peer>> {
        let mut peers = vec![self.site.portcullis(Share::One, Data::Fresh("portcullis"))?];
        for (name, peer) in [(DISTRIBUTION, self.site.distribution(Share::One)), (NGINX, self.site.nginx(&self.image))]
        {
            match peer {
                Ok(peer) => peers.push(peer),
                Err(error) => self.results.leave_out(EVERYTHING, name, &error),
            }
        }
        Ok(peers)
    }

    /// Each operation on one server after another, and that in rounds: whatever else the machine does meets all of them.
    /// A server that fails at one is left out of it.
    async fn operations(&mut self, operations: &[Operation], peers: &[Peer]) {
        let depth = self.options.depth;
        let asked = |operation: &&Operation| self.options.wants(operation.name) && operation.belongs_to(depth);
        let rounds = if depth == Depth::Quick { 1 } else { 3 };
        let asked: Vec<&Operation> = operations.iter().filter(asked).collect();
        for operation in asked {
            let able = |peer: &&Peer| operation.needs == Needs::Image || peer.takes_pushes();
            let able: Vec<&Peer> = peers.iter().filter(able).collect();
            let mut outcomes: Vec<anyhow::Result<Vec<Outcome>>> = able.iter().map(|_| Ok(Vec::new())).collect();
            for round in 0..rounds {
                for (peer, outcomes) in able.iter().zip(&mut outcomes) {
                    let (step, load) = (operation.step(&self.image, round), operation.load(depth));
                    once_more(peer, step, load, outcomes).await;
                }
            }
            for (peer, outcomes) in able.iter().zip(outcomes) {
                match outcomes {
                    Ok(outcomes) => self.results.add(operation.name, &peer.name, median(outcomes)),
                    Err(error) => self.results.leave_out(operation.name, &peer.name, &error),
                }
            }
        }
    }

    async fn memory(&mut self) -> anyhow::Result<()> {
        if !self.options.wants(IDLE) && !self.options.wants(IDLE_2000) {
            return Ok(());
        }
        let peers = self.on_the_servers_core()?;
        for peer in &peers {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.results.add_memory(IDLE, &peer.name, peer.processes.map(Processes::memory));
            match idle_connections(peer).await {
                Ok(memory) => self.results.add_memory(IDLE_2000, &peer.name, memory),
                Err(error) => self.results.leave_out(IDLE_2000, &peer.name, &error),
            }
        }
        Ok(())
    }

    /// Ours alone, beside ours when it is small.
    async fn large_store(&mut self) -> anyhow::Result<()> {
        if !["large store", "small store", "tags"].iter().any(|word| self.options.wants(word)) {
            return Ok(());
        }
        let small = self.small_store()?;
        drop(self.site.portcullis(Share::One, Data::Fresh("portcullis-large"))?);
        let (seed, image) = (Seed::at(&self.site.directory.join("portcullis-large")), small_image());
        seed.content(&image)?;
        for number in 0..REPOSITORIES {
            seed.repository(&format!("many/r{number:05}"), "latest", &image)?;
        }
        seed.repository("many/tags", "latest", &image)?;
        for number in 0..TAGS {
            seed.tag("many/tags", &format!("t{number:06}"), &image)?;
        }
        seed.settle()?;
        let begun = Instant::now();
        let large = self.site.portcullis(Share::One, Data::Kept("portcullis-large"))?;
        self.results.add_time(START_LARGE, &large.name, begun.elapsed());
        let tags = || Step::List { path: "/v2/many/tags/tags/list?n=1000".to_owned() };
        for (name, count) in [(TAGS_FIRST, 1), (TAGS_WARM, 200)] {
            self.measure(name, &large, tags(), count, 1).await?;
        }
        for round in [0, 1] {
            // The first round warms both up, and is forgotten.
            for (name, peer, step) in [
                (GET_SMALL, &small, manifest_get("many/r00000", "latest", &image)),
                (GET_LARGE, &large, manifest_get("many/tags", "t050000", &image)),
                (HEAD_SMALL, &small, manifest_head("many/r00000", "latest")),
                (HEAD_LARGE, &large, manifest_head("many/tags", "t050000")),
            ] {
                let outcome = self.outcome(peer, step, 10_000, 8).await?;
                if round == 1 {
                    self.results.add(name, &peer.name, outcome);
                }
            }
        }
        Ok(())
    }

    async fn collection(&mut self) -> anyhow::Result<()> {
        if !self.options.wants("collected") {
            return Ok(());
        }
        let image = small_image();
        let seed = Seed::at(&self.site.directory.join("portcullis-garbage"));
        drop(self.site.portcullis(Share::One, Data::Fresh("portcullis-garbage"))?);
        seed.content(&image)?;
        seed.repository("many/r00000", "latest", &image)?;
        for number in 0..GARBAGE {
            let content = Content::of(random(u64::from(number) + 1000, 64));
            seed.garbage(&format!("garbage/g{:03}", number % 100), &content)?;
        }
        seed.settle()?;
        let peer = self.site.portcullis(Share::One, Data::Kept("portcullis-garbage"))?;
        let layer = format!("/v2/many/r00000/blobs/{}", image.blobs[1].digest);
        let head = || Step::Head { path: layer.clone() };
        let get = || manifest_get("many/r00000", "latest", &image);
        self.measure(BLOB_HEAD_REST, &peer, head(), 10_000, 8).await?;
        self.measure(GET_REST, &peer, get(), 10_000, 8).await?;
        let mut garbage = Garbage::collect(&self.site)?;
        let (mut heads, mut gets) = (Vec::new(), Vec::new());
        while garbage.goes_on()? {
            heads.push(self.outcome(&peer, head(), 1000, 8).await?);
            gets.push(self.outcome(&peer, get(), 1000, 8).await?);
        }
        garbage.end()?;
        // The worst of all thousands, not what is usual.
        for (name, outcomes) in [(BLOB_HEAD_GC, heads), (GET_GC, gets)] {
            if let Some(worst) = outcomes.into_iter().max_by_key(|outcome| outcome.p99) {
                self.results.add(name, &peer.name, worst);
            }
        }
        Ok(())
    }

    fn small_store(&self) -> anyhow::Result<Peer> {
        let small = self.site.portcullis(Share::One, Data::Fresh("portcullis-small"))?;
        let (seed, image) = (Seed::at(&self.site.directory.join("portcullis-small")), small_image());
        seed.content(&image)?;
        seed.repository("many/r00000", "latest", &image)?;
        Ok(small)
    }

    async fn measure(
        &mut self,
        name: &'static str,
        peer: &Peer,
        step: Step,
        count: u64,
        n: usize,
    ) -> anyhow::Result<()> {
        let outcome = self.outcome(peer, step, count, n).await?;
        self.results.add(name, &peer.name, outcome);
        Ok(())
    }

    async fn outcome(&self, peer: &Peer, step: Step, count: u64, connections: usize) -> anyhow::Result<Outcome> {
        let load = Load { http: Http::One, connections, count, most: Duration::from_mins(1) };
        load::run(&peer.target, peer.processes, step, load).await
    }
}

/// Unless it has failed before.
async fn once_more(peer: &Peer, step: Step, load: Load, outcomes: &mut anyhow::Result<Vec<Outcome>>) {
    let Ok(so_far) = outcomes else { return };
    match load::run(&peer.target, peer.processes, step, load).await {
        Ok(outcome) => so_far.push(outcome),
        Err(error) => *outcomes = Err(error),
    }
}

/// The memory with so many of them.
async fn idle_connections(peer: &Peer) -> anyhow::Result<Option<u64>> {
    let mut connections = Vec::new();
    for _ in 0..2000 {
        let mut connection = Connection::open(&peer.target, Http::One).await?;
        connection.ask(Method::GET, "/v2/", StatusCode::OK).await?;
        connections.push(connection);
    }
    Ok(peer.processes.map(Processes::memory))
}

fn small_image() -> Image {
    Image::new(5, &[4096])
}

/// By the server's time, or by the clock where that is unknown.
fn median(mut outcomes: Vec<Outcome>) -> Outcome {
    outcomes.sort_by_key(|outcome| (outcome.cpu, outcome.wall));
    outcomes.swap_remove(outcomes.len() / 2)
}

impl Row {
    /// What was measured is one number, and nothing was asked.
    pub(crate) fn without_load(operation: &'static str, peer: &str, wall: Duration, memory: Option<u64>) -> Self {
        let outcome = Outcome { operations: 1, bytes: 0, wall, p50: wall, p99: wall, cpu: None, memory };
        Self { operation, peer: peer.to_owned(), outcome }
    }
}
