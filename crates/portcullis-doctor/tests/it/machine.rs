//! A machine in a temporary directory, with engines, certificates and a report that is the same in every run.

use portcullis_certs::{Fix, Severity, ShellCommand};
use portcullis_doctor::{Environment, Facts, Options, Reach, Report, Style, Target, examine, gather};
use portcullis_testkit::pki::{Authority, LeafSpec, write_file};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use time::OffsetDateTime;

pub(crate) const HOST: &str = "registry.test:5443";

pub(crate) struct Machine {
    dir: TempDir,
    pub(crate) environment: Environment,
    pub(crate) target: String,
    pub(crate) ca: Authority,
}

impl Machine {
    /// Debian 12 with its Docker and Podman, and nothing else.
    pub(crate) fn new() -> Self {
        // What the machine's directories may be must not hang on the shell that runs the tests.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let dir = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let environment = Environment { uid, home: Some("/root".into()), ..Environment::default() };
        let machine = Self { dir, environment, target: HOST.to_owned(), ca: Authority::new("registry CA") };
        machine.engine("usr/sbin/dockerd", "docker.io", "20.10.24+dfsg1-1");
        machine.engine("usr/bin/podman", "podman", "4.3.1+ds1-8");
        machine
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// An engine's program and its package.
    pub(crate) fn engine(&self, program: &str, package: &str, version: &str) {
        self.write(program, "");
        let status = self.root().join("var/lib/dpkg/status");
        let before = fs::read_to_string(&status).unwrap_or_default();
        self.write("var/lib/dpkg/status", &format!("{before}Package: {package}\nVersion: {version}\n\n"));
    }

    /// Without one of them again.
    pub(crate) fn without(&self, program: &str) {
        fs::remove_file(self.root().join(program)).unwrap();
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> PathBuf {
        self.write_bytes(path, text.as_bytes(), 0o644)
    }

    pub(crate) fn write_bytes(&self, path: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = self.root().join(path);
        write_file(&path, bytes, mode);
        path
    }

    /// Docker's directory of the registry, made.
    pub(crate) fn directory(&self) -> PathBuf {
        self.host_directory(HOST)
    }

    pub(crate) fn host_directory(&self, host: &str) -> PathBuf {
        let path = self.root().join("etc/docker/certs.d").join(host);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// The registry's CA and a client certificate of it: all that is needed.
    pub(crate) fn good(&self) -> PathBuf {
        let directory = self.directory();
        self.ca.write_ca(&directory);
        self.ca.issue(&lasting("ci-7")).write_pair(&directory, "client");
        directory
    }

    pub(crate) fn facts(&self, reach: Reach) -> Facts {
        let options = Options { root: self.root().to_owned(), reach, engines: Vec::new() };
        let target: Target = self.target.parse().unwrap();
        gather(&target, &options, &self.environment, OffsetDateTime::now_utc())
    }

    /// The report from files only.
    pub(crate) fn report(&self) -> Report {
        examine(&self.facts(Reach::Files))
    }

    /// The text that a person reads, at 100 columns and without colour.
    pub(crate) fn text(&self) -> String {
        stable(self.report(), self.root()).to_text(PLAIN)
    }
}

/// Every finding has one command to paste, on a line of its own, or the words that nothing is to be done.
pub(crate) fn assert_pasteable(report: &Report, text: &str) {
    for finding in &report.findings {
        match finding.fix.command() {
            Some(command) => {
                assert!(command.steps().count() > 0 && command.steps().all(|argv| !argv.is_empty()), "{finding:?}");
                assert!(text.lines().any(|line| line.ends_with(&command.to_string())), "{command} in {text}");
            }
            None => {
                assert!(finding.severity < Severity::Fatal, "{finding:?}");
                assert!(text.contains("fix   nothing to do"), "{text}");
            }
        }
    }
}

/// A good client certificate that is not about to expire.
pub(crate) fn lasting(cn: &str) -> LeafSpec {
    LeafSpec { not_after: OffsetDateTime::now_utc() + time::Duration::days(90), ..LeafSpec::client(cn) }
}

pub(crate) const PLAIN: Style = Style { width: 100, colour: false, verbose: false };

/// The same report with everything replaced that is another in the next run, before it is folded.
pub(crate) fn stable(mut report: Report, root: &Path) -> Report {
    let clean = |text: &str| clean(text, root);
    report.server = report.server.as_deref().map(clean);
    for verdict in &mut report.verdicts {
        verdict.summary = clean(&verdict.summary);
        verdict.directory = verdict.directory.as_deref().map(clean);
    }
    for finding in &mut report.findings {
        finding.what = clean(&finding.what);
        for evidence in &mut finding.evidence {
            evidence.value = clean(&evidence.value);
            evidence.path = evidence.path.as_ref().map(|path| without_root(path, root));
        }
        finding.fix = match &finding.fix {
            Fix::Say { text, command } => Fix::Say { text: clean(text), command: command_without_root(command, root) },
            Fix::Run(command) => Fix::Run(command_without_root(command, root)),
            Fix::NothingToDo => Fix::NothingToDo,
        };
    }
    report
}

fn without_root(path: &Path, root: &Path) -> PathBuf {
    path.strip_prefix(root).map_or_else(|_| path.to_owned(), |rest| Path::new("/").join(rest))
}

fn command_without_root(command: &ShellCommand, root: &Path) -> ShellCommand {
    // A name may stand inside of a word, as in a script of sed.
    let word = |word: &OsString| OsString::from(word.to_string_lossy().replace(&root.display().to_string(), ""));
    let words = |step: &[OsString]| -> Vec<OsString> { step.iter().map(word).collect() };
    let mut steps = command.steps().map(words);
    let first = ShellCommand::new(steps.next().unwrap_or_default());
    steps.fold(first, ShellCommand::then)
}

/// Paths, dates, key identifiers and ports of this run.
pub(crate) fn clean(text: &str, root: &Path) -> String {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let text = text.replace(root.to_str().unwrap(), "");
    let text = text.replace(&format!("owner {uid}, group {gid}"), "owner [UID], group [GID]");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let (taken, shown) = token(rest);
        match shown {
            Some(shown) => out.push_str(shown),
            None => out.push(c),
        }
        rest = &rest[taken.max(c.len_utf8())..];
    }
    out
}

/// The length of what stands at the beginning and changes, and what to show instead.
fn token(text: &str) -> (usize, Option<&'static str>) {
    let shape = |pattern: &str| {
        let fits = |(c, p): (u8, u8)| if p == b'0' { c.is_ascii_digit() } else { c == p };
        text.len() >= pattern.len() && text.bytes().zip(pattern.bytes()).all(fits)
    };
    for pattern in ["0000-00-00 00:00 UTC", "0000-00-00T00:00:00Z"] {
        if shape(pattern) {
            return (pattern.len(), Some("[DATE]"));
        }
    }
    let hex = text.bytes().take_while(u8::is_ascii_hexdigit).count();
    if hex >= 32 { (hex, Some("[HEX]")) } else { (0, None) }
}
