//! Why nothing is installed: what is in the way, and what to type about it.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;

use portcullis_certs::{ShellCommand, Visible};

/// Why a plan would touch what is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// A file with another content that we did not write, or that was changed since.
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key of another pair: engines send the first that fits, so ours might never be used.
    ForeignPair {
        /// The file.
        path: PathBuf,
    },
    /// We wrote it earlier, for another client.
    OtherClient {
        /// The file.
        path: PathBuf,
        /// Whom its certificate names.
        old: String,
        /// Whom the new one names.
        new: String,
    },
    /// The engine's configuration file cannot be added to.
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Not a regular file.
    NotAFile {
        /// What is in the way.
        path: PathBuf,
    },
    /// Not below the other root, or with a `..` on the way.
    OutsideRoot {
        /// The file.
        path: PathBuf,
    },
    /// A symbolic link below the other root: it might lead out of it.
    LinkBelowRoot {
        /// The link.
        path: PathBuf,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, why) = match self {
            Self::OtherClient { path, old, new } => {
                let (old, new) = (Visible(old), Visible(new));
                return write!(f, "{} is {old}'s; to put {new} in its place: --replace", path.display());
            }
            Self::OutsideRoot { path } => return write!(f, "{} does not lie below the other root", path.display()),
            Self::Config { path, why } => return write!(f, "{}: {why}", path.display()),
            Self::Foreign { path } => {
                (path, "is there already and was not written by portcullis, or was changed since")
            }
            Self::ForeignPair { path } => (
                path,
                "belongs to another client certificate, and an engine sends the first that fits; --add NAME puts this one beside it",
            ),
            Self::NotAFile { path } => (path, "is not a regular file"),
            Self::LinkBelowRoot { path } => (path, "is a symbolic link, which may lead out of the other root"),
        };
        let mut moved = path.clone().into_os_string();
        moved.push(".old");
        let fix = ShellCommand::new([OsStr::new("mv"), path.as_os_str(), &moved]);
        write!(f, "{} {why}\n  if it is not needed: {fix}", path.display())
    }
}
