//! Whose files count for a host that the registry sends to, and for a proxy: the registry's, with every engine here.

use super::{Case, WITH_PODMAN, case};

pub(super) fn cases() -> Vec<Case> {
    let sent = |name, host, build| case("elsewhere", name, build).host(host).engines(WITH_PODMAN);
    vec![
        sent("a token server, all in the registry's directory", "registry.test:6100", |t| {
            t.files("a.crt=s-asks-for-token.crt b.crt=s-token.crt c.cert=elsewhere.cert c.key=elsewhere.key");
        }),
        sent("a token server with a directory of its own", "registry.test:6100", |t| {
            t.files("ca.crt=s-asks-for-token.crt");
            t.at("docker", "token.test:6101", "ca.crt=s-token.crt c.cert=elsewhere.cert c.key=elsewhere.key");
        }),
        // First: afterwards the blobs are there.
        sent("blobs elsewhere, with a directory of their own", "registry.test:6110", |t| {
            t.files("ca.crt=s-redirects.crt");
            t.at("docker", "blobs.test:6111", "ca.crt=s-blobs.crt c.cert=elsewhere.cert c.key=elsewhere.key");
        }),
        sent("blobs elsewhere, all in the registry's directory", "registry.test:6110", |t| {
            t.files("a.crt=s-redirects.crt b.crt=s-blobs.crt c.cert=elsewhere.cert c.key=elsewhere.key");
        }),
        sent("a proxy, all in the registry's directory", "proxied.example:5443", |t| {
            t.files("ca.crt=s-proxy.crt c.cert=elsewhere.cert c.key=elsewhere.key");
        }),
        sent("a proxy with a directory of its own", "proxied.example:5443", |t| {
            t.files("ca.crt c.cert=good.cert c.key=good.key");
            t.at("docker", "proxy.test:6121", "ca.crt=s-proxy.crt c.cert=elsewhere.cert c.key=elsewhere.key");
        }),
    ]
}
