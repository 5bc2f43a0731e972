//! Trust and certificates for the tests: the testkit's pairs as the crate's values.

use std::fs;
use std::path::Path;

use portcullis_certs::trust_dir::{CaFile, CrlFile, DenyEntry, PinFile, TrustFiles};
use portcullis_certs::{Certificate, Fingerprint, PrivateKey, RevocationList};
use portcullis_testkit::pki::{PairFiles, openssl};
use portcullis_tls::{CaRejected, CrlRejected, CrlRule, CrlRules, TrustStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

pub(crate) fn certificate(der: &[u8]) -> Certificate {
    Certificate::from_der(der.to_vec().into()).unwrap()
}

pub(crate) fn certificates(chain: &[Vec<u8>]) -> Vec<Certificate> {
    chain.iter().map(|der| certificate(der)).collect()
}

pub(crate) fn private_key(pkcs8: &[u8]) -> PrivateKey {
    PrivateKey::from_der(key_der(pkcs8)).unwrap()
}

pub(crate) fn key_der(pkcs8: &[u8]) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(pkcs8.to_vec()).into()
}

pub(crate) fn ders(chain: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|der| der.clone().into()).collect()
}

pub(crate) fn key_hash(der: &[u8]) -> Fingerprint {
    certificate(der).facts().key_hash
}

/// What `trust/` holds, without the files.
#[derive(Clone, Default)]
pub(crate) struct Trust(TrustFiles, CrlRules);

impl Trust {
    pub(crate) fn ca(name: &str, der: &[u8]) -> Self {
        Self::default().and_ca(name, der)
    }

    pub(crate) fn pin(name: &str, der: &[u8]) -> Self {
        Self::default().and_pin(name, der)
    }

    pub(crate) fn and_ca(mut self, name: &str, der: &[u8]) -> Self {
        let path = format!("{name}.crt").into();
        self.0.cas.push(CaFile { name: name.to_owned(), path, certificates: vec![certificate(der)] });
        self
    }

    pub(crate) fn and_pin(mut self, name: &str, der: &[u8]) -> Self {
        let path = format!("{name}.crt").into();
        self.0.pins.push(PinFile { name: name.to_owned(), path, certificate: certificate(der) });
        self
    }

    /// One more line of the deny list, counted from 1.
    pub(crate) fn and_deny(mut self, rule: &str) -> Self {
        let line = u32::try_from(self.0.deny.len()).unwrap() + 1;
        self.0.deny.push(DenyEntry { line, rule: rule.parse().unwrap(), note: None });
        self
    }

    /// A revocation list, PEM.
    pub(crate) fn and_crl(mut self, pem: &str) -> Self {
        self.0.crls.push(crl(pem));
        self
    }

    pub(crate) fn and_rule(mut self, ca: &str, rule: CrlRule) -> Self {
        self.1.insert(ca.to_owned(), rule);
        self
    }

    pub(crate) fn store(&self) -> TrustStore {
        self.store_at(now())
    }

    pub(crate) fn store_at(&self, now: OffsetDateTime) -> TrustStore {
        TrustStore::build(&self.0, now).0.with_crls(&self.0.crls, &self.1).0
    }

    pub(crate) fn rejected_crls(&self) -> Vec<CrlRejected> {
        TrustStore::build(&self.0, now()).0.with_crls(&self.0.crls, &self.1).1
    }

    pub(crate) fn build(&self) -> (TrustStore, Vec<CaRejected>) {
        TrustStore::build(&self.0, now())
    }
}

/// A revocation list as it would lie in `trust/crls`.
pub(crate) fn crl(pem: &str) -> CrlFile {
    let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).unwrap();
    CrlFile { path: "a.crl".into(), line: Some(1), list: RevocationList::from_der(der.to_vec()).unwrap() }
}

/// The certificates of a PEM file, leaf first, and its key as PKCS#8: what the `openssl` program left behind.
pub(crate) fn load(files: &PairFiles) -> (Vec<Vec<u8>>, Vec<u8>) {
    let chain = CertificateDer::pem_file_iter(&files.cert).unwrap().map(|der| der.unwrap().to_vec()).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap().secret_der().to_vec();
    (chain, key)
}

/// Signs a certificate for a fresh key with these `openssl genpkey` arguments, extensions and further arguments.
pub(crate) fn openssl_leaf(dir: &Path, ca: &PairFiles, key: &[&str], extensions: &str, further: &[&str]) -> PairFiles {
    let files = PairFiles::named(dir, "made");
    let (key_file, cert_file) = (files.key.to_str().unwrap(), files.cert.to_str().unwrap());
    openssl::run(dir, &[&["genpkey", "-out", key_file], key].concat());
    openssl::run(dir, &["req", "-new", "-key", key_file, "-out", "made.csr", "-subj", "/CN=made"]);
    fs::write(dir.join("made.ext"), extensions).unwrap();
    let (ca_cert, ca_key) = (ca.cert.to_str().unwrap(), ca.key.to_str().unwrap());
    let sign = ["x509", "-req", "-in", "made.csr", "-out", cert_file, "-days", "30", "-extfile", "made.ext"];
    let issuer = ["-CA", ca_cert, "-CAkey", ca_key, "-set_serial", "4711"];
    openssl::run(dir, &[sign.as_slice(), &issuer, further].concat());
    files
}

pub(crate) const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub(crate) const RSA_1024: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"];
pub(crate) const CLIENT: &str = "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n";
