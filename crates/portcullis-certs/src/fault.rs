//! Everything that can be wrong with a file or directory of certificates: one variant per meaning, facts in fields.
//!
//! A fault knows its words and its code; how bad it is depends on who reads ([`EngineProfile`](crate::EngineProfile)),
//! and where it was found is in the [`Finding`](crate::Finding).

use std::io;
use std::path::PathBuf;
use time::OffsetDateTime;

/// What is wrong with a file, a directory or a line.
///
/// Names of files are file names without directory, lossily decoded; [`Display`](std::fmt::Display) makes them visible.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    // Directories.
    /// A directory that was named explicitly does not exist (D01).
    DirectoryMissing,
    /// The wanted directory does not exist, but this one does, and looks like it (D02, D04 to D08).
    LookAlike {
        /// The directory the engine looks for.
        wanted: PathBuf,
        /// In what way the two differ.
        how: LookAlike,
    },
    /// Certificate files lie one level too high, beside the host directories (D03).
    FilesInRoot,
    /// This directory exists, but another root has one for the host and wins (D10).
    Masked {
        /// The directory that is read instead.
        by: PathBuf,
    },
    /// The directory cannot be looked up or listed (D12).
    DirectoryUnreadable {
        /// What the operating system said.
        error: io::ErrorKind,
    },
    /// There is something else where a directory belongs (D12).
    NotADirectory,
    /// More entries than a certificate directory can sensibly have; none was read (D12).
    TooManyEntries {
        /// How many are read at most.
        limit: usize,
    },

    // Pairs.
    /// A `.cert` without its `.key` (D20). Prints the sentence of Docker's page.
    MissingKey {
        /// The certificate's file name.
        cert_name: String,
        /// The key's file name, which does not exist.
        key_name: String,
        /// Whether the certificate is plainly a CA's: CA:TRUE, with keyCertSign.
        is_ca: bool,
    },
    /// A `.key` without its `.cert` (D21; D24 for the names of a Kubernetes secret).
    MissingCertificate {
        /// The certificate's file name, which does not exist.
        cert_name: String,
        /// The key's file name.
        key_name: String,
        /// The `.crt` of the same stem, if there is one: most likely the certificate under a wrong name.
        crt_name: Option<String>,
    },
    /// The private key of a CA lies in a client's directory (D22).
    CaKey {
        /// The CA certificate's file name.
        ca_name: String,
    },
    /// The key is not the key of the certificate (D31).
    KeyMismatch {
        /// The certificate's file name.
        cert_name: String,
        /// The key's file name.
        key_name: String,
        /// Another certificate file of the directory that this key belongs to.
        matches: Option<String>,
    },
    /// The certificate file holds the key and the key file the certificate (D32).
    Swapped {
        /// The certificate's file name.
        cert_name: String,
        /// The key's file name.
        key_name: String,
    },
    /// The key belongs to a later certificate of the file: the leaf must come first (D33).
    LeafNotFirst {
        /// Which certificate the key belongs to, counted from 1.
        position: usize,
    },
    /// A certificate of the chain did not issue the one before it (D33).
    ChainBroken {
        /// The certificate's subject.
        subject: String,
    },

    // Files.
    /// Engines do not look at this file because of its name (D23).
    IgnoredName {
        /// The name under which it would be read.
        wanted: String,
    },
    /// The name starts with a dot: `ls` hides the file, engines read it (D25).
    Hidden,
    /// Written by macOS beside the real file when it makes archives; engines read it because of its name (D25).
    AppleDouble,
    /// The file cannot be read (D36).
    Unreadable {
        /// What the operating system said.
        error: io::ErrorKind,
    },
    /// A symbolic link to nothing (D36).
    DanglingLink,
    /// A directory, FIFO, socket or device where a file belongs (D36).
    NotAFile,
    /// The file is larger than any file of this kind (D26).
    TooLarge {
        /// How many bytes are read at most.
        limit: u64,
    },
    /// The file has no bytes, or only white space (D26).
    Empty,
    /// A UTF-8 byte order mark hides the first BEGIN line (D26).
    ByteOrderMark,
    /// UTF-16 text (D26).
    Utf16,
    /// DER where PEM belongs: a certificate (D26).
    DerCertificate,
    /// DER where PEM belongs: a private key (D26).
    DerKey,
    /// PKCS#12, also called PFX (D26).
    Pkcs12,
    /// PKCS#7, also called P7B (D26).
    Pkcs7,
    /// OpenSSL's own `TRUSTED CERTIFICATE`, which nothing else reads (D26).
    TrustedCertificate,
    /// An HTML page, saved in place of the file (D26).
    Html,
    /// No PEM block at all (D26).
    NoPem,
    /// A PEM block of a kind that has no meaning here (D26).
    OtherBlock {
        /// The block's label.
        label: String,
    },
    /// A PEM block that cannot be used (D27).
    BadBlock {
        /// The block's label.
        label: String,
        /// Why.
        reason: String,
    },
    /// A private key beside certificates in a file that others may read (D28).
    KeyAmongCertificates,
    /// A private key where a certificate belongs (D32).
    KeyWhereCertificate,
    /// A certificate where a private key belongs (D32).
    CertificateWhereKey,
    /// The private key is encrypted; engines cannot ask for a passphrase (D29).
    EncryptedKey {
        /// In which of the two ways.
        encryption: Encryption,
    },
    /// A private key of a kind or size that TLS does not use (D30).
    UnsupportedKey {
        /// Which, and what is supported.
        reason: String,
    },
    /// The private key can be read by other users (D35).
    KeyReadable {
        /// The permission bits.
        mode: u32,
    },

    // X.509.
    /// The certificate's time is over (D40).
    Expired {
        /// The certificate's subject.
        subject: String,
        /// Its last second.
        not_after: OffsetDateTime,
    },
    /// The certificate's time has not come (D40).
    NotYetValid {
        /// The certificate's subject.
        subject: String,
        /// Its first second.
        not_before: OffsetDateTime,
    },
    /// The root's time is over: engines refuse what it signed (D41).
    ExpiredRoot {
        /// The certificate's subject.
        subject: String,
        /// Its last second.
        not_after: OffsetDateTime,
    },
    /// A root whose keyUsage lacks keyCertSign: engines refuse what it signed (D42).
    RootCannotSign {
        /// The certificate's subject.
        subject: String,
    },
    /// A root that is no CA: it is trusted as itself only (D43).
    RootIsLeaf {
        /// The certificate's subject.
        subject: String,
    },
    /// The client certificate's usages do not allow it to be a client's (D44).
    NotForClients {
        /// The certificate's subject.
        subject: String,
        /// The usage it lacks: `clientAuth` or `digitalSignature`.
        lacks: &'static str,
    },

    // Configuration files of engines.
    /// The engine does not take its configuration file (D81).
    ConfigNotTaken {
        /// What is wrong in it.
        reason: String,
        /// What comes of it.
        then: WithoutConfig,
    },
    /// Certificate files beside a `hosts.toml`, which is read instead of them (D81).
    BesideHostsToml,
    /// `client = ["CERT", "KEY"]` means two files that each hold both (D81).
    CombinedPair,
    /// An empty file name in a pair, which is taken for the directory (D81).
    EmptyFileName,
    /// An entry for the registry without files, while another entry has some (D81).
    OtherEntry {
        /// The line of the entry that has them.
        line: u32,
    },
    /// A configuration file whose name is nearly right (D81).
    MisnamedConfig {
        /// The name under which it would be read.
        wanted: &'static str,
    },
    /// A key with a scheme or a path, where the engine wants `host[:port]` (D81).
    NotAHost {
        /// The key.
        key: String,
    },
    /// `_default` is found before the host's own directory (D11).
    DefaultShadows {
        /// The host's directory.
        host: PathBuf,
    },
    /// A list of directories that the engine takes for one (D82).
    ListTakenForOne {
        /// The list as it is written.
        list: String,
    },
    /// The engine is not told to read certificate directories at all (D82).
    NoConfigPath,
    /// A registry table under a plugin that the file's version does not have (D82).
    OtherPlugin,

    // The server's trust directory.
    /// A pin file must hold exactly one certificate (T01).
    NotOneCertificate {
        /// How many it holds.
        count: usize,
    },
    /// A file name that cannot be an identity's or a CA's name (T02).
    BadName {
        /// The stem.
        stem: String,
    },
    /// The same certificate is pinned twice: its name would be ambiguous (T03).
    DuplicatePin {
        /// The other file's name.
        first: String,
    },
    /// A line of the deny list that does not parse (T04).
    BadDenyLine {
        /// The rule's text, made visible.
        text: String,
        /// Which part is wrong.
        reason: String,
    },
    /// A revocation list that cannot be used (T05).
    BadCrl {
        /// Why.
        reason: String,
    },
    /// All revocation lists together are larger than is read; none of this file was (T06).
    TooManyCrls {
        /// How many bytes are read at most.
        limit: u64,
    },

    // Permissions of our own files.
    /// Our own private key can be read by other users (P01).
    PrivateKeyExposed {
        /// The permission bits.
        mode: u32,
    },
    /// A file or directory that decides on trust can be changed by other users (P02).
    WritableByOthers {
        /// The permission bits.
        mode: u32,
    },
    /// Owned by a user that is neither root nor ours (P03).
    ForeignOwner {
        /// The owner.
        uid: u32,
        /// Who should own it.
        expected: u32,
    },
}

/// What comes of a configuration file that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutConfig {
    /// The engine does not start.
    NotStarted,
    /// The certificate files beside it are read, as containerd does.
    CertificateFiles,
    /// Nothing is sent: Portcullis's own client does not guess what was meant.
    Refused,
}

/// In what way an existing directory's name differs from the wanted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookAlike {
    /// The directory that holds the host directories is misspelled, like `cert.d` (D02).
    Root,
    /// Upper case, a scheme, or a trailing dot (D04).
    Spelling,
    /// One has `:443`, the other has no port (D05).
    DefaultPort,
    /// Another port (D06).
    OtherPort,
    /// The port is spelled in another tool's way, like `host_5000_` (D07).
    OtherForm,
    /// The brackets around an IPv6 address are missing (D08).
    Brackets,
    /// The directory given as the host's own holds the host's directory (D03).
    OneLevelDown,
}

/// The two ways in which a PEM private key can be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// `BEGIN ENCRYPTED PRIVATE KEY` (RFC 5958).
    Pkcs8,
    /// `Proc-Type: 4,ENCRYPTED` inside an RSA or EC key (RFC 1421, OpenSSL's traditional form).
    Traditional,
}

impl Fault {
    /// Whether there is no such file: a missing one and a link to nothing are the same to Go.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Unreadable { error: io::ErrorKind::NotFound } | Self::DanglingLink)
    }

    /// The stable code under which the fault is documented.
    pub fn code(&self) -> &'static str {
        match self {
            Self::DirectoryMissing => "D01",
            Self::LookAlike { how, .. } => how.code(),
            Self::FilesInRoot => "D03",
            Self::Masked { .. } => "D10",
            Self::DirectoryUnreadable { .. } | Self::NotADirectory | Self::TooManyEntries { .. } => "D12",
            Self::MissingKey { .. } => "D20",
            Self::MissingCertificate { key_name, .. } if key_name == "tls.key" => "D24",
            Self::MissingCertificate { .. } => "D21",
            Self::CaKey { .. } => "D22",
            Self::IgnoredName { .. } => "D23",
            Self::Hidden | Self::AppleDouble => "D25",
            Self::TooLarge { .. }
            | Self::Empty
            | Self::ByteOrderMark
            | Self::Utf16
            | Self::DerCertificate
            | Self::DerKey
            | Self::Pkcs12
            | Self::Pkcs7
            | Self::TrustedCertificate
            | Self::Html
            | Self::NoPem
            | Self::OtherBlock { .. } => "D26",
            Self::BadBlock { .. } => "D27",
            Self::KeyAmongCertificates => "D28",
            Self::EncryptedKey { .. } => "D29",
            Self::UnsupportedKey { .. } => "D30",
            Self::KeyMismatch { .. } => "D31",
            Self::Swapped { .. } | Self::KeyWhereCertificate | Self::CertificateWhereKey => "D32",
            Self::LeafNotFirst { .. } | Self::ChainBroken { .. } => "D33",
            Self::KeyReadable { .. } => "D35",
            Self::Unreadable { .. } | Self::DanglingLink | Self::NotAFile => "D36",
            Self::Expired { .. } | Self::NotYetValid { .. } => "D40",
            Self::ExpiredRoot { .. } => "D41",
            Self::RootCannotSign { .. } => "D42",
            Self::RootIsLeaf { .. } => "D43",
            Self::NotForClients { .. } => "D44",
            Self::DefaultShadows { .. } => "D11",
            Self::ConfigNotTaken { .. }
            | Self::BesideHostsToml
            | Self::CombinedPair
            | Self::EmptyFileName
            | Self::OtherEntry { .. }
            | Self::MisnamedConfig { .. }
            | Self::NotAHost { .. } => "D81",
            Self::ListTakenForOne { .. } | Self::NoConfigPath | Self::OtherPlugin => "D82",
            Self::NotOneCertificate { .. } => "T01",
            Self::BadName { .. } => "T02",
            Self::DuplicatePin { .. } => "T03",
            Self::BadDenyLine { .. } => "T04",
            Self::BadCrl { .. } => "T05",
            Self::TooManyCrls { .. } => "T06",
            Self::PrivateKeyExposed { .. } => "P01",
            Self::WritableByOthers { .. } => "P02",
            Self::ForeignOwner { .. } => "P03",
        }
    }
}

impl LookAlike {
    const fn code(self) -> &'static str {
        match self {
            Self::Root => "D02",
            Self::Spelling => "D04",
            Self::DefaultPort => "D05",
            Self::OtherPort => "D06",
            Self::OtherForm => "D07",
            Self::Brackets => "D08",
            Self::OneLevelDown => "D03",
        }
    }
}
