//! A start with anything broken is none: nothing listens, and every problem is told with its place.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use portcullis_server::{Problem, Server, ServerError};
use portcullis_testkit::pki::{Authority, CrlSpec, LeafSpec, write_file};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::{Home, within};

fn chmod(home: &Home, name: &str, mode: u32) {
    fs::set_permissions(home.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

fn problems(home: &Home) -> Vec<Problem> {
    match Server::open(home.config()) {
        Err(ServerError::Trust { problems }) => problems,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it opened"),
    }
}

/// One broken thing gives one problem with this file, this line and these words.
fn check(file: &str, line: Option<usize>, words: &[&str], breaks: impl FnOnce(&Home)) {
    let home = Home::new();
    breaks(&home);
    let problems = problems(&home);
    let [problem] = problems.as_slice() else { panic!("not one problem: {problems:#?}") };
    assert_eq!((problem.path.as_path(), problem.line), (home.path(file).as_path(), line), "{problem}");
    let text = problem.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert!(!home.path("data").exists(), "the data was touched");
}

#[test]
fn the_policy() {
    check("policy.toml", None, &["cannot be read"], |home| fs::remove_file(home.path("policy.toml")).unwrap());
    check("policy.toml", None, &["nobody"], |home| home.write_policy("# nothing\n"));
    check("policy.toml", None, &["cannot be read", "UTF-8"], |home| {
        write_file(&home.path("policy.toml"), b"[[rule]]\nca = \"\xff\"\n", 0o644);
    });
    check("policy.toml", None, &["cannot be read"], |home| {
        fs::remove_file(home.path("policy.toml")).unwrap();
        fs::create_dir(home.path("policy.toml")).unwrap();
    });
    check("policy.toml", Some(3), &["pul"], |home| {
        home.write_policy("[[rule]]\nca = \"*\"\nallow = [\"pul\"]\nrepositories = [\"**\"]\n");
    });
    check("policy.toml", Some(2), &["unknown key `rule.urn`"], |home| {
        home.write_policy("[[rule]]\nurn = \"x\"\nca = \"*\"\nallow = [\"pull\"]\nrepositories = [\"**\"]\n");
    });
    check("policy.toml", None, &["chmod"], |home| chmod(home, "policy.toml", 0o666));
    check("policy.toml", None, &["at most"], |home| home.write_policy(&"#".repeat((1 << 20) + 1)));
}

#[test]
fn the_servers_pair() {
    for mode in [0o640, 0o604, 0o660] {
        check("pki/server/server.key", None, &["chmod"], |home| chmod(home, "pki/server/server.key", mode));
    }
    check("pki/server/server.key", None, &[], |home| fs::remove_file(home.path("pki/server/server.key")).unwrap());
    check("pki/server/server.crt", None, &[], |home| fs::remove_file(home.path("pki/server/server.crt")).unwrap());
    check("pki/server/server.key", None, &["registry.test"], |home| {
        let other = home.server_ca.server(&["other.test"], &[]);
        write_file(&home.path("pki/server/server.key"), other.key_pem().as_bytes(), 0o600);
    });
    check("pki/server/server.crt", None, &[], |home| {
        write_file(&home.path("pki/server/server.crt"), b"garbage", 0o644);
    });
}

#[test]
fn the_trust_directory() {
    check("trust/cas/more.crt", None, &[], |home| write_file(&home.path("trust/cas/more.crt"), b"garbage", 0o644));
    check("trust/cas/leaf.crt", None, &["is no CA", "pin"], |home| {
        home.admin.write_crt(&home.path("trust/cas"), "leaf");
    });
    check("trust/cas/weak.crt", None, &["keyCertSign"], |home| {
        Authority::without_key_cert_sign("weak").pair.write_crt(&home.path("trust/cas"), "weak");
    });
    check("trust/pins/bob.crt", None, &["alice.crt"], |home| home.add_pin("bob", &home.alice));
    check("trust/crls/clients.crl", None, &["PEM"], |home| {
        write_file(&home.path("trust/crls/clients.crl"), b"x", 0o644);
    });
    check("trust/deny", Some(2), &["who is this"], |home| {
        write_file(&home.path("trust/deny"), b"# a comment\nwho is this\n", 0o644);
    });
    check("trust/crls/other.crl", Some(1), &["does not count", "not signed by the key"], |home| {
        let list = Authority::new("client CA").crl(&CrlSpec::new(1, &[]));
        write_file(&home.path("trust/crls/other.crl"), list.as_bytes(), 0o644);
    });
    check("policy.toml", Some(6), &["`ca.clients.crl`", "if-present"], |home| {
        home.write_policy(
            "[[rule]]\nca = \"*\"\nallow = [\"pull\"]\nrepositories = [\"**\"]\n[ca.clients]\ncrl = \"needed\"\n",
        );
    });
    for directory in ["trust", "trust/cas", "trust/pins"] {
        for mode in [0o775, 0o757] {
            check(directory, None, &["chmod"], |home| chmod(home, directory, mode));
        }
    }
    check("trust", None, &[], |home| fs::remove_dir_all(home.path("trust")).unwrap());
}

/// As the kubelet mounts a Secret: a directory of root's with the sticky bit, and links through `..data`.
#[test]
fn a_kubernetes_volume() {
    if !rustix::process::geteuid().is_root() {
        check("trust/cas", None, &["chmod"], |home| chmod(home, "trust/cas", 0o1777));
        return;
    }
    let home = Home::new();
    let cas = home.path("trust/cas");
    fs::create_dir(cas.join("..2026")).unwrap();
    fs::rename(cas.join("clients.crt"), cas.join("..2026/clients.crt")).unwrap();
    std::os::unix::fs::symlink("..2026", cas.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/clients.crt", cas.join("clients.crt")).unwrap();
    for directory in ["trust", "trust/cas", "trust/pins"] {
        chmod(&home, directory, 0o1777);
    }
    Server::check(&home.config()).unwrap();
    // Others can add something there; it does not count, whatever it leads to.
    let link = cas.join("more.crt");
    std::os::unix::fs::symlink(home.path("trust/pins/alice.crt"), &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(4711), None).unwrap();
    assert!(problems(&home).iter().any(|problem| problem.path == link && problem.message.contains("4711")));
    fs::remove_file(&link).unwrap();
    Authority::new("theirs").pair.write_crt(&cas, "more");
    std::os::unix::fs::lchown(&link, Some(4711), None).unwrap();
    assert!(problems(&home).iter().any(|problem| problem.path == link && problem.message.contains("4711")));
    fs::remove_file(&link).unwrap();
    Server::check(&home.config()).unwrap();
}

/// A file that others may change decides on trust as much as its directory does.
#[test]
fn files_that_others_may_change() {
    for file in ["trust/cas/clients.crt", "trust/pins/alice.crt", "pki/server/server.crt"] {
        check(file, None, &["chmod"], |home| chmod(home, file, 0o666));
    }
    check("trust/deny", None, &["chmod"], |home| write_file(&home.path("trust/deny"), b"", 0o666));
}

#[test]
fn everything_at_once() {
    let home = Home::new();
    home.write_policy("[[rule]]\nca = 5\n");
    chmod(&home, "pki/server/server.key", 0o644);
    chmod(&home, "trust/pins", 0o777);
    write_file(&home.path("trust/cas/more.crt"), b"garbage", 0o644);
    write_file(&home.path("trust/deny"), b"x\ny\n", 0o644);
    write_file(&home.path("trust/crls/a.crl"), b"x", 0o644);
    let problems = problems(&home);
    for file in ["policy.toml", "server.key", "pins", "more.crt", "deny", "a.crl"] {
        assert!(problems.iter().any(|problem| problem.path.ends_with(file)), "{file} in {problems:#?}");
    }
    let Err(error) = Server::check(&home.config()) else { panic!("the check finds nothing") };
    let text = error.to_string();
    assert!(problems.iter().all(|problem| text.contains(&problem.to_string())), "{text}");
}

#[tokio::test]
async fn nothing_listens() {
    let home = Home::new();
    fs::remove_file(home.path("policy.toml")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let running = portcullis_server::run(listener, home.config(), std::future::pending());
    assert!(matches!(within("a refused start", running).await, Err(ServerError::Trust { .. })));
    assert!(TcpStream::connect(address).await.is_err());
}

/// Expiry leaves out that one CA or pin and never keeps the others' clients out.
#[tokio::test]
async fn what_has_expired_is_left_out() {
    let home = Home::new();
    let old = Authority::expired("old CA");
    old.pair.write_crt(&home.path("trust/cas"), "old");
    let old_pin = home.client_ca.issue(&LeafSpec::client("old pin").expired());
    home.add_pin("old", &old_pin);
    let site = home.serve().await;
    site.admin().http1().await.get("/v2/").await.expect(200);
    assert!(site.client(&old.client("one")).refusal().await.contains("UnknownCA"));
    assert!(site.client(&old_pin).refusal().await.contains("CertificateExpired"));
}

#[tokio::test]
async fn a_data_directory_in_use() {
    let site = Home::new().serve().await;
    let mut config = site.home.config();
    config.lock_wait = std::time::Duration::from_millis(100);
    let error = tokio::task::spawn_blocking(move || Server::open(config)).await.unwrap().expect_err("opened twice");
    assert!(matches!(error, ServerError::Store(_)), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
}

#[tokio::test]
async fn an_address_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let home = Home { top: format!("probe = \"{address}\"\nadmin_socket = \"off\"\n"), ..Home::new() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = Server::open(home.config()).unwrap().run(listener, std::future::pending()).await.expect_err("taken");
    assert!(error.to_string().contains(&address.to_string()) && error.to_string().contains("probe"), "{error}");
}

/// A value that would make the running server panic, or refuse everybody, is a problem of the file.
#[test]
fn limits_that_cannot_be_meant() {
    for limits in [
        "handshakes = 9223372036854775807",
        "handshakes = 0",
        "idle_timeout = \"18446744073709551615s\"",
        "drain_timeout = \"18446744073709551615s\"",
        "body_timeout = \"0s\"",
        "handshake_timeout = \"0ms\"",
        "header_timeout = \"0s\"",
        "idle_timeout = \"0s\"",
    ] {
        let home = Home::with_limits(limits);
        let found = home.parse_config().expect_err(limits);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].line, Some(7), "{limits}: {found:?}");
    }
    for limits in ["handshakes = 1_000", "handshakes = 0x10", "drain_timeout = \"0s\"", "idle_timeout = \"24h\""] {
        Home::with_limits(limits).parse_config().unwrap_or_else(|found| panic!("{limits}: {found:?}"));
    }
}
