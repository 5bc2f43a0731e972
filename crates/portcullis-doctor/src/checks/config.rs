//! D80 to D88: configuration that decides whether a directory counts.

use super::{Check, never, nothing_more, requires};
use crate::diagnosis::{Diagnosis, day};
use crate::facts::{Facts, TextFile};
use portcullis_certs::engine_files::{RegistryTable, Written};
use portcullis_certs::{
    EngineProfile, Finding, Layout, Outcome, RegistryHost, Severity, ShellCommand, UnreadReason, Version,
};
use std::path::Path;

pub(super) static CHECKS: &[Check] = &[
    Check {
        code: "D80",
        title: "the registry counts as insecure, so that its directory is not read",
        severity: Severity::Fatal,
        why: "Docker's classic store reads no certificate directory for a registry on loopback or in insecure-registries",
        text: "`localhost`, 127.0.0.0/8 and every name that resolves there count as insecure in dockerd: no client certificate is sent and the server is not verified. Debian's own line `127.0.1.1 HOSTNAME` in the hosts file does it to a machine's own name. The example of Docker's page, `localhost:5000`, therefore never sent one (docker/docs#26089). Podman and skopeo read the directory all the same; Docker's containerd store loads the files and does not verify.",
        fix: "use a name that leads to another address of the machine, and take the registry out of insecure-registries",
        skip: |facts| {
            if facts.engines.iter().any(|engine| engine.profile.name.starts_with("docker")) {
                None
            } else {
                Some("Docker is not on this machine")
            }
        },
        find: insecure,
    },
    Check {
        code: "D81",
        title: "hosts.toml decides, and it says something else than the certificate files",
        severity: Severity::Fatal,
        why: "containerd ignores the certificate files beside a hosts.toml; Docker's classic store and Podman ignore hosts.toml",
        text: "Three traps: `client = [\"c.cert\", \"c.key\"]` means two files that hold certificate and key each, the pair is `[[\"c.cert\", \"c.key\"]]`; `ca` and `client` inside `[host.\"…\"]` do not apply to `server`, nor the reverse; a file called `host.toml` is not read. A hosts.toml that does not parse is only logged, and the certificate files count then.",
        fix: "correct hosts.toml, or remove it so that the certificate files count",
        skip: |facts| if facts.config.hosts_toml.is_empty() { Some("there is no hosts.toml") } else { None },
        find: unread_hosts_toml,
    },
    Check {
        code: "D82",
        title: "containerd's config_path is missing, a list, or stands where it is not read",
        severity: Severity::Warning,
        why: "containerd reads certificate directories only where config_path of the right section names one directory",
        text: "containerd 2.2 writes `config_path = \"…:…\"` by default, and the transfer service, which `ctr` and CRI pulls use, does not split it (containerd#12808, #13086): both directories are ignored. In containerd 2 the key belongs under `plugins.\"io.containerd.cri.v1.images\".registry`. `mirrors` beside `config_path` is an error at the start. ctr and nerdctl do not read this file for it at all: `--hosts-dir`.",
        fix: "set config_path to one directory and restart containerd",
        skip: |facts| match &facts.config.containerd {
            Some(_) => None,
            None => Some("containerd has no configuration file here"),
        },
        find: nothing_more,
    },
    Check {
        code: "D83",
        title: "registries.conf calls the registry insecure, or blocks it",
        severity: Severity::Warning,
        why: "Podman then does not verify the registry's certificate and falls back to plain HTTP, or does not ask it at all",
        text: "`insecure = true` of a `[[registry]]` holds for its prefix. The certificates are loaded and a client certificate is sent all the same, unlike in Docker, but to whomever answers. `--tls-verify` on the command line wins over it. `blocked = true` refuses every pull and push. The longest prefix counts, and a drop-in replaces what has the same one.",
        fix: "remove `insecure = true` once the registry's CA is in its directory, and `blocked = true` if the registry may be used",
        skip: |facts| {
            let is_there = !facts.config.registries.files.is_empty() || facts.config.unread_registries.is_some();
            if is_there { None } else { Some("there is no registries.conf") }
        },
        find: registries_conf,
    },
    Check {
        code: "D84",
        title: "Docker 29.0 to 29.4 uses no certificates for the token server",
        severity: Severity::Warning,
        why: "with the containerd image store these versions ignore certs.d when they fetch a token: push and pull fail after login",
        text: "`docker login` works, push fails with `certificate signed by unknown authority` or `certificate required` at the token server (moby#52361). Fixed in 29.5.0. The classic store is not affected.",
        fix: "update Docker to 29.5 or later",
        skip: |facts| match facts.engine("docker-containerd") {
            Some(_) => None,
            None => Some("Docker does not use the containerd image store here"),
        },
        find: docker_29,
    },
    Check {
        code: "D85",
        title: "a buildx builder has copies of the certificates from when it was made",
        severity: Severity::Note,
        why: "`docker pull` works and `docker buildx build` fails, because the builder is a container of its own",
        text: "A docker-container builder reads neither the host's certs.d nor its system store: only what stood in the buildkitd.toml that it was created with, copied at that moment (`ca` and `keypair`; `tlsconfigdir` is not copied). After a renewal it must be made again. The token is fetched by the client with the host's system roots.",
        fix: "create the builder again with a buildkitd.toml that names the certificates",
        skip: |facts| {
            if facts.config.builders.is_empty() { Some("there is no buildx builder in a container") } else { None }
        },
        find: builders,
    },
    Check {
        code: "D86",
        title: "a virtual machine has certificate directories of its own",
        severity: Severity::Note,
        why: "`podman pull` and Docker Desktop work inside a virtual machine that sees copies of the files",
        text: "With Podman machine, `login` reads the client's files and `pull` the machine's. Docker Desktop copies `~/.docker/certs.d` into its machine when it starts, so a change needs a restart. The verdicts of this report are about the files of this machine.",
        fix: "copy the files into the machine, or restart Docker Desktop",
        skip: |facts| {
            if facts.machine.virtual_machines.is_empty() {
                Some("there is no Podman machine and no Docker Desktop")
            } else {
                None
            }
        },
        find: virtual_machines,
    },
    Check {
        code: "D87",
        title: "the system's roots changed after Docker was started",
        severity: Severity::Warning,
        why: "a daemon reads the system's roots once: it does not know the new CA until it is restarted",
        text: "Go keeps the system's pool for the life of the process (moby#39869). Certificate directories are different: they are read at every pull, and need no restart. A CA for one registry is better placed there.",
        fix: "restart the daemon, or put the CA into the registry's certificate directory",
        skip: |facts| match (facts.machine.docker_started, facts.machine.store_changed) {
            (None, _) => Some("dockerd does not run here"),
            (_, None) => Some("the system's roots were not found"),
            _ => None,
        },
        find: stale_store,
    },
    Check {
        code: "D88",
        title: "SSL_CERT_FILE or SSL_CERT_DIR is set",
        severity: Severity::Note,
        why: "they replace the system's roots for programs started from this shell, and not for daemons",
        text: "Podman, skopeo, crane and Portcullis' own client take their system roots from there; dockerd and containerd have the environment of their service. What works in the shell can therefore fail in the daemon, and the reverse.",
        fix: "unset the variable, or set it for the daemon's service too",
        skip: never,
        find: environment,
    },
];

fn insecure(facts: &Facts) -> Vec<Diagnosis> {
    let mut found: Vec<Diagnosis> = daemon_json(facts).into_iter().collect();
    let severity = if unread_matters(facts) { Severity::Fatal } else { Severity::Note };
    for engine in &facts.engines {
        let Outcome::NotRead(reason) = &engine.prediction.outcome else { continue };
        let host = &facts.target.host;
        let diagnosis = match reason {
            UnreadReason::Loopback(address) => {
                let what = format!("{host} is {address}, loopback: the certificate directory is not read");
                let lines = facts.hosts.iter().filter(|line| line.address == *address);
                let seen = lines.fold(Diagnosis::new("D80", severity, what), |diagnosis, line| {
                    diagnosis.at_line(&line.path, Some(line.line)).value(format!("{address} {}", host.host()))
                });
                let is_address = host.server_name().parse::<std::net::IpAddr>().is_ok();
                let name = if is_address { "registry.internal" } else { host.host() };
                let text = format!(
                    "use a name that leads to another address of this machine, for example with the line `10.0.0.1 {name}` in the hosts file; its addresses"
                );
                seen.say(text, ShellCommand::new(["hostname", "-I"]))
            }
            UnreadReason::Insecure(entry) => {
                let what = format!("{host} is in insecure-registries: the certificate directory is not read");
                let mut diagnosis = Diagnosis::new("D80", severity, what);
                let mut command = ShellCommand::new(["systemctl", "reload", "docker"]);
                if let Some(file) = &facts.config.docker.file {
                    let line = file.line_of(entry);
                    diagnosis = diagnosis.at_line(&file.path, line).value(entry);
                    command = ShellCommand::edit(&file.path, line).then(["systemctl", "reload", "docker"]);
                }
                diagnosis.say("remove the entry from insecure-registries, and have Docker read it again", command)
            }
            UnreadReason::DockerHub | UnreadReason::PlainHttp | UnreadReason::NoConfigPath => continue,
        };
        found.push(diagnosis.for_engine(engine.profile.name));
    }
    found
}

/// Whether anything is lost when the directory is not read: the registry requires a certificate, or, where it was not
/// asked, there is a directory that somebody made for it.
pub(crate) fn unread_matters(facts: &Facts) -> bool {
    match facts.live().filter(|live| live.greeting.is_some()) {
        Some(live) => requires(live),
        None => facts
            .roots
            .iter()
            .flat_map(|root| &root.files)
            .any(|file| file.path.file_name().is_some_and(|name| name == facts.target.host.as_str())),
    }
}

/// dockerd does not start with it, and what it would say about insecure registries is not known.
fn daemon_json(facts: &Facts) -> Option<Diagnosis> {
    let docker = &facts.config.docker;
    let (file, error) = docker.file.as_ref().zip(docker.error.as_ref())?;
    Some(
        Diagnosis::new(
            "D80",
            Severity::Warning,
            "daemon.json is not JSON: whether the registry is insecure cannot be told",
        )
        .at(&file.path)
        .value(error)
        .run([
            "dockerd".into(),
            "--validate".into(),
            "--config-file".into(),
            file.path.clone().into_os_string(),
        ]),
    )
}

/// What the engines that read it make of it is in their readings; these take the directory for one of certificates alone.
fn unread_hosts_toml(facts: &Facts) -> Vec<Diagnosis> {
    facts.config.hosts_toml.iter().filter_map(|file| unread_by(file, facts)).collect()
}

fn unread_by(file: &TextFile, facts: &Facts) -> Option<Diagnosis> {
    let taking = facts.engines.iter().filter(|engine| {
        engine.profile.layout == Layout::HostDirectories && engine.prediction.taken() == file.path.parent()
    });
    let engines: Vec<&'static str> = taking.map(|engine| engine.profile.name).collect();
    let what = "hosts.toml is not read by these engines: only the certificate files beside it count";
    (!engines.is_empty()).then(|| Diagnosis::new("D81", Severity::Note, what).for_engines(engines).at(&file.path))
}

fn registries_conf(facts: &Facts) -> Vec<Diagnosis> {
    if let Some(Finding { path, line, fault, .. }) = &facts.config.unread_registries {
        let what = "registries.conf cannot be read: Podman stops with it";
        let diagnosis = Diagnosis::new("D83", Severity::Warning, what).for_engine("podman").at_line(path, *line);
        return vec![diagnosis.value(fault.to_string()).say("correct the file", ShellCommand::edit(path, *line))];
    }
    let (host, registries) = (&facts.target.host, &facts.config.registries);
    let tables: Vec<&RegistryTable> = match &facts.target.repository {
        Some(repository) => registries.find(&format!("{host}/{repository}")).into_iter().collect(),
        // Any repository may be meant.
        None => {
            let below = format!("{host}/");
            let of_repositories = registries.tables().filter(|table| table.prefix.starts_with(&below));
            registries.find(host.as_str()).into_iter().chain(of_repositories).collect()
        }
    };
    tables.into_iter().flat_map(|table| against(table, host)).collect()
}

fn against(table: &RegistryTable, host: &RegistryHost) -> Vec<Diagnosis> {
    let said = [
        (table.insecure, "insecure", "its certificate is not verified"),
        (table.blocked, "blocked", "Podman does not ask it"),
    ];
    let diagnosis = |(_, key, then): (bool, &str, &str)| {
        let Written { file, line } = &table.at;
        Diagnosis::new("D83", Severity::Warning, format!("{host} is {key} in registries.conf: {then}"))
            .for_engine("podman")
            .at_line(file, Some(*line))
            .value(&table.prefix)
            .say(format!("remove `{key} = true` of this registry"), ShellCommand::edit(file, Some(*line)))
    };
    said.into_iter().filter(|(is, ..)| *is).map(diagnosis).collect()
}

fn docker_29(facts: &Facts) -> Vec<Diagnosis> {
    let Some(version) = facts.engine("docker-containerd").and_then(|engine| engine.version) else { return Vec::new() };
    if version < Version::new(29, 0, 0) || version >= Version::new(29, 5, 0) {
        return Vec::new();
    }
    let what = format!("Docker {version} ignores certificate directories when it fetches a token");
    vec![Diagnosis::new("D84", Severity::Warning, what).for_engine("docker-containerd").say(
        "update Docker to 29.5 or later; without a token server there is nothing to do",
        ShellCommand::new(["docker", "version"]),
    )]
}

fn builders(facts: &Facts) -> Vec<Diagnosis> {
    let built = facts.config.builders.iter();
    built
        .map(|builder| {
            let what = format!(
                "the builder {} has the certificates of when it was made",
                portcullis_certs::Visible(&builder.name)
            );
            Diagnosis::new("D85", Severity::Note, what)
                .at(&builder.path)
                .value(format!("made {}", day(builder.changed)))
                .say(
                    "after a renewal make it again, with a buildkitd.toml that names the certificates",
                    again(&builder.name),
                )
        })
        .collect()
}

fn again(builder: &str) -> ShellCommand {
    let config = "--buildkitd-config=/etc/buildkit/buildkitd.toml";
    ShellCommand::new(["docker", "buildx", "rm", builder]).then([
        "docker",
        "buildx",
        "create",
        "--name",
        builder,
        "--driver=docker-container",
        config,
    ])
}

fn virtual_machines(facts: &Facts) -> Vec<Diagnosis> {
    let machines = facts.machine.virtual_machines.iter();
    machines
        .map(|path| {
            let what = "an engine in a virtual machine reads that machine's files, not these";
            let of_podman = path.as_os_str().to_string_lossy().contains("podman");
            let roots = EngineProfile::PODMAN.search_roots(Path::new("/"), None);
            let list = roots.iter().fold("ls -R".to_owned(), |list, root| format!("{list} {}", root.display()));
            let inside = ["podman".to_owned(), "machine".to_owned(), "ssh".to_owned(), list];
            let (text, command) = if of_podman {
                ("compare with what is inside of the machine", ShellCommand::new(inside))
            } else {
                ("start Docker Desktop again after each change", ShellCommand::new(["docker", "desktop", "restart"]))
            };
            Diagnosis::new("D86", Severity::Note, what).at(path).say(text, command)
        })
        .collect()
}

fn stale_store(facts: &Facts) -> Vec<Diagnosis> {
    let (Some(started), Some(changed)) = (facts.machine.docker_started, facts.machine.store_changed) else {
        return Vec::new();
    };
    if changed <= started {
        return Vec::new();
    }
    let engines = facts.engines.iter().map(|engine| engine.profile.name).filter(|name| name.starts_with("docker"));
    vec![
        Diagnosis::new("D87", Severity::Warning, "the system's roots are newer than the running dockerd")
            .for_engines(engines)
            .value(format!("changed {}, dockerd started {}", day(changed), day(started)))
            .run(["systemctl", "restart", "docker"]),
    ]
}

fn environment(facts: &Facts) -> Vec<Diagnosis> {
    let environment = &facts.machine.environment;
    let set = [("SSL_CERT_FILE", &environment.ssl_cert_file), ("SSL_CERT_DIR", &environment.ssl_cert_dir)];
    set.into_iter()
        .filter_map(|(variable, value)| {
            let value = value.as_ref()?;
            let what = format!("{variable} replaces the system's roots in this shell");
            Some(
                Diagnosis::new("D88", Severity::Note, what)
                    .value(format!("{variable}={}", value.to_string_lossy()))
                    .run(["unset", variable]),
            )
        })
        .collect()
}
