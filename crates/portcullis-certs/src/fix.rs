//! What to do about a fault: always something that can be pasted, or the words that nothing is to be done.

use crate::command::ShellCommand;
use crate::fault::{Encryption, Fault, LookAlike};
use crate::finding::Finding;
use crate::visible::Visible;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

/// What to do about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// A command to paste.
    Run(ShellCommand),
    /// Something that no one command does, and the command of it that can be pasted: what opens the file, shows what to ask for, or
    /// does the part that is sure.
    Say {
        /// What is to be done.
        text: String,
        /// Where it starts.
        command: ShellCommand,
    },
    /// It is right as it is.
    NothingToDo,
}

impl Fix {
    /// The command to paste; `None` when there is nothing to do.
    pub const fn command(&self) -> Option<&ShellCommand> {
        match self {
            Self::Run(command) | Self::Say { command, .. } => Some(command),
            Self::NothingToDo => None,
        }
    }

    pub(crate) fn of(finding: &Finding) -> Self {
        of(&finding.path, finding.line, &finding.fault)
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(command) => write!(f, "{command}"),
            Self::Say { text, command } => write!(f, "{text}: {command}"),
            Self::NothingToDo => f.write_str("nothing to do"),
        }
    }
}

fn of(path: &Path, line: Option<u32>, fault: &Fault) -> Fix {
    match fault {
        Fault::LookAlike { .. }
        | Fault::DirectoryMissing
        | Fault::FilesInRoot
        | Fault::Masked { .. }
        | Fault::DirectoryUnreadable { .. }
        | Fault::NotADirectory
        | Fault::TooManyEntries { .. } => directory(path, fault),
        Fault::MissingKey { .. }
        | Fault::MissingCertificate { .. }
        | Fault::CaKey { .. }
        | Fault::KeyMismatch { .. }
        | Fault::Swapped { .. }
        | Fault::LeafNotFirst { .. }
        | Fault::ChainBroken { .. }
        | Fault::IgnoredName { .. } => pair(path, fault),
        Fault::Expired { .. }
        | Fault::ExpiredRoot { .. }
        | Fault::NotYetValid { .. }
        | Fault::RootCannotSign { .. }
        | Fault::NotForClients { .. } => certificate(path, fault),
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
        | Fault::OtherPlugin => config(path, line, fault),
        Fault::NotOneCertificate { .. }
        | Fault::BadName { .. }
        | Fault::DuplicatePin { .. }
        | Fault::BadDenyLine { .. }
        | Fault::BadCrl { .. }
        | Fault::TooManyCrls { .. } => trust(path, line, fault),
        _ => file(path, line, fault),
    }
}

fn directory(path: &Path, fault: &Fault) -> Fix {
    match fault {
        Fault::LookAlike { wanted, how } => look_alike(path, wanted, *how),
        Fault::DirectoryMissing => run(["mkdir", "-p"], path),
        Fault::FilesInRoot => say(
            "move them into a directory with the registry's name, with `:port` if the reference has a port",
            command(["ls", "-l"], path),
        ),
        // `-n`: what is in the directory that counts stays.
        Fault::Masked { by } => say(
            "put all files of this registry into the directory that is read",
            ShellCommand::new([
                OsString::from("cp"),
                "-rnp".into(),
                ShellCommand::operand(&path.join(".")),
                ShellCommand::operand(by),
            ]),
        ),
        Fault::NotADirectory => {
            let aside = aside(path);
            Fix::Run(
                ShellCommand::new([OsString::from("mv"), "-i".into(), ShellCommand::operand(path), aside])
                    .then([OsString::from("mkdir"), ShellCommand::operand(path)]),
            )
        }
        Fault::TooManyEntries { .. } => {
            let others =
                ["crt", "cert", "key"].map(|suffix| ["!".to_owned(), "-name".to_owned(), format!("*.{suffix}")]);
            let argv = [OsString::from("find"), ShellCommand::operand(path), "-type".into(), "f".into()];
            say(
                "leave only certificates and keys in it",
                ShellCommand::new(argv.into_iter().chain(others.concat().into_iter().map(Into::into))),
            )
        }
        _ => run(["chmod", "a+rx"], path),
    }
}

fn look_alike(path: &Path, wanted: &Path, how: LookAlike) -> Fix {
    let parent = ShellCommand::operand(wanted.parent().unwrap_or(wanted));
    let copy = || {
        ShellCommand::new([
            OsString::from("cp"),
            "-rp".into(),
            ShellCommand::operand(path),
            ShellCommand::operand(wanted),
        ])
    };
    match how {
        LookAlike::Root => Fix::Run(ShellCommand::new([OsString::from("mkdir"), "-p".into(), parent.clone()]).then([
            OsString::from("mv"),
            ShellCommand::operand(path),
            parent,
        ])),
        // Both may be needed: engines that are asked with the port look there.
        LookAlike::DefaultPort => Fix::Run(copy()),
        LookAlike::OtherPort => {
            say("if both ports are the same registry's, copy the directory; else ask with the other port", copy())
        }
        LookAlike::OneLevelDown => say(
            "name that directory itself, or its parent as the directory of all registries",
            command(["ls", "-l"], path),
        ),
        _ => Fix::Run(ShellCommand::new([
            OsString::from("mv"),
            ShellCommand::operand(path),
            ShellCommand::operand(wanted),
        ])),
    }
}

fn pair(path: &Path, fault: &Fault) -> Fix {
    let beside = |name: &str| ShellCommand::operand(&path.with_file_name(name));
    // `-i`: nothing is overwritten unasked, least of all a key.
    let mv = |from: OsString, to: OsString| ShellCommand::new([OsString::from("mv"), "-i".into(), from, to]);
    // A near miss lies in another host's directory, or one level too high.
    let look_for = |name: &str| {
        let root = path.parent().and_then(Path::parent).unwrap_or(path);
        ShellCommand::new([OsString::from("find"), ShellCommand::operand(root), "-name".into(), name.into()])
    };
    match fault {
        Fault::MissingKey { is_ca: true, .. } => {
            Fix::Run(mv(ShellCommand::operand(path), ShellCommand::operand(&path.with_extension("crt"))))
        }
        Fault::MissingKey { key_name, .. } => say(
            &format!(
                "put the certificate's key beside it as {}; if it is the registry's CA, let its name end in .crt",
                Visible(key_name)
            ),
            look_for(key_name),
        ),
        Fault::MissingCertificate { crt_name: Some(crt), cert_name, .. } => {
            Fix::Run(mv(beside(crt), beside(cert_name)))
        }
        Fault::MissingCertificate { cert_name, .. } => say(
            &format!("put the key's certificate beside it as {}, or take the key out of the way", Visible(cert_name)),
            mv(ShellCommand::operand(path), aside(path)),
        ),
        Fault::CaKey { .. } => say(
            "move it off this machine: who has it can make certificates that this CA's users trust; until then, out of the directory",
            mv(ShellCommand::operand(path), "/root/".into()),
        ),
        Fault::KeyMismatch { key_name, matches: Some(other), .. } => say(
            &format!("give {} the stem of {}, without overwriting another key", Visible(key_name), Visible(other)),
            ShellCommand::show(path.parent().unwrap_or(path)),
        ),
        Fault::KeyMismatch { .. } => say(
            "find the key that was made with this certificate, or ask for a new certificate",
            ShellCommand::show(path.parent().unwrap_or(path)),
        ),
        Fault::Swapped { cert_name, key_name } => Fix::Run(
            ShellCommand::new([OsString::from("mv"), beside(cert_name), beside("swap.tmp")])
                .then([OsString::from("mv"), beside(key_name), beside(cert_name)])
                .then([OsString::from("mv"), beside("swap.tmp"), beside(key_name)]),
        ),
        Fault::IgnoredName { wanted } => Fix::Run(mv(ShellCommand::operand(path), beside(wanted))),
        _ => say(
            "order the file: the client's certificate, then the one that issued it, and so on",
            ShellCommand::show(path),
        ),
    }
}

fn certificate(path: &Path, fault: &Fault) -> Fix {
    match fault {
        Fault::NotYetValid { .. } => say(
            "check this machine's clock; if it is right, wait or ask for a new certificate",
            ShellCommand::new(["date", "-u"]),
        ),
        Fault::RootCannotSign { .. } => {
            say("ask for a CA certificate whose keyUsage has keyCertSign, or has no keyUsage", ShellCommand::show(path))
        }
        Fault::NotForClients { .. } => {
            say("ask for a certificate with digitalSignature and clientAuth", ShellCommand::show(path))
        }
        _ => say("ask whoever issued it for a new one", ShellCommand::show(path)),
    }
}

fn config(path: &Path, line: Option<u32>, fault: &Fault) -> Fix {
    let edit = || ShellCommand::edit(path, line);
    match fault {
        Fault::ConfigNotTaken { .. } => say("correct that line", edit()),
        Fault::BesideHostsToml => say(
            "name the files in hosts.toml as `ca` and `client`, or remove hosts.toml",
            ShellCommand::edit(&path.with_file_name("hosts.toml"), None),
        ),
        Fault::CombinedPair => say("write client = [[\"CERT\", \"KEY\"]]", edit()),
        Fault::EmptyFileName => say("write client = \"FILE\" for a file that holds both", edit()),
        Fault::OtherEntry { .. } => say("repeat `ca` and `client` in this entry", edit()),
        Fault::MisnamedConfig { wanted } => Fix::Run(ShellCommand::new([
            "mv".into(),
            "-i".into(),
            ShellCommand::operand(path),
            ShellCommand::operand(&path.with_file_name(wanted)),
        ])),
        Fault::NotAHost { .. } => say("write the key without scheme and path", edit()),
        Fault::DefaultShadows { host } => {
            let mut with_port = host.as_os_str().to_owned();
            with_port.push(":443");
            Fix::Run(ShellCommand::new([
                "cp".into(),
                "-rp".into(),
                ShellCommand::operand(host),
                ShellCommand::operand(Path::new(&with_port)),
            ]))
        }
        Fault::ListTakenForOne { .. } => say("set config_path to one directory, and start containerd again", edit()),
        Fault::NoConfigPath => say(
            "set config_path = \"/etc/containerd/certs.d\" in the registry table of the CRI plugin, and start containerd again",
            edit(),
        ),
        _ => say(
            "move it to the plugin of this version: io.containerd.grpc.v1.cri, or io.containerd.cri.v1.images in version 3",
            edit(),
        ),
    }
}

/// The files of our own `trust/`.
fn trust(path: &Path, line: Option<u32>, fault: &Fault) -> Fix {
    match fault {
        Fault::NotOneCertificate { .. } => say(
            "write each certificate into a file of its own; the file's name is the identity's name",
            ShellCommand::show(path),
        ),
        Fault::BadName { stem } => {
            let allowed = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' };
            let name: String = stem.chars().map(allowed).take(64).collect();
            let to = path.with_file_name(if name.is_empty() { "name".to_owned() } else { name });
            let mut to = ShellCommand::operand(&to);
            to.push(".crt");
            say(
                "rename the file: the part before .crt is the name",
                ShellCommand::new(["mv".into(), "-i".into(), ShellCommand::operand(path), to]),
            )
        }
        Fault::DuplicatePin { .. } => run(["rm"], path),
        Fault::BadDenyLine { .. } => say(
            "write one of: sha256:HEX | serial:<CA key hash>:<HEX> | key:HEX | name:<matcher> before <RFC 3339>, then optionally `# who, when, why`",
            ShellCommand::edit(path, line),
        ),
        Fault::BadCrl { .. } => say(
            "get the CA's whole revocation list, newest edition; until then write what it revokes into the file `deny`",
            ShellCommand::new([
                "openssl".into(),
                "crl".into(),
                "-noout".into(),
                "-text".into(),
                "-in".into(),
                ShellCommand::operand(path),
            ]),
        ),
        _ => say(
            "leave one list per CA in trust/crls, the newest",
            command(["ls", "-lt"], path.parent().unwrap_or(path)),
        ),
    }
}

fn file(path: &Path, line: Option<u32>, fault: &Fault) -> Fix {
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
        Fault::Pkcs12 => pkcs12(path),
        Fault::ByteOrderMark => Fix::Run(ShellCommand::new([
            "sed".into(),
            "-i".into(),
            r"1s/^\xef\xbb\xbf//".into(),
            ShellCommand::operand(path),
        ])),
        Fault::Utf16 => through_iconv(path),
        Fault::AppleDouble => run(["rm"], path),
        Fault::Unreadable { error: io::ErrorKind::NotFound } => {
            say("check the path", command(["ls", "-l"], path.parent().unwrap_or(path)))
        }
        Fault::Unreadable { .. } => say("let the user who runs this command read it", command(["ls", "-l"], path)),
        Fault::UnsupportedKey { .. } => {
            let mut new = ShellCommand::operand(path);
            new.push(".new");
            let argv = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"];
            say(
                "make a new key (P-256, P-384, P-521, Ed25519 or RSA of 2048 to 8192 bits) and ask for a certificate for it",
                ShellCommand::new(argv.into_iter().map(OsString::from).chain([new])),
            )
        }
        // What is taken out stays beside it under a name that no engine reads.
        Fault::KeyAmongCertificates => {
            let mut kept = ShellCommand::operand(path);
            kept.push(".before-fix");
            let script = "/-----BEGIN [A-Z ]*PRIVATE KEY-----/,/-----END [A-Z ]*PRIVATE KEY-----/d";
            let taken =
                ShellCommand::new(["sed".into(), "-i.before-fix".into(), script.into(), ShellCommand::operand(path)]);
            Fix::Run(taken.then([OsString::from("chmod"), "600".into(), kept]))
        }
        Fault::KeyWhereCertificate => say(
            "put the certificate there; a private key belongs into <name>.key",
            ShellCommand::show(path.parent().unwrap_or(path)),
        ),
        Fault::CertificateWhereKey => say(
            "put the private key there; a certificate belongs into <name>.cert, a CA's into <name>.crt",
            ShellCommand::show(path.parent().unwrap_or(path)),
        ),
        Fault::DanglingLink | Fault::NotAFile => say(
            "put the file itself in its place, or take this out of the way",
            ShellCommand::new(["mv".into(), "-i".into(), ShellCommand::operand(path), aside(path)]),
        ),
        Fault::BadBlock { .. } | Fault::OtherBlock { .. } => say(
            "get the file again from whoever made it, as PEM (it starts with `-----BEGIN`), or correct it",
            ShellCommand::edit(path, line),
        ),
        _ => say(
            "get the file again from whoever made it, as PEM (it starts with `-----BEGIN`), and put this one aside",
            ShellCommand::new(["mv".into(), "-i".into(), ShellCommand::operand(path), aside(path)]),
        ),
    }
}

/// Only a file with a name of its own is split by a command: one that is called `client.cert` would be its own output.
fn pkcs12(path: &Path) -> Fix {
    let is_named = path.extension().is_some_and(|extension| extension == "p12" || extension == "pfx");
    let source = if is_named { path.to_owned() } else { path.with_extension("p12") };
    let step = |options: &[&str], extension: &str| {
        let mut argv: Vec<OsString> = ["openssl", "pkcs12"].iter().chain(options).map(OsString::from).collect();
        argv.extend([
            "-in".into(),
            ShellCommand::operand(&source),
            "-out".into(),
            ShellCommand::operand(&path.with_extension(extension)),
        ]);
        argv
    };
    let (certificate, key) = (step(&["-clcerts", "-nokeys"], "cert"), step(&["-nocerts", "-nodes"], "key"));
    Fix::Run(if is_named {
        ShellCommand::new(certificate).then(key)
    } else {
        let renamed = ShellCommand::new([
            OsString::from("mv"),
            "-i".into(),
            ShellCommand::operand(path),
            ShellCommand::operand(&source),
        ]);
        renamed.then(certificate).then(key)
    })
}

/// A conversion that leaves the file as it was when the command fails.
fn through(path: &Path, program: &[&str]) -> Fix {
    let mut converted = ShellCommand::operand(path);
    converted.push(".new");
    let mut argv: Vec<OsString> = program.iter().map(OsString::from).collect();
    argv.extend(["-in".into(), ShellCommand::operand(path), "-out".into(), converted.clone()]);
    Fix::Run(ShellCommand::new(argv).then([OsString::from("mv"), converted, ShellCommand::operand(path)]))
}

fn through_iconv(path: &Path) -> Fix {
    let mut converted = ShellCommand::operand(path);
    converted.push(".new");
    let argv = ["iconv", "-f", "UTF-16", "-t", "UTF-8", "-o"].map(OsString::from);
    let argv = argv.into_iter().chain([converted.clone(), ShellCommand::operand(path)]);
    Fix::Run(ShellCommand::new(argv).then([OsString::from("mv"), converted, ShellCommand::operand(path)]))
}

fn run<W: Into<OsString>>(argv: impl IntoIterator<Item = W>, path: &Path) -> Fix {
    Fix::Run(command(argv, path))
}

fn command<W: Into<OsString>>(argv: impl IntoIterator<Item = W>, path: &Path) -> ShellCommand {
    ShellCommand::new(argv.into_iter().map(Into::into).chain([ShellCommand::operand(path)]))
}

fn say(text: &str, command: ShellCommand) -> Fix {
    Fix::Say { text: text.to_owned(), command }
}

/// A name under which no engine reads it.
fn aside(path: &Path) -> OsString {
    let mut name = ShellCommand::operand(path);
    name.push(".unused");
    name
}
