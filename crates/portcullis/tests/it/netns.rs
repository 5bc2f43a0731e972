//! A machine of its own for one test: a network namespace with one address on its loopback, and a mount namespace in
//! which `/etc/hosts`, `/etc/docker`, `/etc/containers`, `/var/lib/portcullis` and `-install` are the test's own. Knows no registry and no engine.
//!
//! dockerd counts all of 127.0.0.0/8 as "insecure" and never reads certs.d for it, hence the address 10.77.0.1 and the
//! name `registry.test`. The namespaces are entered with `nsenter`: `ip netns exec` hides the cgroup mounts that
//! dockerd needs.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use portcullis_testkit::skip::{Need, find_program};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{DEADLINE, Ran, Running, eventually, run};

/// What every test with a [`Machine`] needs; `skip_unless!` takes them one by one.
pub(crate) const IP: Need = Need::Program("ip");
pub(crate) const NSENTER: Need = Need::Program("nsenter");

/// The host name that `/etc/hosts` of every machine gives to its address.
pub(crate) const HOST: &str = "registry.test";

/// The address on every machine's loopback. Each has its own network, so it can be the same everywhere.
pub(crate) const ADDRESS: &str = "10.77.0.1";

/// The two namespaces and the directory with everything the test writes.
pub(crate) struct Machine {
    name: String,
    dir: PathBuf,
    holder: Option<Running>,
}

impl Machine {
    /// Makes the namespaces; what a crashed run left behind is removed first.
    #[track_caller]
    pub(crate) fn new() -> Self {
        static CLEANED: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        CLEANED.call_once(remove_leftovers);

        let name = format!("pc-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&name);
        // Whatever goes wrong from here on, Drop takes away what is there already.
        let mut machine = Self { name, dir, holder: None };
        machine.write_directory();
        let name = machine.name.as_str();
        ip(&["netns", "add", name]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        ip(&["-n", name, "addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"]);
        machine.holder = Some(machine.hold_mounts());
        machine
    }

    /// The test's directory, removed at its end.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the outputs of all programs are.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// A directory below [`Machine::dir`], made if it is missing.
    pub(crate) fn subdir(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// What the machine's programs see as `/etc/docker/certs.d/<host>`.
    pub(crate) fn docker_certs(&self, host: &str) -> PathBuf {
        self.dir.join("etc-docker/certs.d").join(host)
    }

    /// What the machine's programs see as `/etc/containers/certs.d/<host>`.
    pub(crate) fn podman_certs(&self, host: &str) -> PathBuf {
        self.dir.join("etc-containers/certs.d").join(host)
    }

    /// A command that will run inside, in the test's directory, with an environment that has nothing of ours.
    pub(crate) fn command(&self, program: &str) -> Command {
        let holder = self.holder.as_ref().expect("the machine is complete").pid();
        let mut command = self.clean(&find("nsenter"));
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(format!("--mount=/proc/{holder}/ns/mnt"));
        command.args(["--", "env", "-C"]).arg(&self.dir).arg(program);
        command
    }

    /// Moves the calling thread, and those that it starts, into the machine's network: sockets they make are its.
    pub(crate) fn enter_network(&self) {
        let network = fs::File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs a program inside to its end.
    #[track_caller]
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Ran {
        let mut command = self.command(program);
        command.args(args);
        run(command, &self.logs(), DEADLINE)
    }

    /// Whether something listens on this TCP port, read from the kernel's tables so that nobody is disturbed.
    pub(crate) fn listens_on(&self, port: u16) -> bool {
        let holder = self.holder.as_ref().expect("the machine is complete").pid();
        let table = |file: &str| fs::read_to_string(format!("/proc/{holder}/net/{file}")).unwrap_or_default();
        ["tcp", "tcp6"].iter().any(|file| table(file).lines().any(|line| is_listener(line, port)))
    }

    fn write_directory(&self) {
        fs::create_dir(&self.dir).unwrap();
        for sub in [
            "logs",
            "home",
            "xdg",
            "etc-docker/certs.d",
            "etc-containers/certs.d",
            "podman",
            "var-lib",
            "var-lib-install",
        ] {
            fs::create_dir_all(self.dir.join(sub)).unwrap();
        }
        let write = |file: &str, text: String| fs::write(self.dir.join(file), text).unwrap();
        write("hosts", format!("127.0.0.1 localhost\n{ADDRESS} {HOST}\n"));
        // Podman's own storage, without the kernel's help and without locks in the /dev/shm that all machines share.
        let podman = self.dir.join("podman").display().to_string();
        let storage = format!("driver = \"vfs\"\ngraphroot = \"{podman}/root\"\nrunroot = \"{podman}/run\"\n");
        write("etc-containers/storage.conf", format!("[storage]\n{storage}"));
        let places = format!("static_dir = \"{podman}/libpod\"\ntmp_dir = \"{podman}/tmp\"\n");
        write("etc-containers/containers.conf", format!("[engine]\nlock_type = \"file\"\n{places}"));
        write("etc-containers/policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#.to_owned());
        write("etc-containers/registries.conf", String::new());
    }

    /// Starts the process whose mount namespace is the machine's. It waits for the end of its standard input, so it goes
    /// when the test process goes.
    fn hold_mounts(&self) -> Running {
        let script = r#"
            set -e
            mkdir -p /etc/docker /etc/containers /var/lib/portcullis /var/lib/portcullis-install
            mount --bind "$1/hosts" /etc/hosts
            mount --bind "$1/etc-docker" /etc/docker
            mount --bind "$1/etc-containers" /etc/containers
            mount --bind "$1/var-lib" /var/lib/portcullis
            mount --bind "$1/var-lib-install" /var/lib/portcullis-install
            echo ready
            exec cat
        "#;
        let mut command = self.clean(&find("nsenter"));
        command.arg(format!("--net=/run/netns/{}", self.name));
        command.args(["--", "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        command.arg(&self.dir).stdin(Stdio::piped());
        let mut holder = Running::start(command, &self.logs());
        let ready = || holder.has_ended() || holder.said().contains("ready");
        assert!(eventually(DEADLINE, ready), "the mounts are not made: {}", holder.said());
        assert!(holder.said().contains("ready"), "the mounts failed: {}", holder.said());
        holder
    }

    fn clean(&self, program: &Path) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command.env_clear().current_dir(&self.dir);
        command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")).env("LANG", "C.UTF-8");
        command.env("HOME", self.dir.join("home")).env("XDG_RUNTIME_DIR", self.dir.join("xdg"));
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.holder = None;
        remove(&self.name);
    }
}

fn find(program: &str) -> PathBuf {
    find_program(program).unwrap_or_else(|| panic!("`{program}` is not installed"))
}

#[track_caller]
fn ip(args: &[&str]) {
    let output = Command::new(find("ip")).args(args).output().unwrap();
    assert!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
}

/// Removes the machines whose test process is gone: their names carry its pid.
pub(crate) fn remove_leftovers() {
    let names = fs::read_dir("/run/netns").into_iter().flatten().chain(fs::read_dir(std::env::temp_dir()).unwrap());
    for name in names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let owner = name.strip_prefix("pc-").and_then(|rest| rest.split_once('-'));
        let owner = owner.and_then(|(pid, number)| number.parse::<u32>().ok().and(pid.parse::<u32>().ok()));
        // A zombie's pid is still there, its program is not.
        if owner.is_some_and(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_err()) {
            remove(&name);
        }
    }
}

/// Kills what still runs in the namespace (dockerd's containerd has a session of its own), then removes the namespace
/// and the directory. Everything in the namespace was started by its test.
fn remove(name: &str) {
    let emptied = eventually(Duration::from_secs(10), || {
        let pids = pids_inside(name);
        for &pid in &pids {
            let _gone_already = kill_process(pid, Signal::KILL);
        }
        pids.is_empty()
    });
    // Another test process may be removing the same leftover: what counts is that it is gone.
    let _gone_already = Command::new(find("ip")).args(["netns", "del", name]).stderr(Stdio::null()).status();
    let dir = std::env::temp_dir().join(name);
    let _gone_already = fs::remove_dir_all(&dir);
    if !std::thread::panicking() {
        assert!(emptied, "programs in {name} do not die");
        assert!(!Path::new("/run/netns").join(name).exists(), "the namespace {name} stays");
        assert!(!dir.exists(), "{} stays", dir.display());
    }
}

fn pids_inside(name: &str) -> Vec<Pid> {
    let output = Command::new(find("ip")).args(["netns", "pids", name]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// A line of `/proc/net/tcp`: number, local address:port in hex, remote, state (0A is LISTEN).
fn is_listener(line: &str, port: u16) -> bool {
    let fields: Vec<&str> = line.split_whitespace().take(4).collect();
    let [_, local, _, "0A"] = fields[..] else { return false };
    local.rsplit(':').next().and_then(|hex| u16::from_str_radix(hex, 16).ok()) == Some(port)
}
