//! Credential helpers (docker/docker-credential-helpers): a program `docker-credential-NAME` that is asked over its
//! standard input. Run without a shell, with a deadline, and its output is bounded. Must not know auth files.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use portcullis_certs::Visible;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::Credential;
use crate::error::ClientError;
use crate::secret::Secret;

/// How long a helper may take: it may ask its user to unlock something.
const DEADLINE: Duration = Duration::from_mins(1);

/// The most that a helper may write.
const MAX_OUTPUT: usize = 64 * 1024;

/// What helpers say when they have nothing (`credentials/error.go`).
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The user name that stands for an identity token.
const TOKEN_USER: &str = "<token>";

/// A helper's name, which is part of a program's name and leads to no other place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Helper(String);

/// Why a helper was of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelperFault {
    /// The name holds what no program's name does.
    #[error("is no name for a credential helper: letters, digits, '-', '_' and '.' are expected")]
    Name,
    /// The program could not be run, or spoken to.
    #[error("could not be run: {reason}")]
    Start {
        /// The system's word.
        reason: String,
    },
    /// It did not end in time, and was ended.
    #[error("did not answer within {seconds} seconds")]
    Slow {
        /// The bound.
        seconds: u64,
    },
    /// It wrote too much, and was ended.
    #[error("wrote more than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: usize,
    },
    /// It says why it failed.
    #[error("failed: {}", Visible(message))]
    Failed {
        /// Its first words; how it ended, where it has none.
        message: String,
    },
    /// Its answer is no credential. What it wrote may hold a secret, so it is not shown.
    #[error("wrote what is no credential")]
    Unreadable,
}

impl Helper {
    pub(crate) fn new(name: &str) -> Result<Self, ClientError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(fault(name, HelperFault::Name));
        }
        Ok(Self(name.to_owned()))
    }

    /// The program that is run.
    pub(crate) fn program(&self) -> String {
        format!("docker-credential-{}", self.0)
    }

    /// The credential for a server, if the helper has one.
    pub(crate) async fn get(&self, server: &str) -> Result<Option<Credential>, ClientError> {
        let output = match self.run("get", server.as_bytes()).await {
            Err(HelperFault::Failed { message }) if message == NOT_FOUND => return Ok(None),
            run => run.map_err(|reason| fault(&self.0, reason))?,
        };
        let unreadable = || fault(&self.0, HelperFault::Unreadable);
        let answer: Value = serde_json::from_slice(&output).map_err(|_| unreadable())?;
        let text = |key: &str| answer.get(key).and_then(Value::as_str);
        let (Some(username), Some(secret)) = (text("Username"), text("Secret")) else { return Err(unreadable()) };
        let secret = Secret::new(secret.to_owned());
        Ok(Some(match username {
            TOKEN_USER => Credential::IdentityToken(secret),
            username => Credential::Password { username: username.to_owned(), password: secret },
        }))
    }

    pub(crate) async fn store(&self, server: &str, username: &str, secret: &Secret) -> Result<(), ClientError> {
        let entry = json!({"ServerURL": server, "Username": username, "Secret": secret.expose()});
        let input = Zeroizing::new(entry.to_string());
        self.run("store", input.as_bytes()).await.map(drop).map_err(|reason| fault(&self.0, reason))
    }

    /// Whether there was something to erase.
    pub(crate) async fn erase(&self, server: &str) -> Result<bool, ClientError> {
        match self.run("erase", server.as_bytes()).await {
            Ok(_) => Ok(true),
            Err(HelperFault::Failed { message }) if message == NOT_FOUND => Ok(false),
            Err(reason) => Err(fault(&self.0, reason)),
        }
    }

    async fn run(&self, action: &str, input: &[u8]) -> Result<Zeroizing<Vec<u8>>, HelperFault> {
        within(DEADLINE, exchange(self.program().as_ref(), action, input)).await
    }
}

async fn within<T>(
    deadline: Duration,
    exchange: impl Future<Output = Result<T, HelperFault>>,
) -> Result<T, HelperFault> {
    match timeout(deadline, exchange).await {
        Ok(result) => result,
        // The child was dropped, which ends it.
        Err(_) => Err(HelperFault::Slow { seconds: deadline.as_secs() }),
    }
}

async fn exchange(program: &OsStr, action: &str, input: &[u8]) -> Result<Zeroizing<Vec<u8>>, HelperFault> {
    let start = |error: std::io::Error| HelperFault::Start { reason: error.to_string() };
    let mut child = Command::new(program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(HelperFault::Unreadable);
    };
    let writing = async move {
        // One that does not read what it is told has its reasons, and tells them.
        drop(stdin.write_all(input).await);
        drop(stdin.shutdown().await);
    };
    let mut output = Zeroizing::new(Vec::with_capacity(MAX_OUTPUT + 1));
    let mut bounded = stdout.take(MAX_OUTPUT as u64 + 1);
    let ((), read) = tokio::join!(writing, bounded.read_to_end(&mut output));
    read.map_err(start)?;
    if output.len() > MAX_OUTPUT {
        return Err(HelperFault::TooLong { limit: MAX_OUTPUT });
    }
    let status = child.wait().await.map_err(start)?;
    if status.success() {
        return Ok(output);
    }
    let message: String = String::from_utf8_lossy(&output).trim().chars().take(200).collect();
    Err(HelperFault::Failed { message: if message.is_empty() { status.to_string() } else { message } })
}

fn fault(name: &str, fault: HelperFault) -> ClientError {
    ClientError::Helper { name: name.chars().take(64).collect(), fault }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_name_is_no_path() {
        for name in ["pass", "osxkeychain", "ecr-login", "a_b.c"] {
            assert!(Helper::new(name).is_ok(), "{name}");
        }
        for name in ["", "../../bin/sh", "a/b", "a b", "a;b", "é", &"x".repeat(65)] {
            assert!(Helper::new(name).is_err(), "{name}");
        }
    }

    /// Asks a shell script: its text is the action, which is the shell's first argument. The deadline is one that a slow
    /// machine meets, but for those that never end.
    async fn ask(script: &Path, input: &[u8], deadline: Duration) -> Result<Vec<u8>, HelperFault> {
        let script = script.to_str().unwrap();
        within(deadline, exchange("/bin/sh".as_ref(), script, input)).await.map(|output| output.to_vec())
    }

    async fn answer(text: &str, input: &[u8]) -> Result<Vec<u8>, HelperFault> {
        let dir = TempDir::new().unwrap();
        let script = dir.path().join("script");
        fs::write(&script, text).unwrap();
        ask(&script, input, DEADLINE).await
    }

    /// Whether the program is gone; a zombie's is.
    fn is_gone(pid: &str) -> bool {
        fs::read_link(format!("/proc/{pid}/exe")).is_err()
    }

    /// One reads what it is told and then hangs, one does not even read, and is told more than a pipe holds.
    #[tokio::test]
    async fn one_that_hangs_is_ended() {
        let dir = TempDir::new().unwrap();
        let (script, pid) = (dir.path().join("script"), dir.path().join("pid"));
        for (text, input) in
            [("cat >/dev/null; exec sleep 1000", b"registry.test".to_vec()), ("exec sleep 1000", vec![b'x'; 1 << 20])]
        {
            fs::write(&script, format!("echo $$ > {}; {text}\n", pid.display())).unwrap();
            // Long enough for it to have begun; when it has not, it is asked again.
            let mut deadline = Duration::from_secs(1);
            let pid = loop {
                drop(fs::remove_file(&pid));
                assert_eq!(
                    ask(&script, &input, deadline).await,
                    Err(HelperFault::Slow { seconds: deadline.as_secs() })
                );
                match fs::read_to_string(&pid) {
                    Ok(pid) if pid.ends_with('\n') => break pid.trim().to_owned(),
                    _ => deadline *= 2,
                }
                assert!(deadline < DEADLINE, "it never begins");
            };
            while !is_gone(&pid) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    #[tokio::test]
    async fn what_it_writes_is_bounded() {
        assert_eq!(answer("exec yes", b"").await, Err(HelperFault::TooLong { limit: MAX_OUTPUT }));
        let exactly = |count: usize| format!("cat >/dev/null; head -c {count} /dev/zero");
        assert_eq!(answer(&exactly(MAX_OUTPUT), b"x").await.map(|output| output.len()), Ok(MAX_OUTPUT));
        assert_eq!(answer(&exactly(MAX_OUTPUT + 1), b"x").await, Err(HelperFault::TooLong { limit: MAX_OUTPUT }));
    }

    #[tokio::test]
    async fn how_it_failed_is_told() {
        let failed = |message: &str| Err(HelperFault::Failed { message: message.to_owned() });
        assert_eq!(answer("echo the keychain is locked; exit 3", b"x").await, failed("the keychain is locked"));
        assert_eq!(answer("exit 3", b"x").await, failed("exit status: 3"));
        assert_eq!(answer("kill -9 $$", b"x").await, failed("signal: 9 (SIGKILL)"));
        // One that does not read what it is told, more than a pipe holds, and is content.
        assert_eq!(answer("echo yes", &vec![b'x'; 1 << 20]).await, Ok(b"yes\n".to_vec()));
    }
}
