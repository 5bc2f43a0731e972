//! D20 to D36: the files of a host directory.

use super::{Check, never, nothing_more};
use crate::diagnosis::{Diagnosis, name, shown};
use crate::facts::Facts;
use portcullis_certs::{Certificate, DirectorySurvey, EntryKind, FileSurvey, Fix, Severity, ShellCommand};
use std::ffi::OsString;

pub(super) static CHECKS: &[Check] = &[
    Check {
        code: "D20",
        title: "a .cert has no .key beside it",
        severity: Severity::Fatal,
        why: "Docker and Podman refuse the whole directory then, so that every pull from this registry fails",
        text: "A client certificate `NAME.cert` needs its key as `NAME.key`. Docker and Podman stop with `missing key`, containerd and nerdctl look for the key inside the .cert instead, buildkit fails to open the key. When the certificate is a CA's (it may sign, and nothing here has its key), it only has the wrong suffix: CAs are called .crt.",
        fix: "put the key beside it, or rename a CA's certificate to NAME.crt",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D21",
        title: "a .key has no .cert beside it",
        severity: Severity::Fatal,
        why: "Docker and Podman refuse the whole directory for an orphan key, which Docker's page does not mention",
        text: "`registry.crt` with `registry.key` is the usual case: the certificate has the suffix of a CA, so the key looks like an orphan (`missing client certificate registry.cert for key registry.key`). containerd ignores the key in silence.",
        fix: "rename the certificate from .crt to .cert, or remove the key",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D22",
        title: "the private key of a CA lies in a client's directory",
        severity: Severity::Fatal,
        why: "whoever reads it can make certificates for any client or server that this CA stands for",
        text: "Copying a CA's whole folder brings `ca.key` along. Docker and Podman also stop at it, because they take it for the key of a client certificate `ca.cert` that is not there. The key belongs on the machine that issues, and nowhere else.",
        fix: "move the key off this machine; when others could read it, make a new CA",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D23",
        title: "a file is not read because of its name",
        severity: Severity::Warning,
        why: "engines look at the suffixes .crt, .cert and .key, in lower case, and pass over everything else in silence",
        text: "`ca.pem`, `ca.CRT`, `client.cer`, `client.p12` are ignored without a word by every engine. What the file should be called depends on what is in it: a CA's certificate is a .crt, a client's certificate a .cert, its key a .key.",
        fix: "rename the file to the name that the finding gives",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D24",
        title: "tls.crt and tls.key of a Kubernetes secret",
        severity: Severity::Fatal,
        why: "tls.crt is read as a CA and tls.key as an orphan, at which Docker and Podman stop",
        text: "A secret of type kubernetes.io/tls has fixed names that mean something else in a certificate directory. Mount its items under other names: `tls.crt` as `client.cert`, `tls.key` as `client.key`, `ca.crt` as it is.",
        fix: "mount or copy the two files as client.cert and client.key",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D25",
        title: "a hidden file counts although nobody sees it",
        severity: Severity::Warning,
        why: "engines read .NAME.crt and ._NAME.cert like any other file, and ._ files of macOS are no certificates",
        text: "Go lists hidden files too. An archive made on macOS unpacks to `._client.cert` beside `client.cert`: an AppleDouble file, which Docker takes for a certificate without key and stops. Editors' backups with other suffixes (`ca.crt~`, `ca.crt.bak`) are ignored.",
        fix: "remove the ._ file; rename a hidden file, or remove it",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D26",
        title: "a file is not PEM, or not the PEM that is needed",
        severity: Severity::Fatal,
        why: "Docker, Podman and buildkit ignore a .crt without one readable certificate and say nothing",
        text: "Empty, DER, a byte order mark, UTF-16, PKCS#7, PKCS#12, OpenSSL's TRUSTED CERTIFICATE, a saved web page: each is skipped in silence by Docker's classic store and Podman, so that the failure is `certificate signed by unknown authority` later. containerd and oras stop at it. In a .cert or .key it is an error everywhere (`failed to find any PEM data`).",
        fix: "convert the file to PEM, or get it again from whoever made it",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D27",
        title: "one block of a bundle is broken",
        severity: Severity::Warning,
        why: "engines keep the good certificates and drop the broken one without saying which",
        text: "Go's loader takes what it can parse. The evidence names the line where the broken block begins and what is wrong with it; if that block is the CA you need, the failure is `certificate signed by unknown authority`.",
        fix: "replace the broken block",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D28",
        title: "a private key stands beside certificates",
        severity: Severity::Warning,
        why: "certificates are readable for everybody, so the key is too",
        text: "A .crt that also holds a private key works in every engine, which skips the block, but certificate files have mode 0644 and are copied around. A key that others could read is no proof of identity any more.",
        fix: "take the key out of the file; ask for a new certificate when others could read it",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D29",
        title: "the private key is encrypted",
        severity: Severity::Fatal,
        why: "no engine can ask for a passphrase, so the pair cannot be loaded",
        text: "Both forms occur: `BEGIN ENCRYPTED PRIVATE KEY` (PKCS#8) and `Proc-Type: 4,ENCRYPTED` inside an RSA or EC key. Go says `tls: failed to parse private key` for both, rustls that there is no key.",
        fix: "write the key without a passphrase, with mode 0600",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D30",
        title: "the private key is of a kind or size that TLS does not take",
        severity: Severity::Fatal,
        why: "the pair cannot be loaded, or the server refuses its signature",
        text: "RSA from 2048 to 8192 bits, P-256, P-384, P-521 and Ed25519 work. DSA, P-224 and explicit curve parameters do not; Go 1.24 and later refuse RSA below 1024 bits and rustls below 2048.",
        fix: "make a new key of one of these kinds and ask for a certificate for it",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D31",
        title: "key and certificate do not belong together",
        severity: Severity::Fatal,
        why: "the pair cannot be loaded: `tls: private key does not match public key`",
        text: "Go's message names no file. The same message comes when the chain is in the wrong order (D33): then the key belongs to a later certificate of the file. When the key belongs to another file of the directory, the finding says which.",
        fix: "give key and certificate of one pair the same stem, or make the pair again",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D32",
        title: "certificate and key are swapped, or one is in the other's place",
        severity: Severity::Fatal,
        why: "the pair cannot be loaded",
        text: "Go's messages are `tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched` and `tls: found a certificate rather than a key in the PEM for the private key`. The second one also comes from containerd's `client = [\"c.cert\", \"c.key\"]`, see D81.",
        fix: "swap the two files",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D33",
        title: "the certificates of a .cert are in the wrong order, or do not belong together",
        severity: Severity::Fatal,
        why: "the client's own certificate must come first; with another one in front the key does not match",
        text: "After the client's certificate comes the one that issued it, and so on; the root may be left out. A certificate that did not issue the one before it is sent all the same: Go servers build a path from any order, others do not.",
        fix: "order the file: the client's certificate, then its issuers",
        skip: never,
        find: nothing_more,
    },
    Check {
        code: "D34",
        title: "the .cert lacks its intermediate certificate",
        severity: Severity::Warning,
        why: "a Go client then sends no certificate at all to a server that lists only its root, and no message says so",
        text: "Go compares the issuer of each certificate in the .cert with the CA names that the server lists. A leaf alone, issued by an intermediate, matches nothing when the server names the root, so nothing is sent and the server answers `certificate required` (moby#21148). curl and rustls send it regardless and get `unknown ca`. The intermediate is often there, in a .crt, where it does not help.",
        fix: "append the intermediate to the .cert",
        skip: never,
        find: intermediate_missing,
    },
    Check {
        code: "D35",
        title: "a private key can be read by others, or belongs to somebody else",
        severity: Severity::Warning,
        why: "who can read the key can be this client",
        text: "No engine looks at the modes of a key. It should have mode 0600 and belong to root, or to the user whose engine it is; a key of root's that one group may read (0640) is how it is shared with a service.",
        fix: "chmod 600, and give it to root or to the engine's user",
        skip: never,
        find: foreign_keys,
    },
    Check {
        code: "D36",
        title: "a file is a link to nothing or out of the directory, or is no regular file",
        severity: Severity::Fatal,
        why: "Docker stops at a .crt that it cannot open; Podman skips a dangling link; a FIFO makes an engine wait for ever",
        text: "Symbolic links are followed. A link that leads out of the directory works until its target moves, and a target in somebody's home can be changed by that somebody. A directory called `x.crt` is an error to Docker and Podman and is skipped by containerd.",
        fix: "put the file itself in the place of the link, or remove it",
        skip: never,
        find: links_out,
    },
];

/// A leaf without its issuer, where the issuer is an intermediate that lies here in another file.
fn intermediate_missing(facts: &Facts) -> Vec<Diagnosis> {
    facts.directories.iter().flat_map(intermediate_missing_in).collect()
}

pub(super) fn intermediate_missing_in(directory: &DirectorySurvey) -> Vec<Diagnosis> {
    let certs = directory.files.iter().filter(|file| has_suffix(file, "cert"));
    certs.filter_map(|file| intermediate_for(file, directory)).collect()
}

fn intermediate_for(file: &FileSurvey, directory: &DirectorySurvey) -> Option<Diagnosis> {
    let last = file.certificates.last()?;
    let (source, intermediate) = issuer_of(&last.certificate, file, directory)?;
    let subject = intermediate.facts().subject.to_string();
    let what = format!("{} was issued by an intermediate CA that is not in the file", name(&file.path));
    Some(
        Diagnosis::new("D34", Severity::Warning, what)
            .at_line(&file.path, Some(last.line))
            .value(format!("issuer {}", last.certificate.facts().issuer))
            .at(&source.path)
            .value(format!("holds {subject}"))
            .with_fix(append(source, file)),
    )
}

/// One command where the source holds nothing else.
fn append(source: &FileSurvey, file: &FileSurvey) -> Fix {
    if source.certificates.len() == 1 && has_suffix(source, "crt") {
        let mut script = OsString::from("$r ");
        script.push(&source.path);
        return Fix::Run(ShellCommand::new(["sed".into(), "-i".into(), script, ShellCommand::operand(&file.path)]));
    }
    let (from, to) = (shown(&source.path), shown(&file.path));
    let text = format!("append the intermediate CA's certificate in {from} to {to}, after the client's own");
    Fix::Say { text, command: ShellCommand::show(&source.path) }
}

/// The file with the certificate that issued this one and is no root itself.
fn issuer_of<'a>(
    leaf: &Certificate,
    file: &FileSurvey,
    directory: &'a DirectorySurvey,
) -> Option<(&'a FileSurvey, &'a Certificate)> {
    if leaf.facts().self_issued {
        return None;
    }
    let others = directory.files.iter().filter(|other| other.path != file.path);
    let all = others.flat_map(|other| other.certificates.iter().map(move |located| (other, &located.certificate)));
    let mut issuers = all.filter(|(_, issuer)| {
        let facts = issuer.facts();
        facts.subject == leaf.facts().issuer && !facts.self_issued && leaf.is_signed_by(issuer)
    });
    issuers.next()
}

fn foreign_keys(facts: &Facts) -> Vec<Diagnosis> {
    let us = facts.machine.environment.uid;
    let keys = facts.directories.iter().flat_map(|directory| &directory.files).filter(|file| has_suffix(file, "key"));
    let foreign =
        keys.filter_map(|file| Some((file, file.ownership.filter(|owner| owner.uid != 0 && owner.uid != us)?)));
    foreign
        .map(|(file, owner)| {
            let what =
                format!("{} belongs to user {}, who is neither root nor the caller", name(&file.path), owner.uid);
            Diagnosis::new("D35", Severity::Warning, what)
                .at(&file.path)
                .value(format!("owner {}, mode {:04o}", owner.uid, owner.mode))
                .run(["chown".into(), us.to_string().into(), file.path.clone().into_os_string()])
        })
        .collect()
}

fn links_out(facts: &Facts) -> Vec<Diagnosis> {
    facts.directories.iter().flat_map(links_out_of).collect()
}

pub(super) fn links_out_of(directory: &DirectorySurvey) -> Vec<Diagnosis> {
    let is_read = |file: &&FileSurvey| ["crt", "cert", "key"].iter().any(|suffix| has_suffix(file, suffix));
    let links = directory.files.iter().filter(is_read).filter_map(|file| match &file.kind {
        EntryKind::Link { target: Some(target) } => Some((file, target)),
        _ => None,
    });
    // Kubernetes swaps `..data` inside of the directory: that is no way out.
    let inside = directory.real_path.as_deref().unwrap_or(&directory.path);
    let out = links.filter(|(_, target)| !target.starts_with(inside));
    out.map(|(file, target)| {
        Diagnosis::new("D36", Severity::Note, format!("{} is a link out of the directory", name(&file.path)))
            .at(&file.path)
            .value(format!("leads to {}", shown(target)))
    })
    .collect()
}

pub(super) fn has_suffix(file: &FileSurvey, suffix: &str) -> bool {
    file.path.extension().is_some_and(|extension| extension == suffix)
}
