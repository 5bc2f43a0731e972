//! Certificates and keys made once per run with the `openssl` program, as users make theirs.

use portcullis_certs::{Certificate, pem};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// The directory with everything in it.
pub(crate) struct Fixture {
    dir: TempDir,
}

/// `KEY=type options`: made with `openssl genpkey`, PKCS#8.
const KEYS: [(&str, &[&str]); 10] = [
    ("rsa.key", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ("rsa1024.key", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]),
    ("p256.key", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ("p384.key", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ("p521.key", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"]),
    ("p224.key", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-224"]),
    ("ed25519.key", &["-algorithm", "ED25519"]),
    ("ed448.key", &["-algorithm", "ED448"]),
    ("ca.key", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ("int.key", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
];

const CA: &str =
    "basicConstraints=critical,CA:TRUE,pathlen:3\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";
const CLIENT: &str = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,codeSigning,1.2.3.4\nsubjectAltName=DNS:a.test,IP:10.0.0.1,IP:fd00::1,email:a@b.test,URI:spiffe://t/a,RID:1.2.3\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n";
const SERVER: &str = "extendedKeyUsage=serverAuth\n";
const ODD: &str = "nameConstraints=critical,permitted;DNS:.test\n1.2.3.4=critical,ASN1:NULL\nbasicConstraints=critical,CA:TRUE\nkeyUsage=digitalSignature\n";

pub(crate) fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let fixture = Fixture { dir: TempDir::new().unwrap() };
        fixture.make_keys();
        fixture.make_certificates();
        fixture.make_other_formats();
        fixture
    })
}

/// The bytes of a fixture file.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    fs::read(fixture().path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The one certificate of a fixture file that has nothing wrong.
pub(crate) fn certificate(name: &str) -> Certificate {
    let (mut certificates, findings) = pem::read_certificates(&fixture().path(name));
    assert_eq!((certificates.len(), findings), (1, Vec::new()), "{name}");
    certificates.remove(0)
}

/// A new directory with these files.
pub(crate) fn tree(files: &[(&str, &[u8])]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, content) in files {
        write(&dir.path().join(name), content);
    }
    dir
}

/// Writes a file that only its owner can read.
pub(crate) fn write(path: &Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Fixture {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, line: &str) {
        self.run(&line.split(' ').collect::<Vec<_>>());
    }

    fn run(&self, args: &[&str]) {
        let output = Command::new("openssl").args(args).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn make_keys(&self) {
        for (name, options) in KEYS {
            self.run(&[&["genpkey", "-out", name], options].concat());
        }
        self.openssl("rsa -traditional -in rsa.key -out rsa.pkcs1.key");
        self.openssl("rsa -traditional -in rsa1024.key -out rsa1024.pkcs1.key");
        for curve in ["p256", "p384", "p521", "p224"] {
            self.openssl(&format!("ec -in {curve}.key -out {curve}.sec1.key"));
        }
        self.openssl("ecparam -name prime256v1 -genkey -out with-parameters.key");
        self.openssl("pkcs8 -topk8 -in rsa.key -passout pass:x -out encrypted.pkcs8.key");
        self.openssl("rsa -traditional -aes128 -in rsa.key -passout pass:x -out encrypted.traditional.key");
    }

    fn make_certificates(&self) {
        // The recipe of Docker's page.
        self.openssl("req -new -x509 -text -key rsa.key -out recipe.cert -subj /O=Example/CN=alice");
        for kind in ["p256", "p384", "p521", "ed25519", "rsa1024"] {
            self.openssl(&format!("req -new -x509 -key {kind}.key -out {kind}.crt -subj /CN={kind}"));
        }
        self.openssl("req -new -x509 -sha1 -key rsa.key -out sha1.crt -subj /CN=sha1");
        self.openssl("req -new -x509 -key rsa.key -out pss.crt -subj /CN=pss -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:-1");
        self.openssl("req -new -key rsa.key -out v1.csr -subj /CN=v1");
        self.openssl("x509 -req -in v1.csr -signkey rsa.key -out v1.crt");
        self.issue("ca", "ca", CA, "ca.key");
        self.issue("int", "ca", CA, "int.key");
        self.issue("leaf", "int", CLIENT, "p256.key");
        self.issue("direct", "ca", CLIENT, "p384.key");
        self.issue("server", "ca", SERVER, "p256.key");
        self.issue("odd", "ca", ODD, "p521.key");
        // The same name and another key: self-issued but not self-signed.
        self.issue("ca-again", "ca", CA, "int.key");
    }

    /// `<name>.crt` for CN=<name> (`ca-again` gets CN=ca), signed by `<issuer>.crt`.
    fn issue(&self, name: &str, issuer: &str, extensions: &str, key: &str) {
        fs::write(self.path("extensions"), extensions).unwrap();
        let common_name = name.trim_end_matches("-again");
        self.openssl(&format!("req -new -key {key} -subj /CN={common_name} -out request"));
        let signer = if name == issuer {
            format!("-signkey {key}")
        } else {
            format!("-CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial")
        };
        self.openssl(&format!("x509 -req -in request {signer} -days 365 -extfile extensions -out {name}.crt"));
    }

    fn make_other_formats(&self) {
        self.openssl("x509 -in ca.crt -outform DER -out ca.der");
        self.openssl("pkey -in p256.key -outform DER -out p256.der");
        self.openssl("rsa -traditional -in rsa.key -outform DER -out rsa.der");
        self.openssl("pkcs8 -topk8 -in rsa.key -passout pass:x -outform DER -out encrypted.der");
        self.openssl("x509 -in ca.crt -trustout -out trusted.crt");
        self.openssl("crl2pkcs7 -nocrl -certfile ca.crt -out ca.p7b");
        self.openssl("crl2pkcs7 -nocrl -certfile ca.crt -outform DER -out ca.p7b.der");
        self.openssl("pkcs12 -export -in recipe.cert -inkey rsa.key -passout pass: -out client.p12");
        self.openssl("pkey -in p256.key -pubout -out public.pem");
    }
}
