//! Which engines are on the machine, in which version, and what each makes of the registry's files. What is installed is seen
//! from files, so that another root can be looked at too; `programs` alone runs one.

use portcullis_certs::{
    EngineProfile, EngineUser, Layout, Prediction, ReadBy, RegistryHost, Situation, Version, predict,
};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

use super::{Config, EngineFacts, Environment, Machine, below, programs, unique};

/// The database of dpkg and that of apk are smaller by far.
const DATABASE_LIMIT: u64 = 64 << 20;

/// An engine's programs and packages.
struct Trace {
    profile: &'static str,
    programs: &'static [&'static str],
    packages: &'static [&'static str],
}

const TRACES: [Trace; 6] = [
    Trace { profile: "docker", programs: &["dockerd"], packages: &["docker-ce", "docker.io", "moby-engine", "docker"] },
    Trace {
        profile: "podman",
        programs: &["podman", "skopeo", "buildah", "crio"],
        packages: &["podman", "skopeo", "buildah"],
    },
    Trace {
        profile: "containerd",
        programs: &["containerd"],
        packages: &["containerd.io", "containerd", "moby-containerd"],
    },
    Trace { profile: "nerdctl", programs: &["nerdctl"], packages: &["nerdctl"] },
    Trace { profile: "buildkit", programs: &["buildkitd"], packages: &["buildkit"] },
    Trace { profile: "k3s", programs: &["k3s", "rke2"], packages: &["k3s"] },
];

/// What an engine's verdict depends on beside the registry.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) root: &'a Path,
    pub(super) environment: &'a Environment,
    pub(super) config: &'a Config,
    pub(super) now: OffsetDateTime,
}

type Found = (&'static EngineProfile, Option<Version>, Vec<PathBuf>);

/// The engines that were asked for, else those that are installed, else Docker's page as our own client reads it.
pub(super) fn find(
    host: &RegistryHost,
    wanted: &[&'static EngineProfile],
    around: Surroundings<'_>,
    addresses: &[IpAddr],
) -> Vec<EngineFacts> {
    let mut found = installed(wanted, around);
    let packages = packages(around.root);
    for profile in wanted {
        if !found.iter().any(|(known, ..)| known.name == profile.name) {
            found.push((profile, traced_version(profile, &packages), Vec::new()));
        }
    }
    if found.is_empty() {
        found.push((&EngineProfile::DOCKER_DOCS, None, Vec::new()));
    }
    found.sort_by_key(|(profile, ..)| EngineProfile::ALL.iter().position(|known| known.name == profile.name));
    let look = |(profile, version, programs): Found| {
        let prediction = around.predict(profile, version, host, addresses);
        EngineFacts { profile, version, programs, prediction }
    };
    found.into_iter().map(look).collect()
}

/// The version that is installed, though it may use its other image store.
fn traced_version(profile: &EngineProfile, packages: &[(String, String)]) -> Option<Version> {
    let name = if profile.name == EngineProfile::DOCKER_CONTAINERD.name { "docker" } else { profile.name };
    let trace = TRACES.iter().find(|trace| trace.profile == name)?;
    trace.packages.iter().find_map(|package| version_of(packages, package))
}

fn installed(wanted: &[&'static EngineProfile], around: Surroundings<'_>) -> Vec<Found> {
    let packages = packages(around.root);
    let mut found = Vec::new();
    for trace in &TRACES {
        let programs = programs::installed(around.root, trace.programs);
        let version = trace.packages.iter().find_map(|name| version_of(&packages, name));
        // Where there is neither dpkg nor apk, or the program is in no package.
        let version = version.or_else(|| programs::version(around.root, &programs));
        let Some(profile) = store_of(trace.profile, version, around) else { continue };
        let counts = match wanted {
            [] => is_in_use(trace, &programs, around),
            _ => wanted.iter().any(|engine| engine.name == profile.name),
        };
        if counts {
            found.push((profile, version, programs));
        }
    }
    found
}

/// containerd comes along with Docker, which does not read its directories.
fn is_in_use(trace: &Trace, programs: &[PathBuf], around: Surroundings<'_>) -> bool {
    let configured = || {
        EngineProfile::CONTAINERD.search_roots(around.root, None).iter().any(|path| path.exists())
            || around.config.containerd.as_ref().is_some_and(|file| file.text.contains("config_path"))
    };
    let alone = || programs::installed(around.root, &["dockerd"]).is_empty();
    !programs.is_empty() && (trace.profile != "containerd" || configured() || alone())
}

/// Docker has two image stores with different rules. A fresh Engine 29 has containerd's; an older data directory shows in
/// `image/overlay2`.
fn store_of(name: &str, version: Option<Version>, around: Surroundings<'_>) -> Option<&'static EngineProfile> {
    if name != "docker" {
        return EngineProfile::named(name);
    }
    let data = around.root.join("var/lib/docker/image/overlay2");
    let fresh = || version >= Some(Version::new(29, 0, 0)) && !data.exists();
    let containerd = around.config.docker.containerd_store.unwrap_or_else(fresh);
    Some(if containerd { &EngineProfile::DOCKER_CONTAINERD } else { &EngineProfile::DOCKER })
}

impl Surroundings<'_> {
    /// What the engine will make of the files for `host`, which has these addresses.
    pub(super) fn predict(
        &self,
        profile: &'static EngineProfile,
        version: Option<Version>,
        host: &RegistryHost,
        addresses: &[IpAddr],
    ) -> Prediction {
        let situation = Situation {
            user: user(profile, self.environment),
            version,
            addresses,
            insecure_registries: &self.config.docker.insecure_registries,
            ..Situation::here(self.root, self.now)
        };
        predict(profile, &situation, host)
    }
}

/// A daemon is root's unless it is known to be the user's; a program is the caller's.
fn user<'a>(profile: &EngineProfile, environment: &'a Environment) -> EngineUser<'a> {
    let home = environment.home.as_deref();
    let rootless = match profile.reader {
        ReadBy::Caller => environment.uid != 0,
        ReadBy::Daemon => environment.rootless_docker,
    };
    match home {
        Some(home) if rootless => EngineUser::Rootless { home, config_home: environment.config_home.as_deref() },
        _ if profile.reader == ReadBy::Caller => EngineUser::Root { home },
        _ => EngineUser::Root { home: Some(Path::new("/root")) },
    }
}

/// The directories in which the engines look for the host's, in order, each once.
pub(super) fn roots(engines: &[EngineFacts], root: &Path) -> Vec<PathBuf> {
    let is_named =
        |engine: &&EngineFacts| matches!(engine.profile.layout, Layout::HostDirectories | Layout::HostsToml { .. });
    let tried = engines.iter().filter(is_named).flat_map(|engine| &engine.prediction.tried);
    let own = tried.filter_map(|tried| tried.path.parent().map(Path::to_owned));
    // An engine that does not look at all still has a place where people put files for it.
    let unread = engines.iter().filter(is_named).filter(|engine| engine.prediction.tried.is_empty());
    unique(own.chain(unread.flat_map(|engine| engine.profile.search_roots(root, None))))
}

pub(super) fn machine(root: &Path, environment: &Environment) -> Machine {
    let modified = |path: &str| {
        let modified = fs::metadata(root.join(path)).ok()?.modified().ok()?;
        Some(OffsetDateTime::from(modified))
    };
    let home = environment.home.as_deref().map(|home| below(root, home));
    let machines = [".config/containers/podman/machine", ".docker/desktop", ".local/share/containers/podman/machine"];
    let virtual_machines = home.iter().flat_map(|home| machines.map(|path| home.join(path)));
    Machine {
        root: root.to_owned(),
        environment: environment.clone(),
        store_changed: modified("etc/ssl/certs/ca-certificates.crt").or_else(|| modified("etc/pki/tls/cert.pem")),
        docker_started: modified("run/docker.pid").or_else(|| modified("var/run/docker.pid")),
        virtual_machines: virtual_machines.filter(|path| path.is_dir()).collect(),
    }
}

/// Package and version, of dpkg and apk.
fn packages(root: &Path) -> Vec<(String, String)> {
    let dpkg = fields(&root.join("var/lib/dpkg/status"), "Package: ", "Version: ");
    if dpkg.is_empty() { fields(&root.join("lib/apk/db/installed"), "P:", "V:") } else { dpkg }
}

/// Both databases have the name before the version, one entry after the other.
fn fields(path: &Path, name: &str, version: &str) -> Vec<(String, String)> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let wanted = |package: &str| TRACES.iter().any(|trace| trace.packages.contains(&package));
    let mut found = Vec::new();
    let mut current: Option<String> = None;
    for line in BufReader::new(file.take(DATABASE_LIMIT)).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if let Some(package) = line.strip_prefix(name) {
            current = wanted(package).then(|| package.to_owned());
        } else if let (Some(version), Some(package)) =
            (line.strip_prefix(version), current.take_if(|_| line.starts_with(version)))
        {
            found.push((package, version.to_owned()));
        }
    }
    found
}

fn version_of(packages: &[(String, String)], name: &str) -> Option<Version> {
    let (_, version) = packages.iter().find(|(package, _)| package == name)?;
    Version::find_in(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_package_database() {
        let root = tempfile::tempdir().unwrap();
        let status = "Package: docker.io\nStatus: install ok installed\nVersion: 20.10.24+dfsg1-1\n\nPackage: zsh\nVersion: 5.9\n\nPackage: podman\nVersion: 5:4.3.1+ds1-8\n";
        fs::create_dir_all(root.path().join("var/lib/dpkg")).unwrap();
        fs::write(root.path().join("var/lib/dpkg/status"), status).unwrap();
        let packages = packages(root.path());
        assert_eq!(version_of(&packages, "docker.io"), Some(Version::new(20, 10, 24)));
        assert_eq!(version_of(&packages, "podman"), Some(Version::new(4, 3, 1)));
        assert_eq!(version_of(&packages, "zsh"), None);
    }
}
