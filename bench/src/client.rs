//! The other end: how our client and skopeo move a large image between a registry and a directory.
//!
//! `docker pull` is no row: dockerd unpacks what it pulls, and never reads its certificate directory for a registry on
//! loopback.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::args::{Depth, Options};
use crate::content::{Content, Image, random};
use crate::cores::{Cores, Share};
use crate::peers::{Data, Peer, Site, program, version};
use crate::proc::{Processes, cpu_of_children};
use crate::table::time;

const LAYERS: u64 = 8;
const LAYER: usize = 128 << 20;
const REPEATS: usize = 5;

/// One run of a client.
#[derive(Debug, Clone, Copy)]
struct Run {
    wall: Duration,
    cpu: Duration,
    memory: u64,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Pull,
    Push,
}

#[derive(Debug, Clone, Copy)]
enum Client {
    Ours,
    Skopeo,
}

/// Returns the table.
pub(crate) async fn measure(options: &Options, directory: &Path, portcullis: &Path) -> anyhow::Result<String> {
    let cores = Cores::of_this_machine()?;
    let site = Site::prepare(directory, portcullis, &cores)?;
    let layers = (0..LAYERS).map(|number| Content::of(random(50 + number, LAYER))).collect();
    let image = Image::with(Content::of("{\"architecture\":\"amd64\",\"os\":\"linux\"}"), layers);
    let server = site.portcullis(Share::One, Data::Fresh("portcullis-client"))?;
    server.fill(&image).await?;
    drop(image);
    cores.pin_load()?;
    let skopeo = program("skopeo");
    let clients: Vec<Client> = [Client::Ours].into_iter().chain(skopeo.is_some().then_some(Client::Skopeo)).collect();
    let repeats = if options.depth == Depth::Quick { 1 } else { REPEATS };
    let mut text =
        format!("{LAYERS} layers of 128 MiB, the client on one core, the registry on another, median of {repeats}\n");
    writeln!(text, "  {:<6} {:<12} {:>10} {:>10} {:>10}", "", "", "wall", "CPU", "memory")?;
    for way in [Way::Pull, Way::Push] {
        for client in &clients {
            let mut runs = Vec::new();
            for _ in 0..repeats {
                runs.push(once(&site, &server, way, *client)?);
            }
            runs.sort_by_key(|run| run.wall);
            let Run { wall, cpu, memory } = runs[runs.len() / 2];
            let memory = format!("{} MB", memory / 1_000_000);
            writeln!(text, "  {way:<6?} {client:<12?} {:>10} {:>10} {memory:>10}", time(wall), time(cpu))?;
        }
    }
    let versions = skopeo.map_or_else(
        || "skopeo is not installed".to_owned(),
        |skopeo| format!("skopeo {}", version(&skopeo, "--version")),
    );
    writeln!(text, "{} {}, {versions}", server.name, server.version)?;
    Ok(text)
}

fn once(site: &Site, source: &Peer, way: Way, client: Client) -> anyhow::Result<Run> {
    let layout = site.directory.join("layout");
    match way {
        Way::Pull => {
            remove(&layout)?;
            run(&mut command(site, source, way, client, &layout))
        }
        Way::Push => {
            ensure!(layout.exists(), "nothing was pulled that could be pushed");
            // Who finds a blob there does not push it: each push goes to an empty registry.
            let empty = site.portcullis(Share::One, Data::Fresh("portcullis-pushed"))?;
            run(&mut command(site, &empty, way, client, &layout))
        }
    }
}

fn command(site: &Site, server: &Peer, way: Way, client: Client, layout: &Path) -> Command {
    let name = format!("{}/bench/app:latest", server.target.address);
    let local = format!("oci:{}:latest", layout.display());
    let certificates = site.client_certificates();
    let mut command = match client {
        Client::Ours => Command::new(&site.portcullis),
        Client::Skopeo => Command::new("skopeo"),
    };
    match (client, way) {
        (Client::Ours, Way::Pull) => command.args(["pull", &name, "--to", &local, "--cert-dir"]).arg(certificates),
        (Client::Ours, Way::Push) => command.args(["push", &local, &name, "--cert-dir"]).arg(certificates),
        (Client::Skopeo, way) => {
            let (option, from, to) = match way {
                Way::Pull => ("--src-cert-dir", format!("docker://{name}"), local),
                Way::Push => ("--dest-cert-dir", local, format!("docker://{name}")),
            };
            command.args(["--insecure-policy", "copy", option]).arg(certificates).args([from, to])
        }
    };
    command
}

fn run(command: &mut Command) -> anyhow::Result<Run> {
    let (begun, before) = (Instant::now(), cpu_of_children());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("a client cannot be started")?;
    let memory = Processes::of(child.id()).watch_memory();
    let status = child.wait()?;
    let wall = begun.elapsed();
    ensure!(status.success(), "{} failed: {status}", command.get_program().display());
    Ok(Run { wall, cpu: cpu_of_children().saturating_sub(before), memory: memory.end() })
}

fn remove(directory: &PathBuf) -> anyhow::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
