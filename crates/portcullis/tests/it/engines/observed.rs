//! How each program is asked, and what of its answer counts.

use std::fmt;

use crate::dockerd::Dockerd;
use crate::process::{DEADLINE, Ran, run};

use super::corpus::Case;
use super::servers::PROXY;
use super::world::World;

/// A program that reads the trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Engine {
    Dockerd,
    Skopeo,
    Podman,
    Ctr,
    /// The control: it reads no directory, and gets the files that were predicted to be used.
    Curl,
}

/// What was predicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It gets the image.
    Works,
    /// It does not, and says this.
    Says(String),
}

/// One prediction and what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) group: &'static str,
    pub(crate) case: &'static str,
    pub(crate) engine: Engine,
    pub(crate) predicted: Expected,
    pub(crate) worked: bool,
    pub(crate) said: String,
}

/// The environment of every engine: a proxy for the domain `example` alone.
pub(crate) fn proxied() -> [(&'static str, &'static str); 2] {
    [("HTTPS_PROXY", PROXY), ("NO_PROXY", ".test,.invalid,10.77.0.1,fd77::1,127.0.0.0/8,localhost")]
}

impl Engine {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Dockerd => "dockerd",
            Self::Skopeo => "skopeo",
            Self::Podman => "podman",
            Self::Ctr => "ctr",
            Self::Curl => "curl",
        }
    }

    /// Whether it got the image, and all it said.
    pub(crate) fn run(self, world: &World<'_>, docker: &Dockerd<'_>, case: &Case) -> (bool, String) {
        let reference = format!("{}/demo/app:1", case.host);
        let machine = world.machine;
        let ask = |program: &str, words: &[&str]| {
            let mut command = machine.command("env");
            command.args(proxied().map(|(name, value)| format!("{name}={value}"))).arg(program).args(words);
            run(command, &machine.logs(), DEADLINE)
        };
        let ran: Ran = match self {
            Self::Dockerd => docker.docker(&["pull", "--quiet", &reference]),
            Self::Skopeo => {
                let image = format!("docker://{reference}");
                let given = case.cert_dir.map(|dir| format!("--cert-dir={dir}"));
                let words: Vec<&str> =
                    ["inspect"].into_iter().chain(given.as_deref()).chain([image.as_str()]).collect();
                ask("skopeo", &words)
            }
            Self::Podman => ask("podman", &["pull", "--quiet", &reference]),
            Self::Ctr => {
                let socket = machine.dir().join("dockerd/exec/containerd/containerd.sock").display().to_string();
                let roots = "/etc/docker/certs.d";
                let words = ["--address", &socket, "--namespace", "corpus", "content", "fetch", "--hosts-dir", roots];
                ask("ctr", &[&words[..], &[&reference]].concat())
            }
            Self::Curl => world.curl(case),
        };
        // skopeo quotes what it logs.
        (ran.status.success(), ran.said().replace("\\\"", "\""))
    }
}

impl Line {
    pub(crate) fn holds(&self) -> bool {
        match &self.predicted {
            Expected::Works => self.worked,
            Expected::Says(text) => !self.worked && self.said.contains(text),
        }
    }

    /// For the table: what was predicted when it was seen, else the last line of what was.
    pub(crate) fn observed(&self) -> String {
        match (self.holds(), self.worked) {
            (true, _) => self.predicted.to_string(),
            (false, true) => Expected::Works.to_string(),
            (false, false) => self.said.trim().lines().last().unwrap_or("nothing").to_owned(),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.write_str("works"),
            Self::Says(text) => write!(f, "`{text}`"),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, case, engine, predicted, .. } = self;
        write!(f, "{group}: {case}: {}: predicted {predicted}, observed {}", engine.name(), self.observed())
    }
}
