//! The home: where everything is kept, under which names, and who may write there.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use portcullis_certs::trust_dir::TrustDir;
use portcullis_certs::{Finding, Severity, ShellCommand, permissions};
use portcullis_pki::files;
use portcullis_server::Config;
use rustix::process::{getegid, geteuid};

use crate::exit::Misconfigured;

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
            let up = home.command(&["up"]);
            bail!(
                "there is no home in {} (it has no config.toml)\n  make one: {up}\n  or name another: --home DIR",
                home.root.display()
            );
        }
        home.become_owner()?;
        home.check()?;
        Ok(home)
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
        files::create_dir(&self.root, files::PRIVATE_DIR)?;
        let path = self.root.join("lock");
        let file = File::options().create(true).truncate(false).write(true).read(true).open(&path);
        let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).unwrap_or_default();
                bail!(
                    "{} is being changed by another portcullis (pid {}): wait until it is done",
                    self.root.display(),
                    pid.trim()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        // For the message above; a torn pid there harms nobody.
        let _ = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        Ok(HomeLock(file))
    }

    /// Refuses a home that others could have written to.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let policy = self.policy_file();
        let pki = self.root.join("pki");
        let trust = self.trust().root;
        let mut problems = Vec::new();
        for path in [&self.root, &self.config_file, &policy, &pki, &trust] {
            let Ok(metadata) = fs::metadata(path) else { continue };
            if let Some(fault) = permissions::check_not_writable(path, &metadata, geteuid().as_raw()) {
                let finding = Finding::new(path, Severity::Fatal, fault);
                problems.push(format!("\n  {finding}\n  fix: {}", finding.fix()));
            }
        }
        if !problems.is_empty() {
            bail!("this home is not safe to use:{}", problems.concat());
        }
        Ok(())
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
