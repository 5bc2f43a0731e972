//! CNCF Distribution itself, as Debian packages it (`docker-registry` 2.8), on a data directory of the test's: over plain
//! HTTP on the machine's own loopback. Knows nothing of Portcullis.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use portcullis_testkit::skip::Need;
use rustix::process::Signal;

use crate::netns::Machine;
use crate::process::{DEADLINE, Ran, Running, eventually};

pub(crate) const DOCKER_REGISTRY: Need = Need::Program("docker-registry");

const PORT: u16 = 5000;

/// A running `docker-registry serve`.
pub(crate) struct DockerRegistry<'m> {
    machine: &'m Machine,
    server: Running,
}

impl<'m> DockerRegistry<'m> {
    /// Starts it on `data`, which is made if it is missing, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(machine: &'m Machine, data: &Path) -> Self {
        Self::wait_for(machine, machine.command("docker-registry"), data)
    }

    /// As [`DockerRegistry::start`], as the user with this number.
    #[track_caller]
    pub(crate) fn start_as(machine: &'m Machine, user: u32, data: &Path) -> Self {
        let mut command = machine.command("setpriv");
        command.args(["--reuid", &user.to_string(), "--regid", &user.to_string(), "--clear-groups"]);
        command.arg("docker-registry");
        Self::wait_for(machine, command, data)
    }

    /// What stands before a path in its URLs.
    pub(crate) fn base() -> String {
        format!("http://127.0.0.1:{PORT}")
    }

    /// Asks it to stop and waits until it and its port are gone.
    #[track_caller]
    pub(crate) fn stop(self) {
        let Self { machine, server } = self;
        server.signal(Signal::TERM);
        server.wait(DEADLINE);
        assert!(!machine.listens_on(PORT));
    }

    #[track_caller]
    fn wait_for(machine: &'m Machine, mut command: Command, data: &Path) -> Self {
        command.arg("serve").arg(write_config(machine, data)).stdin(Stdio::null());
        let mut registry = Self { machine, server: Running::start(command, &machine.logs()) };
        let listens = || registry.server.has_ended() || machine.listens_on(PORT);
        let listens = eventually(DEADLINE, listens) && !registry.server.has_ended();
        assert!(listens, "docker-registry does not serve:\n{}", registry.server.said());
        registry
    }
}

/// Its own collector, while no server runs on `data`.
#[track_caller]
pub(crate) fn collect(machine: &Machine, data: &Path) -> Ran {
    collector(machine, data, &[]).ok()
}

/// The same, with `--delete-untagged`.
#[track_caller]
pub(crate) fn collect_untagged(machine: &Machine, data: &Path) -> Ran {
    collector(machine, data, &["--delete-untagged"]).ok()
}

/// The same, however it ends.
#[track_caller]
pub(crate) fn collector(machine: &Machine, data: &Path, options: &[&str]) -> Ran {
    let config = write_config(machine, data).display().to_string();
    machine.run("docker-registry", &[&["garbage-collect", &config], options].concat())
}

/// Deletion and schema 1 are off unless the configuration says otherwise.
fn write_config(machine: &Machine, data: &Path) -> PathBuf {
    let path = machine.dir().join("docker-registry.yml");
    let text = format!(
        "version: 0.1\n\
         log: {{level: warn}}\n\
         storage:\n  filesystem: {{rootdirectory: \"{}\"}}\n  delete: {{enabled: true}}\n\
         http: {{addr: \"127.0.0.1:{PORT}\", secret: \"of the test\"}}\n\
         compatibility: {{schema1: {{enabled: true}}}}\n",
        data.display()
    );
    fs::write(&path, text).unwrap();
    path
}
