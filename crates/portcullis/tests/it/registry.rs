//! The product: the `portcullis` binary serving inside a machine, and the commands an operator types beside it. What it
//! prints is looked at by the tests, not here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use portcullis_testkit::pki::PairFiles;
use rustix::process::Signal;

use crate::netns::{ADDRESS, HOST, Machine};
use crate::process::{DEADLINE, Ran, Running, eventually, read_lossy};

/// The program under test.
pub(crate) const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis");

/// A registry made and run by `portcullis up`.
pub(crate) struct Registry<'m> {
    machine: &'m Machine,
    home: PathBuf,
    port: u16,
    server: Running,
    /// What earlier processes of this registry logged.
    earlier: String,
}

impl<'m> Registry<'m> {
    /// `portcullis up` on a home that does not exist yet, on port 5443.
    #[track_caller]
    pub(crate) fn up(machine: &'m Machine) -> Self {
        Self::up_on(machine, 5443)
    }

    /// As [`Registry::up`], on this port.
    #[track_caller]
    pub(crate) fn up_on(machine: &'m Machine, port: u16) -> Self {
        Self::up_in(machine, "registry", port)
    }

    /// As [`Registry::up_on`], with this name for its home.
    #[track_caller]
    pub(crate) fn up_in(machine: &'m Machine, home: &str, port: u16) -> Self {
        let home = machine.dir().join(home);
        let server = start(machine, &home, port);
        let mut registry = Self { machine, home, port, server, earlier: String::new() };
        registry.wait_until_it_serves();
        registry
    }

    /// As [`Registry::up_in`], before another one on the same machine: its probe leaves the port to that.
    #[track_caller]
    pub(crate) fn up_beside(machine: &'m Machine, home: &str, port: u16) -> Self {
        let mut registry = Self::up_in(machine, home, port);
        registry.stop();
        let config = registry.home().join("config.toml");
        let before = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("probe = \"off\"\n{before}")).unwrap();
        registry.start_again();
        registry
    }

    /// `portcullis up` with further words.
    #[track_caller]
    pub(crate) fn up_with(machine: &'m Machine, words: &[&str]) -> Self {
        let (home, port) = (machine.dir().join("registry"), 5443);
        let server = start_with(machine, &home, &format!("{ADDRESS}:{port}"), words);
        let mut registry = Self { machine, home, port, server, earlier: String::new() };
        registry.wait_until_it_serves();
        registry
    }

    /// On all addresses of the machine, and with these names besides [`HOST`].
    #[track_caller]
    pub(crate) fn up_everywhere(machine: &'m Machine, home: &str, port: u16, names: &[&str]) -> Self {
        let home = machine.dir().join(home);
        let server = start_on(machine, &home, &format!("0.0.0.0:{port}"), names);
        let mut registry = Self { machine, home, port, server, earlier: String::new() };
        registry.wait_until_it_serves();
        registry
    }

    /// The directory with everything the registry owns.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The name that references and certificate directories have: without the port if it is 443.
    pub(crate) fn host(&self) -> String {
        if self.port == 443 { HOST.to_owned() } else { format!("{HOST}:{}", self.port) }
    }

    /// `https://host[:port]` and a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.host())
    }

    /// A reference to something in this registry.
    pub(crate) fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host())
    }

    /// The certificate that clients need as a root.
    pub(crate) fn ca(&self) -> PathBuf {
        self.home.join("pki/server-ca/ca.crt")
    }

    /// Runs `portcullis …` on this registry's home.
    #[track_caller]
    pub(crate) fn portcullis(&self, args: &[&str]) -> Ran {
        let home = self.home.display().to_string();
        self.machine.run(PORTCULLIS, &[args, &["--home", &home]].concat())
    }

    /// `portcullis cert new client NAME`; where its three files are.
    #[track_caller]
    pub(crate) fn new_client(&self, name: &str) -> PairFiles {
        self.portcullis(&["cert", "new", "client", name]).ok();
        PairFiles::named(&self.home.join("pki/clients").join(name), "client")
    }

    /// What the server said: standard error, of all its processes so far.
    pub(crate) fn log(&self) -> String {
        format!("{}{}", self.earlier, read_lossy(&self.server.stderr))
    }

    /// What the server wrote to standard output since its last start.
    pub(crate) fn printed(&self) -> String {
        read_lossy(&self.server.stdout)
    }

    /// Waits for a line in the log that holds all of these words, and returns it. The server logs a refusal after the
    /// peer has seen it, so a test may look too early.
    #[track_caller]
    pub(crate) fn log_line(&self, words: &[&str]) -> String {
        let find = || self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned);
        eventually(Duration::from_secs(20), || find().is_some());
        find().unwrap_or_else(|| panic!("no line with {words:?} in the registry's log:\n{}", self.log()))
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill9(&mut self) {
        self.server.signal(Signal::KILL);
        assert!(eventually(DEADLINE, || self.server.has_ended()));
    }

    /// Asks it to stop; says how it ended.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.server.signal(Signal::TERM);
        assert!(eventually(DEADLINE, || self.server.has_ended()), "the registry does not stop:\n{}", self.log());
        self.server.ended().expect("it has ended")
    }

    /// `portcullis up` again, on the same home.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.earlier = self.log();
        self.server = start(self.machine, &self.home, self.port);
        self.wait_until_it_serves();
    }

    /// Puts `new` in the place of `old` in the config file and starts again.
    #[track_caller]
    pub(crate) fn configure(&mut self, old: &str, new: &str) {
        self.stop();
        let path = self.home.join("config.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(old).count(), 1, "{old} in {text}");
        fs::write(&path, text.replace(old, new)).unwrap();
        self.start_again();
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The most memory the server had at once since it was started, in KiB (`VmHWM`).
    #[track_caller]
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel says VmHWM");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// From now on [`Registry::peak_memory`] counts anew, from what the server has at this moment.
    #[track_caller]
    pub(crate) fn forget_peak_memory(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.server.pid()), "5").unwrap();
    }

    /// How many descriptors the server has open.
    #[track_caller]
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.server.pid())).unwrap().count()
    }

    /// Writes what a host needs to reach this registry into a host's certificate directory: `ca.crt` and the pair.
    pub(crate) fn fill_certs(&self, dir: &Path, pair: &PairFiles) {
        fs::create_dir_all(dir).unwrap();
        fs::copy(self.ca(), dir.join("ca.crt")).unwrap();
        fs::copy(&pair.cert, dir.join("client.cert")).unwrap();
        fs::copy(&pair.key, dir.join("client.key")).unwrap();
    }

    /// As a user does: until `up` has printed what it made. The port alone is taken before that.
    #[track_caller]
    fn wait_until_it_serves(&mut self) {
        let mut gone = false;
        let serves = eventually(DEADLINE, || {
            gone = self.server.has_ended();
            gone || (!self.printed().is_empty() && self.machine.listens_on(self.port))
        });
        assert!(serves && !gone, "`portcullis up` does not serve:\n{}", self.server.said());
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the registry printed\n{}--- and logged\n{}---", self.printed(), self.log());
        }
    }
}

#[track_caller]
fn start(machine: &Machine, home: &Path, port: u16) -> Running {
    start_on(machine, home, &format!("{ADDRESS}:{port}"), &[])
}

#[track_caller]
fn start_on(machine: &Machine, home: &Path, listen: &str, names: &[&str]) -> Running {
    let words: Vec<&str> = names.iter().flat_map(|name| ["--name", name]).collect();
    start_with(machine, home, listen, &words)
}

#[track_caller]
fn start_with(machine: &Machine, home: &Path, listen: &str, words: &[&str]) -> Running {
    let mut command = machine.command(PORTCULLIS);
    command.args(["up", "--home"]).arg(home).args(["--listen", listen, "--name", HOST]).args(words);
    command.stdin(Stdio::null());
    Running::start(command, &machine.logs())
}
