//! The home: where everything is kept, under which names, and who may write there.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use portcullis_certs::trust_dir::TrustDir;
use portcullis_certs::{Finding, Severity, ShellCommand, permissions};
use portcullis_pki::files;
use portcullis_server::Config;
use rustix::process::{getegid, geteuid};

use crate::exit::Misconfigured;
use crate::output;

/// How long a restriction waits for whoever changes the home: upkeep takes a second or two.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A home that was named, or found in its default place.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    root: PathBuf,
    config_file: PathBuf,
    is_default: bool,
}

/// Held by whoever changes what a home holds.
#[derive(Debug)]
pub(crate) struct HomeLock(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

impl Home {
    /// Where it is, whether it exists or not.
    pub(crate) fn locate(option: Option<&Path>) -> anyhow::Result<Self> {
        let default = default_root();
        let root = match option {
            Some(root) => std::path::absolute(root).context("the working directory is gone")?,
            None => default.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?.clone(),
        };
        let is_default = default.is_ok_and(|default| default == root);
        Ok(Self { config_file: root.join("config.toml"), root, is_default })
    }

    /// The home that a config file stands in.
    pub(crate) fn of_config(config_file: &Path) -> anyhow::Result<Self> {
        let config_file = std::path::absolute(config_file).context("the working directory is gone")?;
        let home = Self::locate(config_file.parent())?;
        Ok(Self { config_file, ..home })
    }

    /// A home that is there already: only `up` makes one. From here on root acts as its owner.
    pub(crate) fn existing(option: Option<&Path>) -> anyhow::Result<Self> {
        let home = Self::locate(option)?;
        if !home.config_file.exists() {
            return Err(home.missing());
        }
        home.become_owner()?;
        home.check()?;
        Ok(home)
    }

    /// The same for a command that only takes something away: what is wrong with anything but `trust/` is told, and holds
    /// nothing back.
    pub(crate) fn existing_to_restrict(option: Option<&Path>) -> anyhow::Result<Self> {
        let home = Self::locate(option)?;
        if !home.config_file.exists() && !home.trust().root.is_dir() {
            return Err(home.missing());
        }
        home.become_owner()?;
        let trust = home.trust().root;
        let (decisive, others): (Vec<_>, Vec<_>) =
            home.unsafe_places().into_iter().partition(|(path, _)| *path == trust);
        for (_, problem) in &others {
            output::warning(&format!("this home is not safe to use:{problem}"));
        }
        refuse(&decisive)?;
        Ok(home)
    }

    fn missing(&self) -> anyhow::Error {
        let up = self.command(&["up"]);
        anyhow::anyhow!(
            "there is no home in {} (it has no config.toml)\n  make one: {up}\n  or name another: --home DIR",
            self.root.display()
        )
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn config_file(&self) -> &Path {
        &self.config_file
    }

    pub(crate) fn policy_file(&self) -> PathBuf {
        self.root.join("policy.toml")
    }

    pub(crate) fn server_ca(&self) -> PathBuf {
        self.root.join("pki/server-ca")
    }

    pub(crate) fn client_ca(&self) -> PathBuf {
        self.root.join("pki/client-ca")
    }

    pub(crate) fn server(&self) -> PathBuf {
        self.root.join("pki/server")
    }

    pub(crate) fn client(&self, name: &str) -> PathBuf {
        self.root.join("pki/clients").join(name)
    }

    /// The trust directory of a home that is being made; later the config says where it is.
    pub(crate) fn trust(&self) -> TrustDir {
        TrustDir::new(self.root.join("trust"))
    }

    /// Reads the config file.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        read_config(&self.config_file)
    }

    /// As much of the config as can be read, the defaults for the rest: what is wrong with it is told.
    pub(crate) fn config_as_far_as_it_can_be_read(&self) -> Config {
        let text = fs::read_to_string(&self.config_file).unwrap_or_else(|error| {
            output::warning(&format!("{} cannot be read: {error}; the defaults are taken", self.config_file.display()));
            String::new()
        });
        let (config, problems) = Config::parse_leniently(&self.config_file, &text);
        for problem in &problems {
            output::warning(&format!("{problem}; the default is taken"));
        }
        config
    }

    /// A command of ours for this home, to paste: `--home` is there when it is needed.
    pub(crate) fn command(&self, words: &[&str]) -> ShellCommand {
        let mut argv = vec![program()];
        argv.extend(words.iter().map(|word| (*word).into()));
        if !self.is_default {
            argv.push("--home".into());
            argv.push(self.root.clone().into());
        }
        ShellCommand::new(argv)
    }

    /// Makes the directory if it is missing and keeps every other `up`, `cert` and `trust` out until it is dropped.
    pub(crate) fn lock(&self) -> anyhow::Result<HomeLock> {
        let mut file = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("{}: wait until it is done", self.held()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", self.root.display()));
            }
        }
        // For the message above; a torn pid there harms nobody.
        let _ = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        Ok(HomeLock(file))
    }

    /// The same for a command that only takes something away, and does so in one write: it waits for a while, and goes on
    /// without.
    pub(crate) fn lock_for_a_while(&self) -> Option<HomeLock> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match self.lock() {
                Ok(lock) => return Some(lock),
                Err(error) if Instant::now() >= deadline => {
                    output::warning(&format!("{error:#}; going on all the same"));
                    return None;
                }
                Err(_) => std::thread::sleep(LOCK_PATIENCE / 50),
            }
        }
    }

    fn lock_file(&self) -> anyhow::Result<File> {
        files::create_dir(&self.root, files::PRIVATE_DIR)?;
        let path = self.root.join("lock");
        let file = File::options().create(true).truncate(false).write(true).read(true).open(&path);
        file.with_context(|| format!("cannot open {}", path.display()))
    }

    fn held(&self) -> String {
        let pid = fs::read_to_string(self.root.join("lock")).unwrap_or_default();
        format!("{} is being changed by another portcullis (pid {})", self.root.display(), pid.trim())
    }

    /// Refuses a home that others could have written to.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        refuse(&self.unsafe_places())
    }

    /// What others could have written to, with the sentence about it.
    fn unsafe_places(&self) -> Vec<(PathBuf, String)> {
        let places =
            [self.root.clone(), self.config_file.clone(), self.policy_file(), self.root.join("pki"), self.trust().root];
        let fault = |path: PathBuf| {
            let metadata = fs::metadata(&path).ok()?;
            let fault = permissions::check_not_writable(&path, &metadata, geteuid().as_raw())?;
            let finding = Finding::new(&path, Severity::Fatal, fault);
            let problem = format!("\n  {finding}\n  fix: {}", finding.fix());
            Some((path, problem))
        };
        places.into_iter().filter_map(fault).collect()
    }

    /// As root on somebody else's home: go on as that user, so that nothing is left there that they cannot read. Must
    /// come before the first thread is started.
    pub(crate) fn become_owner(&self) -> anyhow::Result<()> {
        let Ok(metadata) = fs::metadata(&self.root) else { return Ok(()) };
        if !geteuid().is_root() || metadata.uid() == 0 {
            return Ok(());
        }
        let (uid, gid) =
            (rustix::process::Uid::from_raw(metadata.uid()), rustix::process::Gid::from_raw(metadata.gid()));
        rustix::thread::set_thread_groups(&[gid])
            .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
            .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
            .with_context(|| format!("cannot act as the owner of {} (uid {})", self.root.display(), metadata.uid()))?;
        debug_assert!(geteuid() == uid && getegid() == gid);
        Ok(())
    }
}

fn refuse(unsafe_places: &[(PathBuf, String)]) -> anyhow::Result<()> {
    let problems: String = unsafe_places.iter().map(|(_, problem)| problem.as_str()).collect();
    if problems.is_empty() { Ok(()) } else { bail!("this home is not safe to use:{problems}") }
}

/// Reads a config file; what is wrong in it is wrong usage.
fn read_config(path: &Path) -> anyhow::Result<Config> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Config::parse(path, &text).map_err(|problems| {
        let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
        Misconfigured(format!("{} cannot be used:{lines}", path.display())).into()
    })
}

/// Puts a client's directory where engines read it. Their directories are root's.
pub(crate) fn install_command(host: &str, client: &Path) -> ShellCommand {
    let sudo = (!geteuid().is_root()).then(|| "sudo".into());
    let words = [program(), "install".into(), host.into(), "--from".into(), client.into()];
    ShellCommand::new(sudo.into_iter().chain(words))
}

/// How this program is called in commands to paste: by name where the shell would find it, else by its path.
pub(crate) fn program() -> std::ffi::OsString {
    let name = "portcullis";
    let Ok(this) = env::current_exe() else { return name.into() };
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|dir| dir.join(name)).find(|candidate| candidate.is_file());
    match found {
        Some(found) if found.canonicalize().ok() == this.canonicalize().ok() => name.into(),
        _ => this.into(),
    }
}

fn default_root() -> anyhow::Result<PathBuf> {
    if geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/portcullis"));
    }
    // The XDG base directory specification has relative paths ignored.
    let directory = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    directory("XDG_DATA_HOME")
        .or_else(|| directory("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("portcullis"))
        .context("neither $XDG_DATA_HOME nor $HOME is set: name a home with --home DIR")
}
