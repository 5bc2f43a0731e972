//! Portcullis itself: a home with all that a first run makes, kept from run to run, and a configuration that differs from
//! the default only where one client address stands for many.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::{Data, Kind, PATIENCE, Peer, Site, free_address, version};
use crate::cores::{Cores, Share};

/// A collection that runs: `portcullis gc`, which asks the running server and waits.
#[derive(Debug)]
pub(crate) struct Garbage(std::process::Child);

pub(super) fn home(directory: &Path) -> PathBuf {
    directory.join("home")
}

/// Certificates, trust and policy, as `up` makes them on its first run; later what has a date is renewed.
pub(super) fn make_home(home: &Path, program: &Path, cores: &Cores) -> anyhow::Result<()> {
    if home.join("trust/crls/clients.crl").exists() {
        let done = Command::new(program).arg("maintain").arg("--home").arg(home).stdout(Stdio::null()).status()?;
        ensure!(done.success(), "portcullis maintain --home {} failed", home.display());
        return Ok(());
    }
    let mut command = cores.command(Share::One, program);
    command.arg("up").arg("--home").arg(home);
    command.args(["--listen", &free_address()?.to_string(), "--name", "127.0.0.1", "--name", "localhost"]);
    let mut first = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let begun = Instant::now();
    // The last that the first run makes, before it listens.
    let list = home.join("trust/crls/clients.crl");
    // It ends by itself where another one has the probe's port; all is made by then.
    while first.try_wait()?.is_none() && !(list.exists() && home.join("run/admin.sock").exists()) {
        ensure!(begun.elapsed() < PATIENCE, "portcullis up makes no {}", home.display());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    first.kill().ok();
    first.wait()?;
    ensure!(list.exists(), "portcullis up makes no {}", home.display());
    Ok(())
}

pub(super) fn start(site: &Site, share: Share, data: Data<'_>) -> anyhow::Result<Peer> {
    let (Data::Fresh(name) | Data::Kept(name)) = data;
    let (address, path) = (free_address()?, site.data(data)?);
    let home = home(&site.directory);
    let config = home.join("bench.toml");
    // The idle connections come from one address, and a collection begins when it is measured.
    let text = format!(
        "listen = \"{address}\"\nprobe = \"off\"\n\
         [storage]\ndata = \"{path}\"\nreserve = \"64 MiB\"\n\
         [gc]\ninterval = \"off\"\n\
         [limits]\nconnections_per_address = 4096\nidle_connections = 4096\n",
        path = path.display(),
    );
    fs::write(&config, text)?;
    let mut command = site.cores.command(share, &site.portcullis);
    command.arg("serve").arg("--config").arg(&config);
    let started = site.start(Kind::Portcullis, name, &mut command, address)?;
    let mut peer = started.with(version(&site.portcullis, "--version"), path);
    "Portcullis".clone_into(&mut peer.name);
    Ok(peer)
}

impl Garbage {
    /// Asks the server that was started last to collect.
    pub(crate) fn collect(site: &Site) -> anyhow::Result<Self> {
        let mut command = Command::new(&site.portcullis);
        command.arg("gc").arg("--home").arg(home(&site.directory)).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(command.spawn().context("portcullis gc cannot be started")?))
    }

    /// Whether it still goes on.
    pub(crate) fn goes_on(&mut self) -> anyhow::Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        let done = self.0.wait()?;
        ensure!(done.success(), "portcullis gc failed: {done}");
        Ok(())
    }
}
