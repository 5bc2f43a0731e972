//! Which directory is read, what of its listing counts, and containerd's `hosts.toml`.

use std::fs;
use std::os::unix::fs::symlink;

use super::{CONTAINERS, CTR, Case, EVERY, HOST, MOST, Tree, WHOLE, WITH_PODMAN, case};

const PLAIN: &str = "ca.crt=ca443.crt client.cert=plain.cert client.key=plain.key";

pub(super) fn cases() -> Vec<Case> {
    let directories = names().into_iter().chain(places()).chain(listing());
    directories.chain(hosts_toml_as_a_file()).chain(files_in_hosts_toml()).collect()
}

fn names() -> Vec<Case> {
    let named = |name, build| case("names", name, build);
    vec![
        named("host:port", |t| t.files(WHOLE)).engines(EVERY),
        named("no directory", |_| {}).engines(WITH_PODMAN),
        named("host, asked with another port", |t| t.at("docker", "registry.test", WHOLE)),
        named("host, asked without port", |t| t.files(PLAIN)).host("registry.test").engines(EVERY),
        named("host, asked with :443", |t| t.at("docker", "registry.test", PLAIN)).host("registry.test:443"),
        named("host:443, asked without port", |t| t.at("docker", "registry.test:443", PLAIN)).host("registry.test"),
        named("host:443, asked with :443", |t| t.files(PLAIN)).host("registry.test:443"),
        named("host:443 beside host", |t| {
            t.files(PLAIN);
            t.at("docker", "registry.test", "ca.crt=garbage");
        })
        .host("registry.test:443"),
        named("upper case directory", |t| t.at("docker", "Registry.test:5443", WHOLE)),
        named("asked in upper case", |t| t.at("docker", HOST, WHOLE)).host("Registry.test:5443"),
        named("asked as the directory is, in upper case", |t| t.files(WHOLE)).host("Registry.test:5443"),
        named("host_port_", |t| t.at("docker", "registry.test_5443_", WHOLE)),
        named("host_port_ beside host:port", |t| {
            t.at("docker", "registry.test_5443_", "ca.crt=other.crt");
            t.files(WHOLE);
        }),
        named("_default", |t| t.at("docker", "_default", WHOLE)),
        named("_default beside host:port", |t| {
            t.at("docker", "_default", "ca.crt=other.crt");
            t.files(WHOLE);
        }),
        named("host..port", |t| t.at("docker", "registry.test..5443", WHOLE)),
        named("https:host:port", |t| t.at("docker", "https:registry.test:5443", WHOLE)),
        named("trailing dot", |t| t.at("docker", "registry.test.:5443", WHOLE)),
        named("an address", |t| t.files(WHOLE)).host("10.77.0.1:5443"),
        named("an address, asked by name", |t| t.at("docker", "10.77.0.1:5443", WHOLE)),
        named("a name that is loopback", |t| t.files(WHOLE)).host("loop.test:5443"),
    ]
}

fn places() -> Vec<Case> {
    let placed = |name, build| case("places", name, build);
    vec![
        placed("files beside the directories", |t| t.at("docker", ".", WHOLE)),
        placed("a file in the directory's place", |t| {
            fs::write(t.world.root("docker").join(t.host), t.world.part("ca.crt")).unwrap();
        }),
        placed("a link to the directory", |t| {
            t.at("docker", "real", WHOLE);
            symlink("real", t.world.root("docker").join(t.host)).unwrap();
        }),
        placed("a link to nothing", |t| symlink("none", t.world.root("docker").join(t.host)).unwrap()),
        placed("containers' own root", |t| t.at("containers", t.host, WHOLE)).engines(WITH_PODMAN),
        placed("containers' own root before Docker's", |t| {
            t.at("containers", t.host, WHOLE);
            t.files("client.key=good.key");
        })
        .engines(WITH_PODMAN),
        placed("an empty directory in containers' root", |t| {
            t.at("containers", t.host, "");
            t.files(WHOLE);
        })
        .engines(WITH_PODMAN),
        placed("the user's root first", |t| {
            t.at("home", t.host, WHOLE);
            t.at("containers", t.host, "ca.crt=other.crt");
        })
        .engines(CONTAINERS),
        placed("an empty directory in the user's root", |t| {
            t.at("home", t.host, "");
            t.files(WHOLE);
        })
        .engines(CONTAINERS),
        placed("roots are not merged", |t| {
            t.at("home", t.host, "ca.crt");
            t.files("client.cert=good.cert client.key=good.key");
        })
        .engines(CONTAINERS),
        placed("--cert-dir", |t| t.files(WHOLE)).cert_dir("/etc/docker/certs.d/registry.test:5443"),
        placed("--cert-dir at the parent", |t| t.files(WHOLE)).cert_dir("/etc/docker/certs.d"),
        placed("--cert-dir that is a file", |t| t.files(WHOLE))
            .cert_dir("/etc/docker/certs.d/registry.test:5443/ca.crt"),
        placed("--cert-dir that is not there", |t| t.files(WHOLE)).cert_dir("/etc/docker/none"),
    ]
}

fn listing() -> Vec<Case> {
    let listed = |name, build| case("listing", name, build);
    vec![
        listed("10 comes before 2", |t| {
            t.files("ca.crt 10.cert=expired.cert 10.key=expired.key 2.cert=good.cert 2.key=good.key");
        }),
        listed("upper case comes before lower", |t| {
            t.files("ca.crt a.cert=good.cert a.key=good.key B.cert=expired.cert B.key=expired.key");
        }),
        listed("a dot comes before a letter", |t| {
            t.files("ca.crt .x.cert=expired.cert .x.key=expired.key a.cert=good.cert a.key=good.key");
        }),
        listed("a pair that starts with a dot", |t| t.files("ca.crt .x.cert=good.cert .x.key=good.key")),
        listed("a root that starts with a dot", |t| {
            t.files(".hidden.crt=ca.crt client.cert=good.cert client.key=good.key");
        }),
        listed("names that are only suffixes", |t| t.files(".crt=ca.crt .cert=good.cert .key=good.key")),
        listed("AppleDouble root", |t| {
            t.files(WHOLE);
            t.files("._ca.crt=garbage");
        }),
        listed("AppleDouble certificate", |t| {
            t.files(WHOLE);
            t.files("._client.cert=garbage");
        }),
        listed("CA.CRT", |t| t.files("CA.CRT=ca.crt client.cert=good.cert client.key=good.key")),
        listed("ca.pem", |t| t.files("ca.pem=ca.crt client.cert=good.cert client.key=good.key")),
        listed("ca.cer", |t| t.files("ca.cer=ca.crt client.cert=good.cert client.key=good.key")),
        listed("client.pem and key.pem", |t| t.files("ca.crt client.pem=good.cert key.pem=good.key")),
        listed("Client.CERT and Client.KEY", |t| t.files("ca.crt Client.CERT=good.cert Client.KEY=good.key")),
        listed("a directory called old.crt", |t| {
            t.files(WHOLE);
            t.subdirectory("old.crt");
        })
        .engines(WITH_PODMAN),
        listed("a directory called backup", |t| {
            t.files(WHOLE);
            t.subdirectory("backup");
        }),
        listed("links to the files", |t| {
            t.at("docker", "real", WHOLE);
            for name in ["ca.crt", "client.cert", "client.key"] {
                t.link(name, &format!("../real/{name}"));
            }
        }),
        listed("another root that is a link to nothing", |t| {
            t.files(WHOLE);
            t.link("gone.crt", "nowhere");
        })
        .engines(WITH_PODMAN),
        listed("a key that is a link to nothing", |t| {
            t.files("ca.crt client.cert=good.cert");
            t.link("client.key", "nowhere");
        }),
        listed("README and client.cert.bak", |t| {
            t.files(WHOLE);
            t.files("README=garbage client.cert.bak=garbage");
        }),
    ]
}

const fn toml(name: &'static str, build: fn(&Tree<'_, '_>)) -> Case {
    case("hosts.toml", name, build).engines(CTR)
}

fn hosts_toml_as_a_file() -> Vec<Case> {
    vec![
        toml("names the files", |t| {
            t.files("root.pem=ca.crt c.pem=good.cert k.pem=good.key");
            t.text(
                "hosts.toml",
                "server = \"https://registry.test:5443\"\n[host.\"https://registry.test:5443\"]\nca = \"root.pem\"\nclient = [[\"c.pem\", \"k.pem\"]]\n",
            );
        }),
        toml("one file with both", |t| {
            t.files("root.pem=ca.crt both.pem=both.cert");
            with_host(t, "ca = [\"root.pem\"]\nclient = \"both.pem\"\n");
        }),
        toml("no table host", |t| {
            t.files(WHOLE);
            t.text("hosts.toml", "ca = \"none.crt\"\n");
        }),
        toml("not TOML", |t| {
            t.files(WHOLE);
            t.text("hosts.toml", "ca = [\n");
        }),
        toml("empty", |t| {
            t.files(WHOLE);
            t.text("hosts.toml", "");
        }),
        toml("unknown capability", |t| {
            t.files(WHOLE);
            with_host(t, "capabilities = [\"fly\"]\n");
        }),
        toml("called host.toml", |t| {
            t.files(WHOLE);
            t.text("host.toml", "[host.\"https://registry.test:5443\"]\nca = \"none.crt\"\n");
        }),
        toml("counts alone", |t| {
            t.files(WHOLE);
            with_host(t, "");
        }),
    ]
}

fn files_in_hosts_toml() -> Vec<Case> {
    vec![
        toml("client = [CERT, KEY]", |t| {
            t.files(WHOLE);
            with_host(t, "ca = \"ca.crt\"\nclient = [\"client.cert\", \"client.key\"]\n");
        }),
        toml("client = [[FILE, \"\"]]", |t| {
            t.files("ca.crt both.pem=both.cert");
            with_host(t, "ca = \"ca.crt\"\nclient = [[\"both.pem\", \"\"]]\n");
        }),
        toml("a root that is not there", |t| with_host(t, "ca = \"none.crt\"\n")),
        toml("a root that is none", |t| {
            t.files("x.crt=garbage");
            with_host(t, "ca = \"x.crt\"\n");
        }),
        toml("a pair that is not there", |t| {
            t.files("ca.crt");
            with_host(t, "ca = \"ca.crt\"\nclient = [[\"none.cert\", \"none.key\"]]\n");
        }),
        toml("skip_verify", |t| {
            t.files("client.cert=good.cert client.key=good.key");
            with_host(t, "skip_verify = true\nclient = [[\"client.cert\", \"client.key\"]]\n");
        }),
        toml("files on the file's own entry only", |t| {
            t.files(WHOLE);
            t.text(
                "hosts.toml",
                "server = \"https://registry.test:5443\"\nca = \"ca.crt\"\nclient = [[\"client.cert\", \"client.key\"]]\n[host.\"https://registry.test:5443\"]\n",
            );
        }),
        toml("in host_port_", |t| {
            t.at("docker", "registry.test_5443_", WHOLE);
            let text = "[host.\"https://registry.test:5443\"]\nca = \"ca.crt\"\nclient = [[\"client.cert\", \"client.key\"]]\n";
            fs::write(t.world.root("docker").join("registry.test_5443_/hosts.toml"), text).unwrap();
        }),
        toml("in _default", |t| {
            t.at("docker", "_default", "x.crt=ca.crt client.cert=good.cert client.key=good.key");
            let text =
                "[host.\"https://registry.test:5443\"]\nca = \"x.crt\"\nclient = [[\"client.cert\", \"client.key\"]]\n";
            fs::write(t.world.root("docker").join("_default/hosts.toml"), text).unwrap();
        }),
        case("hosts.toml", "is nothing to Docker and Podman", |t| {
            t.files(WHOLE);
            t.text("hosts.toml", "not TOML");
        })
        .engines(MOST),
    ]
}

fn with_host(t: &Tree<'_, '_>, rest: &str) {
    t.text("hosts.toml", &format!("[host.\"https://registry.test:5443\"]\n{rest}"));
}
