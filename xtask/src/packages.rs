//! The first phase of `cargo xtask test`: the Debian packages that building and testing need.
//!
//! A need is met when its program is there, whatever package it came from: on a machine with Docker's own packages
//! `docker.io` would replace them. For the same reason nothing is ever removed.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::cargo;

/// A Debian package, and the program or file that shows it is not needed any more.
#[derive(Debug, Clone, Copy)]
struct Need {
    package: &'static str,
    witness: &'static str,
}

const fn need(package: &'static str, witness: &'static str) -> Need {
    Need { package, witness }
}

const NEEDS: &[Need] = &[
    // Real peers. Debian 13 splits `docker` from `dockerd`; before, docker-cli is unknown and docker.io has both.
    need("docker.io", "dockerd"),
    need("docker-cli", "docker"),
    need("containerd", "ctr"),
    need("runc", "runc"),
    need("podman", "podman"),
    need("skopeo", "skopeo"),
    need("docker-registry", "docker-registry"),
    need("nginx-light", "nginx"),
    need("curl", "curl"),
    need("openssl", "openssl"),
    // Answers a server's disk calls with errors.
    need("strace", "strace"),
    // A terminal, where one is looked for; the judge of the printed units.
    need("bsdutils", "script"),
    need("systemd", "systemd-analyze"),
    // Their namespaces.
    need("iproute2", "ip"),
    need("util-linux", "nsenter"),
    need("mount", "mount"),
    // The build: aws-lc-sys and ring compile C, without recommended packages gcc comes without the C library's headers.
    need("gcc", "gcc"),
    need("libc6-dev", "/usr/include/stdio.h"),
    need("make", "make"),
    need("perl", "perl"),
    need("pkg-config", "pkg-config"),
    need("ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
    // tidy asks it which files there are.
    need("git", "git"),
];

const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Tells a policy that an interrupted run left behind from the administrator's own.
const POLICY_MARK: &str = "# Written by portcullis's `cargo xtask test` while it installs packages; safe to remove.";

/// As root on a Debian system installs what is missing. Otherwise says what is missing and how to get it.
pub(crate) fn install_missing() -> anyhow::Result<()> {
    let missing = missing(NEEDS);
    if missing.is_empty() {
        println!("all {} programs that the build and the tests need are here", NEEDS.len());
        return Ok(());
    }
    println!("missing: {}", witnesses(&missing));
    if find_program("apt-get").is_none() {
        println!("this is no Debian system: install them by its own means");
        return Ok(());
    }
    if !is_root() {
        println!("  sudo apt-get install --no-install-recommends {}", packages(&missing));
        return Ok(());
    }
    install(&missing)
}

fn install(wanted: &[Need]) -> anyhow::Result<()> {
    println!("installing with apt-get: {} (no service is started)", packages(wanted));
    let _no_services = NoServices::until_dropped(Path::new(POLICY))?;
    if let Err(error) = cargo::run(apt_get().args(["--quiet", "update"])) {
        // One broken source of many is common; whether it matters shows in the next step.
        println!("{error:#}: going on with the lists at hand");
    }
    let (known, unknown): (Vec<Need>, Vec<Need>) = wanted.iter().partition(|need| is_known(need.package));
    if !known.is_empty() {
        let options = ["--quiet", "install", "--yes", "--no-install-recommends", "--no-remove"];
        cargo::run(apt_get().args(options).args(known.iter().map(|need| need.package)))?;
    }
    let unmet = missing(&known);
    if !unmet.is_empty() {
        bail!("installed, and yet not found: {}", witnesses(&unmet));
    }
    let unmet = missing(&unknown);
    if !unmet.is_empty() {
        // The test that wants one of these says so by name, and is the judge of how bad that is.
        println!("not in this system's archive: {} (still missing: {})", packages(&unmet), witnesses(&unmet));
    }
    Ok(())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // A machine just started may be upgrading itself; five minutes is the longest we wait for that.
    command.arg("--option=DPkg::Lock::Timeout=300");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("NEEDRESTART_SUSPEND", "1").stdin(Stdio::null());
    command
}

fn is_known(package: &str) -> bool {
    let mut command = Command::new("apt-cache");
    command.args(["show", "--no-all-versions", package]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn missing(needs: &[Need]) -> Vec<Need> {
    needs.iter().filter(|need| !is_met(need.witness)).copied().collect()
}

fn is_met(witness: &str) -> bool {
    if witness.starts_with('/') { Path::new(witness).exists() } else { find_program(witness).is_some() }
}

/// In `PATH`, and where a Debian user without root does not look.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn packages(needs: &[Need]) -> String {
    needs.iter().map(|need| need.package).collect::<Vec<_>>().join(" ")
}

fn witnesses(needs: &[Need]) -> String {
    needs.iter().map(|need| need.witness).collect::<Vec<_>>().join(", ")
}

/// While it lives, Debian's packages start no service (`policy-rc.d` answers 101, "forbidden").
///
/// A policy of the administrator's own is left as it is.
struct NoServices {
    ours: Option<PathBuf>,
}

impl NoServices {
    fn until_dropped(path: &Path) -> anyhow::Result<NoServices> {
        let created = OpenOptions::new().write(true).create_new(true).mode(0o755).open(path);
        match created {
            Ok(mut file) => {
                let guard = NoServices { ours: Some(path.into()) };
                file.write_all(format!("#!/bin/sh\n{POLICY_MARK}\nexit 101\n").as_bytes())
                    .with_context(|| format!("{} cannot be written", path.display()))?;
                Ok(guard)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let left_behind = fs::read_to_string(path).is_ok_and(|text| text.contains(POLICY_MARK));
                Ok(NoServices { ours: left_behind.then(|| path.into()) })
            }
            Err(error) => Err(error).with_context(|| format!("{} cannot be written", path.display())),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = &self.ours
            && let Err(error) = fs::remove_file(path)
        {
            println!("{} could not be removed ({error}); services will not start until it is", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn scratch(name: &str) -> PathBuf {
        let dir = env::temp_dir().join(format!("portcullis-xtask-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir.join("policy-rc.d")
    }

    #[test]
    fn our_policy_forbids_services_and_goes_away() {
        let path = scratch("ours");
        let guard = NoServices::until_dropped(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o111, 0o111);
        let answer = Command::new(&path).status().unwrap();
        assert_eq!(answer.code(), Some(101));
        drop(guard);
        assert!(!path.exists());
    }

    #[test]
    fn the_administrators_policy_stays() {
        let path = scratch("theirs");
        fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        drop(NoServices::until_dropped(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "#!/bin/sh\nexit 0\n");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_policy_left_by_an_interrupted_run_is_removed_by_the_next() {
        let path = scratch("interrupted");
        std::mem::forget(NoServices::until_dropped(&path).unwrap());
        assert!(path.exists());
        drop(NoServices::until_dropped(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_need_is_met_by_a_program_or_a_file() {
        assert!(is_met("sh"));
        assert!(is_met("/proc/self/status"));
        assert!(!is_met("no-such-program-anywhere"));
        assert_eq!(packages(&missing(&[need("here", "sh"), need("gone", "/no/such/file")])), "gone");
    }
}
