//! `portcullis install`: puts a client's directory where engines read it.

use std::env;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

use portcullis_certs::{Certificate, Reload, Row, Severity, ShellCommand, Visible};
use portcullis_client::{CertsChoice, Client, ClientError, ClientOptions, Failure, Location, Retries};
use portcullis_oci::RegistryHost;
use portcullis_pki::install::{self, Change, Engine, InstallRequest, OtherPairs, Plan, Scope, Step};
use time::OffsetDateTime;

use super::system_trust;
use crate::args::{EngineWord, InstallArgs};
use crate::output;

/// Programs by which an engine is found. Those of one row read the same directories.
const ENGINES: [(Engine, &[&str]); 5] = [
    (Engine::Docker, &["dockerd", "docker"]),
    (Engine::Podman, &["podman", "skopeo", "buildah", "crio"]),
    // Docker brings a containerd of its own, which reads Docker's directories: only its own tools speak for another.
    (Engine::Containerd, &["nerdctl", "crictl"]),
    (Engine::Buildkit, &["buildkitd"]),
    (Engine::K3s, &["k3s"]),
];

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
            pairs: other_pairs(args),
        };
        // Every engine is looked at before the first file is written.
        plans.push(install::plan(&request, now)?);
    }
    let trust = args.system_trust.then(|| system_trust::plan(args, &scope, &record)).transpose()?;
    for plan in &plans {
        tell(plan, args.dry_run);
    }
    if let Some(trust) = &trust {
        system_trust::tell(trust, args.dry_run);
    }
    if args.dry_run {
        output::line("nothing was written (--dry-run)");
        return Ok(());
    }
    for plan in &plans {
        put_in_place(plan, now)?;
    }
    if let Some(trust) = &trust {
        system_trust::put_in_place(trust, args.root.as_deref())?;
    }
    next(&args.host, &engines);
    match plans.first() {
        Some(plan) if args.root.is_none() && !args.no_proof => prove(&args.host, &plan.directory),
        _ => Ok(()),
    }
}

pub(super) fn put_in_place(plan: &Plan, now: OffsetDateTime) -> anyhow::Result<()> {
    let installed = install::apply(plan, now)?;
    if !plan.is_done() {
        output::line(&format!("{}: written", plan.engine));
    }
    for finding in &installed.findings {
        output::warning(&format!("{finding}\n  {}", finding.fix()));
    }
    let fatal = installed.findings.iter().any(|finding| finding.severity == Severity::Fatal);
    anyhow::ensure!(!fatal, "{} would refuse {}", plan.engine, plan.directory.display());
    let pairs = installed.prediction.registry().map_or(&[][..], |endpoint| endpoint.pairs.as_slice());
    if pairs.len() > 1 {
        let names: Vec<String> =
            pairs.iter().filter_map(|pair| Some(pair.cert_path.file_name()?.display().to_string())).collect();
        output::line(&format!(
            "{}: tools in Go send the first of these that fits what the registry asks for, and no other: {}",
            plan.engine,
            names.join(", ")
        ));
    }
    Ok(())
}

/// The proof: a handshake with what was installed. A registry that cannot be reached proves nothing, and is no failure.
pub(super) fn prove(host: &RegistryHost, directory: &Path) -> anyhow::Result<()> {
    let certs = CertsChoice { location: Location::HostDirectory(directory.to_owned()), ..CertsChoice::default() };
    let retries = Retries { limit: 0, ..Retries::default() };
    let options = ClientOptions { certs, retries, ..ClientOptions::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(Client::connect(host, &options)) {
        Ok(client) => {
            output::line(&format!("{host} lets {} in", client.pair_used().as_deref().unwrap_or("everybody")));
            Ok(())
        }
        Err(ref error @ ClientError::Connection { ref failure, .. }) if is_out_of_reach(failure) => {
            let command = ShellCommand::new(["portcullis", "tags"]);
            output::warning(&format!(
                "{host} was not reached, so nothing is proved: {error}\n  when it can be reached: {command} {host}/NAME"
            ));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn is_out_of_reach(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::ConnectionRefused | Failure::Unreachable | Failure::TimedOut { .. } | Failure::NameNotFound { .. }
    )
}

fn other_pairs(args: &InstallArgs) -> OtherPairs<'_> {
    match (&args.add, args.replace) {
        (Some(name), _) => OtherPairs::Add(name),
        (None, true) => OtherPairs::Replace,
        (None, false) => OtherPairs::Stop,
    }
}

/// What will be done, before it is.
pub(super) fn tell(plan: &Plan, dry_run: bool) {
    if plan.is_done() {
        output::line(&format!("{}: already so in {}", plan.engine, plan.directory.display()));
        return;
    }
    for step in &plan.steps {
        tell_step(plan.engine.as_str(), step, dry_run);
    }
    if let Some(config) = &plan.config {
        output::line(&format!("{}: {} add to {}:", plan.engine, verb(dry_run), config.path.display()));
        config.added.lines().for_each(|line| output::line(&format!("  + {line}")));
    }
}

pub(super) fn tell_step(whose: &str, step: &Step, dry_run: bool) {
    let does = match step.change {
        Change::AlreadySo => {
            return output::line(&format!("{whose}: already so {} ({:04o})", step.path.display(), step.mode));
        }
        Change::Tighten => "close to others",
        Change::Create => "write",
        Change::Replace { .. } => "replace",
    };
    output::line(&format!("{whose}: {} {does} {} ({:04o})", verb(dry_run), step.path.display(), step.mode));
    let (before, after) = step.certificates();
    let told = |sign: char, certificate: &Certificate| {
        let facts = certificate.facts();
        output::line(&format!("  {sign} {}, until {}", Visible(&facts.subject.to_string()), facts.not_after.date()));
    };
    before.iter().filter(|old| !after.contains(old)).for_each(|old| told('-', old));
    after.iter().filter(|new| !before.contains(new)).for_each(|new| told('+', new));
}

pub(super) const fn verb(dry_run: bool) -> &'static str {
    if dry_run { "would" } else { "will" }
}

pub(super) fn next(host: &RegistryHost, engines: &[Engine]) {
    restarts(engines);
    let words = engines.iter().filter_map(|engine| match engine {
        Engine::Docker => Some(["docker", "pull"]),
        Engine::Podman => Some(["podman", "pull"]),
        Engine::Containerd | Engine::K3s => Some(["crictl", "pull"]),
        Engine::Buildkit => None,
    });
    for words in words {
        output::line(&format!("  {} {host}/NAME", ShellCommand::new(words)));
    }
    if engines.contains(&Engine::Docker) && is_loopback(host) {
        output::warning(&format!(
            "{host} is this machine's loopback: Docker takes such a registry as insecure and never reads its certificates.\n  \
             Use a name that resolves to another address of this machine"
        ));
    }
}

/// Certificate directories are read for each pull and push; some configuration files only at the start.
pub(super) fn restarts(engines: &[Engine]) {
    for engine in engines {
        let profile = engine.profile();
        let reload = Row::at(profile.reload, profile.assumed).map_or(Reload::EachOperation, |row| row.holds);
        match reload {
            Reload::EachOperation => output::line(&format!("{engine}: in force at once, no restart is needed")),
            Reload::ConfigAtStart { restart } => output::line(&format!("{engine}: in force after {restart}")),
        }
    }
}

fn is_loopback(host: &RegistryHost) -> bool {
    let found = (host.server_name(), host.port_or_default()).to_socket_addrs();
    found.is_ok_and(|mut addresses| addresses.any(|address| address.ip().to_canonical().is_loopback()))
}

/// Those asked for, else those found on this machine, else Docker.
fn engines(args: &InstallArgs) -> Vec<Engine> {
    let root = args.root.as_deref();
    let those = |wanted: &dyn Fn(Engine, &[&str]) -> bool| -> Vec<Engine> {
        ENGINES.iter().filter(|(engine, programs)| wanted(*engine, programs)).map(|(engine, _)| *engine).collect()
    };
    match (args.engine, root) {
        // An engine with a configuration file gets none where there is no such engine.
        (Some(EngineWord::All), root) => those(&|engine, programs| {
            matches!(engine, Engine::Docker | Engine::Podman) || is_found(engine, programs, root)
        }),
        (Some(word), _) => engine_of(word).into_iter().collect(),
        (None, Some(_)) => vec![Engine::Docker],
        (None, None) => {
            let found = those(&|engine, programs| is_found(engine, programs, None));
            if found.is_empty() { vec![Engine::Docker] } else { found }
        }
    }
}

/// By its programs here, by its directory below another root.
fn is_found(engine: Engine, programs: &[&str], root: Option<&Path>) -> bool {
    if let Some(root) = root {
        let directory = match engine {
            Engine::Docker => "etc/docker",
            Engine::Podman => "etc/containers",
            Engine::Containerd => "etc/containerd",
            Engine::Buildkit => "etc/buildkit",
            Engine::K3s => "etc/rancher/k3s",
        };
        return root.join(directory).is_dir();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    programs.iter().any(|program| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// `None` for all of them.
pub(super) const fn engine_of(word: EngineWord) -> Option<Engine> {
    match word {
        EngineWord::Docker => Some(Engine::Docker),
        EngineWord::Podman => Some(Engine::Podman),
        EngineWord::Containerd => Some(Engine::Containerd),
        EngineWord::Buildkit => Some(Engine::Buildkit),
        EngineWord::K3s => Some(Engine::K3s),
        EngineWord::All => None,
    }
}

/// Where it is recorded what was written, so that it can be replaced and removed again.
pub(super) fn record(root: Option<&Path>, scope: &Scope) -> PathBuf {
    // Not in the home of the service, which is given to its user: root acts on what is recorded.
    let system = Path::new("var/lib/portcullis-install/installed.jsonl");
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
