//! Every text of the references is known, and its first meaning is the likeliest.

use portcullis_doctor::{Explanation, MAX_TEXT, explain};

fn first(text: &str) -> String {
    match explain(text) {
        Explanation::Text { meanings, .. } => meanings[0].code.to_owned(),
        Explanation::Code(check) => check.code.to_owned(),
        Explanation::Unknown { .. } => panic!("not known: {text}"),
    }
}

#[test]
fn what_engines_have_said_about_pairs_since_the_beginning() {
    for (text, code) in [
        ("Missing key client.key for certificate client.cert", "D20"),
        (
            "Missing key client.key for client certificate client.cert. Note that CA certificates should use the extension .crt.",
            "D20",
        ),
        (
            "missing key client.key for client certificate client.cert. Note that CA certificates should use the extension .crt",
            "D20",
        ),
        (
            "missing key client.key for client certificate client.cert. CA certificates must use the extension .crt",
            "D20",
        ),
        (
            "Missing key KEY_NAME for client certificate CERT_NAME. CA certificates should use the extension .crt.",
            "D20",
        ),
        ("Missing client certificate ca.cert for key ca.key", "D21"),
        ("missing client certificate registry.cert for key registry.key", "D21"),
        ("unable to get system cert pool: open /x: no such file", "D88"),
        (
            "unable to ping registry endpoint https://r.test/v0/ … place the CA certificate at /etc/docker/certs.d/r.test/ca.crt",
            "D66",
        ),
        ("failed to load keypair for /certs/client.key: open /certs/client.key: no such file or directory", "D20"),
        ("cert file \"/x.pem\" was specified, but no corresponding key file was specified", "D20"),
        ("unable to load CA cert \"/etc/containerd/certs.d/r.test/ca.crt\"", "D26"),
        ("unable to read CA cert \"/x\": open /x: no such file or directory", "D36"),
        ("unable to read CERT file \"/x\": open /x: no such file or directory", "D36"),
        ("failed to load X509 key pair: tls: private key does not match public key", "D31"),
        ("read /etc/containers/certs.d/r.test/x.crt: is a directory", "D36"),
        ("open /etc/docker/certs.d/r.test: permission denied", "D12"),
        ("open ca.crt: not a directory", "D03"),
    ] {
        assert_eq!(first(text), code, "{text}");
    }
}

#[test]
fn what_is_said_about_the_registrys_certificate() {
    for (text, code) in [
        ("Client sent an HTTP request to an HTTPS server.", "D80"),
        ("docker: invalid reference format.", "D08"),
        ("error:0A000086:SSL routines::certificate verify failed", "D66"),
        ("x509: certificate signed by unknown authority", "D66"),
        (
            "x509: certificate signed by unknown authority (possibly because of \"x509: invalid signature: parent certificate cannot sign this kind of certificate\" while trying to verify candidate authority certificate \"x\")",
            "D42",
        ),
        (
            "x509: certificate signed by unknown authority (possibly because of \"x509: cannot verify signature: insecure algorithm SHA1-RSA\")",
            "D45",
        ),
        ("x509: certificate has expired or is not yet valid: current time 2026-11-24 is after 2026-11-01", "D63"),
        ("x509: certificate relies on legacy Common Name field, use SANs instead", "D63"),
        ("x509: cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs", "D63"),
        ("x509: certificate is valid for a.test, b.test, not r.test", "D63"),
        ("x509: certificate specifies an incompatible key usage", "D63"),
        ("x509: negative serial number", "D45"),
        ("http: server gave HTTP response to HTTPS client", "D61"),
        (
            "net/http: HTTP/1.x transport connection broken: malformed HTTP response \"\\x15\\x03\\x01\\x00\\x02\\x02\"",
            "D61",
        ),
        ("verify error:num=20:unable to get local issuer certificate", "D66"),
        ("curl: (60) SSL certificate problem: certificate has expired", "D63"),
        ("error 79 at 1 depth lookup: invalid CA certificate", "D42"),
        ("error 64 at 0 depth lookup: IP address mismatch", "D63"),
        ("error 26 at 0 depth lookup: unsuitable certificate purpose", "D63"),
        ("error 2 at 1 depth lookup: unable to get issuer certificate", "D64"),
        ("EE certificate key too weak", "D45"),
        ("curl: (60) SSL: no alternative certificate subject name matches target host name 'r.test'", "D63"),
        ("curl: (35) error:0A00010B:SSL routines::wrong version number", "D61"),
        ("invalid peer certificate: CaUsedAsEndEntity", "D43"),
        ("invalid peer certificate: UnsupportedCertVersion", "D43"),
        ("invalid peer certificate: UnknownIssuer", "D66"),
        ("invalid peer certificate: BadSignature", "D45"),
        ("invalid peer certificate: UnsupportedSignatureAlgorithm", "D45"),
        (
            "invalid peer certificate: certificate not valid for name \"r.test\"; certificate is only valid for DnsName(\"a.test\")",
            "D63",
        ),
        ("received corrupt message of type InvalidContentType", "D61"),
        ("dial tcp: lookup r.test: no such host", "D60"),
        ("dial tcp 10.0.0.1:5443: connect: connection refused", "D60"),
    ] {
        assert_eq!(first(text), code, "{text}");
    }
}

#[test]
fn what_a_registry_says_about_us() {
    for (text, code) in [
        ("remote error: tls: certificate required", "D67"),
        ("remote error: tls: handshake failure", "D67"),
        ("remote error: tls: unknown certificate authority", "D68"),
        ("remote error: tls: expired certificate", "D40"),
        ("remote error: tls: revoked certificate", "D68"),
        ("remote error: tls: unsupported certificate", "D44"),
        ("remote error: tls: error decrypting message", "D68"),
        ("remote error: tls: unknown certificate", "D68"),
        ("remote error: tls: access denied", "D68"),
        ("remote error: tls: bad certificate", "D68"),
        ("OpenSSL SSL_read: error:0A00045C:SSL routines::tlsv13 alert certificate required, errno 0", "D67"),
        ("error:0A000418:SSL routines::tlsv1 alert unknown ca", "D68"),
        ("sslv3 alert certificate expired", "D40"),
        ("received fatal alert: CertificateRequired", "D67"),
        ("received fatal alert: HandshakeFailure", "D67"),
        ("received fatal alert: UnsupportedCertificate", "D44"),
        ("received fatal alert: CertificateExpired", "D40"),
        ("received fatal alert: UnknownCA", "D68"),
        ("400 No required SSL certificate was sent", "D67"),
        ("Get \"https://r.test/\": EOF", "D68"),
        ("write tcp 10.0.0.1: write: broken pipe", "D68"),
        ("read: connection reset by peer", "D68"),
        ("unauthorized: authentication required", "D72"),
    ] {
        assert_eq!(first(text), code, "{text}");
    }
}

#[test]
fn what_is_said_about_files() {
    for (text, code) in [
        ("tls: private key does not match public key", "D31"),
        ("tls: failed to parse private key: asn1: structure error: tags don't match", "D29"),
        ("tls: failed to find any PEM data in certificate input", "D26"),
        ("tls: failed to find any PEM data in key input", "D26"),
        ("tls: found a certificate rather than a key in the PEM for the private key", "D32"),
        (
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched",
            "D32",
        ),
        ("keys may not be consistent: InconsistentKeys(KeyMismatch)", "D31"),
        ("NoItemsFound", "D26"),
        ("Base64Decode(\"InvalidTrailingPadding\")", "D29"),
        ("curl: (58) unable to set private key file: 'client.key' type PEM", "D31"),
        ("curl: (58) could not load PEM client certificate", "D26"),
    ] {
        assert_eq!(first(text), code, "{text}");
    }
}

#[test]
fn case_and_line_breaks_do_not_matter() {
    assert_eq!(first("X509: Certificate\n   signed by\tUNKNOWN authority"), "D66");
    assert_eq!(first(" d81 "), "D81");
}

#[test]
fn the_meanings_are_ranked_and_told_apart() {
    let Explanation::Text { meanings, by, .. } = explain("x509: certificate signed by unknown authority") else {
        panic!()
    };
    let codes: Vec<&str> = meanings.iter().map(|meaning| meaning.code).collect();
    assert_eq!(codes, ["D66", "D01", "D26", "D64", "D69", "D85"]);
    assert!(by.contains("Docker"));
    assert!(meanings.iter().all(|meaning| !meaning.tell.is_empty() && !meaning.fix().is_empty()));
}

#[test]
fn a_pasted_text_is_bounded_and_shown_escaped() {
    let Explanation::Text { shown, .. } = explain("\u{1b}[31mremote error: tls: bad certificate\u{202e}") else {
        panic!()
    };
    assert_eq!(shown, "\\u{1b}[31mremote error: tls: bad certificate\\u{202e}");
    let error = "bad certificate";
    let at_the_limit = format!("{}{error}", "x".repeat(MAX_TEXT - error.len()));
    assert_eq!(first(&at_the_limit), "D68");
    let Explanation::Unknown { shown } = explain(&format!("x{at_the_limit}")) else { panic!("past the limit") };
    assert!(shown.chars().count() < 210);
    // A limit inside of a character is no panic.
    assert!(matches!(explain(&"ü".repeat(MAX_TEXT)), Explanation::Unknown { .. }));
    assert!(matches!(explain(""), Explanation::Unknown { .. }));
}

#[test]
fn an_explanation_is_folded() {
    for pasted in ["D81", "remote error: tls: certificate required", "x509: certificate signed by unknown authority"] {
        let text = explain(pasted).to_text(portcullis_doctor::Style { width: 60, ..crate::machine::PLAIN });
        assert!(text.contains("fix") && text.lines().all(|line| line.chars().count() <= 60), "{text}");
    }
    assert_eq!(explain("out of cheese").to_text(crate::machine::PLAIN), "");
}
