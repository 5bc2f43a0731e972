//! Whose programs are let in.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;

use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

use super::{AUTHORITY, Gateway, with_certs};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::CURL;
use crate::registry::PORTCULLIS;

const SETPRIV: Need = Need::Program("setpriv");
const ANN: u32 = 4711;
const BOB: u32 = 4712;

/// The files of `dir`, for this user.
fn give(dir: &Path, user: u32) {
    for path in [dir.to_owned()].into_iter().chain(fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path())) {
        std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
    }
}

#[test]
fn another_user_is_refused() {
    skip_unless!(IP, NSENTER, CURL, SETPRIV, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    give(&machine.docker_certs(&registry.host()), ANN);
    let gateway = Gateway::start_as(&machine, ANN, &registry.host(), &[]);
    assert_eq!(gateway.curl_as(ANN, &[], "/v2/").status, 200);
    assert_eq!(gateway.curl_as(0, &[], "/v2/").status, 200, "root could be anybody");
    for user in [BOB, 65534] {
        let refused = gateway.curl_as(user, &[], "/v2/");
        assert_eq!((refused.status, refused.error_code().as_str()), (403, "DENIED"));
        assert!(String::from_utf8_lossy(&refused.body).contains(&format!("not for user {user}")));
        gateway.log_line(&["WARN", &format!("uid={user}"), "connection refused"]);
    }
    drop(gateway);
    let open = Gateway::start_as(&machine, ANN, &registry.host(), &["--any-user"]);
    assert_eq!(open.curl_as(BOB, &[], "/v2/").status, 200);
}

/// Older kernels show whoever sends its request and leaves at once as root.
#[test]
fn who_leaves_at_once_gets_nothing() {
    skip_unless!(IP, NSENTER, CURL, SETPRIV, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    let gateway = Gateway::start(&machine, &registry.host(), &["--push"]);
    let request =
        format!("POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\nHost: {AUTHORITY}\r\nContent-Length: 0\r\n\r\n");
    let hit_and_run = || {
        machine.enter_network();
        let bob = Uid::from_raw(BOB);
        set_thread_res_uid(bob, bob, bob).unwrap();
        for _ in 0..300 {
            let mut stream = TcpStream::connect(AUTHORITY).unwrap();
            drop(stream.write_all(request.as_bytes()));
        }
    };
    // The thread stays who it has become.
    thread::scope(|scope| scope.spawn(hit_and_run).join().unwrap());
    assert_eq!(gateway.curl(&[], "/v2/").status, 200, "all before it were looked at");
    let requests = gateway.log().lines().filter(|line| line.contains("method=POST")).count();
    assert_eq!(requests, 0, "{}", gateway.log());
    assert!(!registry.log().contains("method=POST"));
}

#[test]
fn a_socket_is_its_users_alone() {
    skip_unless!(IP, NSENTER, CURL, SETPRIV, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    let path = machine.dir().join("gateway.sock");
    let place = format!("unix:{}", path.display());
    fs::set_permissions(machine.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let gateway = Gateway::start(&machine, &registry.host(), &["--listen", &place]);
    assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let socket = path.display().to_string();
    let curl = ["curl", "--silent", "--fail", "--unix-socket", &socket, "http://localhost/v2/"];
    assert_eq!(machine.run("env", &curl).ok().stdout, "{}");
    let bob = BOB.to_string();
    let as_bob = ["--reuid", &bob, "--regid", &bob, "--clear-groups"];
    machine.run("setpriv", &[&as_bob[..], &curl].concat()).fails();
    // Even where its mode was changed.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    machine.run("setpriv", &[&as_bob[..], &curl].concat()).fails();
    gateway.log_line(&["WARN", "unix", "uid=4712", "connection refused"]);
    machine.run(PORTCULLIS, &["gateway", &registry.host(), "--listen", &place, "--any-user"]).exits(2);
}

#[test]
fn beyond_loopback_only_on_ones_word() {
    skip_unless!(IP, NSENTER, CURL, Need::Namespaces);
    let machine = Machine::new();
    let (registry, _) = with_certs(&machine);
    for listen in ["10.77.0.1:5000", "0.0.0.0:5000", "[::]:5000"] {
        let refused = machine.run(PORTCULLIS, &["gateway", &registry.host(), "--listen", listen]).exits(2);
        refused.says("--i-know").says("127.0.0.1:5000");
    }
    let gateway = Gateway::start(&machine, &registry.host(), &["--listen", "0.0.0.0:5000", "--i-know"]);
    assert!(gateway.log().contains("warning: whoever reaches 0.0.0.0:5000"), "{}", gateway.log());
    assert_eq!(gateway.curl(&[], "/v2/").status, 200);
    let other = machine.run("curl", &["--silent", "http://10.77.0.1:5000/v2/"]).ok();
    assert_eq!(other.stdout, "{}", "the address that was connected to is the one to name");
    assert_eq!(gateway.curl(&["--header", "Host: 10.77.0.1:5000"], "/v2/").status, 403);
}
