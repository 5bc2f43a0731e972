//! `portcullis install`: puts a client's directory where engines read it.

use std::env;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

use portcullis_certs::{Severity, ShellCommand};
use portcullis_oci::RegistryHost;
use portcullis_pki::install::{self, Change, Engine, InstallRequest, Plan, Scope};
use time::OffsetDateTime;

use crate::args::{EngineWord, InstallArgs};
use crate::output;

/// Programs by which an engine is found. Those of one row read the same directories.
const ENGINES: [(Engine, &[&str]); 2] =
    [(Engine::Docker, &["dockerd", "docker"]), (Engine::Podman, &["podman", "skopeo", "buildah", "crio"])];

pub(crate) fn run(args: &InstallArgs) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc();
    let scope = if args.root.is_some() { Scope::System } else { Scope::of_this_process()? };
    let record = record(args.root.as_deref(), &scope);
    let engines = engines(args);
    let mut plans = Vec::new();
    for engine in &engines {
        let request = InstallRequest {
            host: &args.host,
            from: &args.from,
            engine: *engine,
            scope: &scope,
            root: args.root.as_deref(),
            record: &record,
        };
        // Every engine is looked at before the first file is written.
        plans.push(install::plan(&request, now)?);
    }
    for plan in &plans {
        tell(plan, args.dry_run);
        if args.dry_run {
            continue;
        }
        let installed = install::apply(plan, now)?;
        for finding in &installed.findings {
            output::warning(&format!("{finding}\n  {}", finding.fix()));
        }
        let fatal = installed.findings.iter().any(|finding| finding.severity == Severity::Fatal);
        anyhow::ensure!(!fatal, "{} would refuse {}", plan.engine, plan.directory.display());
    }
    if args.dry_run {
        output::line("nothing was written (--dry-run)");
        return Ok(());
    }
    next(&args.host, &engines);
    Ok(())
}

fn tell(plan: &Plan, dry_run: bool) {
    if plan.is_done() {
        output::line(&format!("{}: already so in {}", plan.engine, plan.directory.display()));
        return;
    }
    for step in &plan.steps {
        let done = match (step.change, dry_run) {
            (Change::AlreadySo, _) => "already so",
            (Change::Tighten, false) => "closed to others",
            (Change::Tighten, true) => "would close to others",
            (Change::Create, false) => "wrote",
            (Change::Create, true) => "would write",
            (Change::Replace { .. }, false) => "replaced",
            (Change::Replace { .. }, true) => "would replace",
        };
        output::line(&format!("{}: {done} {} ({:04o})", plan.engine, step.path.display(), step.mode));
    }
}

/// No engine that reads these directories needs a restart: they are read for each pull and push.
fn next(host: &RegistryHost, engines: &[Engine]) {
    output::line("in force at once, no restart is needed; try it:");
    for engine in engines {
        let words: [&str; 2] = match engine {
            Engine::Docker => ["docker", "pull"],
            Engine::Podman => ["podman", "pull"],
        };
        output::line(&format!("  {} {host}/NAME", ShellCommand::new(words)));
    }
    if engines.contains(&Engine::Docker) && is_loopback(host) {
        output::warning(&format!(
            "{host} is this machine's loopback: Docker takes such a registry as insecure and never reads its certificates.\n  \
             Use a name that resolves to another address of this machine"
        ));
    }
}

fn is_loopback(host: &RegistryHost) -> bool {
    let found = (host.server_name(), host.port_or_default()).to_socket_addrs();
    found.is_ok_and(|mut addresses| addresses.any(|address| address.ip().to_canonical().is_loopback()))
}

/// Those asked for, else those found on this machine, else Docker.
fn engines(args: &InstallArgs) -> Vec<Engine> {
    match args.engine {
        Some(EngineWord::Docker) => return vec![Engine::Docker],
        Some(EngineWord::Podman) => return vec![Engine::Podman],
        Some(EngineWord::All) => return Engine::ALL.to_vec(),
        None if args.root.is_some() => return vec![Engine::Docker],
        None => {}
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let is_here = |program: &&str| env::split_paths(&path).any(|dir| dir.join(program).is_file());
    let found: Vec<Engine> =
        ENGINES.iter().filter(|(_, programs)| programs.iter().any(is_here)).map(|(engine, _)| *engine).collect();
    if found.is_empty() { vec![Engine::Docker] } else { found }
}

/// Where it is recorded what was written, so that it can be replaced and removed again.
fn record(root: Option<&Path>, scope: &Scope) -> PathBuf {
    let system = Path::new("var/lib/portcullis/installed.jsonl");
    match (root, scope) {
        (Some(root), _) => root.join(system),
        (None, Scope::System) => Path::new("/").join(system),
        (None, Scope::User { home, .. }) => env::var_os("XDG_STATE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .unwrap_or_else(|| home.join(".local/state"))
            .join("portcullis/installed.jsonl"),
    }
}
