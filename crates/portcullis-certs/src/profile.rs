//! Engine profiles: the rules of each engine's certificate directories, as data.
//!
//! A profile says where an engine looks and how bad each fault is to it; the reader in `host_certs` is one piece of code
//! for all of them. Each row says for which versions it holds and how that is known.

use crate::fault::Fault;
use crate::finding::Severity;
use portcullis_oci::RegistryHost;
use std::path::{Path, PathBuf};

/// How one engine reads certificate directories.
#[derive(Debug, Clone, Copy)]
pub struct EngineProfile {
    /// The name on the command line: `docker-docs`, `podman`.
    pub name: &'static str,
    /// Where the engine looks, in order.
    pub roots: &'static [SearchRoot],
    /// How the engine takes each fault that engines differ in.
    pub rules: Rules,
}

/// A directory that holds one directory per registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchRoot {
    /// Relative to `$HOME`; left out when there is none.
    Home(&'static str),
    /// An absolute path.
    System(&'static str),
}

/// One row of a profile: how bad, for which versions, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// How bad the fault is. What an engine ignores in silence is a warning: the file is there and not used.
    pub severity: Severity,
    /// The versions it holds for.
    pub versions: &'static str,
    /// How it is known.
    pub known: Known,
}

/// How a rule is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The documentation says so.
    Documented(&'static str),
    /// Seen in this version.
    Observed(&'static str),
    /// Read in the source at this commit.
    FromSource(&'static str),
    /// Nothing to know: a choice of ours where the documentation is silent, and why.
    Chosen(&'static str),
}

/// The faults in which engines differ. All others are as bad to every engine.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The host's directory exists and may not be listed.
    pub unreadable_directory: Rule,
    /// A `.cert` without `.key`.
    pub missing_key: Rule,
    /// A `.key` without `.cert`.
    pub orphan_key: Rule,
    /// A `.crt` without one usable certificate.
    pub useless_root: Rule,
    /// One bad block among good ones in a `.crt`.
    pub bad_block: Rule,
    /// A `.crt` that is a directory, FIFO or device.
    pub root_not_a_file: Rule,
    /// A `.crt` that is a symbolic link to nothing.
    pub dangling_root: Rule,
}

impl EngineProfile {
    /// Docker's page "Verify repository client with certificates", word for word. Portcullis's own client reads so.
    pub const DOCKER_DOCS: Self = Self {
        name: "docker-docs",
        roots: &[SearchRoot::System("/etc/docker/certs.d")],
        rules: Rules {
            unreadable_directory: moby(Severity::Fatal),
            missing_key: page(Severity::Fatal),
            orphan_key: ours(Severity::Warning, "the page does not forbid it; Docker Engine itself refuses it"),
            useless_root: ours(Severity::Fatal, "the page calls every .crt a root; Docker Engine is silent"),
            bad_block: ours(Severity::Warning, "the good ones are roots, as in every engine"),
            root_not_a_file: moby(Severity::Fatal),
            dangling_root: moby(Severity::Fatal),
        },
    };

    /// Podman, skopeo, buildah, CRI-O: what containers/image does.
    ///
    /// `$XDG_CONFIG_HOME` is not honoured (observed with skopeo 1.9.3).
    pub const PODMAN: Self = Self {
        name: "podman",
        roots: &[
            SearchRoot::Home(".config/containers/certs.d"),
            SearchRoot::System("/etc/containers/certs.d"),
            SearchRoot::System("/etc/docker/certs.d"),
        ],
        rules: Rules {
            unreadable_directory: containers(Severity::Warning),
            missing_key: containers(Severity::Fatal),
            orphan_key: containers(Severity::Fatal),
            useless_root: containers(Severity::Warning),
            bad_block: containers(Severity::Warning),
            root_not_a_file: skopeo(Severity::Fatal),
            dangling_root: skopeo(Severity::Warning),
        },
    };

    /// The name of the host's directory in a root.
    ///
    /// Byte for byte as typed: no lower-casing, no default port added or taken away, brackets kept. Both profiles agree in this
    /// (moby `registry.go:23-31`, containers/image `docker_client.go:175`).
    ///
    /// ```
    /// # use portcullis_certs::EngineProfile;
    /// assert_eq!(EngineProfile::PODMAN.directory_name(&"[fd00::1]:5000".parse()?), "[fd00::1]:5000");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn directory_name(&self, host: &RegistryHost) -> String {
        host.as_str().to_owned()
    }

    /// The directories that hold host directories, in the order they are tried, below `root` (`/` on a running
    /// system) and for a user whose home is `home`.
    pub fn search_roots(&self, root: &Path, home: Option<&Path>) -> Vec<PathBuf> {
        let below = |absolute: &Path| root.join(absolute.strip_prefix("/").unwrap_or(absolute));
        self.roots
            .iter()
            .filter_map(|place| match place {
                SearchRoot::Home(relative) => home.map(|home| below(&home.join(relative))),
                SearchRoot::System(absolute) => Some(below(Path::new(absolute))),
            })
            .collect()
    }

    /// How bad a fault of the host's directory itself is.
    pub(crate) fn for_directory(&self, fault: &Fault) -> Severity {
        match fault {
            Fault::DirectoryUnreadable { error: std::io::ErrorKind::PermissionDenied } => {
                self.rules.unreadable_directory.severity
            }
            _ => Severity::Fatal,
        }
    }

    /// How bad a fault of a `.crt` is; `useless` when the file gave no certificate.
    pub(crate) fn for_root(&self, fault: &Fault, useless: bool) -> Severity {
        match fault {
            Fault::NotAFile | Fault::Unreadable { .. } => self.rules.root_not_a_file.severity,
            Fault::DanglingLink => self.rules.dangling_root.severity,
            _ if useless => self.rules.useless_root.severity,
            _ => self.rules.bad_block.severity,
        }
    }
}

const fn page(severity: Severity) -> Rule {
    Rule { severity, versions: "all", known: Known::Documented("docs.docker.com/engine/security/certificates") }
}

const fn ours(severity: Severity, why: &'static str) -> Rule {
    Rule { severity, versions: "all", known: Known::Chosen(why) }
}

const fn moby(severity: Severity) -> Rule {
    Rule { severity, versions: "Docker Engine up to 2026-08", known: Known::FromSource("moby b985e2313a") }
}

const fn containers(severity: Severity) -> Rule {
    Rule {
        severity,
        versions: "containers/image up to 2026-04",
        known: Known::FromSource("containers/container-libs f0ddf1a7"),
    }
}

const fn skopeo(severity: Severity) -> Rule {
    Rule { severity, versions: "containers/image up to 2026-04", known: Known::Observed("skopeo 1.9.3") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn a_directory_that_may_not_be_read_is_fatal_to_the_page_and_passed_over_by_podman() {
        let denied = Fault::DirectoryUnreadable { error: ErrorKind::PermissionDenied };
        let broken = Fault::DirectoryUnreadable { error: ErrorKind::NotADirectory };
        assert_eq!(EngineProfile::DOCKER_DOCS.for_directory(&denied), Severity::Fatal);
        assert_eq!(EngineProfile::PODMAN.for_directory(&denied), Severity::Warning);
        assert_eq!(EngineProfile::PODMAN.for_directory(&broken), Severity::Fatal);
    }

    #[test]
    fn search_lists() {
        let below =
            |profile: &EngineProfile, home: Option<&str>| profile.search_roots(Path::new("/"), home.map(Path::new));
        assert_eq!(below(&EngineProfile::DOCKER_DOCS, Some("/home/a")), [Path::new("/etc/docker/certs.d")]);
        let podman = ["/home/a/.config/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d"];
        assert_eq!(below(&EngineProfile::PODMAN, Some("/home/a")), podman.map(Path::new));
        assert_eq!(below(&EngineProfile::PODMAN, None), [podman[1], podman[2]].map(Path::new));
        let elsewhere = EngineProfile::PODMAN.search_roots(Path::new("/mnt"), Some(Path::new("/home/a")));
        assert_eq!(elsewhere[0], Path::new("/mnt/home/a/.config/containers/certs.d"));
        assert_eq!(elsewhere[2], Path::new("/mnt/etc/docker/certs.d"));
    }

    #[test]
    fn names_are_kept_byte_for_byte() {
        for name in ["registry.test", "registry.test:443", "Registry.TEST:5000", "[fd00::1]:5000", "10.0.0.1:5000"] {
            assert_eq!(EngineProfile::DOCKER_DOCS.directory_name(&name.parse().unwrap()), name);
        }
    }
}
