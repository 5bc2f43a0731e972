//! `--system-trust` of `install`, and its end in `uninstall`: the operating system's store of trusted CAs, whose own program is
//! run here, and only for the system that runs.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use portcullis_certs::ShellCommand;
use portcullis_pki::install::Scope;
use portcullis_pki::install::system_trust::{self, Limits, StoreChange, SystemStore, TrustPlan, TrustRequest};

use super::install::{tell_step, verb};
use crate::args::InstallArgs;
use crate::output;

const WHOSE: &str = "system";

/// Such a program rewrites some hundred small files.
const DEADLINE: Duration = Duration::from_mins(2);

pub(super) fn plan(args: &InstallArgs, scope: &Scope, record: &Path) -> anyhow::Result<TrustPlan> {
    ensure!(*scope == Scope::System, "--system-trust is for the whole machine: run it as root, with sudo");
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    let limits = if args.unconstrained { Limits::Waived } else { Limits::Required };
    Ok(system_trust::plan(&TrustRequest { host: &args.host, from: &args.from, root, record, limits })?)
}

pub(super) fn tell(plan: &TrustPlan, dry_run: bool) {
    plan.steps.iter().for_each(|step| tell_step(WHOSE, step, dry_run));
    for old in &plan.stale {
        output::line(&format!("{WHOSE}: {} remove {}", verb(dry_run), old.path.display()));
    }
}

/// Writes, and has the store's program take notice, also where nothing was to be written: it may have failed before.
pub(super) fn put_in_place(plan: &TrustPlan, root: Option<&Path>) -> anyhow::Result<()> {
    system_trust::apply(plan)?;
    let what = if plan.stale.is_empty() { StoreChange::Added } else { StoreChange::Removed };
    update(plan.store, root, what)
}

/// After `uninstall` took away what lay in the store.
pub(super) fn taken_out(root: Option<&Path>) -> anyhow::Result<()> {
    update(SystemStore::find(root.unwrap_or(Path::new("/")))?, root, StoreChange::Removed)
}

fn update(store: &SystemStore, root: Option<&Path>, what: StoreChange) -> anyhow::Result<()> {
    let command = store.update(root.unwrap_or(Path::new("/")), what);
    if let Some(root) = root.filter(|root| *root != Path::new("/")) {
        output::line(&format!("{WHOSE}: counts once this has run in {}: {command}", root.display()));
        return Ok(());
    }
    run(&command).with_context(|| format!("the CA files are changed, and this does not count yet; run: {command}"))?;
    output::line(&format!("{WHOSE}: {command} has run"));
    output::line(&format!(
        "{WHOSE}: programs that run already keep the CAs they have read, the daemons of engines among them; those of them that \
         are here: systemctl try-restart docker containerd buildkit crio k3s"
    ));
    Ok(())
}

fn run(command: &ShellCommand) -> anyhow::Result<()> {
    let words: &[OsString] = command.steps().next().unwrap_or_default();
    let [program, rest @ ..] = words else { bail!("there is no program to run") };
    // What it says is for its own users; what goes wrong it says on stderr.
    let mut child = Command::new(program)
        .args(rest)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let deadline = Instant::now() + DEADLINE;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("{command}: {status}"),
            None if Instant::now() >= deadline => {
                child.kill()?;
                child.wait()?;
                bail!("{command} did not end within {} seconds", DEADLINE.as_secs());
            }
            None => thread::sleep(Duration::from_millis(50)),
        }
    }
}
