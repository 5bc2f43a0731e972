//! Keeping and forgetting a credential where Docker and Podman keep theirs: in an auth file, or with its helper. What
//! else is in the file stays. Must not know whether the credential is any good.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use portcullis_oci::RegistryHost;
use serde::Serialize as _;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::entry::{AuthFile, server_key};
use super::files::{AuthFileFault, AuthFiles, read};
use crate::blocking;
use crate::error::ClientError;
use crate::layout::lock;
use crate::secret::Secret;

/// Where a credential was put, or taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In the file itself, as base64, which hides nothing.
    File(PathBuf),
    /// With the helper that the file names.
    Helper {
        /// The file.
        path: PathBuf,
        /// `docker-credential-NAME`.
        helper: String,
    },
}

/// Keeps a user name and password for a registry in the first of the files, or with the helper that it names.
///
/// # Errors
/// [`ClientError::AuthFile`] and [`ClientError::Helper`]; the file is then what it was.
pub async fn keep(
    files: &AuthFiles,
    host: &RegistryHost,
    username: &str,
    password: &Secret,
) -> Result<Kept, ClientError> {
    let path = files.paths().first().ok_or_else(|| ClientError::auth_file("", AuthFileFault::NoPlace))?.clone();
    let file = read_there(&path).await?;
    if let Some((helper, server)) = file.helper(host)? {
        helper.store(&server, username, password).await?;
        // As Docker does: an empty entry tells `logout` of whom there is something.
        change(&path, &server, Some(json!({}))).await?;
        return Ok(Kept::Helper { path, helper: helper.program() });
    }
    let entry = json!({"auth": password.encoded(username)});
    change(&path, &server_key(host), Some(entry)).await?;
    Ok(Kept::File(path))
}

/// Takes a registry's credential away, out of every file and from their helpers; those of single repositories stay.
/// Says from where; nothing: there was none.
///
/// # Errors
/// [`ClientError::AuthFile`] and [`ClientError::Helper`].
pub async fn forget(files: &AuthFiles, host: &RegistryHost) -> Result<Vec<Kept>, ClientError> {
    let mut gone = Vec::new();
    for path in files.paths() {
        let file = read_there(path).await?;
        if let Some((helper, server)) = file.helper(host)?
            && helper.erase(&server).await?
        {
            gone.push(Kept::Helper { path: path.clone(), helper: helper.program() });
        }
        let keys = file.keys_of(host);
        for key in &keys {
            change(path, key, None).await?;
        }
        if !keys.is_empty() && !matches!(gone.last(), Some(Kept::Helper { path: last, .. }) if last == path) {
            gone.push(Kept::File(path.clone()));
        }
    }
    Ok(gone)
}

async fn read_there(path: &Path) -> Result<AuthFile, ClientError> {
    let owned = path.to_owned();
    Ok(blocking(move || read(&owned)).await?.unwrap_or_else(|| AuthFile(Map::new())))
}

/// Puts an entry in, or takes it out, between reading and writing nobody else of us writes.
async fn change(path: &Path, key: &str, entry: Option<Value>) -> Result<(), ClientError> {
    let (path, key) = (path.to_owned(), key.to_owned());
    blocking(move || {
        let wrong = |error: io::Error| ClientError::auth_file(&path, AuthFileFault::Io { reason: error.to_string() });
        // A file that is a link stays one: what it leads to is replaced.
        let target = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(wrong)?;
        let _lock = lock(directory).map_err(wrong)?;
        let mut file = read(&target)?.unwrap_or_else(|| AuthFile(Map::new())).0;
        let auths = file.entry("auths").or_insert(Value::Null);
        if auths.is_null() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            match entry {
                Some(entry) => drop(auths.insert(key, entry)),
                None => drop(auths.remove(&key)),
            }
        }
        write(directory, &target, &pretty(&Value::Object(file))).map_err(wrong)
    })
    .await
}

/// With tabs, as Docker and Podman write it.
fn pretty(value: &Value) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut *bytes, formatter);
    // A value that was parsed can be written, and a vector takes all.
    drop(value.serialize(&mut serializer));
    bytes.push(b'\n');
    bytes
}

/// Whole or not at all, and never readable by others, not even for a moment.
fn write(directory: &Path, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!(".portcullis-auth-{}", std::process::id()));
    let written = (|| {
        drop(fs::remove_file(&temporary));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, target)?;
        fs::File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written
}
