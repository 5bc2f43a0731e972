//! Engines' programs: which are there, and what one says to `--version` where no package database has it.
//!
//! A program is run only on the machine itself, by its absolute path, and only where nobody but root can have put it; with
//! an empty environment, and no longer than [`DEADLINE`]. Nothing below another root is ever run.

use portcullis_certs::Version;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Where programs are installed.
const BIN: [&str; 8] =
    ["usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "bin", "sbin", "opt/bin", "var/lib/rancher/k3s/data"];

/// How long a program may take to say its version.
const DEADLINE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// More than one line of a version.
const LIMIT: u64 = 4096;

/// Those of these names that are installed.
pub(super) fn installed(root: &Path, names: &[&str]) -> Vec<PathBuf> {
    let all = BIN.iter().flat_map(|bin| names.iter().map(move |name| root.join(bin).join(name)));
    all.filter(|path| path.is_file()).collect()
}

/// What the first of them says.
pub(super) fn version(root: &Path, programs: &[PathBuf]) -> Option<Version> {
    if root != Path::new("/") {
        return None;
    }
    let program = fs::canonicalize(programs.first()?).ok()?;
    if program.ancestors().all(is_roots_alone) { Version::find_in(&ask(&program, DEADLINE)?) } else { None }
}

fn is_roots_alone(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.uid() == 0 && metadata.mode() & 0o022 == 0)
}

fn ask(program: &Path, deadline: Duration) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version").env_clear().current_dir("/").stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().ok()?;
    let stdout = child.stdout.take()?;
    // It may write for ever: what is read is bounded, and its end ends the writing.
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        stdout.take(LIMIT).read_to_end(&mut text).ok().map(|_| text)
    });
    let ended = ends(&mut child, Instant::now() + deadline);
    if !ended {
        return None;
    }
    let text = reader.join().ok().flatten()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Whether it ends well in time; afterwards it is gone.
fn ends(child: &mut Child, deadline: Instant) -> bool {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
            Ok(None) | Err(_) => {
                // It ends by itself in this very moment, or by the signal.
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("engine");
        // By a process of its own: what another test forks meanwhile would hold our file open for writing.
        let mut command = Command::new("sh");
        command.args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", text]).arg(&path);
        assert!(command.status().unwrap().success());
        path
    }

    #[test]
    fn a_program_of_roots_is_asked() {
        let shell = installed(Path::new("/"), &["bash"]);
        let found = version(Path::new("/"), &shell);
        assert_eq!(found.is_some(), shell.first().is_some_and(|path| path.ancestors().all(is_roots_alone)));
    }

    /// Everybody may write where it lies, or it lies below another root.
    #[test]
    fn a_program_that_somebody_else_may_have_put_there_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let ran = dir.path().join("ran");
        let program = script(dir.path(), &format!("touch {}; echo engine 1.2.3", ran.display()));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(version(Path::new("/"), std::slice::from_ref(&program)), None);
        assert_eq!(version(dir.path(), &[program]), None);
        assert_eq!(version(dir.path(), &installed(Path::new("/"), &["bash"])), None);
        assert!(!ran.exists());
    }

    #[test]
    fn its_words_are_bounded_in_time_and_length() {
        let dir = tempfile::tempdir().unwrap();
        let said = ask(&script(dir.path(), "echo engine version 1.2.3, build x"), Duration::from_mins(1)).unwrap();
        assert_eq!(Version::find_in(&said), Some(Version::new(1, 2, 3)));
        assert_eq!(ask(&script(dir.path(), "exec sleep 600"), Duration::from_millis(50)), None);
        assert_eq!(ask(&script(dir.path(), "echo 1.2.3; exit 1"), Duration::from_mins(1)), None);
        let long = ask(&script(dir.path(), "head -c 100000 /dev/zero"), Duration::from_mins(1));
        assert!(long.is_none_or(|text| text.len() as u64 <= LIMIT));
    }
}
