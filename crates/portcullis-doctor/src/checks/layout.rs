//! D01 to D12: where the directories are and what they are called.

use super::repairs::{is_certificate_file, moved};
use super::{Check, never, nothing_more};
use crate::diagnosis::{Diagnosis, name, shown};
use crate::facts::{EngineFacts, Facts};
use portcullis_certs::{
    DirectorySurvey, EntryKind, Fault, FileSurvey, Outcome, RegistryHost, Severity, ShellCommand, UnreadReason,
};
use portcullis_oci::docker_hub;
use std::io::ErrorKind;
use std::path::Path;

pub(super) static CHECKS: &[Check] = &[
    Check {
        code: "D01",
        title: "there is no certificate directory for this registry",
        severity: Severity::Note,
        why: "without one only the system's roots count, and no client certificate is sent",
        text: "An engine looks for a directory named after the registry, exactly as the registry is written in the image name. When there is none, that is no error to any engine: it goes on with the operating system's roots and without a client certificate, and the failure comes later as `certificate signed by unknown authority` or `certificate required`. The evidence lists every place that was tried, in order.",
        fix: "make the directory and put ca.crt, client.cert and client.key into it, or `portcullis install`",
        skip: never,
        find: missing,
    },
    Check {
        code: "D02",
        title: "a directory with a misspelled parent looks like the one that is missing",
        severity: Severity::Note,
        why: "engines look in `certs.d` only; `cert.d`, `certs` and the like are never read",
        text: "The files are there, but one level above them a letter is missing or too much. No engine warns: the wanted directory simply does not exist. A long thread about Docker (moby#33432) ended with exactly this.",
        fix: "move the directory to where the engine looks",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D03",
        title: "certificate files lie one level too high, or the given directory one level too low",
        severity: Severity::Warning,
        why: "files beside the host directories are never read",
        text: "Certificate files belong into `certs.d/HOST[:PORT]/`, not into `certs.d/` itself. The reverse mistake is `--cert-dir` of Podman and skopeo, which wants the host's directory itself: given `certs.d`, it reads no certificate and says nothing. An empty directory of the host, with the files above it, is the same mistake half mended.",
        fix: "move the files into the host's directory, or name the host's directory",
        skip: never,
        find: above_an_empty_one,
    },
    Check {
        code: "D04",
        title: "a directory's name can be no registry's",
        severity: Severity::Warning,
        why: "engines compare the name byte for byte with what stands before the first slash of the image name",
        text: "A scheme (`https:`), a path, a space, a trailing dot or upper case where the image name has lower case: each makes another name. Nothing is normalized, neither by Docker nor by Podman nor by containerd.",
        fix: "rename the directory to HOST or HOST:PORT as it is typed in image names",
        skip: never,
        find: impossible_names,
    },
    Check {
        code: "D05",
        title: "the directory and the reference differ in the default port",
        severity: Severity::Note,
        why: "`host` and `host:443` are two directories, though they are one registry",
        text: "Whoever pulls `host/image` needs the directory `host`, whoever pulls `host:443/image` needs `host:443`. Only nerdctl adds the port by itself and looks at `host:443` first.",
        fix: "copy the directory, so that both names exist",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D06",
        title: "there is a directory for another port of this host",
        severity: Severity::Note,
        why: "a certificate directory is for one port; another port's is never read",
        text: "The port in the directory's name must be the one in the image name. A directory without port is for a reference without port only.",
        fix: "copy the directory under the name that is asked for, if both ports are the same registry's",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D07",
        title: "the port is spelled in another tool's way",
        severity: Severity::Note,
        why: "`host_5000_` is read by containerd alone, `host5000` on Windows alone, `host..5000` by OpenShift's operator",
        text: "A colon cannot stand in a Windows file name or in a ConfigMap key, so three other spellings exist. Docker's classic store and Podman on Linux read `host:5000` and nothing else; containerd tries `host_5000_` first.",
        fix: "rename the directory to HOST:PORT",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D08",
        title: "an IPv6 address is written without brackets, or the engine takes none",
        severity: Severity::Fatal,
        why: "the directory keeps the brackets that the image name has, and Podman and older Dockers take no IPv6 address at all",
        text: "Podman, skopeo and Docker before 25.0 say `invalid reference format` to an image name with an IPv6 address (containers/container-libs#195): a name in the hosts file or in DNS is the way out. The directory of `[fd00::1]:5000/image` is called `[fd00::1]:5000`, brackets included. containerd mangles a bracketed address without port, so write the port for it.",
        fix: "rename the directory, with brackets; or give the address a name",
        skip: never,
        find: no_ipv6,
    },
    Check {
        code: "D09",
        title: "Docker Hub has no directory of its own name",
        severity: Severity::Warning,
        why: "Docker's classic store never reads a directory for Docker Hub, and others call it docker.io whatever the host is",
        text: "`index.docker.io` and `registry-1.docker.io` are where Docker Hub is reached, not what it is called: Podman, containerd and Docker's containerd store read `docker.io`, Docker's classic store reads none, regclient reads the real host name. A Hub mirror has the directory of the mirror's own host.",
        fix: "put the files into `docker.io`, or into the mirror's directory",
        skip: never,
        find: hub,
    },
    Check {
        code: "D10",
        title: "two directories exist for this registry, and one of them is not read",
        severity: Severity::Warning,
        why: "the first directory that exists wins, even an empty one; nothing is merged",
        text: "Podman looks in the user's own directory, then in containers' and then in Docker's, and takes the first that exists, whatever is in it. An empty directory of one's own therefore hides the system's. nerdctl does the same with its two places.",
        fix: "put all files of the registry into the directory that wins, or remove the other",
        skip: never,
        find: masked,
    },
    Check {
        code: "D11",
        title: "`_default` is taken before the directory of the host",
        severity: Severity::Warning,
        why: "nerdctl asks with the port 443 added, so that `_default` comes before a directory without port",
        text: "containerd tries `host_port_`, then `host:port`, then `_default`. nerdctl always adds `:443` to a reference without port, so `host:443` and even `_default` win over the plain `host` directory. The deduction is from nerdctl's source; no test has run it.",
        fix: "rename the host's directory to HOST:443 for nerdctl, or remove `_default`",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D12",
        title: "the directory cannot be read, is none, or can be changed by everybody",
        severity: Severity::Fatal,
        why: "engines stop at a directory that they cannot list, and whoever may write to it decides whom the engine trusts",
        text: "Docker and containerd fail when the host's directory exists and cannot be listed; Podman passes over it in silence and goes on without certificates. Rootless Docker reads the user's own directory, not the system's. A directory that others may write to lets them add a CA, and every CA in it is trusted for this registry.",
        fix: "give it to root with mode 0755, or to the user whose engine it is",
        skip: never,
        find: unsafe_directories,
    },
];

fn missing(facts: &Facts) -> Vec<Diagnosis> {
    let without =
        |engine: &&EngineFacts| engine.prediction.outcome == Outcome::NoFiles && engine.prediction.taken().is_none();
    let engines: Vec<&EngineFacts> = facts.engines.iter().filter(without).collect();
    let tried = || engines.iter().flat_map(|engine| &engine.prediction.tried).filter(|tried| !is_list(&tried.path));
    let exact = tried().find(|tried| tried.path.file_name().is_some_and(|name| name == facts.target.host.as_str()));
    let Some(first) = exact.or_else(|| tried().next()) else { return Vec::new() };
    let what = format!("no certificate directory for {}", facts.target.host);
    let mut diagnosis = Diagnosis::new("D01", Severity::Note, what)
        .for_engines(engines.iter().map(|engine| engine.profile.name))
        .run(["mkdir".into(), "-p".into(), first.path.clone().into_os_string()]);
    let mut paths = Vec::new();
    for tried in engines.iter().flat_map(|engine| &engine.prediction.tried) {
        if !paths.contains(&&tried.path) {
            paths.push(&tried.path);
            diagnosis = diagnosis.at(&tried.path).value("not there");
        }
    }
    vec![diagnosis]
}

/// Below what containerd took for one directory and is a list (D82).
fn is_list(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().windows(2).any(|pair| pair == b":/")
}

/// No engine misses an empty directory, so that no reading looks further: whoever made it put the files one level too high.
fn above_an_empty_one(facts: &Facts) -> Vec<Diagnosis> {
    let empty = facts.directories.iter().filter(|directory| directory.fault.is_none() && directory.files.is_empty());
    empty.filter_map(|directory| above(directory, facts)).collect()
}

fn above(directory: &DirectorySurvey, facts: &Facts) -> Option<Diagnosis> {
    let root = facts.roots.iter().find(|root| Some(root.path.as_path()) == directory.path.parent())?;
    let files: Vec<&Path> =
        root.files.iter().filter(|file| is_certificate_file(file)).map(|file| file.path.as_path()).collect();
    if files.is_empty() {
        return None;
    }
    let reading = facts.engines.iter().filter(|engine| engine.prediction.taken() == Some(&directory.path));
    let what = format!(
        "{} is empty, and certificate files lie one level above it, where they are not read",
        shown(&directory.path)
    );
    let diagnosis = files.iter().fold(Diagnosis::new("D03", Severity::Warning, what), |it, file| it.at(file));
    Some(
        diagnosis.for_engines(reading.map(|engine| engine.profile.name)).run(moved(files.into_iter(), &directory.path)),
    )
}

fn impossible_names(facts: &Facts) -> Vec<Diagnosis> {
    let entries = facts.roots.iter().flat_map(|root| root.files.iter().filter(|file| is_directory(file)));
    entries.filter_map(|entry| impossible_name(entry, facts)).collect()
}

fn impossible_name(entry: &FileSurvey, facts: &Facts) -> Option<Diagnosis> {
    let text = entry.path.file_name()?.to_str().unwrap_or("\u{fffd}");
    let is_other_form = text == "_default" || text.ends_with('_') || text.contains("..");
    if is_other_form || text.parse::<RegistryHost>().is_ok() && !text.ends_with('.') {
        return None;
    }
    // The one that was nearly meant is told by the reading already.
    let told = facts.engines.iter().flat_map(|engine| &engine.prediction.findings);
    if told.into_iter().any(|finding| finding.path == entry.path && matches!(finding.fault, Fault::LookAlike { .. })) {
        return None;
    }
    let what = format!("{} can be no registry's directory", name(&entry.path));
    let path = &entry.path;
    Some(Diagnosis::new("D04", Severity::Note, what).at(path).say(
        "rename it to HOST or HOST:PORT as the registry is typed in image names, without https:// and without a path; if it is of this one",
        ShellCommand::new(["mv".into(), "-iT".into(), ShellCommand::operand(path), path.with_file_name(facts.target.host.as_str()).into()]),
    ))
}

fn no_ipv6(facts: &Facts) -> Vec<Diagnosis> {
    let refusing = facts.engines.iter().filter(|it| matches!(it.prediction.outcome, Outcome::NotAReference { .. }));
    let refusing: Vec<&'static str> = refusing.map(|engine| engine.profile.name).collect();
    if refusing.is_empty() {
        return Vec::new();
    }
    let host = &facts.target.host;
    let what = format!("{host} cannot be written in an image name for these engines");
    let port = host.port().map(|port| format!(":{port}")).unwrap_or_default();
    let line = format!("$a {} registry.internal", host.server_name());
    let hosts = facts.machine.root.join("etc/hosts");
    vec![
        Diagnosis::new("D08", Severity::Fatal, what)
            .for_engines(refusing)
            .value(format!("with that line, ask for registry.internal{port}, whose certificate must have that name"))
            .run(["sed".into(), "-i".into(), line.into(), hosts.into_os_string()]),
    ]
}

fn hub(facts: &Facts) -> Vec<Diagnosis> {
    let aliases = [docker_hub::FORMER_NAME, docker_hub::REGISTRY];
    let mut found = Vec::new();
    let unread = facts
        .engines
        .iter()
        .filter(|engine| matches!(engine.prediction.outcome, Outcome::NotRead(UnreadReason::DockerHub)));
    let unread: Vec<&'static str> = unread.map(|engine| engine.profile.name).collect();
    if !unread.is_empty() {
        let what = "certificates for Docker Hub are never read from a directory";
        found.push(Diagnosis::new("D09", Severity::Warning, what).for_engines(unread));
    }
    for entry in facts.roots.iter().flat_map(|root| &root.files) {
        if aliases.iter().any(|alias| entry.path.file_name().is_some_and(|name| name == *alias)) {
            let what = format!("{} is read by nobody: engines call Docker Hub {}", name(&entry.path), docker_hub::NAME);
            let to = entry.path.with_file_name(docker_hub::NAME);
            found.push(Diagnosis::new("D09", Severity::Warning, what).at(&entry.path).run([
                "mv".into(),
                "-iT".into(),
                entry.path.clone().into_os_string(),
                to.into_os_string(),
            ]));
        }
    }
    found
}

/// Which directory wins is in no reading; when it has nothing in it, that is the reason why nothing works.
fn masked(facts: &Facts) -> Vec<Diagnosis> {
    facts.engines.iter().filter_map(masked_for).collect()
}

fn masked_for(engine: &EngineFacts) -> Option<Diagnosis> {
    let prediction = &engine.prediction;
    let (taken, masked) = prediction.taken().zip(prediction.masked().next())?;
    let endpoint = prediction.registry()?;
    let is_empty = endpoint.roots.is_empty() && endpoint.pairs.is_empty();
    let diagnosis = if is_empty {
        let what = format!("the directory that wins has no certificates, and hides {}", shown(masked));
        Diagnosis::new("D10", Severity::Warning, what).run(["rmdir".into(), taken.as_os_str().to_owned()])
    } else {
        let what = format!("{} is not read: another directory comes first", shown(masked));
        let copy = ["cp".into(), "-rnp".into(), masked.join(".").into_os_string(), taken.as_os_str().to_owned()];
        Diagnosis::new("D10", Severity::Note, what)
            .say("put all files of this registry into the directory that wins", ShellCommand::new(copy))
    };
    Some(diagnosis.for_engine(engine.profile.name).at(taken).value("wins").at(masked).value("not read"))
}

fn unsafe_directories(facts: &Facts) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    for directory in facts.roots.iter().chain(&facts.directories) {
        if let Some(owner) = directory.ownership.filter(|owner| owner.mode & 0o022 != 0) {
            let others = if owner.mode & 0o002 != 0 { "everybody" } else { "its group" };
            // A group of root's own is root; the sticky bit keeps nobody from adding a CA.
            if owner.mode & 0o002 == 0 && owner.gid == 0 {
                continue;
            }
            let what = format!("{others} may add files to {}", shown(&directory.path));
            found.push(
                Diagnosis::new("D12", Severity::Warning, what)
                    .at(&directory.path)
                    .value(format!("mode {:04o}, owner {}, group {}", owner.mode, owner.uid, owner.gid))
                    .run(["chmod".into(), "go-w".into(), directory.path.clone().into_os_string()])
                    .with_mend(Some(crate::mend::Mend::Mode {
                        path: directory.path.clone(),
                        mode: owner.mode & 0o7755,
                    })),
            );
        }
        let hidden =
            matches!(&directory.fault, Some(Fault::DirectoryUnreadable { error: ErrorKind::PermissionDenied }));
        if hidden && facts.roots.iter().any(|root| root.path == directory.path) {
            let what = format!("{} could not be listed by this user", shown(&directory.path));
            let uid = facts.machine.environment.uid;
            found.push(
                Diagnosis::new("D12", Severity::Note, what).at(&directory.path).value(format!("as user {uid}")).run([
                    "sudo",
                    "portcullis",
                    "doctor",
                    facts.target.host.as_str(),
                ]),
            );
        }
    }
    found
}

fn is_directory(file: &FileSurvey) -> bool {
    match &file.kind {
        EntryKind::Directory => true,
        EntryKind::Link { .. } | EntryKind::File | EntryKind::Other => false,
    }
}
