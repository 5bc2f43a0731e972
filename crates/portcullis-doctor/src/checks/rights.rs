//! Whose rights a command needs. Pure.

use crate::diagnosis::Diagnosis;
use crate::facts::Facts;
use portcullis_certs::{Fix, ShellCommand};
use std::ffi::OsString;
use std::path::Path;

/// What only shows something, or asks another machine.
const HARMLESS: [&str; 10] =
    ["ls", "find", "date", "getent", "curl", "hostname", "unset", "export", "portcullis", "docker"];

/// Commands that touch what is not the caller's get `sudo`.
pub(super) fn ask_for(findings: &mut [Diagnosis], facts: &Facts) {
    let environment = &facts.machine.environment;
    if environment.uid == 0 {
        return;
    }
    let home = environment.home.as_deref().map(|home| facts.machine.root.join(home.strip_prefix("/").unwrap_or(home)));
    for finding in findings {
        match &mut finding.fix {
            Fix::Run(command) | Fix::Say { command, .. } if needs_root(command, home.as_deref()) => {
                *command = command.clone().with_sudo();
            }
            Fix::Run(_) | Fix::Say { .. } | Fix::NothingToDo => {}
        }
    }
}

fn needs_root(command: &ShellCommand, home: Option<&Path>) -> bool {
    command.steps().any(|argv| {
        let Some((program, words)) = argv.split_first() else { return false };
        if program == "systemctl" || program == "dockerd" {
            return true;
        }
        let is_foreign = |word: &OsString| {
            let path = Path::new(word);
            path.is_absolute() && !home.is_some_and(|home| path.starts_with(home))
        };
        program != "sudo" && !HARMLESS.iter().any(|harmless| program == harmless) && words.iter().any(is_foreign)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_rights() {
        let home = Path::new("/home/a");
        for (argv, expected) in [
            (&["mv", "-i", "/etc/docker/x", "/etc/docker/y"][..], true),
            (&["mv", "-i", "/home/a/x", "/home/a/y"], false),
            (&["vi", "+3", "/etc/docker/daemon.json"], true),
            (&["vi", "/home/a/.config/x"], false),
            (&["ls", "-l", "/etc/docker"], false),
            (&["portcullis", "cert", "show", "/etc/docker/x.crt"], false),
            (&["systemctl", "reload", "docker"], true),
            (&["sudo", "portcullis", "doctor", "r.test"], false),
            (&["openssl", "s_client", "-connect", "r.test:443"], false),
        ] {
            assert_eq!(needs_root(&ShellCommand::new(argv), Some(home)), expected, "{argv:?}");
        }
        assert!(needs_root(&ShellCommand::new(["mv", "/home/a/x", "y"]), None));
    }
}
