//! A certificate of any bytes: its facts can be shown and asked, and are of these very bytes.

use portcullis_certs::Certificate;

/// `bytes`: DER.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(certificate) = Certificate::from_der(bytes.to_vec().into()) else { return };
    assert_eq!(certificate.der().as_ref(), bytes);
    let facts = certificate.facts();
    assert!(!format!("{}{}", facts.subject, facts.issuer).contains(|c: char| c.is_control()));
    assert!(!facts.self_signed || (facts.self_issued && certificate.is_signed_by(&certificate)));
    if let Some(constraints) = &facts.name_constraints {
        assert!(!constraints.to_string().contains(|c: char| c.is_control()));
        for host in ["r.test", "10.0.0.1:5000", "[fd00::1]:5000"] {
            let _any = constraints.permits(&host.parse().expect("a host"));
        }
    }
    for host in ["r.test", "10.0.0.1", "fd00::1", ""] {
        let _any = certificate.is_for(host);
    }
}
