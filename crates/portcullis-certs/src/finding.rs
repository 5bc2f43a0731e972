//! A fault, where it is, how bad it is, and what to do about it.

use crate::command::ShellCommand;
use crate::fault::{Encryption, Fault, LookAlike};
use crate::fault_text::shown;
use crate::visible::Visible;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// One thing that is wrong, or worth knowing, about a file, a directory or a line.
///
/// [`fmt::Display`] gives `path:line: text` (`path: text` without a line), all made visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file or directory.
    pub path: PathBuf,
    /// The line in it, counted from 1.
    pub line: Option<u32>,
    /// How bad it is for whoever reads.
    pub severity: Severity,
    /// What it is.
    pub fault: Fault,
}

/// How bad a finding is. Ordered: a note is less than a warning is less than a fatal one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; what was asked for works.
    Note,
    /// Something is not used, or will not work much longer; the rest works.
    Warning,
    /// What was asked for cannot be done.
    Fatal,
}

/// What to do about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// A command to paste.
    Run(ShellCommand),
    /// Something that no one command does.
    Say(String),
    /// It is right as it is.
    NothingToDo,
}

impl Finding {
    /// A finding about the whole file or directory.
    pub fn new(path: &Path, severity: Severity, fault: Fault) -> Self {
        Self { path: path.to_owned(), line: None, severity, fault }
    }

    /// A finding about one line of a file, counted from 1.
    pub fn at(path: &Path, line: u32, severity: Severity, fault: Fault) -> Self {
        Self { path: path.to_owned(), line: Some(line), severity, fault }
    }

    /// The stable code, `D20`.
    pub fn code(&self) -> &'static str {
        self.fault.code()
    }

    /// What to do. Commands name local paths only.
    pub fn fix(&self) -> Fix {
        fix(&self.path, &self.fault)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.path))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fatal => "fatal",
        })
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(command) => write!(f, "{command}"),
            Self::Say(text) => f.write_str(text),
            Self::NothingToDo => f.write_str("nothing to do"),
        }
    }
}

fn fix(path: &Path, fault: &Fault) -> Fix {
    match fault {
        Fault::LookAlike { .. }
        | Fault::DirectoryMissing
        | Fault::FilesInRoot
        | Fault::Masked { .. }
        | Fault::DirectoryUnreadable { .. }
        | Fault::NotADirectory
        | Fault::TooManyEntries { .. } => fix_directory(path, fault),
        Fault::MissingKey { .. }
        | Fault::MissingCertificate { .. }
        | Fault::CaKey { .. }
        | Fault::KeyMismatch { .. }
        | Fault::Swapped { .. }
        | Fault::LeafNotFirst { .. }
        | Fault::ChainBroken { .. }
        | Fault::IgnoredName { .. } => fix_pair(path, fault),
        Fault::Expired { .. } | Fault::ExpiredRoot { .. } => say("ask whoever issued it for a new one"),
        Fault::NotYetValid { .. } => {
            say("check this machine's clock; if it is right, wait or ask for a new certificate")
        }
        Fault::RootCannotSign { .. } => {
            say("ask for a CA certificate whose keyUsage has keyCertSign, or has no keyUsage")
        }
        Fault::NotForClients { .. } => say("ask for a certificate with digitalSignature and clientAuth"),
        Fault::RootIsLeaf { .. } | Fault::Hidden => Fix::NothingToDo,
        Fault::PrivateKeyExposed { .. } | Fault::KeyReadable { .. } => run(["chmod", "600"], path),
        Fault::WritableByOthers { .. } => run(["chmod", "go-w"], path),
        Fault::ForeignOwner { expected, .. } => run(["chown".to_owned(), expected.to_string()], path),
        Fault::ConfigNotTaken { .. }
        | Fault::BesideHostsToml
        | Fault::CombinedPair
        | Fault::EmptyFileName
        | Fault::OtherEntry { .. }
        | Fault::MisnamedConfig { .. }
        | Fault::NotAHost { .. }
        | Fault::DefaultShadows { .. }
        | Fault::ListTakenForOne { .. }
        | Fault::NoConfigPath
        | Fault::OtherPlugin => fix_config(path, fault),
        Fault::NotOneCertificate { .. } => {
            say("write each certificate into a file of its own; the file's name is the identity's name")
        }
        Fault::BadName { .. } => say("rename the file: the part before .crt is the name"),
        Fault::DuplicatePin { .. } => run(["rm"], path),
        Fault::BadDenyLine { .. } => say(
            "write one of: sha256:HEX | serial:<CA key hash>:<HEX> | key:HEX | name:<matcher> before <RFC 3339>, then optionally `# who, when, why`",
        ),
        Fault::BadCrl { .. } => say(
            "get the CA's whole revocation list, newest edition; until then write what it revokes into the file `deny`",
        ),
        Fault::TooManyCrls { .. } => say("leave one list per CA in trust/crls, the newest"),
        _ => fix_file(path, fault),
    }
}

fn fix_directory(path: &Path, fault: &Fault) -> Fix {
    match fault {
        Fault::LookAlike { wanted, how } => fix_look_alike(path, wanted, *how),
        Fault::DirectoryMissing => run(["mkdir", "-p"], path),
        Fault::FilesInRoot => {
            say("move them into a directory with the registry's name, with `:port` if the reference has a port")
        }
        Fault::Masked { .. } => say("put all files of this registry into one of the two directories"),
        Fault::NotADirectory => say("put a directory in its place"),
        Fault::TooManyEntries { .. } => say("leave only certificates and keys in it"),
        _ => run(["chmod", "a+rx"], path),
    }
}

fn fix_look_alike(path: &Path, wanted: &Path, how: LookAlike) -> Fix {
    let parent = operand(wanted.parent().unwrap_or(wanted));
    match how {
        LookAlike::Root => Fix::Run(ShellCommand::new([OsString::from("mkdir"), "-p".into(), parent.clone()]).then([
            OsString::from("mv"),
            operand(path),
            parent,
        ])),
        // Both may be needed: engines that are asked with the port look there.
        LookAlike::DefaultPort => {
            Fix::Run(ShellCommand::new([OsString::from("cp"), "-rp".into(), operand(path), operand(wanted)]))
        }
        LookAlike::OtherPort => {
            say("if both ports are the same registry's, copy the directory; else ask with the other port")
        }
        LookAlike::OneLevelDown => {
            Fix::Say(format!("name {} itself, or its parent as the directory of all registries", shown(path)))
        }
        _ => Fix::Run(ShellCommand::new([OsString::from("mv"), operand(path), operand(wanted)])),
    }
}

fn fix_pair(path: &Path, fault: &Fault) -> Fix {
    let beside = |name: &str| operand(&path.with_file_name(name));
    // `-i`: nothing is overwritten unasked, least of all a key.
    let mv = |from: OsString, to: OsString| Fix::Run(ShellCommand::new([OsString::from("mv"), "-i".into(), from, to]));
    match fault {
        Fault::MissingKey { is_ca: true, .. } => mv(operand(path), operand(&path.with_extension("crt"))),
        Fault::MissingKey { key_name, .. } => Fix::Say(format!(
            "put the certificate's key beside it as {}; if it is the registry's CA, let its name end in .crt",
            Visible(key_name)
        )),
        Fault::MissingCertificate { crt_name: Some(crt), cert_name, .. } => mv(beside(crt), beside(cert_name)),
        Fault::MissingCertificate { cert_name, .. } => {
            Fix::Say(format!("put the key's certificate beside it as {}, or remove the key", Visible(cert_name)))
        }
        Fault::CaKey { .. } => {
            say("move it off this machine: who has it can make certificates that this CA's users trust")
        }
        Fault::KeyMismatch { key_name, matches: Some(other), .. } => Fix::Say(format!(
            "give {} the stem of {}, without overwriting another key",
            Visible(key_name),
            Visible(other)
        )),
        Fault::KeyMismatch { .. } => {
            say("find the key that was made with this certificate, or ask for a new certificate")
        }
        Fault::Swapped { cert_name, key_name } => Fix::Run(
            ShellCommand::new([OsString::from("mv"), beside(cert_name), beside("swap.tmp")])
                .then([OsString::from("mv"), beside(key_name), beside(cert_name)])
                .then([OsString::from("mv"), beside("swap.tmp"), beside(key_name)]),
        ),
        Fault::IgnoredName { wanted } => mv(operand(path), beside(wanted)),
        _ => say("order the file: the client's certificate, then the one that issued it, and so on"),
    }
}

fn fix_config(path: &Path, fault: &Fault) -> Fix {
    match fault {
        Fault::ConfigNotTaken { .. } => say("correct that line"),
        Fault::BesideHostsToml => say("name the files in hosts.toml as `ca` and `client`, or remove hosts.toml"),
        Fault::CombinedPair => say("write client = [[\"CERT\", \"KEY\"]]"),
        Fault::EmptyFileName => say("write client = \"FILE\" for a file that holds both"),
        Fault::OtherEntry { .. } => say("repeat `ca` and `client` in this entry"),
        Fault::MisnamedConfig { wanted } => Fix::Run(ShellCommand::new([
            "mv".into(),
            "-i".into(),
            operand(path),
            operand(&path.with_file_name(wanted)),
        ])),
        Fault::NotAHost { .. } => say("write the key without scheme and path"),
        Fault::DefaultShadows { host } => {
            let mut with_port = host.as_os_str().to_owned();
            with_port.push(":443");
            Fix::Run(ShellCommand::new(["cp".into(), "-rp".into(), operand(host), operand(Path::new(&with_port))]))
        }
        Fault::ListTakenForOne { .. } => say("set config_path to one directory, and start containerd again"),
        Fault::NoConfigPath => say(
            "set config_path = \"/etc/containerd/certs.d\" in the registry table of the CRI plugin, and start containerd again",
        ),
        _ => say(
            "move it to the plugin of this version: io.containerd.grpc.v1.cri, or io.containerd.cri.v1.images in version 3",
        ),
    }
}

fn fix_file(path: &Path, fault: &Fault) -> Fix {
    match fault {
        // Into another file first: `openssl pkey -in K -out K` empties K before it reads it (OpenSSL 3.0).
        Fault::EncryptedKey { encryption: Encryption::Pkcs8 } => through(path, &["openssl", "pkey"]),
        Fault::EncryptedKey { encryption: Encryption::Traditional } => {
            through(path, &["openssl", "pkcs8", "-topk8", "-nocrypt"])
        }
        Fault::DerCertificate => through(path, &["openssl", "x509", "-inform", "DER"]),
        Fault::DerKey => through(path, &["openssl", "pkey", "-inform", "DER"]),
        Fault::TrustedCertificate => through(path, &["openssl", "x509"]),
        Fault::Pkcs7 => through(path, &["openssl", "pkcs7", "-print_certs"]),
        Fault::Pkcs12 => fix_pkcs12(path),
        Fault::ByteOrderMark => {
            Fix::Run(ShellCommand::new(["sed".into(), "-i".into(), r"1s/^\xef\xbb\xbf//".into(), operand(path)]))
        }
        Fault::AppleDouble => run(["rm"], path),
        Fault::Unreadable { error: io::ErrorKind::NotFound } => say("check the path"),
        Fault::Unreadable { .. } => say("let the user who runs this command read it"),
        Fault::UnsupportedKey { .. } => say(
            "make a new key (P-256, P-384, P-521, Ed25519 or RSA of 2048 to 8192 bits) and ask for a certificate for it",
        ),
        Fault::KeyAmongCertificates => say("take the key out of it: certificates are for everybody, keys are not"),
        Fault::KeyWhereCertificate => say("put the certificate there; a private key belongs into <name>.key"),
        Fault::CertificateWhereKey => {
            say("put the private key there; a certificate belongs into <name>.cert, a CA's into <name>.crt")
        }
        Fault::DanglingLink | Fault::NotAFile => say("put the file itself in its place, or remove it"),
        _ => say("get the file again from whoever made it, as PEM (it starts with `-----BEGIN`)"),
    }
}

/// Only a file with a name of its own is split by a command: one that is called `client.cert` would be its own output.
fn fix_pkcs12(path: &Path) -> Fix {
    if !path.extension().is_some_and(|extension| extension == "p12" || extension == "pfx") {
        return say(
            "rename it to <name>.p12 and take it apart with `openssl pkcs12 -clcerts -nokeys` and `openssl pkcs12 -nocerts -nodes`",
        );
    }
    let step = |options: &[&str], extension: &str| {
        let mut argv: Vec<OsString> = ["openssl", "pkcs12"].iter().chain(options).map(OsString::from).collect();
        argv.extend(["-in".into(), operand(path), "-out".into(), operand(&path.with_extension(extension))]);
        argv
    };
    Fix::Run(ShellCommand::new(step(&["-clcerts", "-nokeys"], "cert")).then(step(&["-nocerts", "-nodes"], "key")))
}

/// A conversion that leaves the file as it was when the command fails.
fn through(path: &Path, program: &[&str]) -> Fix {
    let mut converted = operand(path);
    converted.push(".new");
    let mut argv: Vec<OsString> = program.iter().map(OsString::from).collect();
    argv.extend(["-in".into(), operand(path), "-out".into(), converted.clone()]);
    Fix::Run(ShellCommand::new(argv).then([OsString::from("mv"), converted, operand(path)]))
}

fn run<W: Into<OsString>>(argv: impl IntoIterator<Item = W>, path: &Path) -> Fix {
    Fix::Run(ShellCommand::new(argv.into_iter().map(Into::into).chain([operand(path)])))
}

fn say(text: &str) -> Fix {
    Fix::Say(text.to_owned())
}

/// A path as a program's argument: one that starts with a hyphen would be taken for an option.
fn operand(path: &Path) -> OsString {
    if path.as_os_str().as_encoded_bytes().starts_with(b"-") { Path::new(".").join(path).into() } else { path.into() }
}
