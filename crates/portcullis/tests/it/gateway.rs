//! `portcullis gateway`: programs without client certificates at a registry behind mutual TLS, and who does not get in.
//! The gateway runs in the machine's network, on its 127.0.0.1.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;

use portcullis_testkit::pki::PairFiles;

use crate::netns::{HOST, Machine};
use crate::peers::Answer;
use crate::process::{DEADLINE, Running, eventually, read_lossy};
use crate::registry::{PORTCULLIS, Registry};

mod distribution;
mod engines;
mod limits;
mod requests;
mod users;

const PORT: u16 = 5000;

/// Where programs reach it.
const AUTHORITY: &str = "127.0.0.1:5000";

/// A running gateway.
struct Gateway<'m> {
    machine: &'m Machine,
    program: Running,
}

impl<'m> Gateway<'m> {
    /// On its default port, for this registry.
    #[track_caller]
    fn start(machine: &'m Machine, host: &str, args: &[&str]) -> Self {
        Self::wait_for(machine, machine.command(PORTCULLIS), host, args)
    }

    /// The same, as this user.
    #[track_caller]
    fn start_as(machine: &'m Machine, user: u32, host: &str, args: &[&str]) -> Self {
        let mut command = machine.command("setpriv");
        command.args(as_user(user)).arg(PORTCULLIS);
        Self::wait_for(machine, command, host, args)
    }

    #[track_caller]
    fn wait_for(machine: &'m Machine, mut command: std::process::Command, host: &str, args: &[&str]) -> Self {
        command.args(["gateway", host]).args(args).stdin(Stdio::null());
        let mut gateway = Self { machine, program: Running::start(command, &machine.logs()) };
        let serves = eventually(DEADLINE, || gateway.program.has_ended() || !gateway.printed().is_empty());
        assert!(serves && !gateway.program.has_ended(), "the gateway does not serve:\n{}", gateway.program.said());
        gateway
    }

    fn printed(&self) -> String {
        read_lossy(&self.program.stdout)
    }

    fn log(&self) -> String {
        read_lossy(&self.program.stderr)
    }

    /// Waits for a line in the log that holds all of these words.
    #[track_caller]
    fn log_line(&self, words: &[&str]) -> String {
        let find = || self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned);
        eventually(DEADLINE, || find().is_some());
        find().unwrap_or_else(|| panic!("no line with {words:?} in the gateway's log:\n{}", self.log()))
    }

    /// One request with curl, of path and query.
    #[track_caller]
    fn curl(&self, args: &[&str], path: &str) -> Answer {
        self.curl_as(0, args, path)
    }

    #[track_caller]
    fn curl_as(&self, user: u32, args: &[&str], path: &str) -> Answer {
        let dir = self.machine.subdir("curl");
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let (headers, body) = (dir.join(format!("{user}.headers")), dir.join(format!("{user}.body")));
        drop(fs::remove_file(&body));
        let mut command = self.machine.command("setpriv");
        command.args(as_user(user)).args(["curl", "--silent", "--show-error", "--path-as-is"]);
        command.args(["--write-out", "%{http_code}", "--dump-header"]).arg(&headers).arg("--output").arg(&body);
        command.args(args).arg(format!("http://{AUTHORITY}{path}"));
        let ran = crate::process::run(command, &self.machine.logs(), DEADLINE);
        let status = ran.stdout.trim().parse().unwrap_or(0);
        assert_ne!(status, 0, "no answer: {ran}");
        Answer { status, headers: read_lossy(&headers), body: fs::read(&body).unwrap_or_default() }
    }

    /// A connection from the machine.
    fn connect(&self) -> TcpStream {
        let connect = || {
            self.machine.enter_network();
            TcpStream::connect(AUTHORITY).unwrap()
        };
        // A thread that has entered the network stays in it.
        let stream = thread::scope(|scope| scope.spawn(connect).join().unwrap());
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Sends these bytes and reads until the gateway closes.
    #[track_caller]
    fn raw(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The most memory it had at once since it was started, in KiB.
    fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.program.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the gateway printed\n{}--- and logged\n{}---", self.printed(), self.log());
        }
    }
}

fn as_user(user: u32) -> Vec<String> {
    let user = user.to_string();
    ["--reuid", &user, "--regid", &user, "--clear-groups"].map(str::to_owned).to_vec()
}

/// A registry, and a client's pair of it where the gateway looks for one.
fn with_certs(machine: &Machine) -> (Registry<'_>, PairFiles) {
    let registry = Registry::up(machine);
    let pair = registry.new_client("ci-7");
    registry.fill_certs(&machine.docker_certs(&format!("{HOST}:5443")), &pair);
    (registry, pair)
}
