//! A `.cert` without its `.key`: the page's own sentence, and not one byte to the registry.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use portcullis_testkit::pki::Authority;

use crate::process::{DEADLINE, Ran, run};
use crate::registry::PORTCULLIS;

/// Pulls from a port where nobody may knock; says what the client said.
fn pull(dir: &Path, prepare: impl FnOnce(&Path)) -> (Ran, bool) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let certs = dir.join("certs.d").join(&host);
    fs::create_dir_all(&certs).unwrap();
    Authority::new("server CA").write_ca(&certs);
    prepare(&certs);
    let mut command = Command::new(PORTCULLIS);
    command
        .args(["pull", &format!("{host}/demo/app:1"), "--to", "oci:out", "--certs-dir", "certs.d"])
        .current_dir(dir)
        .env_clear();
    let ran = run(command, dir, DEADLINE);
    let knocked = match listener.accept() {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    };
    (ran, knocked)
}

#[test]
fn missing_key_prints_the_pages_sentence_and_sends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (ran, knocked) = pull(dir.path(), |certs| {
        let pair = Authority::new("client CA").client("ci-7").write_pair(certs, "client");
        fs::remove_file(pair.key).unwrap();
    });
    ran.exits(1).says(
        "Missing key client.key for client certificate client.cert. CA certificates should use the extension .crt.",
    );
    assert!(!knocked, "the client connected although its pair is incomplete");
    assert!(!dir.path().join("out").exists());
}

/// Docker reads no pair of a directory in which one is broken; neither do we, and all faults are named at once.
#[test]
fn every_fault_of_the_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (ran, knocked) = pull(dir.path(), |certs| {
        let ca = Authority::new("client CA");
        ca.client("good").write_pair(certs, "a-good");
        let one = ca.client("one").write_pair(certs, "b-one");
        let two = ca.client("two").write_pair(certs, "c-two");
        fs::copy(&two.key, &one.key).unwrap();
        fs::remove_file(&two.key).unwrap();
        fs::write(certs.join("garbage.crt"), "<html>not found</html>").unwrap();
    });
    ran.exits(1).says("Missing key c-two.key for client certificate c-two.cert.").says("b-one.key").says("garbage.crt");
    assert!(!knocked);
}

/// The listener does notice: without a fault there is a connection.
#[test]
fn a_complete_pair_does_connect() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let certs = dir.path().join("certs.d").join(&host);
    fs::create_dir_all(&certs).unwrap();
    Authority::new("server CA").write_ca(&certs);
    Authority::new("client CA").client("ci-7").write_pair(&certs, "client");
    // Takes what comes and hangs up at once, as often as the client tries.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let mut command = Command::new(PORTCULLIS);
    command.args(["pull", &format!("{host}/demo/app:1"), "--to", "oci:out", "--certs-dir", "certs.d"]);
    command.current_dir(dir.path()).env_clear();
    run(command, dir.path(), DEADLINE).exits(1).says(&host);
}
