//! The CA names of the CertificateRequest, as real Go clients take them: one that holds no certificate issued by one of
//! these names sends none at all.

use std::fs;
use std::path::Path;

use portcullis_testkit::image::{Image, rootfs_tar};
use portcullis_testkit::pki::{Authority, Pair, openssl};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::dockerd::{DOCKER, DOCKERD, Dockerd};
use crate::netns::{IP, Machine, NSENTER};
use crate::peers::{OPENSSL, SKOPEO};
use crate::process::Ran;
use crate::registry::Registry;

const HOST: &str = "registry.test:5443";

/// A registry with an image, a CA, and the host whose directory is filled anew for each question.
struct Site<'m> {
    machine: &'m Machine,
    registry: Registry<'m>,
    ca: Authority,
    reference: String,
}

fn site(machine: &Machine) -> Site<'_> {
    let registry = Registry::up(machine);
    let ca = Authority::new("tests' root CA");
    ca.pair.write_crt(&machine.subdir("trusted"), "root");
    registry.portcullis(&["trust", "add", "trusted/root.crt", "--as", "ca", "--name", "root"]).ok();
    // Who the peer is does not matter here, only whether it is let in.
    fs::write(
        registry.home().join("policy.toml"),
        "[[rule]]\nca = \"*\"\nrepositories = [\"**\"]\nallow = [\"pull\", \"push\"]\n\
         [[rule]]\npin = \"*\"\nrepositories = [\"**\"]\nallow = [\"pull\", \"push\"]\n",
    )
    .unwrap();
    registry.portcullis(&["reload"]).ok();
    let reference = registry.reference("demo/app:1");
    let site = Site { machine, registry, ca, reference };
    Image::new(4, &[1000]).write_layout(&machine.dir().join("layout"), "v1");
    site.present(&[("client", &site.ca.client("first"))]);
    machine.run("skopeo", &["copy", "oci:layout:v1", &format!("docker://{}", site.reference)]).ok();
    site
}

impl Site<'_> {
    /// Both engines' directories hold exactly these pairs.
    fn present(&self, pairs: &[(&str, &Pair)]) {
        for dir in self.directories() {
            let _none_yet = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            fs::copy(self.registry.ca(), dir.join("ca.crt")).unwrap();
            for (stem, pair) in pairs {
                pair.write_pair(&dir, stem);
            }
        }
    }

    fn directories(&self) -> [std::path::PathBuf; 2] {
        [self.machine.docker_certs(HOST), self.machine.podman_certs(HOST)]
    }

    fn skopeo(&self) -> Ran {
        self.machine.run("skopeo", &["inspect", &format!("docker://{}", self.reference)])
    }

    fn trust(&self, file: &Path, role: &str, name: &str) {
        self.registry.portcullis(&["trust", "add", file.to_str().unwrap(), "--as", role, "--name", name]).ok();
    }

    /// Whether the registry saw a certificate of this name in a refused handshake.
    fn was_sent(&self, name: &str) {
        self.registry.log_line(&["client certificate refused", name]);
    }
}

/// Each of the ways, for skopeo; what differs between Go programs is only who loads the files.
#[test]
fn skopeo_sends_what_the_names_ask_for() {
    skip_unless!(IP, NSENTER, SKOPEO, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let site = site(&machine);

    // A pin of another issuer, beside a CA: its issuer's name is among the names.
    let foreign = Authority::new("a CA that is not trusted").client("pinned");
    foreign.write_crt(&machine.subdir("pins"), "foreign");
    site.present(&[("client", &foreign)]);
    site.skopeo().fails().says("certificate required");
    site.trust(&machine.dir().join("pins/foreign.crt"), "pin", "foreign");
    site.skopeo().ok();
    let recipe = openssl::docker_page_recipe(&machine.subdir("recipe"), "/C=AU/O=Internet Widgits Pty Ltd");
    site.trust(&recipe.cert, "pin", "recipe");
    site.registry.fill_certs(&machine.podman_certs(HOST), &recipe);
    site.skopeo().ok();

    // Below an intermediate: with its chain the root's name is enough.
    let issuing = site.ca.intermediate("tests' issuing CA");
    let bob = issuing.client("bob");
    site.present(&[("client", &bob)]);
    site.skopeo().ok();
    // Without, nothing is sent, since nobody asked for that issuer.
    site.present(&[("client", &bob.without_chain())]);
    site.skopeo().fails().says("certificate required");
    let refused = |line: &str| line.contains("client certificate refused") && line.contains("CN=bob");
    assert!(!site.registry.log().lines().any(refused), "{}", site.registry.log());
    // What is not self-issued in trust/cas is chain material and a name to ask for: now it is sent, and taken.
    issuing.pair.write_crt(&site.registry.home().join("trust/cas"), "issuing");
    site.registry.portcullis(&["reload"]).ok();
    site.skopeo().ok();
}

/// Several pairs in one directory: the names choose the one that fits, whatever the order of the files.
#[test]
fn several_pairs_in_one_directory() {
    skip_unless!(IP, NSENTER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let site = site(&machine);
    let (stranger, good) = (Authority::new("another CA").client("eve"), site.ca.client("good"));
    site.present(&[("a-stranger", &stranger), ("b-good", &good)]);
    site.skopeo().ok();
    site.present(&[("a-good", &good), ("b-stranger", &stranger)]);
    site.skopeo().ok();
    assert!(!site.registry.log().contains("CN=eve"), "{}", site.registry.log());
    // Go looks at names only: an expired certificate of a CA that is asked for is sent, and the good one after it is not.
    let late = site.ca.issue(&portcullis_testkit::pki::LeafSpec::client("late").expired());
    site.present(&[("a-late", &late), ("b-good", &good)]);
    site.skopeo().fails().says("expired certificate");
    site.was_sent("CN=late");
}

/// Above 8 KiB of names the list is empty, which means any: then everything is sent.
#[test]
fn too_many_names_are_none() {
    skip_unless!(IP, NSENTER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let site = site(&machine);
    let eve = Authority::new("another CA").client("eve");
    site.present(&[("client", &eve)]);
    site.skopeo().fails().says("certificate required");
    let cas = site.registry.home().join("trust/cas");
    for number in 0..60 {
        let name = format!("a CA with a name that takes some room in the list of names to ask for, {number:0>60}");
        Authority::new(&name).pair.write_crt(&cas, &format!("more-{number}"));
    }
    site.registry.portcullis(&["reload"]).ok();
    site.skopeo().fails().says("unknown certificate authority");
    site.was_sent("CN=eve");
    site.present(&[("client", &site.ca.client("good"))]);
    site.skopeo().ok();
}

/// In explain mode nobody is asked for by name: what Go would have kept back is sent, and explained.
#[test]
fn explain_asks_for_no_names() {
    skip_unless!(IP, NSENTER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let mut site = site(&machine);
    site.registry.configure("# client_auth = \"require\"", "client_auth = \"explain\"");
    let bob = site.ca.intermediate("tests' issuing CA").client("bob").without_chain();
    site.present(&[("client", &bob)]);
    site.skopeo().fails().says("was issued by CN=tests' issuing CA");
    site.present(&[("client", &site.ca.client("good"))]);
    site.skopeo().ok();
}

/// The same with the daemon itself.
#[test]
fn dockerd_sends_what_the_names_ask_for() {
    skip_unless!(IP, NSENTER, DOCKERD, DOCKER, SKOPEO, OPENSSL, Need::Namespaces);
    let machine = Machine::new();
    let site = site(&machine);
    let docker = Dockerd::start(&machine);
    let pushed = site.registry.reference("demo/pushed:1");
    docker.import(&rootfs_tar(2, 1000), &pushed);
    let push = || docker.docker(&["push", &pushed]);

    let issuing = site.ca.intermediate("tests' issuing CA");
    let bob = issuing.client("bob");
    site.present(&[("client", &bob)]);
    push().ok();
    site.present(&[("client", &bob.without_chain())]);
    push().fails().says("certificate required");
    issuing.pair.write_crt(&site.registry.home().join("trust/cas"), "issuing");
    site.registry.portcullis(&["reload"]).ok();
    push().ok();

    let recipe = openssl::docker_page_recipe(&machine.subdir("recipe"), "/C=AU/O=Internet Widgits Pty Ltd");
    site.registry.fill_certs(&machine.docker_certs(HOST), &recipe);
    push().fails().says("certificate required");
    site.trust(&recipe.cert, "pin", "recipe");
    push().ok();

    let (stranger, good) = (Authority::new("another CA").client("eve"), site.ca.client("good"));
    site.present(&[("a-stranger", &stranger), ("b-good", &good)]);
    push().ok();
}
