//! `portcullis login` at a terminal, as somebody types it: against a registry that asks for a password over plain HTTP, and
//! against Distribution that asks for certificate and password.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use portcullis_testkit::pki::Authority;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::docker_registry::DOCKER_REGISTRY;
use crate::netns::{ADDRESS, HOST, IP, Machine, NSENTER};
use crate::process::{DEADLINE, Running, eventually, run};
use crate::registry::PORTCULLIS;
use crate::terminal::{CTRL_C, CTRL_D, SETSID, Terminal};

/// `user:pass` as Basic has it.
const GOOD: &str = "dXNlcjpwYXNz";

/// A registry, and a user's directory.
struct Site {
    address: SocketAddr,
    home: TempDir,
}

impl Site {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // It ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || answer(&stream));
            }
        });
        Self { address, home: TempDir::new().unwrap() }
    }

    fn command(&self, verb: &str, more: &[&str]) -> Command {
        let mut command = Command::new(PORTCULLIS);
        command.args([verb, &self.address.to_string(), "--plain-http"]).args(more);
        command.env_clear().env("DOCKER_CONFIG", self.home.path()).current_dir(self.home.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("XDG_RUNTIME_DIR", self.home.path());
        command
    }

    fn kept(&self) -> Option<Value> {
        kept(self.home.path())
    }

    /// At the question for the password.
    fn at_the_password(&self) -> Terminal {
        let terminal = Terminal::start(&self.command("login", &[]), 80);
        terminal.shows("user name:");
        assert!(terminal.echoes());
        terminal.types("user\n");
        terminal.shows("password:");
        assert!(!terminal.echoes());
        terminal
    }
}

fn kept(directory: &Path) -> Option<Value> {
    fs::read(directory.join("config.json")).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap())
}

/// `GET /v2/` with Basic, and nothing else.
fn answer(stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines();
    let mut is_good = false;
    while let Some(Ok(line)) = lines.next().filter(|line| line.as_ref().is_ok_and(|line| !line.is_empty())) {
        is_good |= line.eq_ignore_ascii_case(&format!("authorization: Basic {GOOD}"));
    }
    let head = if is_good {
        "200 OK\r\ncontent-length: 0"
    } else {
        "401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"\r\ncontent-length: 0"
    };
    let mut stream = stream;
    // Whoever has left needs no answer.
    drop(write!(stream, "HTTP/1.1 {head}\r\nconnection: close\r\n\r\n"));
}

#[test]
fn a_password_is_asked_for_and_not_shown() {
    skip_unless!(SETSID);
    let site = Site::new();
    let mut terminal = site.at_the_password();
    terminal.types("pass\n");
    terminal.exits(0);
    assert!(terminal.echoes());
    assert!(!terminal.written().contains("pass\r") && !terminal.written().contains("pass\n"), "{}", terminal.written());
    let screen = terminal.screen();
    assert_eq!(screen[..2], ["user name: user", "password:"], "{screen:#?}");
    assert!(screen.iter().any(|line| line.starts_with(&format!("logged in to {}", site.address))), "{screen:#?}");
    assert_eq!(site.kept().unwrap(), json!({"auths": {site.address.to_string(): {"auth": GOOD}}}));

    let out = run(site.command("logout", &[]), site.home.path(), DEADLINE).ok();
    assert!(out.stdout.starts_with(&format!("logged out of {}", site.address)), "{out}");
    assert_eq!(site.kept().unwrap(), json!({"auths": {}}));
    run(site.command("logout", &[]), site.home.path(), DEADLINE).ok().says("there was no login");
}

#[test]
fn a_wrong_password_is_refused_and_not_kept() {
    skip_unless!(SETSID);
    let site = Site::new();
    let mut terminal = site.at_the_password();
    terminal.types("wrong\n");
    terminal.exits(3);
    let screen = terminal.screen().join("\n");
    assert!(screen.contains("401 Unauthorized") && screen.contains("fix: "), "{screen}");
    assert!(screen.contains("type them again") && !screen.contains("portcullis login"), "{screen}");
    assert!(site.kept().is_none());
}

#[test]
fn a_question_can_be_left() {
    skip_unless!(SETSID);
    let site = Site::new();
    let unattended = format!("portcullis login {} --username user --password-stdin --plain-http", site.address);
    let mut terminal = site.at_the_password();
    terminal.types("half");
    terminal.types(CTRL_C);
    terminal.exits(130);
    assert!(terminal.echoes(), "the terminal is silent for good");
    let screen = terminal.screen();
    assert_eq!(screen[1..], ["password:", "portcullis: interrupted: nothing was kept"], "{screen:#?}");

    let mut terminal = Terminal::start(&site.command("login", &[]), 80);
    terminal.shows("user name:");
    terminal.types(CTRL_C);
    terminal.exits(130);
    assert_eq!(terminal.screen(), ["user name: ^C", "portcullis: interrupted: nothing was kept"]);

    let mut terminal = Terminal::start(&site.command("login", &["--username", "user"]), 200);
    terminal.shows("password:");
    terminal.types(CTRL_D);
    terminal.exits(1);
    assert!(terminal.echoes());
    let ended = "portcullis: no password was typed: the input ended";
    assert_eq!(terminal.screen(), ["password:", ended, &format!("  fix: {unattended}")]);

    // Neither Ctrl-Z nor Ctrl-\ leaves a silent terminal behind; an empty line is no password.
    let mut terminal = site.at_the_password();
    terminal.types("\x1a\x1c\n");
    terminal.exits(3);
    let mut terminal = site.at_the_password();
    terminal.types("\n");
    terminal.exits(1);
    assert!(terminal.screen().iter().any(|line| line.contains("the password is empty")));
    assert!(site.kept().is_none());
}

/// A terminal drops what is longer without a word.
#[test]
fn a_line_that_may_have_been_cut_is_not_taken() {
    skip_unless!(SETSID);
    let site = Site::new();
    let mut terminal = site.at_the_password();
    terminal.types(&format!("{}\n", "x".repeat(4094)));
    terminal.exits(3);
    for length in [4095, 5000] {
        let mut terminal = site.at_the_password();
        terminal.types(&format!("{}\n", "x".repeat(length)));
        terminal.exits(1);
        let screen = terminal.screen().join("");
        assert!(screen.contains("4095 bytes at most") && screen.contains("--password-stdin"), "{screen}");
    }
}

#[test]
fn without_a_terminal_the_command_for_scripts_is_said() {
    skip_unless!(SETSID);
    let site = Site::new();
    // A session of its own has no terminal.
    let login = site.command("login", &[]);
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(PORTCULLIS).args(login.get_args()).env("DOCKER_CONFIG", site.home.path());
    let ran = run(command, site.home.path(), DEADLINE).exits(1).says("there is no terminal to ask at");
    ran.says("--username NAME --password-stdin --plain-http");

    let mut command = site.command("login", &["--username", "user", "--password-stdin"]);
    let password = site.home.path().join("password");
    fs::write(&password, "pass\n").unwrap();
    command.stdin(fs::File::open(&password).unwrap());
    Running::start(command, site.home.path()).wait(DEADLINE).ok();
    assert_eq!(site.kept().unwrap()["auths"][site.address.to_string()]["auth"], GOOD);
}

/// Certificate and password, as Debian's registry wants them with `auth: htpasswd`.
#[test]
fn distribution_lets_in_who_was_logged_in() {
    skip_unless!(IP, NSENTER, DOCKER_REGISTRY, SETSID, Need::Namespaces);
    let machine = Machine::new();
    let (server_ca, client_ca) = (Authority::new("server CA"), Authority::new("client CA"));
    let certs = machine.docker_certs(&format!("{HOST}:5443"));
    fs::create_dir_all(&certs).unwrap();
    server_ca.write_ca(&certs);
    client_ca.client("ci-7").write_pair(&certs, "client");
    let dir = machine.subdir("server");
    let server = server_ca.server(&[HOST], &[ADDRESS.parse().unwrap()]).write_pair(&dir, "server");
    let clients = client_ca.write_ca(&dir);
    // bcrypt of `pass`, of little work.
    fs::write(dir.join("htpasswd"), "user:$2y$05$abcdefghijklmnopqrstuuZFBUbfXoM8LFiPx8LYlO/sXZB/Cwk3K\n").unwrap();
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: \"{data}\"}}}}\n\
         auth: {{htpasswd: {{realm: test, path: \"{dir}/htpasswd\"}}}}\n\
         http: {{addr: \"{ADDRESS}:5443\", tls: {{certificate: \"{}\", key: \"{}\", clientcas: [\"{}\"]}}}}\n",
        server.cert.display(),
        server.key.display(),
        clients.display(),
        data = machine.subdir("data").display(),
        dir = dir.display(),
    );
    fs::write(dir.join("config.yml"), text).unwrap();
    let mut command = machine.command("docker-registry");
    command.arg("serve").arg(dir.join("config.yml")).stdin(Stdio::null());
    let mut registry = Running::start(command, &machine.logs());
    let listens = eventually(DEADLINE, || registry.has_ended() || machine.listens_on(5443));
    assert!(listens && !registry.has_ended(), "{}", registry.said());

    let catalog = || machine.run(PORTCULLIS, &["catalog", &format!("{HOST}:5443")]);
    let host = format!("{HOST}:5443");
    let login = |password: &str| {
        let mut command = machine.command(PORTCULLIS);
        command.args(["login", &host, "--username", "user"]);
        let terminal = Terminal::start(&command, 120);
        terminal.shows("password:");
        terminal.types(&format!("{password}\n"));
        terminal
    };
    catalog().exits(3).says("401").says(&format!("portcullis login {host}"));
    login("wrong").exits(3);
    assert!(kept(&machine.dir().join("home/.docker")).is_none());
    let mut good = login("pass");
    good.exits(0);
    let screen = good.screen().join("\n");
    assert!(screen.contains(&format!("logged in to {host}")), "{screen}");
    catalog().ok();
    machine.run(PORTCULLIS, &["logout", &host]).ok().says("logged out of");
    catalog().exits(3);
}
