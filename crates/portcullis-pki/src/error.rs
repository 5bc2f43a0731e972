//! The crate's errors: facts in fields, the cause kept, and in the text what to do where one thing helps.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use portcullis_certs::{CertsError, Finding, Fingerprint, Fix, ShellCommand, Visible};
use portcullis_tls::{CaFault, TlsError};
use time::OffsetDateTime;
use x509_cert::{builder, der};

use crate::install::Conflict;
use crate::install::system_trust::SystemStore;
use crate::trust::Role;
use crate::{AuthorityKind, ServerName};

/// Why nothing was made, or not all of it. Whatever fails, no key and no foreign file was overwritten.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Not one of [`KeyAlgorithm::ALL`](crate::KeyAlgorithm::ALL).
    #[error("`{}` is no key algorithm: use p256, p384, rsa4096 or ed25519", Visible(text))]
    UnknownAlgorithm {
        /// What was typed, cut to 60 characters.
        text: String,
    },
    /// Not one of [`Engine::ALL`](crate::install::Engine::ALL).
    #[error(
        "`{}` is no engine that can be installed for: use docker, podman, containerd, buildkit or k3s",
        Visible(text)
    )]
    UnknownEngine {
        /// What was typed, cut to 60 characters.
        text: String,
    },
    /// Not a name that a server certificate can carry.
    #[error("`{}` cannot be a name of a server certificate: {fault}", Visible(text))]
    ServerName {
        /// What was typed, cut to 300 characters.
        text: String,
        /// Why not.
        fault: NameFault,
    },
    /// Not a client's name.
    #[error(
        "`{}` cannot be a client's name: use 1 to 64 of the characters A-Z a-z 0-9 . _ - and begin with a letter, a digit or _",
        Visible(text)
    )]
    ClientName {
        /// What was typed, cut to 300 characters.
        text: String,
    },
    /// Not a SPIFFE trust domain.
    #[error("`{}` is no SPIFFE trust domain: use 1 to 255 of the characters a-z 0-9 . _ -", Visible(text))]
    TrustDomain {
        /// What was typed, cut to 300 characters.
        text: String,
    },
    /// Not a name for a file in `trust/`.
    #[error(
        "`{}` cannot name a trusted certificate: use 1 to 64 of the characters A-Z a-z 0-9 . _ - and begin with a letter, a digit or _ (`--name NAME`)",
        Visible(text)
    )]
    TrustName {
        /// What was typed or made of the file's name.
        text: String,
    },
    /// A server certificate without a name would be for nobody.
    #[error("a server certificate needs at least one name: the host name or address that clients type")]
    NoNames,
    /// A life that is over before it starts.
    #[error("a certificate cannot be valid for {seconds} seconds: use a minute or more")]
    Lifetime {
        /// What was asked for.
        seconds: i64,
    },
    /// The date does not fit into a certificate (RFC 5280 §4.1.2.5: years 1970 to 9999 here).
    #[error("the date {date} cannot be written into a certificate")]
    Date {
        /// The date.
        date: OffsetDateTime,
    },
    /// The crypto library failed, and says no more.
    #[error("the crypto library failed to {doing}")]
    Crypto {
        /// What it was to do.
        doing: &'static str,
    },
    /// The encoder failed: a fault of ours.
    #[error("a certificate could not be encoded: {0}")]
    Encode(#[from] builder::Error),
    /// What we encoded does not read back, or a certificate that was given does not.
    #[error(transparent)]
    Certificate(#[from] CertsError),
    /// The operating system refused.
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Files that are not what they should be, all of them, each with its fix.
    #[error("{}", with_fixes(findings))]
    Files {
        /// What is wrong.
        findings: Vec<Finding>,
    },
    /// A sound key of a kind we do not issue for.
    #[error("{path}: certificates are issued for P-256, P-384, Ed25519 and RSA keys from 2048 to 8192 bits only", path = path.display())]
    UnsupportedKey {
        /// The key's file.
        path: PathBuf,
    },
    /// A file is there that would have to be overwritten.
    #[error("{path} is there already and is not overwritten", path = path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A key is there that belongs to another certificate.
    #[error("{path} is there already and belongs to another certificate: a key is never overwritten; move it away, or issue for it", path = path.display())]
    KeyExists {
        /// The key's file.
        path: PathBuf,
    },
    /// There is an authority in the directory.
    #[error("there is an authority in {dir} already", dir = dir.display())]
    AuthorityExists {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory lacks a file of an authority.
    #[error("{dir} holds no whole authority: {missing} is missing; put it back from a backup", dir = dir.display())]
    AuthorityIncomplete {
        /// The directory.
        dir: PathBuf,
        /// The name of the missing file.
        missing: &'static str,
    },
    /// The journal does not know the authority's own certificate, so its kind is unknown.
    #[error("{path} has no line for ca.crt ({fingerprint}): put both back from the same backup", path = path.display())]
    NotInJournal {
        /// The journal.
        path: PathBuf,
        /// The certificate's.
        fingerprint: Fingerprint,
    },
    /// The CA's key and certificate are not a pair.
    #[error("ca.key does not belong to ca.crt in {dir}: put both back from the same backup", dir = dir.display())]
    AuthorityMismatch {
        /// The directory.
        dir: PathBuf,
    },
    /// The authority issues the other kind of certificate.
    #[error("a {wanted} certificate must come from the {wanted} CA, and {dir} is the {found} CA", dir = dir.display())]
    WrongAuthority {
        /// The directory.
        dir: PathBuf,
        /// What was asked for.
        wanted: AuthorityKind,
        /// What it is.
        found: AuthorityKind,
    },
    /// The CA's own life is over, or ends within the minute.
    #[error("the CA in {dir} expired on {not_after}: make a new one", dir = dir.display())]
    AuthorityExpired {
        /// The directory.
        dir: PathBuf,
        /// The end of its life.
        not_after: OffsetDateTime,
    },
    /// The CA's name constraints leave these names out.
    #[error("the CA may not certify {}: its name constraints permit other names only", joined(names, ", "))]
    OutsideConstraints {
        /// The names.
        names: Vec<ServerName>,
    },
    /// The new certificate would be refused by those it is for. Nothing was written.
    #[error("the new {kind} certificate does not pass verification: {source}")]
    Unverified {
        /// For which end.
        kind: AuthorityKind,
        /// What the verifier says.
        source: TlsError,
    },
    /// A signature made with the key does not verify with the certificate. Nothing was written.
    #[error("the new certificate does not belong to its key")]
    NotItsKey,
    /// A revocation list just made would not be accepted. Nothing was written.
    #[error("the new revocation list of the authority in {} would not be accepted", dir.display())]
    UnverifiedCrl {
        /// The authority's directory.
        dir: PathBuf,
    },
    /// What was forgiven or denied could not be written down in `state/`.
    #[error("cannot write {}: {source}", path.display())]
    State {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Nothing of that name is remembered as denied.
    #[error(
        "{} is not denied: {known} entries are, `sha256:…`, `key:…`, `serial:…:…`, `name:… before …` or `crl:<CA>`",
        target
    )]
    NothingToForgive {
        /// What was asked for.
        target: String,
        /// How many entries there are.
        known: usize,
    },
    /// A cut-off that lies ahead would deny certificates that are not made yet.
    #[error("{before} lies ahead: a cut-off denies what was issued before it, give a moment that has passed")]
    CutOffAhead {
        /// The moment.
        before: OffsetDateTime,
    },
    /// A certificate may be a CA or a client's own, and only the operator knows which.
    #[error("{path} may be a CA or a client's own certificate; say which:\n  {}", commands(as_ca, as_pin.as_ref()), path = path.display())]
    RoleNeeded {
        /// The file.
        path: PathBuf,
        /// Trust everybody whom it signs.
        as_ca: ShellCommand,
        /// Trust exactly this certificate; `None` where the file holds several.
        as_pin: Option<ShellCommand>,
    },
    /// A pin is one certificate.
    #[error("{path} holds {count} certificates and a pin is exactly one: write the client's own into a file of its own", path = path.display())]
    PinNeedsOne {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A certificate that the server would not take as a CA, or at all.
    #[error("{path} cannot be trusted as a {role}: {}", joined(faults, "; "), path = path.display())]
    Untrustworthy {
        /// The file.
        path: PathBuf,
        /// As what.
        role: Role,
        /// Every reason.
        faults: Vec<CaFault>,
    },
    /// Another certificate has that name.
    #[error("the name {name} belongs to another {role}: {path}; choose one with --name, or `portcullis trust remove {name}` first", path = path.display())]
    TrustNameTaken {
        /// The name.
        name: String,
        /// What is there.
        role: Role,
        /// Where.
        path: PathBuf,
    },
    /// The same certificate has another name: whose rights would it have?
    #[error("this certificate is pinned already, as {name} ({path}); `portcullis trust remove {name}` first to rename it", path = path.display())]
    AlreadyPinned {
        /// The other name.
        name: String,
        /// Where.
        path: PathBuf,
    },
    /// No such name in `trust/`.
    #[error("nothing is trusted under the name {}; the names are: {}", Visible(name), if known.is_empty() { "(none)".to_owned() } else { known.join(", ") })]
    NotTrusted {
        /// What was typed.
        name: String,
        /// What is there.
        known: Vec<String>,
    },
    /// No certificate is meant by what was typed.
    #[error("no client certificate has the name, serial number or fingerprint {}; the names are: {}{}", Visible(target), if known.is_empty() { "(none)".to_owned() } else { known.join(", ") }, unread(damaged))]
    NothingToRevoke {
        /// What was typed.
        target: String,
        /// The clients that have one.
        known: Vec<String>,
        /// Lines of the journal that cannot be read.
        damaged: Vec<usize>,
    },
    /// Installing would touch what we did not write. Nothing was changed.
    #[error("nothing was changed:\n{}", joined(conflicts, "\n"))]
    InstallRefused {
        /// All of it.
        conflicts: Vec<Conflict>,
    },
    /// Not a name for the files of a pair.
    #[error("`{}` cannot be the name of a pair: 1 to 64 of A-Z a-z 0-9 . _ -, and no dot at the start", Visible(text))]
    PairName {
        /// What was typed, cut to 64 characters.
        text: String,
    },
    /// The target changed between the plan and its execution.
    #[error("{path} changed while the files were installed; run the command again", path = path.display())]
    ChangedMeanwhile {
        /// The file.
        path: PathBuf,
    },
    /// A CA that could vouch for every name was to be trusted by the whole machine.
    #[error(
        "{}: {} has no critical name constraints that limit DNS names and addresses: in this machine's store it could vouch for \
         every name to every program. `ca.crt` in the engine's own directory is enough for the registry; to trust it all the \
         same: --unconstrained",
        path.display(),
        Visible(subject)
    )]
    UnlimitedCa {
        /// The file.
        path: PathBuf,
        /// The CA.
        subject: String,
    },
    /// The system at this root has none of the stores that are known, or lacks the store's program.
    #[error(
        "no store of trusted CAs was found below {}: looked for {}. Debian and Alpine have it in the package ca-certificates",
        root.display(),
        known_stores()
    )]
    NoSystemStore {
        /// The root.
        root: PathBuf,
    },
    /// Another process of ours holds the record of what is installed.
    #[error("another install or uninstall holds {}: run the command again when it has ended", path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// A per-user place was asked for and there is no home directory.
    #[error("no home directory is known, so there is no place for this user's certificates: set HOME")]
    NoHome,
}

/// Why a text is no name for a server certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Nothing at all.
    #[error("it is empty")]
    Empty,
    /// More than 253 characters, or a label of more than 63.
    #[error("it is too long (253 characters in all, 63 between dots)")]
    TooLong,
    /// A port after the name.
    #[error("leave out the port: a certificate is for the host, whatever the port")]
    Port,
    /// Characters beyond ASCII.
    #[error("write it in its ASCII form (xn--...)")]
    NotAscii,
    /// A character that no host name has.
    #[error("host names have letters, digits and hyphens only, with a hyphen neither first nor last")]
    Character,
    /// The last label is a number, so that it would be read as an IPv4 address.
    #[error("it looks like an IPv4 address and is none")]
    NotAnAddress,
    /// 0.0.0.0 or `::`.
    #[error("nobody connects to the unspecified address")]
    Unspecified,
    /// A `*` anywhere but as the whole first label, or with fewer than two labels after it.
    #[error("a wildcard stands for one whole first label with at least two after it (*.example.com)")]
    Wildcard,
}

impl PkiError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    /// Each fix that a person or a program can apply, in order.
    pub fn fixes(&self) -> Vec<Fix> {
        match self {
            Self::Files { findings } => findings.iter().map(Finding::fix).collect(),
            Self::RoleNeeded { as_ca, as_pin, .. } => as_pin.iter().chain([as_ca]).cloned().map(Fix::Run).collect(),
            _ => Vec::new(),
        }
    }
}

impl From<der::Error> for PkiError {
    fn from(error: der::Error) -> Self {
        Self::Encode(builder::Error::Asn1(error))
    }
}

fn with_fixes(findings: &[Finding]) -> String {
    let mut text = String::new();
    for (index, finding) in findings.iter().enumerate() {
        let separator = if index == 0 { "" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = match finding.fix() {
            Fix::NothingToDo => write!(text, "{separator}{finding}"),
            fix => write!(text, "{separator}{finding}\n  fix: {fix}"),
        };
    }
    text
}

fn unread(damaged: &[usize]) -> String {
    let lines: Vec<String> = damaged.iter().map(ToString::to_string).collect();
    match lines.as_slice() {
        [] => String::new(),
        lines => format!(
            "; these lines of the CA's issued.jsonl cannot be read, and it may be in one of them: {} (--before TIME denies by name without them)",
            lines.join(", ")
        ),
    }
}

fn joined<T: fmt::Display>(items: &[T], separator: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

fn known_stores() -> String {
    joined(&SystemStore::ALL.map(|store| format!("/{} ({})", store.directory, store.systems)), ", ")
}

fn commands(as_ca: &ShellCommand, as_pin: Option<&ShellCommand>) -> String {
    let ca = format!("{as_ca}   # everybody whom it signs is let in");
    match as_pin {
        Some(pin) => format!("{pin}   # exactly this certificate, and nobody whom it signs\n  {ca}"),
        None => ca,
    }
}
