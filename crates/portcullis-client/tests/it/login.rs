//! Keeping and forgetting credentials: what is in the files stays, and helpers are asked.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use portcullis_client::{
    AuthFiles, Client, ClientError, ClientOptions, Credentials, HelperFault, Kept, Secret, forget, keep,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::site::{Site, options};
use crate::stub::{reply, with};

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn secret() -> Secret {
    Secret::new("pass".to_owned())
}

#[tokio::test]
async fn the_rest_of_the_file_stays() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("new/config.json");
    let files = AuthFiles::named(&path);
    let host = "r.test:5000".parse().unwrap();
    assert_eq!(keep(&files, &host, "user", &secret()).await.unwrap(), Kept::File(path.clone()));
    assert_eq!(read(&path), json!({"auths": {"r.test:5000": {"auth": "dXNlcjpwYXNz"}}}));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);

    let before = json!({"psFormat": "x", "auths": {"s.test": {"auth": "YTpi", "email": "e"}}, "HttpHeaders": {"A": 1}});
    fs::write(&path, before.to_string()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    keep(&files, &host, "user", &secret()).await.unwrap();
    let mut after = before.clone();
    after["auths"]["r.test:5000"] = json!({"auth": "dXNlcjpwYXNz"});
    assert_eq!(read(&path), after);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "there is a password in it now");

    assert_eq!(forget(&files, &host).await.unwrap(), [Kept::File(path.clone())]);
    assert_eq!(read(&path), before);
    assert_eq!(forget(&files, &host).await.unwrap(), []);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
}

#[tokio::test]
async fn a_link_stays_one() {
    let dir = TempDir::new().unwrap();
    let (target, link) = (dir.path().join("dotfiles.json"), dir.path().join("config.json"));
    fs::write(&target, "{}").unwrap();
    symlink(&target, &link).unwrap();
    keep(&AuthFiles::named(&link), &"r.test".parse().unwrap(), "user", &secret()).await.unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(read(&target)["auths"]["r.test"].is_object());
}

#[tokio::test]
async fn a_file_that_is_none_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, "{\"auths\": [").unwrap();
    let error = keep(&AuthFiles::named(&path), &"r.test".parse().unwrap(), "user", &secret()).await.unwrap_err();
    assert!(matches!(&error, ClientError::AuthFile { .. }), "{error}");
    assert!(!format!("{error:?}").contains("pass"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"auths\": [");
}

/// A helper that keeps what it is given in a file of its own; `PATH` belongs to the whole process, so each case runs this
/// test program again.
struct Helped {
    dir: TempDir,
    site: Site,
}

impl Helped {
    async fn new(script: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let program = dir.path().join("docker-credential-mine");
        fs::write(&program, script.replace("STORE", &dir.path().join("store").display().to_string())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let site = Site::good().await;
        let config = json!({"auths": {}, "credHelpers": {site.host.as_str(): "mine"}});
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        site.stub.rule(|seen| {
            let good = seen.authorization.as_deref() == Some("Basic dXNlcjpwYXNz");
            (!good).then(|| with(reply(401, ""), "www-authenticate", "Basic realm=\"x\""))
        });
        Self { dir, site }
    }

    async fn run(&self, doing: &str) -> String {
        let path = std::env::join_paths(
            std::iter::once(self.dir.path().to_owned())
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "login::in_a_child", "--ignored", "--nocapture"])
            .env("PATH", path.unwrap())
            .env("PORTCULLIS_TEST_DOING", doing)
            .env("PORTCULLIS_TEST_FILE", self.dir.path().join("config.json"))
            .env("PORTCULLIS_TEST_HOST", self.site.host.as_str())
            .env("PORTCULLIS_TEST_ROOT", self.site.dir.path().join("certs.d"))
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

const KEEPER: &str = "#!/bin/sh
case $1 in
  store) cat > STORE ;;
  get) cat >/dev/null; if [ -e STORE ]; then cat STORE; else echo credentials not found in native keychain; exit 1; fi ;;
  erase) cat >/dev/null; rm STORE ;;
esac
";

#[tokio::test]
async fn a_helper_keeps_and_gives() {
    let helped = Helped::new(KEEPER).await;
    assert!(helped.run("use").await.contains("refused"), "it has nothing yet");
    assert!(helped.run("keep").await.contains("docker-credential-mine"));
    let config = read(&helped.dir.path().join("config.json"));
    assert_eq!(config["auths"], json!({helped.site.host.as_str(): {}}), "no password in the file");
    let store = read(&helped.dir.path().join("store"));
    assert_eq!(store, json!({"ServerURL": helped.site.host.as_str(), "Username": "user", "Secret": "pass"}));
    assert!(helped.run("use").await.contains("let in"));
    assert!(helped.run("forget").await.contains("docker-credential-mine"));
    assert!(!helped.dir.path().join("store").exists());
    assert!(helped.run("use").await.contains("refused"));
}

#[tokio::test]
async fn helpers_that_are_of_no_use() {
    for (script, fault) in [
        ("#!/bin/sh\necho the keychain is locked; exit 1\n", "Failed { message: \"the keychain is locked\" }"),
        ("#!/bin/sh\necho '{\"Username\":\"user\",\"Secret\":7}'\n", "Unreadable"),
        ("#!/bin/sh\nexec head -c 70000 /dev/zero\n", "TooLong { limit: 65536 }"),
        ("#!/nowhere/sh\n", "Start"),
    ] {
        let said = Helped::new(script).await.run("use").await;
        assert!(said.contains(fault), "{script}: {said}");
    }
}

#[tokio::test]
async fn a_helper_is_no_path() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, json!({"credsStore": "../../bin/sh"}).to_string()).unwrap();
    let error = keep(&AuthFiles::named(&path), &"r.test".parse().unwrap(), "user", &secret()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Helper { fault: HelperFault::Name, .. }), "{error}");
}

/// What the tests above run in a process of its own.
#[tokio::test]
#[ignore = "run by the other tests of this module"]
async fn in_a_child() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let host = variable("PORTCULLIS_TEST_HOST").parse().unwrap();
    let files = AuthFiles::named(&PathBuf::from(variable("PORTCULLIS_TEST_FILE")));
    match variable("PORTCULLIS_TEST_DOING").as_str() {
        "keep" => println!("{:?}", keep(&files, &host, "user", &secret()).await.unwrap()),
        "forget" => println!("{:?}", forget(&files, &host).await.unwrap()),
        _ => {
            let mut options = ClientOptions { credentials: Credentials::Files(files), ..options() };
            options.certs.location = portcullis_client::Location::Root(variable("PORTCULLIS_TEST_ROOT").into());
            let let_in = async { Client::connect(&host, &options).await?.ping().await };
            match let_in.await {
                Ok(()) => println!("let in"),
                Err(error) if error.is_refusal() => println!("refused: {error}"),
                Err(error) => println!("{error:?}"),
            }
        }
    }
}
