//! What is in the files: roots, pairs, and which of several pairs is sent.

use super::{Case, EVERY, MOST, WHOLE, WITH_PODMAN, case};

pub(super) fn cases() -> Vec<Case> {
    roots().into_iter().chain(halves()).chain(pairs()).chain(choice()).collect()
}

fn roots() -> Vec<Case> {
    let root = |name, build| case("roots", name, build);
    vec![
        root("none", |t| t.files("client.cert=good.cert client.key=good.key")).engines(WITH_PODMAN),
        root("of another CA", |t| t.files("ca.crt=other.crt client.cert=good.cert client.key=good.key")).engines(EVERY),
        root("two files", |t| {
            t.files("a.crt=other.crt b.crt=ca.crt client.cert=good.cert client.key=good.key");
        }),
        root("garbage", |t| t.files("ca.crt=garbage client.cert=good.cert client.key=good.key")).engines(WITH_PODMAN),
        root("garbage beside a good one", |t| {
            t.files(WHOLE);
            t.files("x.crt=garbage");
        })
        .engines(WITH_PODMAN),
        root("empty", |t| t.files("ca.crt=empty client.cert=good.cert client.key=good.key")),
        root("DER", |t| t.files("ca.crt=ca.der client.cert=good.cert client.key=good.key")),
        root("with byte order mark", |t| t.files("ca.crt=bom.crt client.cert=good.cert client.key=good.key")),
        root("CRLF", |t| t.files("ca.crt=crlf.crt client.cert=good.cert client.key=good.key")),
        root("TRUSTED CERTIFICATE", |t| t.files("ca.crt=ca.trusted client.cert=good.cert client.key=good.key")),
        root("PKCS#7", |t| t.files("ca.crt=ca.p7b client.cert=good.cert client.key=good.key")),
        root("an HTML page", |t| t.files("ca.crt=html client.cert=good.cert client.key=good.key")),
        root("a bad block among good ones", |t| {
            t.files("ca.crt=bundle.crt client.cert=good.cert client.key=good.key");
        }),
        root("a key in the file", |t| t.files("ca.crt=keyed.crt client.cert=good.cert client.key=good.key")),
        root("only a key in the file", |t| t.files("ca.crt=ca.key client.cert=good.cert client.key=good.key")),
    ]
}

fn halves() -> Vec<Case> {
    let half = |name, build| case("halves", name, build);
    vec![
        half("a certificate without key", |t| t.files("ca.crt client.cert=good.cert")).engines(WITH_PODMAN),
        half("a key without certificate", |t| t.files("ca.crt client.key=good.key")).engines(WITH_PODMAN),
        half("the CA's key", |t| {
            t.files(WHOLE);
            t.files("ca.key");
        })
        .engines(WITH_PODMAN),
        half("tls.crt and tls.key", |t| t.files("ca.crt tls.crt=good.cert tls.key=good.key")),
        half("the CA called ca.cert", |t| t.files("ca.cert=ca.crt client.cert=good.cert client.key=good.key")),
        half("certificate and key in one .cert", |t| t.files("ca.crt client.cert=both.cert")),
        half("the first fault by name counts", |t| {
            t.files("ca.crt a.key=good.key b.cert=good.cert");
        }),
        half("a pair fails where its certificate stands", |t| {
            t.files("ca.crt b.cert=good.cert b.key=empty c.key=good.key");
        }),
    ]
}

fn pairs() -> Vec<Case> {
    let pair = |name, build| case("pairs", name, build);
    vec![
        pair("RSA, PKCS#8", |t| t.files("ca.crt c.cert=rsa.cert c.key=rsa.key")).engines(EVERY),
        pair("RSA, PKCS#1", |t| t.files("ca.crt c.cert=rsa.cert c.key=pkcs1.key")),
        pair("P-256, SEC 1", |t| t.files("ca.crt c.cert=good.cert c.key=sec1.key")),
        pair("P-384", |t| t.files("ca.crt c.cert=p384.cert c.key=p384.key")),
        pair("P-521", |t| t.files("ca.crt c.cert=p521.cert c.key=p521.key")),
        pair("Ed25519", |t| t.files("ca.crt c.cert=ed25519.cert c.key=ed25519.key")),
        pair("text before the block", |t| t.files("ca.crt c.cert=good.text c.key=good.key")),
        pair("CRLF", |t| t.files("ca.crt c.cert=crlf.cert c.key=crlf.key")),
        pair("the wrong way round", |t| t.files("ca.crt c.cert=good.key c.key=good.cert")).engines(WITH_PODMAN),
        pair("a certificate as key", |t| t.files("ca.crt c.cert=good.cert c.key=good.cert")),
        pair("another's key of the same kind", |t| t.files("ca.crt c.cert=good.cert c.key=expired.key")),
        pair("another's key of another kind", |t| t.files("ca.crt c.cert=good.cert c.key=rsa.key")),
        pair("encrypted PKCS#8", |t| t.files("ca.crt c.cert=rsa.cert c.key=enc8.key")),
        pair("encrypted in the old form", |t| t.files("ca.crt c.cert=rsa.cert c.key=enc1.key")),
        pair("Ed448 key", |t| t.files("ca.crt c.cert=good.cert c.key=ed448.key")),
        pair("a public key", |t| t.files("ca.crt c.cert=good.cert c.key=public.pem")),
        pair("certificate in DER", |t| t.files("ca.crt c.cert=good.der c.key=good.key")),
        pair("key in DER", |t| t.files("ca.crt c.cert=good.cert c.key=goodkey.der")),
        pair("empty certificate", |t| t.files("ca.crt c.cert=empty c.key=good.key")),
        pair("empty key", |t| t.files("ca.crt c.cert=good.cert c.key=empty")),
        pair("certificate with byte order mark", |t| t.files("ca.crt c.cert=bom.cert c.key=good.key")),
        pair("a block that is no certificate", |t| t.files("ca.crt c.cert=bad.cert c.key=good.key")),
        pair("TRUSTED CERTIFICATE", |t| t.files("ca.crt c.cert=ca.trusted c.key=good.key")),
        pair("intermediate before leaf", |t| t.files("ca.crt c.cert=reversed.cert c.key=chain.key")),
        pair("leaf, intermediate", |t| t.files("ca.crt c.cert=chain.cert c.key=chain.key")).engines(EVERY),
        pair("leaf, intermediate, root", |t| t.files("ca.crt c.cert=whole.cert c.key=chain.key")),
        pair("the intermediate is missing", |t| t.files("ca.crt c.cert=leaf.cert c.key=chain.key")),
    ]
}

fn choice() -> Vec<Case> {
    let choice = |name, build| case("choice", name, build).engines(MOST);
    vec![
        choice("no pair", |t| t.files("ca.crt")).engines(WITH_PODMAN),
        choice("another CA's", |t| t.files("ca.crt c.cert=foreign.cert c.key=foreign.key")),
        choice("another CA's, then a good one", |t| {
            t.files("ca.crt a.cert=foreign.cert a.key=foreign.key b.cert=good.cert b.key=good.key");
        })
        .engines(WITH_PODMAN),
        choice("a good one, then another CA's", |t| {
            t.files("ca.crt a.cert=good.cert a.key=good.key b.cert=foreign.cert b.key=foreign.key");
        }),
        choice("expired", |t| t.files("ca.crt c.cert=expired.cert c.key=expired.key")),
        choice("expired, then a good one", |t| {
            t.files("ca.crt a.cert=expired.cert a.key=expired.key b.cert=good.cert b.key=good.key");
        })
        .engines(WITH_PODMAN),
        choice("not yet valid", |t| t.files("ca.crt c.cert=future.cert c.key=future.key")),
        choice("for servers only", |t| t.files("ca.crt c.cert=server.cert c.key=server.key")),
        choice("for servers only, then a good one", |t| {
            t.files("ca.crt a.cert=server.cert a.key=server.key b.cert=good.cert b.key=good.key");
        }),
        choice("pinned: the recipe of Docker's page", |t| t.files("ca.crt c.cert=pin.cert c.key=pin.key"))
            .engines(EVERY),
        choice("signed with a pin's key", |t| t.files("ca.crt c.cert=child.cert c.key=child.key")),
        choice("one pair that does not load spoils all", |t| {
            t.files("ca.crt a.cert=good.cert a.key=good.key b.cert=rsa.cert b.key=empty");
        }),
    ]
}
