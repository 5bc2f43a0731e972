//! The registries that are measured: how each is started on this machine, and how it gets the same content.

mod distribution;
mod nginx;
mod portcullis;

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::args::Foreign;
use crate::content::Image;
use crate::cores::{Cores, Share};
use crate::load::{REPOSITORY, TAG, push_image};
use crate::proc::Processes;
use crate::wire::{Connection, Http, Identity, Target};

pub(crate) use portcullis::Garbage;

/// How they are called, as programs and in every table.
pub(crate) const DISTRIBUTION: &str = "docker-registry";
pub(crate) const NGINX: &str = "nginx";

/// How long a server may take to listen, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a peer can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Portcullis,
    Distribution,
    /// Static files: nothing can be pushed.
    Nginx,
    /// Started by somebody else.
    Foreign,
}

/// A registry that runs. It is stopped when this is dropped, unless somebody else has started it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) target: Target,
    /// Unknown for a server on another machine.
    pub(crate) processes: Option<Processes>,
    server: Option<Child>,
    data: PathBuf,
}

/// Where everything lies, and what the servers are started with.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) directory: PathBuf,
    pub(crate) cores: Cores,
    pub(crate) identity: Identity,
    pub(crate) portcullis: PathBuf,
}

/// A fresh data directory, or one that was filled before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data<'a> {
    Fresh(&'a str),
    Kept(&'a str),
}

impl Site {
    /// Makes the certificates on the first run; later ones use the same.
    pub(crate) fn prepare(directory: &Path, portcullis: &Path, cores: &Cores) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)?;
        let home = portcullis::home(directory);
        portcullis::make_home(&home, portcullis, cores)?;
        let identity = Identity::read(&home.join("pki/clients/admin"))?;
        Ok(Self { directory: directory.to_owned(), cores: cores.clone(), identity, portcullis: portcullis.to_owned() })
    }

    /// A directory as engines have it.
    pub(crate) fn client_certificates(&self) -> PathBuf {
        portcullis::home(&self.directory).join("pki/clients/admin")
    }

    pub(crate) fn portcullis(&self, share: Share, data: Data<'_>) -> anyhow::Result<Peer> {
        portcullis::start(self, share, data)
    }

    /// # Errors
    /// It is not installed, or does not start.
    pub(crate) fn distribution(&self, share: Share) -> anyhow::Result<Peer> {
        let program = program(DISTRIBUTION).context("it is not installed (Debian: docker-registry)")?;
        distribution::start(self, &program, share)
    }

    /// # Errors
    /// It is not installed, or does not start.
    pub(crate) fn nginx(&self, image: &Image) -> anyhow::Result<Peer> {
        let program = program(NGINX).context("it is not installed (Debian: nginx-light)")?;
        nginx::start(self, &program, image)
    }

    pub(crate) fn foreign(&self, foreign: &Foreign) -> Peer {
        Peer {
            kind: Kind::Foreign,
            name: foreign.name.clone(),
            version: "as its operator runs it".to_owned(),
            target: Target { address: foreign.address, identity: self.identity.clone() },
            processes: Processes::listening_on(foreign.address),
            server: None,
            data: PathBuf::new(),
        }
    }

    fn data(&self, data: Data<'_>) -> anyhow::Result<PathBuf> {
        let (Data::Fresh(name) | Data::Kept(name)) = data;
        let path = self.directory.join(name);
        if matches!(data, Data::Fresh(_)) && path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    fn log(&self, name: &str) -> anyhow::Result<File> {
        let path = self.directory.join(format!("{name}.log"));
        File::create(&path).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Starts a server and waits until it listens.
    fn start(&self, kind: Kind, name: &str, command: &mut Command, address: SocketAddr) -> anyhow::Result<Peer> {
        let log = self.log(name)?;
        let mut server = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = server.try_wait()?.is_some();
            if ended || begun.elapsed() > PATIENCE {
                server.kill().ok();
                bail!("{name} does not listen: see {}", self.directory.join(format!("{name}.log")).display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Peer {
            kind,
            name: name.to_owned(),
            version: String::new(),
            target: Target { address, identity: self.identity.clone() },
            processes: Some(Processes::of(server.id())),
            server: Some(server),
            data: PathBuf::new(),
        })
    }
}

impl Peer {
    fn with(mut self, version: String, data: PathBuf) -> Self {
        (self.version, self.data) = (version, data);
        self
    }

    /// Gives it the image that the reading operations ask for; nginx has had it from the start.
    pub(crate) async fn fill(&self, image: &Image) -> anyhow::Result<()> {
        if self.kind == Kind::Nginx {
            return Ok(());
        }
        let mut connection = Connection::open(&self.target, Http::One).await?;
        push_image(&mut connection, REPOSITORY, TAG, image)
            .await
            .with_context(|| format!("{} takes no image", self.name))?;
        Ok(())
    }

    pub(crate) fn takes_pushes(&self) -> bool {
        self.kind != Kind::Nginx
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        if let Some(pid) = i32::try_from(server.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).ok();
        }
        let begun = Instant::now();
        while server.try_wait().is_ok_and(|ended| ended.is_none()) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        server.kill().ok();
        server.wait().ok();
    }
}

/// In `PATH`, and where a Debian user without root does not look.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// What a program says of itself, in the word that looks like a version.
pub(crate) fn version(program: &Path, argument: &str) -> String {
    let said = Command::new(program).arg(argument).output();
    let said = said.map(|said| [said.stdout, said.stderr].concat()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let mut words = said.split(|c: char| c.is_whitespace() || c == '/');
    let is_version =
        |word: &&str| word.contains('.') && word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
    words.find(is_version).unwrap_or("unknown").trim_end_matches(',').to_owned()
}

/// A port that nobody listens on.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
