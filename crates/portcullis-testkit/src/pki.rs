//! Certificates, good and deliberately bad, each in memory as PEM and DER and writable as the files engines read.
//!
//! Built with rcgen, whose defaults (dates from 1975 to 4096, a serial made from the key) are overridden everywhere.
//! What rcgen cannot make (v1 certificates, the Docker page's recipe to the letter, encrypted keys) comes from the
//! `openssl` program: [`openssl`].
//!
//! ```
//! use portcullis_testkit::pki::{Authority, LeafSpec, recipe_shaped};
//!
//! let ca = Authority::new("client CA");
//! let good = ca.client("ci-7");
//! let expired = ca.issue(&LeafSpec::client("ci-8").expired());
//! let alice = recipe_shaped("alice");
//! let minted_with_her_key = alice.mint(&LeafSpec::client("mallory"));
//! assert_eq!(good.chain_der().len(), 1);
//! # let _ = (expired, minted_with_her_key);
//! ```

mod crl;
pub mod openssl;
mod spec;
mod twin;

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{Certificate, CertificateParams, Issuer, KeyPair, PublicKeyData as _};

pub use crl::CrlSpec;
pub use spec::{BasicConstraints, KeyAlg, KeyUse, LeafSpec};
pub use twin::{Envelope, order, twin};

/// A certificate authority: a [`Pair`] that is meant to sign.
#[derive(Debug)]
pub struct Authority {
    /// Its certificate and key.
    pub pair: Pair,
}

impl Authority {
    /// A sound self-signed root: P-256, ten years, critical CA:TRUE, keyCertSign and cRLSign.
    pub fn new(cn: &str) -> Self {
        Self::from_spec(&LeafSpec::authority(cn))
    }

    /// A self-signed root as described; nothing is put right that the description has wrong.
    pub fn from_spec(spec: &LeafSpec) -> Self {
        Self { pair: Pair::self_signed(spec) }
    }

    /// A root whose dates are over. webpki never looks at an anchor's dates, Docker does.
    pub fn expired(cn: &str) -> Self {
        Self::from_spec(&LeafSpec::authority(cn).expired())
    }

    /// A root with a keyUsage that lacks keyCertSign.
    pub fn without_key_cert_sign(cn: &str) -> Self {
        Self::from_spec(&LeafSpec { key_usages: vec![KeyUse::CrlSign], ..LeafSpec::authority(cn) })
    }

    /// A v3 root without basicConstraints.
    pub fn without_basic_constraints(cn: &str) -> Self {
        Self::from_spec(&LeafSpec { is_ca: BasicConstraints::Absent, key_usages: vec![], ..LeafSpec::authority(cn) })
    }

    /// A self-signed issuer that says CA:FALSE.
    pub fn saying_ca_false(cn: &str) -> Self {
        Self::from_spec(&LeafSpec { is_ca: BasicConstraints::NotCa, key_usages: vec![], ..LeafSpec::authority(cn) })
    }

    /// A sound intermediate (pathlen 0) signed by this authority. What it issues carries it in the chain.
    #[must_use]
    pub fn intermediate(&self, cn: &str) -> Self {
        let spec = LeafSpec { is_ca: BasicConstraints::CaWithPathLen(0), ..LeafSpec::authority(cn) };
        Self { pair: self.pair.mint(&spec) }
    }

    /// Signs what is described.
    pub fn issue(&self, spec: &LeafSpec) -> Pair {
        self.pair.mint(spec)
    }

    /// A good client certificate.
    pub fn client(&self, cn: &str) -> Pair {
        self.issue(&LeafSpec::client(cn))
    }

    /// A good server certificate for these DNS names and addresses.
    pub fn server(&self, dns: &[&str], ips: &[IpAddr]) -> Pair {
        self.issue(&LeafSpec::server(dns, ips))
    }

    /// Writes `ca.crt` into `dir`.
    pub fn write_ca(&self, dir: &Path) -> PathBuf {
        self.pair.write_crt(dir, "ca")
    }

    /// The certificate.
    pub fn cert_pem(&self) -> String {
        self.pair.cert_pem()
    }

    /// The certificate.
    pub fn cert_der(&self) -> &[u8] {
        self.pair.cert_der()
    }
}

/// What the Docker page's recipe yields with a stock `openssl.cnf`: self-signed, critical CA:TRUE, subject and authority
/// key identifiers, no keyUsage, no extendedKeyUsage, no names, 30 days. [`openssl::docker_page_recipe`] is the recipe
/// itself; this one needs no program and makes a P-256 key.
pub fn recipe_shaped(cn: &str) -> Pair {
    Pair::self_signed(&LeafSpec {
        is_ca: BasicConstraints::Ca,
        client_auth: false,
        key_usages: vec![],
        authority_key_id: true,
        ..LeafSpec::client(cn)
    })
}

/// A self-signed client certificate that says CA:FALSE.
pub fn self_signed_client(cn: &str) -> Pair {
    Pair::self_signed(&LeafSpec::client(cn))
}

/// A certificate with its key and the certificates that lead to (not including) its root, leaf first.
///
/// Any pair can sign, whatever its certificate says: [`Pair::mint`] is how the tests make what must be refused.
pub struct Pair {
    chain: Vec<Certificate>,
    params: CertificateParams,
    key: KeyPair,
    self_signed: bool,
}

impl Pair {
    /// A self-signed certificate as described.
    pub fn self_signed(spec: &LeafSpec) -> Self {
        let key = spec.alg.generate();
        let params = spec.params();
        let certificate = params.self_signed(&key).expect("rcgen signs");
        Self { chain: vec![certificate], params, key, self_signed: true }
    }

    /// A certificate signed with this pair's key, whether or not this pair may sign. Its chain is the new certificate,
    /// then this pair's own, unless this pair is self-signed (a root is not sent).
    #[must_use]
    pub fn mint(&self, spec: &LeafSpec) -> Self {
        self.mint_for(spec, spec.alg.generate())
    }

    /// As [`Pair::mint`], for a key that exists already ([`Pair::clone_key`]): renewals and cross-signing. The algorithm
    /// in `spec` is not looked at.
    #[must_use]
    pub fn mint_for(&self, spec: &LeafSpec, key: KeyPair) -> Self {
        let params = spec.params();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).expect("rcgen signs");
        let above = if self.self_signed { &[] } else { self.chain.as_slice() };
        let chain = std::iter::once(certificate).chain(above.iter().cloned()).collect();
        Self { chain, params, key, self_signed: false }
    }

    /// The key again, for [`Pair::mint_for`].
    pub fn clone_key(&self) -> KeyPair {
        KeyPair::try_from(self.key.serialized_der()).expect("rcgen reads what it wrote")
    }

    /// The same pair as its owner has it who forgot the chain: the certificate alone.
    #[must_use]
    pub fn without_chain(&self) -> Self {
        let chain = vec![self.chain[0].clone()];
        Self { chain, params: self.params.clone(), key: self.clone_key(), self_signed: self.self_signed }
    }

    /// The certificate itself.
    pub fn cert_der(&self) -> &[u8] {
        self.chain[0].der()
    }

    /// The certificate itself.
    pub fn cert_pem(&self) -> String {
        self.chain[0].pem()
    }

    /// The certificate's serial number, big-endian.
    pub fn serial(&self) -> Vec<u8> {
        self.params.serial_number.as_ref().expect("each specification has one").to_bytes()
    }

    /// Leaf first, without the root.
    pub fn chain_der(&self) -> Vec<Vec<u8>> {
        self.chain.iter().map(|certificate| certificate.der().to_vec()).collect()
    }

    /// Leaf first, without the root, as it belongs into a `.cert` file.
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(Certificate::pem).collect()
    }

    /// PKCS#8.
    pub fn key_der(&self) -> Vec<u8> {
        self.key.serialize_der()
    }

    /// PKCS#8, `BEGIN PRIVATE KEY`.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The DER of the SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    /// Writes `<stem>.cert` (the chain, 0644) and `<stem>.key` (0600): the two files of a pair in a certificate directory.
    pub fn write_pair(&self, dir: &Path, stem: &str) -> PairFiles {
        let files = PairFiles::named(dir, stem);
        write_file(&files.cert, self.chain_pem().as_bytes(), 0o644);
        write_file(&files.key, self.key_pem().as_bytes(), 0o600);
        files
    }

    /// Writes `<stem>.crt` (the certificate alone, 0644): a root of a certificate directory, or a file for `trust add`.
    pub fn write_crt(&self, dir: &Path, stem: &str) -> PathBuf {
        let path = dir.join(format!("{stem}.crt"));
        write_file(&path, self.cert_pem().as_bytes(), 0o644);
        path
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.params.distinguished_name;
        f.debug_struct("Pair").field("subject", subject).field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Where a pair was written.
#[derive(Clone, Debug)]
pub struct PairFiles {
    /// The certificate, then its chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl PairFiles {
    /// `<dir>/<stem>.cert` and `<dir>/<stem>.key`, whether or not they exist.
    pub fn named(dir: &Path, stem: &str) -> Self {
        Self { cert: dir.join(format!("{stem}.cert")), key: dir.join(format!("{stem}.key")) }
    }
}

/// Writes `bytes` to `path` with exactly these permission bits, whatever the umask says, making the directories above it.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32) {
    use std::io::Write as _;
    fs::create_dir_all(path.parent().expect("a file has a directory")).unwrap();
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(path).unwrap();
    file.write_all(bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
