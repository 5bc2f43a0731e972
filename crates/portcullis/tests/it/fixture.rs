//! The fixture keeps its own promises: nothing of a test is left on the machine that runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{ADDRESS, IP, Machine, NSENTER, remove_leftovers};
use crate::process::{DEADLINE, eventually};

fn is_running(pid: &str) -> bool {
    Path::new("/proc").join(pid).join("exe").read_link().is_ok()
}

/// Even a program that left its process group and session, as dockerd's containerd does.
#[test]
fn a_machine_takes_everything_with_it() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let dir = machine.dir().to_owned();
    let started = machine.run("sh", &["-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"]).ok();
    let pid = started.stdout.trim().to_owned();
    assert!(is_running(&pid));
    drop(machine);
    assert!(!dir.exists());
    assert!(!Path::new("/run/netns").join(dir.file_name().unwrap()).exists());
    assert!(eventually(DEADLINE, || !is_running(&pid)));
}

/// `/etc` is the test's own inside, and untouched outside.
#[test]
fn a_machine_has_its_own_etc() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let marked = "mkdir -p /etc/docker/certs.d/marked /etc/containers/certs.d/marked && cat /etc/hosts && ip addr";
    machine.run("sh", &["-c", marked]).ok().says("registry.test").says(ADDRESS);
    assert!(machine.docker_certs("marked").is_dir() && machine.podman_certs("marked").is_dir());
    assert!(!Path::new("/etc/docker/certs.d/marked").exists());
    assert!(!fs::read_to_string("/etc/hosts").unwrap().contains("registry.test"));
}

#[test]
fn what_a_crashed_run_left_is_removed() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let mut dead = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
    let name = format!("pc-{}-0", dead.id());
    dead.wait().unwrap();
    let dir = std::env::temp_dir().join(&name);
    fs::create_dir(&dir).unwrap();
    let path = Path::new("/run/netns").join(&name);
    assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
    let mut left = Command::new("nsenter");
    let mut left = left.arg(format!("--net={}", path.display())).args(["sleep", "1000"]).spawn().unwrap();
    let inside = || !Command::new("ip").args(["netns", "pids", &name]).output().unwrap().stdout.is_empty();
    assert!(eventually(DEADLINE, inside));
    // The child of this process would stay a zombie in the namespace until it is waited for.
    std::thread::scope(|scope| {
        scope.spawn(remove_leftovers);
        left.wait().unwrap();
    });
    assert!(!dir.exists() && !path.exists());
}
