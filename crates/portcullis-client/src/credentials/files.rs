//! Auth files: which there are, in which order, and reading them. Must not know how an entry is written.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use portcullis_certs::Visible;
use portcullis_oci::{RegistryHost, RepositoryName};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::Credential;
use super::entry::{AuthFile, Holder, HolderFault};
use crate::blocking;
use crate::error::ClientError;

/// The largest auth file that is read, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// The files that credentials are looked for in, first to last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthFiles {
    paths: Vec<PathBuf>,
    /// Whether the only one was named by the user, so that it has to be there.
    named: bool,
}

/// Whose files come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthOrder {
    /// `$DOCKER_CONFIG/config.json` (`~/.docker/config.json`), then containers' `auth.json`.
    DockerFirst,
    /// As podman, skopeo and buildah look: `$XDG_RUNTIME_DIR/containers/auth.json`, `~/.config/containers/auth.json`,
    /// then Docker's.
    ContainersFirst,
}

/// Why an auth file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthFileFault {
    /// The environment or an option names it, and it is not there.
    #[error("it does not exist")]
    Missing,
    /// It cannot be read or written.
    #[error("{reason}")]
    Io {
        /// The system's word.
        reason: String,
    },
    /// It is larger than 1 MiB.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// It is no JSON object, or a part of it is none. What is in it is not shown.
    #[error("it is not what an auth file is: {what} is no JSON object")]
    NoObject {
        /// Which part.
        what: &'static str,
    },
    /// The `auth` of an entry is no `user:password` in base64.
    #[error("the auth of {} is no user:password in base64", Visible(key))]
    Auth {
        /// The entry's name.
        key: String,
    },
    /// There is no place for an auth file: neither `HOME` nor another variable leads to one.
    #[error("neither HOME, DOCKER_CONFIG nor REGISTRY_AUTH_FILE is set")]
    NoPlace,
}

impl AuthFiles {
    /// The user's: `REGISTRY_AUTH_FILE` alone where it is set, else the usual ones.
    pub fn of_the_user(order: AuthOrder) -> Self {
        Self::from_environment(order, |name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    /// One file, as with `--authfile`.
    pub fn named(path: &Path) -> Self {
        Self { paths: vec![path.to_owned()], named: true }
    }

    /// The files, first to last.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    fn from_environment(order: AuthOrder, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        if let Some(named) = path("REGISTRY_AUTH_FILE") {
            return Self { paths: vec![named], named: true };
        }
        let home = path("HOME");
        let docker = path("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
        let docker = docker.map(|directory| directory.join("config.json"));
        // containers/image `pkg/docker/config/config.go`, `getPathToAuth`.
        let runtime = path("XDG_RUNTIME_DIR").map_or_else(
            || PathBuf::from(format!("/run/containers/{}", rustix::process::getuid().as_raw())),
            |directory| directory.join("containers"),
        );
        let config = path("XDG_CONFIG_HOME").or_else(|| Some(home?.join(".config")));
        let containers = [Some(runtime), config.map(|directory| directory.join("containers"))].into_iter().flatten();
        let containers = containers.map(|directory| directory.join("auth.json"));
        let paths = match order {
            AuthOrder::DockerFirst => docker.into_iter().chain(containers).collect(),
            AuthOrder::ContainersFirst => containers.chain(docker).collect(),
        };
        Self { paths, named: false }
    }

    pub(super) async fn find(
        &self,
        host: &RegistryHost,
        repository: Option<&RepositoryName>,
    ) -> Result<Option<Credential>, ClientError> {
        for path in &self.paths {
            let Some(file) = self.read(path).await? else { continue };
            let holders = file.holders(host, repository).map_err(|fault| match fault {
                HolderFault::Helper(error) => error,
                HolderFault::Entry(fault) => ClientError::auth_file(path, fault),
            })?;
            for holder in holders {
                let found = match holder {
                    Holder::Helper(helper, server) => helper.get(&server).await?,
                    Holder::Entry(credential) => Some(credential),
                };
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    pub(super) async fn may_have(&self, host: &RegistryHost) -> Result<bool, ClientError> {
        for path in &self.paths {
            if self.read(path).await?.is_some_and(|file| file.may_have(host)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One of the files; `None`: it is not there, and need not be.
    async fn read(&self, path: &Path) -> Result<Option<AuthFile>, ClientError> {
        let owned = path.to_owned();
        match blocking(move || read(&owned)).await? {
            None if self.named => Err(ClientError::auth_file(path, AuthFileFault::Missing)),
            read => Ok(read),
        }
    }
}

/// Reads an auth file; `None`: there is none. An empty one holds nothing.
pub(super) fn read(path: &Path) -> Result<Option<AuthFile>, ClientError> {
    let fault = |fault| ClientError::auth_file(path, fault);
    let io = |error: io::Error| fault(AuthFileFault::Io { reason: error.to_string() });
    let file = match File::open(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        opened => opened.map_err(io)?,
    };
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > MAX_BYTES {
        return Err(fault(AuthFileFault::TooLarge { limit: MAX_BYTES }));
    }
    if bytes.trim_ascii().is_empty() {
        return Ok(Some(AuthFile(Map::new())));
    }
    let what = match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => match not_an_object(&object) {
            None => return Ok(Some(AuthFile(object))),
            Some(part) => part,
        },
        _ => "the file",
    };
    Err(fault(AuthFileFault::NoObject { what }))
}

fn not_an_object(file: &Map<String, Value>) -> Option<&'static str> {
    let is_wrong = |key: &&str| file.get(*key).is_some_and(|part| !part.is_object() && !part.is_null());
    ["auths", "credHelpers"].into_iter().find(|key| is_wrong(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(order: AuthOrder, variables: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let files = AuthFiles::from_environment(order, variable);
        files.paths().iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn where_files_are_looked_for() {
        let home = ("HOME", "/h");
        let runtime = ("XDG_RUNTIME_DIR", "/run/user/7");
        let containers = ["/run/user/7/containers/auth.json", "/h/.config/containers/auth.json"];
        let docker = "/h/.docker/config.json";
        let [first, second] = containers;
        assert_eq!(paths(AuthOrder::DockerFirst, &[home, runtime]), [docker, first, second]);
        assert_eq!(paths(AuthOrder::ContainersFirst, &[home, runtime]), [first, second, docker]);
        let moved = [home, runtime, ("DOCKER_CONFIG", "/d"), ("XDG_CONFIG_HOME", "/c")];
        let config = "/c/containers/auth.json";
        assert_eq!(paths(AuthOrder::DockerFirst, &moved), ["/d/config.json", first, config]);
        for order in [AuthOrder::DockerFirst, AuthOrder::ContainersFirst] {
            assert_eq!(paths(order, &[home, runtime, ("REGISTRY_AUTH_FILE", "/a.json")]), ["/a.json"]);
        }
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(paths(AuthOrder::DockerFirst, &[]), [format!("/run/containers/{uid}/auth.json")]);
    }

    #[test]
    fn what_is_no_auth_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let check = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            match read(&path) {
                Ok(file) => Ok(file.is_some()),
                Err(ClientError::AuthFile { fault, .. }) => Err(fault),
                Err(error) => panic!("{error}"),
            }
        };
        for good in [&b""[..], b" \n", b"{}", br#"{"auths":null}"#, br#"{"auths":{},"credHelpers":{}}"#] {
            assert_eq!(check(good), Ok(true));
        }
        for (bad, what) in [
            (&b"["[..], "the file"),
            (b"[]", "the file"),
            (b"hunter2", "the file"),
            (br#"{"auths":[]}"#, "auths"),
            (br#"{"credHelpers":"x"}"#, "credHelpers"),
        ] {
            assert_eq!(check(bad), Err(AuthFileFault::NoObject { what }));
        }
        let padded = |length: usize| [b"{}".to_vec(), vec![b' '; length - 2]].concat();
        assert_eq!(check(&padded(MAX_BYTES)), Ok(true));
        assert_eq!(check(&padded(MAX_BYTES + 1)), Err(AuthFileFault::TooLarge { limit: MAX_BYTES }));
        assert!(matches!(read(&dir.path().join("none")), Ok(None)));
        assert!(matches!(read(dir.path()), Err(ClientError::AuthFile { fault: AuthFileFault::Io { .. }, .. })));
    }
}
