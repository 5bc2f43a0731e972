//! The systemd units that serve a home without root's rights, as commands to paste. Shown, never done.
//!
//! `serve` runs as a user of its own and is not shown the CAs' keys; a timer runs `maintain` beside it, which is. Both are
//! the same user, so this keeps a server that reads a wrong file from them, not code that has taken the server over: it
//! owns the files and sees what `maintain` sees through `/proc/PID/root`. That takes CA keys on another machine, see
//! docs/security.md.

use std::path::Path;

use portcullis_certs::ShellCommand;
use portcullis_server::Config;

use crate::home::{Home, program};

const USER: &str = "portcullis";
const BINARY: &str = "/usr/local/bin/portcullis";
const UNITS: &str = "/etc/systemd/system";

/// What both services are denied. The home and the data are all that they can write.
const HARDENING: &str = "\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
UMask=0077
";

/// The commands that make a service of this home.
pub(crate) fn commands(home: &Home, config: &Config) -> Vec<String> {
    let root = home.root();
    let mut lines = Vec::new();
    if program() != USER {
        lines.push(shell(
            &["install", "-m", "0755"],
            &[&std::env::current_exe().unwrap_or_default(), Path::new(BINARY)],
        ));
    }
    lines.push(shell(&["useradd", "--system", "--shell", "/usr/sbin/nologin", "--home-dir"], &[root, Path::new(USER)]));
    lines.push(shell(&["chown", "-R", "portcullis:"], &[root, &config.data]));
    for (name, text) in [
        ("portcullis.service", service(home, config)),
        ("portcullis-maintain.service", maintain(home, config)),
        ("portcullis-maintain.timer", TIMER.to_owned()),
    ] {
        lines.push(format!("cat > {UNITS}/{name} <<'EOF'\n{text}EOF"));
    }
    lines.push("systemctl daemon-reload".to_owned());
    lines.push("systemctl enable --now portcullis.service portcullis-maintain.timer".to_owned());
    lines
}

fn service(home: &Home, config: &Config) -> String {
    let low_port = if config.listen.port() < 1024 { "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" } else { "" };
    let bounds =
        if low_port.is_empty() { "CapabilityBoundingSet=\n" } else { "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n" };
    format!(
        "[Unit]\nDescription=Portcullis, a container registry over mutual TLS\nWants=network-online.target\n\
         After=network-online.target\n\n[Service]\nUser={USER}\nExecStart={BINARY} serve --config {}\n\
         ExecReload=/bin/kill -HUP $MAINPID\nRestart=on-failure\nLimitNOFILE=65536\n{}{bounds}{low_port}\
         InaccessiblePaths=-{} -{}\n{HARDENING}\n[Install]\nWantedBy=multi-user.target\n",
        quoted(home.config_file()),
        writable(home, config),
        quoted(&home.server_ca()),
        quoted(&home.client_ca()),
    )
}

fn maintain(home: &Home, config: &Config) -> String {
    format!(
        "[Unit]\nDescription=Renews the certificate and the revocation list of Portcullis\n\n[Service]\nType=oneshot\n\
         User={USER}\nExecStart={BINARY} maintain --home {}\n{}CapabilityBoundingSet=\n{HARDENING}",
        quoted(home.root()),
        writable(home, config),
    )
}

const TIMER: &str = "\
[Unit]
Description=Renews the certificate and the revocation list of Portcullis, hourly

[Timer]
OnCalendar=hourly
RandomizedDelaySec=10min
Persistent=yes

[Install]
WantedBy=timers.target
";

fn writable(home: &Home, config: &Config) -> String {
    format!("ReadWritePaths={} {}\n", quoted(home.root()), quoted(&config.data))
}

fn shell(words: &[&str], paths: &[&Path]) -> String {
    let words = words.iter().map(std::ffi::OsString::from);
    ShellCommand::new(words.chain(paths.iter().copied().map(Into::into))).to_string()
}

/// As systemd reads it: `%` and `$` begin something there, and white space ends a word (systemd.syntax(7)).
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    if text.contains(char::is_whitespace) || text.contains('\\') { format!("\"{text}\"") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(listen: &str) -> String {
        let home = Home::locate(Some(Path::new("/srv/my registry"))).unwrap();
        let config = Config { listen: listen.parse().unwrap(), ..Config::defaults(home.root()) };
        commands(&home, &config).join("\n")
    }

    #[test]
    fn the_service_is_not_shown_the_keys_of_cas() {
        let text = units("[::]:5443");
        for line in [
            "chown -R portcullis: '/srv/my registry' '/srv/my registry/data'",
            "ExecStart=/usr/local/bin/portcullis serve --config \"/srv/my registry/config.toml\"",
            "ExecStart=/usr/local/bin/portcullis maintain --home \"/srv/my registry\"",
            "InaccessiblePaths=-\"/srv/my registry/pki/server-ca\" -\"/srv/my registry/pki/client-ca\"",
            "CapabilityBoundingSet=",
            "User=portcullis",
            "OnCalendar=hourly",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\n{text}");
        }
        // Only the timer's service can: it is the one that signs.
        assert_eq!(text.matches("InaccessiblePaths").count(), 1);
        assert!(!text.contains("CAP_NET_BIND_SERVICE"));
    }

    #[test]
    fn a_low_port_needs_its_capability_and_no_other() {
        let text = units("[::]:443");
        assert!(text.contains("AmbientCapabilities=CAP_NET_BIND_SERVICE\n"));
        assert!(text.contains("CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n"));
    }

    #[test]
    fn what_systemd_would_expand_is_doubled() {
        assert_eq!(quoted(Path::new("/srv/100%/$x")), "/srv/100%%/$$x");
    }
}
