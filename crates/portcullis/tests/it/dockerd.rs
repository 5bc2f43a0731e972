//! A Docker daemon of the test's own inside its machine, and the `docker` commands a user would type. Knows nothing of
//! the registry it will talk to.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use portcullis_testkit::skip::Need;
use rustix::process::Signal;

use crate::netns::Machine;
use crate::process::{DEADLINE, Ran, Running, eventually, run};

pub(crate) const DOCKERD: Need = Need::Program("dockerd");
pub(crate) const DOCKER: Need = Need::Program("docker");

/// dockerd with its own containerd, data root, socket and pid file. Stopped when dropped.
pub(crate) struct Dockerd<'m> {
    machine: &'m Machine,
    daemon: Running,
    socket: PathBuf,
}

impl<'m> Dockerd<'m> {
    /// Starts it and waits until `docker info` answers.
    #[track_caller]
    pub(crate) fn start(machine: &'m Machine) -> Self {
        Self::start_with(machine, &[])
    }

    /// The same, with these variables in its environment.
    #[track_caller]
    pub(crate) fn start_with(machine: &'m Machine, environment: &[(&str, &str)]) -> Self {
        let dir = machine.subdir("dockerd");
        let at = |name: &str| dir.join(name).display().to_string();
        let socket = dir.join("sock");
        let mut command = machine.command("env");
        command.args(environment.iter().map(|(name, value)| format!("{name}={value}"))).arg("dockerd");
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
        command.args(["--host", &format!("unix://{}", socket.display())]).stdin(Stdio::null());
        let mut dockerd = Self { machine, daemon: Running::start(command, &machine.logs()), socket };
        dockerd.wait_until_it_answers();
        dockerd
    }

    /// The socket of its containerd.
    pub(crate) fn containerd(&self) -> PathBuf {
        self.machine.dir().join("dockerd/exec/containerd/containerd.sock")
    }

    /// Runs `docker …` against this daemon.
    #[track_caller]
    pub(crate) fn docker(&self, args: &[&str]) -> Ran {
        let mut command = self.machine.command("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display())).args(args);
        run(command, &self.machine.logs(), DEADLINE)
    }

    /// Starts `docker …` against this daemon and lets it run.
    #[track_caller]
    pub(crate) fn start_docker(&self, args: &[&str]) -> Running {
        let mut command = self.machine.command("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display())).args(args).stdin(Stdio::null());
        Running::start(command, &self.machine.logs())
    }

    /// `docker import` of a root filesystem as `reference`.
    #[track_caller]
    pub(crate) fn import(&self, tar: &[u8], reference: &str) {
        let path = self.machine.dir().join("import.tar");
        fs::write(&path, tar).unwrap();
        self.docker(&["import", path.to_str().unwrap(), reference]).ok();
    }

    fn wait_until_it_answers(&mut self) {
        let mut gone = false;
        let answers = eventually(DEADLINE, || {
            gone = self.daemon.has_ended();
            gone || (self.socket.exists() && self.docker(&["info"]).status.success())
        });
        assert!(answers && !gone, "dockerd does not answer:\n{}", self.daemon.said());
    }
}

impl Drop for Dockerd<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let said = self.daemon.said();
            let noise = ["module=grpc", "loading plugin"];
            let lines: Vec<&str> = said.lines().filter(|line| !noise.iter().any(|word| line.contains(word))).collect();
            eprintln!("--- the end of dockerd's log\n{}\n---", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        // Asked first: it then stops its containerd. What does not go is killed with the machine.
        self.daemon.signal(Signal::TERM);
        eventually(Duration::from_secs(15), || self.daemon.has_ended());
    }
}

/// The digest that `docker push` or `docker pull` printed.
#[track_caller]
pub(crate) fn digest_in(ran: &Ran) -> String {
    let mut words = ran.stdout.split_whitespace();
    let digest = words.rfind(|word| word.starts_with("sha256:"));
    digest.unwrap_or_else(|| panic!("no digest in {ran}")).to_owned()
}
