//! The systemd units that `up` prints as root: systemd takes them, and what they start works as the user that they name.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{CURL, curl};
use crate::process::{DEADLINE, Running, eventually, read_lossy};
use crate::registry::{PORTCULLIS, Registry};

const ANALYZE: Need = Need::Program("systemd-analyze");
const SETPRIV: Need = Need::Program("setpriv");
const MOUNT: Need = Need::Program("mount");
/// `nobody`, whom every system has: making a user would be more than a test may do.
const USER: &str = "65534";

/// The files that the printed commands would write, below `dir`.
fn write_units(printed: &str, dir: &Path) -> Vec<PathBuf> {
    let mut written = Vec::new();
    for block in printed.split("cat > /etc/systemd/system/").skip(1) {
        let (name, rest) = block.split_once(" <<'EOF'\n").expect("a here-document");
        let (text, _) = rest.split_once("EOF\n").expect("its end");
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        written.push(path);
    }
    written
}

/// The words of `ExecStart`; no path here has a space.
fn exec_start(unit: &Path) -> Vec<String> {
    let text = fs::read_to_string(unit).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart");
    line.split(' ').map(str::to_owned).collect()
}

/// What `User=`, `NoNewPrivileges=` and the empty `CapabilityBoundingSet=` come to, with the CAs' directories out of sight.
fn as_the_service(machine: &Machine, hidden: &[PathBuf], words: &[String]) -> std::process::Command {
    let hide: String =
        hidden.iter().map(|dir| format!("mount -t tmpfs -o mode=000 tmpfs {}; ", dir.display())).collect();
    let drop = format!(
        "{hide}exec setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs --bounding-set -all --inh-caps -all \"$@\""
    );
    let mut command = machine.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-euc", &drop, "sh"]).args(words).stdin(Stdio::null());
    command
}

#[test]
fn systemd_takes_them_and_they_start_without_rights() {
    skip_unless!(IP, NSENTER, CURL, ANALYZE, SETPRIV, MOUNT, Need::Namespaces);
    let machine = Machine::new();
    // In the machine's own mount namespace, where the units expect the program.
    let bin = machine.subdir("bin");
    fs::copy(PORTCULLIS, bin.join("portcullis")).unwrap();
    fs::set_permissions(bin.join("portcullis"), fs::Permissions::from_mode(0o755)).unwrap();
    machine.run("mount", &["--bind", &bin.display().to_string(), "/usr/local/bin"]).ok();
    let mut registry = Registry::up(&machine);
    let printed = registry.printed();
    assert_eq!(registry.stop().code(), Some(0));

    let units = machine.subdir("units");
    let written = write_units(&printed, &units);
    assert_eq!(written.len(), 3, "{printed}");
    let paths: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    let words: Vec<&str> = ["verify", "--man=no"].into_iter().chain(paths.iter().map(String::as_str)).collect();
    let verified = machine.run("systemd-analyze", &words).ok();
    // It also says what is wrong with other units of this system, and passes over what it does not know.
    let about_ours: Vec<&str> = verified.stderr.lines().filter(|line| line.contains("portcullis")).collect();
    assert!(about_ours.is_empty(), "{verified}");
    let unknown = fs::read_to_string(&written[0]).unwrap().replace("[Service]", "[Service]\nProtectEverything=yes");
    fs::write(units.join("wrong.service"), unknown).unwrap();
    let wrong =
        machine.run("systemd-analyze", &["verify", "--man=no", &units.join("wrong.service").display().to_string()]);
    assert!(wrong.stderr.contains("ProtectEverything"), "the judge says nothing: {wrong}");

    let home = registry.home().to_owned();
    machine.run("chown", &["-R", &format!("{USER}:{USER}"), &home.display().to_string()]).ok();
    let cas = [home.join("pki/server-ca"), home.join("pki/client-ca")];
    let service = as_the_service(&machine, &cas, &exec_start(&units.join("portcullis.service")));
    let mut service = Running::start(service, &machine.logs());
    assert!(eventually(DEADLINE, || service.has_ended() || machine.listens_on(5443)));
    assert!(!service.has_ended(), "{}", service.said());
    let status = read_lossy(&PathBuf::from(format!("/proc/{}/status", service.pid())));
    for line in [format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}"), "CapEff:\t0000000000000000".to_owned()] {
        assert!(status.contains(&line), "{line}: {status}");
    }
    let admin = PairFiles::named(&home.join("pki/clients/admin"), "client");
    let post = ["--request", "POST", "--data", ""];
    assert_eq!(curl(&machine, &registry, &admin, &post, "/v2/team/app/blobs/uploads/").status, 202);

    let maintain = as_the_service(&machine, &[], &exec_start(&units.join("portcullis-maintain.service")));
    Running::start(maintain, &machine.logs()).wait(DEADLINE).ok();
    service.signal(rustix::process::Signal::TERM);
    service.wait(DEADLINE).ok();
}
