//! The cases of C2SP/x509-limbo through our verdicts: servers through the client's, clients through the server's.
//!
//! The file lies beside the repository. [`DIVERGENCES`] names every case where we say something else than is expected
//! there, and why; a case that comes to agree must leave the table. Beside ours stands the verdict of Go, which the engines
//! are written in (`limbo-go.json`, made by `cargo xtask limbo`): what we accept and should not, Go accepts too, or the
//! reason says why it is harmless.

use std::collections::BTreeMap;
use std::path::Path;

use portcullis_certs::Certificate;
use portcullis_tls::verify_server_chain;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::fixture::{Trust, now};

const FILE: &str = "../../../shared/testdata/x509-limbo.json";
const GO: &str = include_str!("limbo-go.json");

struct Case<'a>(&'a Value);

impl Case<'_> {
    fn text(&self, field: &str) -> Option<&str> {
        self.0[field].as_str()
    }

    fn certificates(&self, field: &str) -> Vec<CertificateDer<'static>> {
        let list = self.0[field].as_array().unwrap();
        list.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_str().unwrap().as_bytes()).unwrap()).collect()
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        let leaf = self.text("peer_certificate").unwrap();
        let mut chain = vec![CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap()];
        chain.extend(self.certificates("untrusted_intermediates"));
        chain
    }

    /// Roots that cannot be read are not there, as in a client's directory.
    fn roots(&self) -> Vec<Certificate> {
        self.certificates("trusted_certs").into_iter().filter_map(|der| Certificate::from_der(der).ok()).collect()
    }

    fn time(&self) -> OffsetDateTime {
        self.text("validation_time").map_or_else(now, |text| OffsetDateTime::parse(text, &Rfc3339).unwrap())
    }

    fn verdict(&self) -> Result<(), String> {
        if self.text("validation_kind") == Some("CLIENT") {
            return self.as_client();
        }
        // Two cases name nobody: any name of the certificate will do.
        let name = self.0["expected_peer_name"]["value"].as_str();
        verify_server_chain(&self.chain(), &self.roots(), name.unwrap_or("example.com"), self.time())
            .map_err(|error| format!("{error}"))
    }

    fn as_client(&self) -> Result<(), String> {
        let trust = self.roots().iter().fold(Trust::default(), |trust, root| trust.and_ca("ca", root.der()));
        trust.store_at(self.time()).judge(&self.chain(), self.time()).map(|_| ()).map_err(|refusal| refusal.to_string())
    }
}

/// The case and why it differs. *Accepted* and *refused* are our verdict; Go's are those of Go 1.19, as committed.
const DIVERGENCES: &[(&str, &str)] = &[
    // Accepted: rules of the Web's own PKI (CA/Browser Forum), which neither Go nor we apply to a private CA.
    ("webpki::cn::ipv4-hex-mismatch", COMMON_NAME),
    ("webpki::cn::ipv4-leading-zeros-mismatch", COMMON_NAME),
    ("webpki::cn::ipv6-uppercase-mismatch", COMMON_NAME),
    ("webpki::cn::ipv6-uncompressed-mismatch", COMMON_NAME),
    ("webpki::cn::ipv6-non-rfc5952-mismatch", COMMON_NAME),
    ("webpki::cn::punycode-not-in-san", COMMON_NAME),
    ("webpki::cn::utf8-vs-punycode-mismatch", COMMON_NAME),
    ("webpki::cn::not-in-san", COMMON_NAME),
    ("webpki::cn::case-mismatch", COMMON_NAME),
    ("webpki::aki::root-with-aki-missing-keyidentifier", KEY_IDS),
    ("webpki::aki::root-with-aki-authoritycertissuer", KEY_IDS),
    ("webpki::aki::root-with-aki-authoritycertserialnumber", KEY_IDS),
    ("webpki::aki::root-with-aki-all-fields", KEY_IDS),
    ("webpki::aki::root-with-aki-ski-mismatch", KEY_IDS),
    ("webpki::eku::ee-anyeku", USAGE),
    ("webpki::eku::ee-critical-eku", USAGE),
    ("webpki::eku::ee-without-eku", USAGE),
    ("webpki::eku::root-has-eku", USAGE),
    (
        "webpki::san::public-suffix-wildcard-san",
        "accepted: no public suffix list, as in Go; the CA chose to write the wildcard",
    ),
    (
        "webpki::san::public-suffix-multi-label-wildcard-san",
        "accepted: no public suffix list, as in Go; the CA chose to write the wildcard",
    ),
    (
        "webpki::san::public-suffix-private-namespace-wildcard-san",
        "accepted: no public suffix list, as in Go; the CA chose to write the wildcard",
    ),
    (
        "webpki::san::san-critical-with-nonempty-subject",
        "accepted: whether the extension is critical changes nothing; Go accepts",
    ),
    (
        "webpki::forbidden-rsa-not-divisible-by-8-in-root",
        "accepted: the key is longer than 2048 bits, only an odd size; Go accepts",
    ),
    ("webpki::forbidden-rsa-key-not-divisible-by-8-in-leaf", "accepted: as the root"),
    // Accepted: the chain is good, and then the handshake fails, because TLS here has no scheme for such a key.
    ("webpki::forbidden-p192-leaf", NO_HANDSHAKE),
    ("webpki::forbidden-dsa-leaf", NO_HANDSHAKE),
    ("webpki::forbidden-weak-rsa-in-leaf", NO_HANDSHAKE),
    // Accepted: RFC 5280 words on how a CA must write, that give nobody anything when they are broken.
    ("rfc5280::aki::leaf-missing-aki", KEY_IDS),
    ("rfc5280::aki::intermediate-missing-aki", KEY_IDS),
    ("rfc5280::aki::cross-signed-root-missing-aki", KEY_IDS),
    ("rfc5280::ski::root-missing-ski", KEY_IDS),
    ("rfc5280::ski::intermediate-missing-ski", KEY_IDS),
    ("rfc5280::serial::too-long", SERIAL),
    ("rfc5280::serial::zero", SERIAL),
    (
        "rfc5280::serial::negative",
        "accepted: as the other serials; Go accepts up to 1.22. Harmless: the path is the signature's",
    ),
    (
        "rfc5280::nc::permitted-dns-match-noncritical",
        "accepted: the constraint is applied all the same; Go does so too",
    ),
    (
        "rfc5280::nc::invalid-dnsname-leading-period",
        "accepted: `.example.com` is read as what lies below it. Harmless: that permits less than the period's absence. Go refuses",
    ),
    ("rfc5280::nc::not-allowed-in-ee-noncritical", NC_IN_LEAF),
    ("rfc5280::nc::not-allowed-in-ee-critical", NC_IN_LEAF),
    ("rfc5280::pc::ica-noncritical-pc", "accepted: policies are not evaluated and no rule rests on one; Go accepts"),
    ("rfc5280::san::noncritical-with-empty-subject", "accepted: the name checked is the same; Go accepts"),
    ("rfc5280::san::underscore-dns", "accepted: the name asked for is the name signed; Go takes underscores"),
    ("rfc5280::ca-empty-subject", "accepted: the issuer is found by an empty name and proven by its key; Go accepts"),
    (
        "rfc5280::root-non-critical-basic-constraints",
        "accepted: CA:TRUE is read whether or not it is critical; Go accepts",
    ),
    (
        "rfc5280::leaf-ku-keycertsign",
        "accepted as a server's: it signs for nobody without CA:TRUE; Go accepts (measured)",
    ),
    (
        "webpki::malformed-aia",
        "accepted: nothing is fetched, the extension is not read. Go refuses to parse it. Harmless",
    ),
    ("webpki::nc::intermediate-permitted-excluded-subtrees-both-null", NC_EMPTY),
    ("webpki::nc::intermediate-permitted-excluded-subtrees-both-empty-sequences", NC_EMPTY),
    // Accepted: inputs that the verdict does not have.
    ("crl::revoked-certificate-with-crl", NO_CRL),
    ("crl::crlnumber-missing", NO_CRL),
    ("crl::crlnumber-critical", NO_CRL),
    ("crl::issuer-missing-crlsign", NO_CRL),
    (
        "pathlen::max-chain-depth-0-exhausted",
        "accepted: there is no option for a depth, as in Go; six intermediates are the limit",
    ),
    (
        "pathlen::max-chain-depth-1-exhausted",
        "accepted: there is no option for a depth, as in Go; six intermediates are the limit",
    ),
    // Refused though it could be accepted: limits of webpki. Nobody is let in by them.
    ("pathlen::validation-ignores-pathlen-in-leaf", CA_LEAF),
    ("rfc5280::ca-as-leaf", CA_LEAF),
    ("pathlen::self-issued-certs-pathlen", "refused: self-issued intermediates count in the path length, as in Go"),
    (
        "rfc5280::nc::permitted-self-issued",
        "refused: name constraints are applied to self-issued intermediates, as in Go",
    ),
    ("rfc5280::nc::permitted-dn-match", "refused: directoryName constraints are not supported; nor are they in Go"),
    ("rfc5280::nc::nc-permits-email-exact", EMAIL),
    ("rfc5280::nc::nc-permits-email-domain", EMAIL),
    ("rfc5280::nc::nc-permits-email-literal-asterisk-exact-match", EMAIL),
    ("rfc5280::nc::nc-permits-email-literal-double-asterisk", EMAIL),
    ("rfc5280::nc::nc-permits-email-literal-mid-asterisk", EMAIL),
];

const COMMON_NAME: &str = "accepted: the common name is not looked at at all, neither for nor against; Go accepts";
const KEY_IDS: &str = "accepted: key identifiers are hints for finding an issuer, the signature decides; Go accepts";
const USAGE: &str = "accepted: absent, critical or any extendedKeyUsage allows a server, as in Go";
const NO_HANDSHAKE: &str =
    "accepted as a chain. Harmless: TLS has no scheme for such a key, so the handshake fails. Go accepts all but P-192";
const SERIAL: &str = "accepted: the serial plays no part in the path; the deny list knows it by its octets; Go accepts";
const NC_IN_LEAF: &str = "accepted: a leaf signs for nobody, so there is nothing to constrain; Go accepts";
const NC_EMPTY: &str = "accepted: it constrains nothing, and the CA signed that. Go refuses to parse it. Harmless";
const NO_CRL: &str = "accepted: a client of a registry has no CRL, nor has Docker's";
const CA_LEAF: &str = "refused: webpki takes no CA:TRUE leaf below another CA (a pinned one is accepted); Go accepts";
const EMAIL: &str = "refused: webpki has no e-mail constraints and then refuses the address; Go accepts";

#[test]
fn every_case_but_those_in_the_table() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let bytes = std::fs::read(&file).unwrap_or_else(|error| {
        // A test that passes because its cases are not there proves nothing.
        panic!(
            "{}: {error}; it is limbo.json of github.com/C2SP/x509-limbo, put there beside the checkout",
            file.display()
        )
    });
    let limbo: Value = serde_json::from_slice(&bytes).unwrap();
    let cases = limbo["testcases"].as_array().unwrap();
    assert_eq!(cases.len(), 208);
    let mut divergences: BTreeMap<&str, &str> = DIVERGENCES.iter().copied().collect();
    let mut unexpected = Vec::new();
    for case in cases.iter().map(Case) {
        let id = case.text("id").unwrap();
        let expected = case.text("expected_result") == Some("SUCCESS");
        let verdict = case.verdict();
        if verdict.is_ok() != expected && divergences.remove(id).is_none() {
            unexpected.push(format!("{id}: {verdict:?}"));
        }
    }
    let go: Value = serde_json::from_str(GO).unwrap();
    for (id, why) in DIVERGENCES.iter().filter(|(_, why)| why.starts_with("accepted")) {
        let verdict = go["verdicts"][id].as_str().unwrap();
        assert!(verdict == "accepted" || why.contains("Harmless"), "{id}: {verdict}, and we say: {why}");
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    assert!(divergences.is_empty(), "these agree now: {divergences:?}");
}
