//! What rcgen cannot make, and what a user would type: the `openssl` program, with its own key and certificate files.
//!
//! Every command is recorded as its argument vector in the panic when it fails. Written for OpenSSL 3.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PairFiles;

/// Runs `openssl` with these arguments in `dir` and returns its standard output.
pub fn run(dir: &Path, args: &[&str]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    let output = command.args(args).current_dir(dir).stdin(Stdio::null()).output().expect("openssl is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {} failed in {}:\n{said}", args.join(" "), dir.display());
    output.stdout
}

/// The Docker page's recipe, word for word, with `-subj` in place of the questions:
///
/// ```text
/// openssl genrsa -out client.key 4096
/// openssl req -new -x509 -text -key client.key -out client.cert -subj SUBJECT
/// ```
///
/// Leaves `client.key` and `client.cert` in `dir`.
pub fn docker_page_recipe(dir: &Path, subject: &str) -> PairFiles {
    run(dir, &["genrsa", "-out", "client.key", "4096"]);
    run(dir, &["req", "-new", "-x509", "-text", "-key", "client.key", "-out", "client.cert", "-subj", subject]);
    PairFiles::named(dir, "client")
}

/// The recipe with a configuration that names no extensions (macOS's LibreSSL, a minimal `openssl.cnf`), which makes an
/// X.509 v1 certificate. Leaves `<stem>.cert` and `<stem>.key` in `dir`.
pub fn v1_self_signed(dir: &Path, stem: &str, subject: &str) -> PairFiles {
    let files = p256_key(dir, stem);
    // `req -x509` writes v3 whatever the configuration says since OpenSSL 3.2; signing a request writes v1 up to 3.1,
    // and `-x509v1` is the switch from then on.
    fs::write(dir.join("v1.cnf"), "[req]\ndistinguished_name = dn\n[dn]\n").unwrap();
    let key = text(&files.key);
    let cert = text(&files.cert);
    let mut args = vec!["req", "-new", "-x509", "-config", "v1.cnf", "-key", key, "-out", cert, "-subj", subject];
    if has_x509v1_switch(dir) {
        args.push("-x509v1");
    }
    run(dir, &args);
    files
}

/// An X.509 v1 certificate that `ca` issued (what `openssl x509 -req` without `-extfile` makes up to OpenSSL 3.1).
pub fn v1_issued(dir: &Path, stem: &str, subject: &str, ca: &PairFiles) -> PairFiles {
    let files = p256_key(dir, stem);
    run(dir, &["req", "-new", "-key", text(&files.key), "-out", "v1.csr", "-subj", subject]);
    let issuer = ["-CA", text(&ca.cert), "-CAkey", text(&ca.key), "-CAcreateserial"];
    run(dir, &[&["x509", "-req", "-in", "v1.csr", "-out", text(&files.cert)], issuer.as_slice()].concat());
    files
}

/// What a thief of `parent`'s key would do: a client certificate with clientAuth that it signs, `<stem>.cert`/`.key`.
pub fn child_of(dir: &Path, stem: &str, subject: &str, parent: &PairFiles) -> PairFiles {
    let files = p256_key(dir, stem);
    let request = format!("{stem}.csr");
    let extensions = format!("{stem}.ext");
    fs::write(dir.join(&extensions), "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n").unwrap();
    run(dir, &["req", "-new", "-key", text(&files.key), "-out", &request, "-subj", subject]);
    let issuer = ["-CA", text(&parent.cert), "-CAkey", text(&parent.key), "-set_serial", "77"];
    let made = ["x509", "-req", "-in", &request, "-out", text(&files.cert), "-days", "30", "-extfile", &extensions];
    run(dir, &[made.as_slice(), issuer.as_slice()].concat());
    files
}

/// How a certificate of [`server_of`] is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// P-256 and SHA-256.
    Sound,
    /// With a key of RSA 1024.
    Rsa1024,
    /// With a signature over SHA-1.
    Sha1,
}

/// A server certificate for the DNS name, signed with `parent`'s key, `<stem>.cert`/`.key`: by CAs that rcgen does not make, or
/// as nobody should issue them any more.
pub fn server_of(dir: &Path, stem: &str, name: &str, parent: &PairFiles, strength: Strength) -> PairFiles {
    let files = match strength {
        Strength::Rsa1024 => {
            let files = PairFiles::named(dir, stem);
            run(dir, &["genrsa", "-out", text(&files.key), "1024"]);
            files
        }
        Strength::Sound | Strength::Sha1 => p256_key(dir, stem),
    };
    let (request, extensions) = (format!("{stem}.csr"), format!("{stem}.ext"));
    let lines = format!("subjectAltName=DNS:{name}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n");
    fs::write(dir.join(&extensions), lines).unwrap();
    run(dir, &["req", "-new", "-key", text(&files.key), "-out", &request, "-subj", &format!("/CN={name}")]);
    let digest = if strength == Strength::Sha1 { "-sha1" } else { "-sha256" };
    let issuer = ["-CA", text(&parent.cert), "-CAkey", text(&parent.key), "-set_serial", "78", digest];
    let made = ["x509", "-req", "-in", &request, "-out", text(&files.cert), "-days", "30", "-extfile", &extensions];
    run(dir, &[made.as_slice(), issuer.as_slice()].concat());
    files
}

/// `key` again as encrypted PKCS#8 (`BEGIN ENCRYPTED PRIVATE KEY`).
pub fn encrypt_pkcs8(key: &Path, out: &Path, passphrase: &str) {
    let pass = format!("pass:{passphrase}");
    run(Path::new("/"), &["pkcs8", "-topk8", "-in", text(key), "-out", text(out), "-passout", &pass]);
}

/// `key` (RSA or EC) again in its old PEM form with `Proc-Type: 4,ENCRYPTED`.
pub fn encrypt_traditional(key: &Path, out: &Path, passphrase: &str) {
    let pass = format!("pass:{passphrase}");
    let args = ["pkey", "-traditional", "-aes256", "-in", text(key), "-out", text(out), "-passout", &pass];
    run(Path::new("/"), &args);
}

/// `key` again in its old PEM form: PKCS#1 for RSA, SEC1 for EC.
pub fn traditional(key: &Path, out: &Path) {
    run(Path::new("/"), &["pkey", "-traditional", "-in", text(key), "-out", text(out)]);
}

/// The first certificate of a PEM file, as DER.
pub fn der_of(cert: &Path) -> Vec<u8> {
    run(Path::new("/"), &["x509", "-in", text(cert), "-outform", "DER"])
}

/// `sha256:<64 hex>` of the first certificate of a PEM file, lower case and without colons.
pub fn fingerprint_of(cert: &Path) -> String {
    let said = run(Path::new("/"), &["x509", "-in", text(cert), "-noout", "-fingerprint", "-sha256"]);
    let said = String::from_utf8(said).unwrap();
    let hex = said.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase();
    format!("sha256:{hex}")
}

/// A self-signed RSA certificate with a key of so many bits: 1024 is what everybody refuses.
pub fn self_signed_rsa(dir: &Path, stem: &str, subject: &str, bits: u32) -> PairFiles {
    let files = PairFiles::named(dir, stem);
    run(dir, &["genrsa", "-out", text(&files.key), &bits.to_string()]);
    run(dir, &["req", "-new", "-x509", "-key", text(&files.key), "-out", text(&files.cert), "-subj", subject]);
    files
}

/// A self-signed certificate with a SHA-1 signature over a 2048-bit RSA key.
pub fn self_signed_sha1(dir: &Path, stem: &str, subject: &str) -> PairFiles {
    let files = PairFiles::named(dir, stem);
    run(dir, &["genrsa", "-out", text(&files.key), "2048"]);
    let outputs = ["-key", text(&files.key), "-out", text(&files.cert), "-subj", subject];
    run(dir, &[&["req", "-new", "-x509", "-sha1"], outputs.as_slice()].concat());
    files
}

fn p256_key(dir: &Path, stem: &str) -> PairFiles {
    let files = PairFiles::named(dir, stem);
    let args = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", text(&files.key)];
    run(dir, &args);
    files
}

fn has_x509v1_switch(dir: &Path) -> bool {
    let help = Command::new("openssl").args(["req", "-help"]).current_dir(dir).stdin(Stdio::null()).output();
    String::from_utf8_lossy(&help.expect("openssl is installed").stderr).contains("-x509v1")
}

fn text(path: &(impl AsRef<OsStr> + ?Sized)) -> &str {
    path.as_ref().to_str().expect("test directories have plain names")
}

/// Whether the program is there at all, for tests that are skipped without it.
pub fn is_installed() -> bool {
    Command::new("openssl").arg("version").stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok()
}

/// Writes a PEM bundle of certificate files, in this order.
pub fn bundle(out: &Path, certificates: &[&Path]) -> PathBuf {
    let all: Vec<u8> = certificates.iter().flat_map(|path| fs::read(path).unwrap()).collect();
    fs::write(out, all).unwrap();
    out.to_owned()
}
