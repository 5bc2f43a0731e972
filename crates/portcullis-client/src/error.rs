//! Everything that can go wrong, split by what a caller can do about it. Sources are kept; text that a registry sent is
//! escaped where it is displayed.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use portcullis_certs::{Finding, Severity, Visible};
use portcullis_oci::{Digest, ManifestError, RegistryHost, Tag};
use portcullis_tls::TlsError;

use crate::answer::Answer;
use crate::archive::ArchiveFault;
use crate::credentials::{AuthFileFault, HelperFault};
use crate::hosts::HostsFault;
use crate::refusal::{Attempt, Failure};
use crate::spool::SpoolError;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The certificate directory has a fatal fault. Nothing was sent to the registry.
    #[error("the certificate directory for {host} is not usable:{}", lines(findings.iter().filter(|finding| finding.severity == Severity::Fatal)))]
    CertsDir {
        /// The registry.
        host: RegistryHost,
        /// All findings, the fatal ones and the others.
        findings: Vec<Finding>,
    },
    /// A configuration file of the engine's cannot be read, so that nobody knows whom it would ask. Nothing was sent.
    #[error("{0}")]
    EngineFile(Box<Finding>),
    /// The certificates do not make a TLS configuration. Nothing was sent to the registry.
    #[error("cannot set up TLS for {host}: {source}")]
    Tls {
        /// The registry.
        host: RegistryHost,
        /// The cause.
        source: Box<TlsError>,
    },
    /// The environment names a proxy that cannot be used. Nothing was sent.
    #[error(
        "the proxy for {host} is {}: use an http:// or https:// address in HTTPS_PROXY (the tunnel through it is encrypted in both cases), or name the registry in NO_PROXY",
        scheme.as_ref().map_or_else(|| "no address of a proxy".to_owned(), |scheme| format!("an {}:// address, which is not used", Visible(scheme)))
    )]
    Proxy {
        /// The registry.
        host: RegistryHost,
        /// The scheme of the proxy's address, where it is one.
        scheme: Option<String>,
    },
    /// A file that holds credentials cannot be used.
    #[error("the auth file {path}: {fault}", path = path.display())]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        fault: AuthFileFault,
    },
    /// A credential helper is of no use.
    #[error("the credential helper {name:?} {fault}")]
    Helper {
        /// Its name, without `docker-credential-`.
        name: String,
        /// Why not.
        fault: HelperFault,
    },
    /// The host is one that a URL would take for another. Nothing was sent.
    #[error("{host} is not a host that can be connected to: write an address in full, as four decimal numbers")]
    Host {
        /// The registry.
        host: RegistryHost,
    },
    /// The hosts that the engine's configuration names in the registry's place cannot be used.
    #[error("{host}: {fault}")]
    Hosts {
        /// The host, or the registry.
        host: RegistryHost,
        /// Why not.
        fault: HostsFault,
    },
    /// The HTTP library could not be set up.
    #[error("cannot set up HTTP for {host}")]
    Http {
        /// The registry.
        host: RegistryHost,
        /// The cause.
        source: reqwest::Error,
    },
    /// There was no answer.
    #[error("{host}: {failure}")]
    Connection {
        /// The host that was spoken to: the registry, or one it redirected to.
        host: RegistryHost,
        /// Why.
        failure: Failure,
        /// The library's own error, where there is one.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The registry refused every identity there was.
    #[error("{host} refused {}:{}", who(attempts), lines(attempts))]
    Refused {
        /// The host that was spoken to.
        host: RegistryHost,
        /// Every identity that was tried, in order, with its refusal.
        attempts: Vec<Attempt>,
    },
    /// The registry answered with a status that is not the one hoped for.
    #[error("{host}: {request}: {answer}")]
    Status {
        /// The host that was spoken to.
        host: RegistryHost,
        /// Method and path.
        request: String,
        /// The answer.
        answer: Box<Answer>,
    },
    /// The registry's answer breaks the protocol.
    #[error("{host}: {request}: {fault}")]
    Protocol {
        /// The host that was spoken to.
        host: RegistryHost,
        /// Method and path.
        request: String,
        /// How.
        fault: ProtocolFault,
    },
    /// The registry sent bytes that do not have the digest they were asked for by.
    #[error("{0}")]
    Digest(Box<DigestMismatch>),
    /// A manifest, from the registry or from a layout, cannot be understood.
    #[error("manifest {name}: {source}")]
    Manifest {
        /// Its tag or digest.
        name: String,
        /// Why.
        source: ManifestError,
    },
    /// No image is for the machine that one is wanted for.
    #[error("there is no image for {wanted}{}", tags(available))]
    NoPlatform {
        /// The machine.
        wanted: String,
        /// What there are images for.
        available: Vec<String>,
    },
    /// The image cannot be written in `docker save`'s format.
    #[error(
        "{digest} cannot be written as a docker archive, {reason}: write an OCI archive instead (oci-archive:FILE)"
    )]
    NotForDocker {
        /// The manifest.
        digest: Box<Digest>,
        /// Why not.
        reason: &'static str,
    },
    /// Docker's schema 1 has no place in an image layout, and engines no longer read it.
    #[error(
        "manifest {digest} is of Docker's schema 1, which is not transferred any more: push the image again with a current engine"
    )]
    Schema1 {
        /// The manifest.
        digest: Box<Digest>,
    },
    /// An index leads to more manifests than [`crate::MAX_MANIFESTS`], nests deeper than [`crate::MAX_DEPTH`], or, in a copy,
    /// leads to more bytes of manifests than [`crate::MAX_MANIFEST_BYTES`].
    #[error("the index leads to too many manifests: at most {limit} {unit} are followed")]
    TooMany {
        /// The bound.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// A file or directory of the layout could not be read or written.
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    Io {
        /// `read`, `write`, …
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An archive that comes or goes as a stream has no place meanwhile.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The directory is no OCI image layout that this version can read.
    #[error("{path} is no OCI image layout: {fault}", path = path.display())]
    Layout {
        /// The directory.
        path: PathBuf,
        /// Why not.
        fault: LayoutFault,
    },
    /// No image of the layout has that tag, or there is none.
    #[error("{path} has no image tagged {tag}{}", tags(available), path = path.display())]
    NoSuchTag {
        /// The layout.
        path: PathBuf,
        /// The tag asked for.
        tag: Tag,
        /// What it does have.
        available: Vec<String>,
    },
    /// The layout has several images, so one must be named.
    #[error("{path} has {count} images, say which one with {path}:TAG{}", tags(available), path = path.display())]
    TagNeeded {
        /// The layout.
        path: PathBuf,
        /// How many images match.
        count: usize,
        /// Their names.
        available: Vec<String>,
    },
    /// The file is no image archive that this version can read.
    #[error("{path} is not taken as an image archive: {fault}", path = path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why not.
        fault: Box<ArchiveFault>,
    },
    /// No image of the archive has that name, or there is none.
    #[error("{path} has no image named {}{}", Visible(name), tags(available), path = path.display())]
    NoSuchImage {
        /// The archive.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// What it does have.
        available: Vec<String>,
    },
    /// The archive has several images, so one must be named.
    #[error("{path} has {count} images, say which one with {path}:NAME:TAG{}", tags(available), path = path.display())]
    ImageNeeded {
        /// The archive.
        path: PathBuf,
        /// How many images match.
        count: usize,
        /// Their names.
        available: Vec<String>,
    },
    /// A blob of the layout is missing, or has not the size or the digest that its manifest says.
    #[error("{path}: blob {digest} {fault}", path = path.display())]
    LayoutBlob {
        /// The layout.
        path: PathBuf,
        /// The blob's digest.
        digest: Box<Digest>,
        /// What is wrong with it.
        fault: BlobFault,
    },
    /// The reference is for another registry than the client.
    #[error("{reference} is not on {client}")]
    OtherHost {
        /// The client's registry.
        client: RegistryHost,
        /// The reference.
        reference: String,
    },
    /// The reference names a digest, and the image to push has another one.
    #[error("the reference names {}, the image is {}", .0.expected, .0.actual)]
    OtherDigest(Box<DigestMismatch>),
    /// What should name an image in an archive does not.
    #[error("{text:?} names no image: NAME, NAME:TAG or HOST[:PORT]/NAME:TAG is expected")]
    ArchiveName {
        /// What was given.
        text: String,
    },
    /// `DIR:TAG` has no tag after the colon, or not a possible one.
    #[error("{text:?} names no layout: DIR or DIR:TAG is expected")]
    LayoutName {
        /// What was given.
        text: String,
    },
}

/// Bytes that are not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestMismatch {
    /// The registry that sent them, or the layout's path.
    pub from: String,
    /// What was asked for.
    pub expected: Digest,
    /// What the bytes have.
    pub actual: Digest,
}

/// How an answer breaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolFault {
    /// A header is missing.
    #[error("the answer has no {header} header")]
    NoHeader {
        /// Its name.
        header: &'static str,
    },
    /// A header has no possible value.
    #[error("the answer's {header} header cannot be understood: {}", Visible(value))]
    BadHeader {
        /// Its name.
        header: &'static str,
        /// Its value, cut.
        value: String,
    },
    /// The registry sends a write to another origin. The certificate is for the registry's origin only, so it is not
    /// followed; mostly a proxy in front of the registry does not hand on `Host` and `X-Forwarded-Proto`.
    #[error(
        "the registry sends the upload to another origin, {}; a proxy in front of it must hand on Host and X-Forwarded-Proto",
        Visible(origin)
    )]
    ForeignUpload {
        /// The origin.
        origin: String,
    },
    /// The registry names a token server that a credential must not be sent to. Nothing was sent there.
    #[error("the registry names a token server that is no https address without a user name: {}", Visible(realm))]
    UnsafeRealm {
        /// The address, cut.
        realm: String,
    },
    /// A list goes on at another origin. The certificate is for the registry's origin only, so it is not followed.
    #[error(
        "the list goes on at another origin, {}; a proxy in front of the registry must hand on Host and X-Forwarded-Proto",
        Visible(origin)
    )]
    ForeignPage {
        /// The origin.
        origin: String,
    },
    /// A list does not end.
    #[error("the list goes on after {limit} {unit}")]
    EndlessList {
        /// The bound.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// The body is not what the spec says it is.
    #[error("the body cannot be understood: {reason}")]
    BadBody {
        /// Why not, escaped.
        reason: String,
    },
    /// A redirect to something that is not HTTPS.
    #[error("redirected to {}, which is not an https address without a user name", Visible(origin))]
    InsecureRedirect {
        /// The origin.
        origin: String,
    },
    /// More redirects than [`crate::MAX_REDIRECTS`].
    #[error("more than {limit} redirects")]
    TooManyRedirects {
        /// The bound.
        limit: usize,
    },
    /// The body is longer than it may be.
    #[error("the body is longer than {limit} bytes")]
    TooLong {
        /// The bound: the descriptor's size, or the largest manifest.
        limit: u64,
    },
    /// The body has another length than the descriptor says.
    #[error("the body has {actual} bytes, {expected} are expected")]
    Length {
        /// The descriptor's size.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// The registry stored a manifest under another digest than that of the bytes sent.
    #[error("the registry says it stored {actual} where {expected} was sent")]
    StoredOther {
        /// The digest sent.
        expected: String,
        /// The digest the registry names.
        actual: String,
    },
}

/// Why a directory is no layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutFault {
    /// The file `oci-layout` is missing.
    #[error("it has no file oci-layout")]
    NoMarker,
    /// It holds other things, so no layout is made in it.
    #[error("it is not empty and has no file oci-layout: name a new or an empty directory")]
    NotEmpty,
    /// A version other than 1.
    #[error("its imageLayoutVersion is {version:?}, 1.0.0 is expected")]
    Version {
        /// The version.
        version: String,
    },
    /// A file of it cannot be understood.
    #[error("{file} cannot be understood: {reason}")]
    Unreadable {
        /// `oci-layout` or `index.json`.
        file: &'static str,
        /// Why not.
        reason: String,
    },
    /// There is no image in it.
    #[error("its index.json lists no image")]
    Empty,
}

/// What is wrong with a blob of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlobFault {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It has another size.
    #[error("has {actual} bytes, {expected} are expected")]
    Size {
        /// The descriptor's size.
        expected: u64,
        /// The file's.
        actual: u64,
    },
    /// Its content has another digest: the file is damaged.
    #[error("is damaged: its content has another digest")]
    Damaged,
}

impl ClientError {
    /// Whether the peer refused us, rather than something failing (exit code 3 of the command line).
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { attempts, .. } => attempts.iter().any(|attempt| !attempt.is_passing()),
            Self::Connection { failure, .. } => failure.is_about_identity(),
            Self::Status { answer, .. } => matches!(answer.status, 401 | 403 | 495 | 496),
            _ => false,
        }
    }

    /// Whether the registry says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { answer, .. } if answer.is_not_found())
    }

    /// What to do about it, where there is something to do on this side and the message does not say it. Findings of
    /// [`ClientError::CertsDir`] have their own fixes.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Connection { failure, .. } => failure.advice(),
            Self::Refused { attempts, .. } => attempts.iter().find_map(Attempt::advice),
            Self::Status { answer, .. } => answer.advice(),
            Self::Spool(_) => Some(SpoolError::ADVICE),
            _ => None,
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn layout(path: &Path, fault: LayoutFault) -> Self {
        Self::Layout { path: path.to_owned(), fault }
    }

    pub(crate) fn archive(path: &Path, fault: ArchiveFault) -> Self {
        Self::Archive { path: path.to_owned(), fault: Box::new(fault) }
    }

    pub(crate) fn blob(path: &Path, digest: &Digest, fault: BlobFault) -> Self {
        Self::LayoutBlob { path: path.to_owned(), digest: Box::new(*digest), fault }
    }
}

impl fmt::Display for DigestMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: asked for {}, the bytes received are {}", self.from, self.expected, self.actual)
    }
}

fn lines<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("\n  {item}")).collect()
}

fn who(attempts: &[Attempt]) -> &'static str {
    match attempts {
        [Attempt { pair: None, .. }] => "this client",
        [_] => "the client certificate",
        _ => "every client certificate",
    }
}

fn tags(available: &[String]) -> String {
    if available.is_empty() {
        return String::new();
    }
    let names: Vec<_> = available.iter().map(|name| Visible(name).to_string()).collect();
    format!(" (there is {})", names.join(", "))
}
