//! The words of each fault. What is wrong only: what to do about it is [`Fix`](crate::Fix)'s.

use crate::fault::{Encryption, Fault, LookAlike, WithoutConfig};
use crate::visible::{Visible, visible_bytes};
use std::fmt;
use std::io;
use std::path::Path;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DirectoryMissing
            | Self::LookAlike { .. }
            | Self::FilesInRoot
            | Self::Masked { .. }
            | Self::DirectoryUnreadable { .. }
            | Self::NotADirectory
            | Self::TooManyEntries { .. } => self.write_directory(f),
            Self::MissingKey { .. }
            | Self::MissingCertificate { .. }
            | Self::CaKey { .. }
            | Self::KeyMismatch { .. }
            | Self::Swapped { .. }
            | Self::LeafNotFirst { .. }
            | Self::ChainBroken { .. } => self.write_pair(f),
            Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::ExpiredRoot { .. }
            | Self::RootCannotSign { .. }
            | Self::RootIsLeaf { .. }
            | Self::NotForClients { .. } => self.write_x509(f),
            Self::ConfigNotTaken { .. }
            | Self::BesideHostsToml
            | Self::CombinedPair
            | Self::EmptyFileName
            | Self::OtherEntry { .. }
            | Self::MisnamedConfig { .. }
            | Self::NotAHost { .. }
            | Self::DefaultShadows { .. }
            | Self::ListTakenForOne { .. }
            | Self::NoConfigPath
            | Self::OtherPlugin => self.write_config(f),
            Self::NotOneCertificate { .. }
            | Self::BadName { .. }
            | Self::DuplicatePin { .. }
            | Self::BadDenyLine { .. }
            | Self::BadCrl { .. }
            | Self::TooManyCrls { .. }
            | Self::PrivateKeyExposed { .. }
            | Self::WritableByOthers { .. }
            | Self::ForeignOwner { .. } => self.write_ours(f),
            _ => self.write_file(f),
        }
    }
}

/// Each `write_…` words one group of variants; the `_` arms are the variants of the other groups.
impl Fault {
    fn write_directory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DirectoryMissing => f.write_str("no such directory"),
            Self::LookAlike { wanted, how } => {
                write!(f, "not read: {how}; the directory looked for is {}", shown(wanted))
            }
            Self::FilesInRoot => f.write_str(
                "certificate files here are not read: they belong into a directory named after the registry",
            ),
            Self::Masked { by } => write!(f, "not read: {} comes first and only one is read", shown(by)),
            Self::DirectoryUnreadable { error } => write!(f, "directory cannot be read: {}", io_text(*error)),
            Self::NotADirectory => f.write_str("is not a directory"),
            Self::TooManyEntries { limit } => write!(f, "more than {limit} entries; none was read"),
            _ => Ok(()),
        }
    }

    fn write_pair(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The sentence of Docker's page "Verify repository client with certificates", word for word.
            Self::MissingKey { cert_name, key_name, .. } => write!(
                f,
                "Missing key {} for client certificate {}. CA certificates should use the extension .crt.",
                Visible(key_name),
                Visible(cert_name)
            ),
            Self::MissingCertificate { cert_name, key_name, crt_name } => {
                write!(f, "missing client certificate {} for key {}", Visible(cert_name), Visible(key_name))?;
                match crt_name {
                    Some(crt) => write!(f, "; {} is read as a CA because of its name", Visible(crt)),
                    None => Ok(()),
                }
            }
            Self::CaKey { ca_name } => {
                write!(f, "this is the private key of the CA in {}: a client must not have it", Visible(ca_name))
            }
            Self::KeyMismatch { cert_name, key_name, matches } => {
                write!(f, "key {} does not belong to certificate {}", Visible(key_name), Visible(cert_name))?;
                match matches {
                    Some(other) => write!(f, "; it belongs to {}", Visible(other)),
                    None => Ok(()),
                }
            }
            Self::Swapped { cert_name, key_name } => {
                write!(f, "{} holds the key and {} the certificate", Visible(cert_name), Visible(key_name))
            }
            Self::LeafNotFirst { position } => write!(
                f,
                "the key belongs to certificate number {position} of the file: the client's certificate must come first, its issuers after it"
            ),
            Self::ChainBroken { subject } => {
                write!(f, "certificate `{}` did not issue the one before it", Visible(subject))
            }
            _ => Ok(()),
        }
    }

    fn write_config(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigNotTaken { reason, then } => match then {
                WithoutConfig::CertificateFiles => {
                    write!(f, "not read: {}; the certificate files are read instead", Visible(reason))
                }
                WithoutConfig::NotStarted => write!(f, "the engine does not start with it: {}", Visible(reason)),
                WithoutConfig::Refused => write!(f, "cannot be read: {}", Visible(reason)),
            },
            Self::BesideHostsToml => f.write_str("not read: hosts.toml is there and counts alone"),
            Self::CombinedPair => f.write_str(
                "names two files that each hold certificate and key; a pair of files is [[\"CERT\", \"KEY\"]]",
            ),
            Self::EmptyFileName => f.write_str("an empty file name stands for the directory itself, which is no file"),
            Self::OtherEntry { line } => {
                write!(f, "this entry has no certificate files, and those of line {line} do not count for it")
            }
            Self::MisnamedConfig { wanted } => write!(f, "not read because of its name; it would be read as {wanted}"),
            Self::NotAHost { key } => {
                write!(f, "`{}` is never looked for: the key is host or host:port", Visible(key))
            }
            Self::DefaultShadows { host } => write!(f, "read instead of {}: it is found first", shown(host)),
            Self::ListTakenForOne { list } => {
                write!(f, "`{}` is taken for the name of one directory, so that none is read", Visible(list))
            }
            Self::NoConfigPath => f.write_str("no config_path for registries: no certificate directory is read"),
            Self::OtherPlugin => f.write_str("not read: this is the table of another version's plugin"),
            _ => Ok(()),
        }
    }

    fn write_file(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IgnoredName { wanted } => {
                write!(f, "not read because of its name; it would be read as {}", Visible(wanted))
            }
            Self::Hidden => f.write_str("read although its name starts with a dot"),
            Self::AppleDouble => f.write_str("is an AppleDouble file that macOS puts into archives, not a certificate"),
            Self::Unreadable { error } => write!(f, "cannot be read: {}", io_text(*error)),
            Self::DanglingLink => f.write_str("is a symbolic link to nothing"),
            Self::NotAFile => f.write_str("is not a regular file"),
            Self::TooLarge { limit } => write!(f, "is larger than {limit} bytes"),
            Self::Empty => f.write_str("is empty"),
            Self::ByteOrderMark => {
                f.write_str("starts with a UTF-8 byte order mark, so that its first PEM block is not seen")
            }
            Self::Utf16 => f.write_str("is UTF-16 text; PEM is ASCII"),
            Self::DerCertificate => f.write_str("is a certificate in DER; PEM is needed"),
            Self::DerKey => f.write_str("is a private key in DER; PEM is needed"),
            Self::Pkcs12 => f.write_str("is PKCS#12 (PFX); PEM is needed"),
            Self::Pkcs7 => f.write_str("is PKCS#7 (P7B); PEM is needed"),
            Self::TrustedCertificate => f.write_str("is OpenSSL's `TRUSTED CERTIFICATE`, which only OpenSSL reads"),
            Self::Html => f.write_str("is an HTML page, not a certificate"),
            Self::NoPem => f.write_str("has no PEM block"),
            Self::OtherBlock { label } => write!(f, "PEM block `{}` has no meaning here", Visible(label)),
            Self::BadBlock { label, reason } => {
                write!(f, "PEM block `{}` is broken: {}", Visible(label), Visible(reason))
            }
            Self::KeyAmongCertificates => f.write_str("holds a private key beside certificates"),
            Self::KeyWhereCertificate => f.write_str("holds a private key where a certificate belongs"),
            Self::CertificateWhereKey => f.write_str("holds a certificate where a private key belongs"),
            Self::EncryptedKey { encryption } => {
                write!(f, "private key is encrypted ({encryption}); there is nobody to ask for the passphrase")
            }
            Self::UnsupportedKey { reason } => write!(f, "private key cannot be used: {}", Visible(reason)),
            Self::KeyReadable { mode } => write!(f, "private key can be read by other users (mode {mode:04o})"),
            _ => Ok(()),
        }
    }

    fn write_x509(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { subject, not_after } => {
                write!(f, "certificate `{}` expired {}", Visible(subject), date(*not_after))
            }
            Self::NotYetValid { subject, not_before } => {
                write!(f, "certificate `{}` is not valid before {}", Visible(subject), date(*not_before))
            }
            Self::ExpiredRoot { subject, not_after } => {
                write!(f, "CA `{}` expired {}: what it signed is refused", Visible(subject), date(*not_after))
            }
            Self::RootCannotSign { subject } => {
                write!(f, "CA `{}` has a keyUsage without keyCertSign: what it signed is refused", Visible(subject))
            }
            Self::RootIsLeaf { subject } => {
                write!(f, "certificate `{}` is no CA: it is trusted as itself, and nothing it signed", Visible(subject))
            }
            Self::NotForClients { subject, lacks } => {
                write!(f, "certificate `{}` is not for clients: its usages lack {lacks}", Visible(subject))
            }
            _ => Ok(()),
        }
    }

    fn write_ours(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOneCertificate { count } => write!(f, "holds {count} certificates; a pin is exactly one"),
            Self::BadName { stem } => {
                write!(f, "`{}` cannot be a name: 1 to 64 of A-Z a-z 0-9 . _ -", Visible(stem))
            }
            Self::DuplicatePin { first } => {
                write!(f, "the same certificate is pinned in {}: its name would be ambiguous", Visible(first))
            }
            Self::BadDenyLine { text, reason } => {
                write!(f, "`{}` is not a deny rule: {}", Visible(text), Visible(reason))
            }
            Self::BadCrl { reason } => write!(f, "revocation list cannot be used: {}", Visible(reason)),
            Self::TooManyCrls { limit } => {
                write!(f, "not read: the revocation lists together have more than {limit} bytes")
            }
            Self::PrivateKeyExposed { mode } => write!(f, "private key can be read by other users (mode {mode:04o})"),
            Self::WritableByOthers { mode } => write!(f, "can be changed by other users (mode {mode:04o})"),
            Self::ForeignOwner { uid, expected } => {
                write!(f, "belongs to user {uid}, who is neither root nor user {expected}")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for LookAlike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "the directory's name is misspelled",
            Self::Spelling => {
                "the name has upper case, a scheme or a trailing dot that the wanted one has not, or the reverse"
            }
            Self::DefaultPort => "only one of the two names has the port 443",
            Self::OtherPort => "the port is another",
            Self::OtherForm => "the port is spelled as another tool wants it",
            Self::Brackets => "an IPv6 address is written in brackets",
            Self::OneLevelDown => "it is one level further down",
        })
    }
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pkcs8 => "PKCS#8",
            Self::Traditional => "Proc-Type: 4,ENCRYPTED",
        })
    }
}

pub(crate) fn shown(path: &Path) -> String {
    visible_bytes(path.as_os_str().as_encoded_bytes())
}

fn date(when: OffsetDateTime) -> String {
    when.format(&Rfc3339).unwrap_or_else(|_| when.to_string())
}

/// In the operating system's words where people search for them.
fn io_text(error: io::ErrorKind) -> String {
    match error {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::InvalidFilename => "file name too long".to_owned(),
        other => other.to_string(),
    }
}
