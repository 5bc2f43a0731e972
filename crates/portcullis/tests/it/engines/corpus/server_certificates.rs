//! The registry's own certificate, and what the client is given as its root.

use super::{Case, EVERY, MOST, Tree, WITH_PODMAN, case};

pub(super) fn cases() -> Vec<Case> {
    roots().into_iter().chain(leaves()).chain(addresses()).chain(chains()).collect()
}

fn of(group: &'static str, name: &'static str, host: &'static str, build: fn(&Tree<'_, '_>)) -> Case {
    case(group, name, build).host(host).engines(EVERY)
}

fn roots() -> Vec<Case> {
    let root = |name, host, build| of("server: its issuer", name, host, build);
    vec![
        root("a sound CA", "registry.test:6001", |t| t.files("ca.crt=s-sound.crt")),
        root("another CA", "registry.test:6001", |t| t.files("ca.crt=other.crt")).engines(WITH_PODMAN),
        root("self-signed CA:TRUE, itself", "registry.test:6002", |t| t.files("ca.crt=s-self-ca.crt")),
        root("self-signed CA:FALSE, itself", "registry.test:6003", |t| t.files("ca.crt=s-self.crt")),
        root("itself without its issuer", "registry.test:6004", |t| t.files("ca.crt=s-leaf.crt")),
        root("an expired CA", "registry.test:6005", |t| t.files("ca.crt=s-expired-ca.crt")),
        root("a CA without basicConstraints", "registry.test:6006", |t| t.files("ca.crt=s-no-bc.crt")),
        root("an issuer with CA:FALSE", "registry.test:6007", |t| t.files("ca.crt=s-ca-false.crt")),
        root("a CA whose keyUsage lacks keyCertSign", "registry.test:6008", |t| t.files("ca.crt=s-no-sign.crt")),
        root("a CA for other names", "registry.test:6009", |t| t.files("ca.crt=s-constrained.crt")),
        root("the CA's name with another key", "registry.test:6010", |t| t.files("ca.crt=s-made-anew.crt")),
        root("an X.509 v1 CA", "registry.test:6011", |t| t.files("ca.crt=s-v1.crt")),
    ]
}

fn leaves() -> Vec<Case> {
    let leaf = |name, host, build| of("server: its certificate", name, host, build);
    vec![
        leaf("RSA 1024", "registry.test:6012", |t| t.files("ca.crt=s-rsa-1024.crt")),
        leaf("signed with SHA-1", "registry.test:6013", |t| t.files("ca.crt=s-sha1.crt")),
        leaf("a common name and no subjectAltName", "registry.test:6021", |t| t.files("ca.crt=s-cn.crt")),
        leaf("no name of it at all", "registry.test:6022", |t| t.files("ca.crt=s-nobody.crt")),
        leaf("for other names", "registry.test:6023", |t| t.files("ca.crt=s-other.crt")),
        leaf("for a star", "registry.test:6024", |t| t.files("ca.crt=s-star.crt")),
        leaf("for stars that do not reach", "registry.test:6025", |t| t.files("ca.crt=s-deep-star.crt")),
        leaf("for clients only", "registry.test:6026", |t| t.files("ca.crt=s-clients.crt")),
        leaf("expired", "registry.test:6027", |t| t.files("ca.crt=s-over.crt")),
        leaf("not yet valid", "registry.test:6028", |t| t.files("ca.crt=s-early.crt")),
        leaf("expired, and it is the root itself", "registry.test:6027", |t| t.files("ca.crt=own-6027.crt")),
    ]
}

fn addresses() -> Vec<Case> {
    let address = |name, host, build| of("server: an address", name, host, build);
    vec![
        address("with its address", "10.77.0.1:6031", |t| t.files("ca.crt=s-ip.crt")),
        address("with no address", "10.77.0.1:6032", |t| t.files("ca.crt=s-no-ip.crt")),
        address("with another address", "10.77.0.1:6033", |t| t.files("ca.crt=s-other-ip.crt")),
        address("with its address as a DNS name", "10.77.0.1:6034", |t| t.files("ca.crt=s-ip-as-dns.crt")),
        address("IPv6 in brackets", "[fd77::1]:6035", |t| t.files("ca.crt=s-ip6.crt")),
        address("IPv6, directory without brackets", "[fd77::1]:6035", |t| {
            t.at("docker", "fd77::1:6035", "ca.crt=s-ip6.crt");
        })
        .engines(MOST),
        address("IPv6 with no address", "[fd77::1]:6036", |t| t.files("ca.crt=s-no-ip6.crt")),
    ]
}

fn chains() -> Vec<Case> {
    let chain = |name, host, build| of("server: its chain", name, host, build);
    vec![
        chain("whole", "registry.test:6041", |t| t.files("ca.crt=s-chain.crt")),
        chain("without the intermediate", "registry.test:6042", |t| t.files("ca.crt=s-cut.crt")),
        chain("without the intermediate, which is in ca.crt", "registry.test:6043", |t| t.files("ca.crt=s-middle.crt")),
    ]
}
