//! Servers whose own certificate, or whose sending elsewhere, is what a case is about: nginx, one port for each, with the
//! corpus's image in files. Those that stand for registries ask for no client certificate.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use portcullis_certs::{Certificate, pem};
use portcullis_testkit::image::Image;
use portcullis_testkit::pki::openssl::{self, Strength};
use portcullis_testkit::pki::{Authority, BasicConstraints, LeafSpec, Pair, PairFiles};
use portcullis_testkit::skip::Need;

use crate::netns::{ADDRESS, HOST, Machine};
use crate::process::{DEADLINE, Running, eventually};

pub(super) const NGINX: Need = Need::Program("nginx");
/// The machine's second address.
pub(super) const ADDRESS_6: &str = "fd77::1";
/// The proxy for every host of the domain `example`.
pub(super) const PROXY: &str = "https://proxy.test:6121";

/// A server that stands for a registry.
pub(super) struct Front {
    pub(super) chain: Vec<Certificate>,
    /// Where its pulls end: at another server, whose certificate is looked at with the same roots.
    pub(super) sends_to: Option<&'static str>,
    /// What curl says; empty: it works.
    pub(super) curl: &'static str,
}

/// They run until this is dropped.
pub(super) struct Servers {
    _running: Running,
    pub(super) fronts: BTreeMap<String, Front>,
    /// The files that cases are made of.
    pub(super) parts: Vec<(String, Vec<u8>)>,
    log: PathBuf,
}

/// One port.
struct Server {
    host: &'static str,
    port: u16,
    /// The part with what its clients are given as its root.
    part: String,
    root: String,
    files: PairFiles,
    curl: &'static str,
    sends_to: Option<&'static str>,
    /// What it answers with.
    locations: String,
}

/// What makes certificates into servers.
struct Maker<'m> {
    dir: &'m Path,
    image: String,
    servers: Vec<Server>,
}

pub(super) fn start(machine: &Machine, image: &Image) -> Servers {
    let dir = machine.subdir("servers");
    let mut maker = Maker { dir: &dir, image: locations(&machine.dir().join("layout"), image), servers: Vec::new() };
    maker.make_roots();
    maker.make_weak();
    maker.make_leaves();
    maker.make_chains();
    let clients = Authority::new("clients of the others");
    clients.write_ca(&dir);
    maker.make_elsewhere();
    let running = run(machine, &dir, &maker.servers);
    let fronts = maker.servers.iter().map(|server| {
        let chain = pem::read_certificates(&server.files.cert).0;
        let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host.to_owned() };
        (format!("{host}:{}", server.port), Front { chain, sends_to: server.sends_to, curl: server.curl })
    });
    let mut parts: Vec<(String, Vec<u8>)> =
        maker.servers.iter().map(|server| (server.part.clone(), server.root.clone().into_bytes())).collect();
    let own =
        maker.servers.iter().map(|server| (format!("own-{}.crt", server.port), fs::read(&server.files.cert).unwrap()));
    parts.extend(own);
    let shown = clients.client("of the others").write_pair(&dir, "shown");
    parts.push(("elsewhere.cert".to_owned(), fs::read(shown.cert).unwrap()));
    parts.push(("elsewhere.key".to_owned(), fs::read(shown.key).unwrap()));
    Servers { fronts: fronts.collect(), parts, log: dir.join("access.log"), _running: running }
}

impl Servers {
    /// How many requests the proxy got with a client certificate that it trusts, and how many without one.
    pub(super) fn shown_to_proxy(&self) -> (usize, usize) {
        let log = fs::read_to_string(&self.log).unwrap();
        let count = |line: &str| log.lines().filter(|other| *other == line).count();
        (count("6121 SUCCESS"), log.lines().filter(|line| line.starts_with("6121 ")).count() - count("6121 SUCCESS"))
    }
}

/// The image, from its layout.
fn locations(layout: &Path, image: &Image) -> String {
    let (layout, manifest) = (layout.display(), image.manifest.digest.hex());
    format!(
        "location = /v2/ {{ return 200 '{{}}'; }}\n\
         location = /v2/demo/app/tags/list {{ default_type application/json; return 200 '{{\"name\":\"demo/app\",\"tags\":[\"1\"]}}'; }}\n\
         location ~ ^/v2/demo/app/manifests/ {{ types {{}} default_type application/vnd.oci.image.manifest.v1+json; alias {layout}/blobs/sha256/{manifest}; }}\n\
         location ~ ^/v2/demo/app/blobs/sha256:([0-9a-f]+)$ {{ alias {layout}/blobs/sha256/$1; }}\n"
    )
}

impl Maker<'_> {
    /// `root` is what clients are given; the server shows the pair.
    fn add(&mut self, port: u16, part: &str, root: String, pair: &Pair) -> &mut Server {
        let files = pair.write_pair(self.dir, &format!("server-{port}"));
        self.add_files(port, part, root, files)
    }

    fn add_files(&mut self, port: u16, part: &str, root: String, files: PairFiles) -> &mut Server {
        self.servers.push(Server {
            host: HOST,
            port,
            part: format!("{part}.crt"),
            root,
            files,
            curl: "",
            sends_to: None,
            locations: self.image.clone(),
        });
        self.servers.last_mut().unwrap()
    }

    fn by(&mut self, port: u16, part: &str, ca: &Authority, leaf: &LeafSpec) -> &mut Server {
        self.add(port, part, ca.cert_pem(), &ca.issue(leaf))
    }

    /// What is put into ca.crt: rows A to F, M and N of the measurements, and a CA that may not vouch for the name.
    fn make_roots(&mut self) {
        let spec = || LeafSpec::server(&[HOST], &[]);
        self.by(6001, "s-sound", &Authority::new("sound"), &spec());
        let page = LeafSpec { is_ca: BasicConstraints::Ca, key_usages: vec![], ..spec() }.without_eku();
        for (port, part, spec) in [(6002, "s-self-ca", page), (6003, "s-self", spec())] {
            let pair = Pair::self_signed(&spec);
            self.add(port, part, pair.cert_pem(), &pair);
        }
        let leaf = Authority::new("not here").issue(&spec());
        self.add(6004, "s-leaf", leaf.cert_pem(), &leaf);
        let refused = "SSL certificate problem: invalid CA certificate";
        for (port, part, ca, curl) in [
            (6005, "s-expired-ca", Authority::expired("expired"), "SSL certificate problem: certificate has expired"),
            (6006, "s-no-bc", Authority::without_basic_constraints("no basicConstraints"), refused),
            (6007, "s-ca-false", Authority::saying_ca_false("CA:FALSE"), refused),
            (6008, "s-no-sign", Authority::without_key_cert_sign("no keyCertSign"), refused),
        ] {
            self.by(port, part, &ca, &spec()).curl = curl;
        }
        let elsewhere =
            LeafSpec { permitted_dns: vec!["example.com".to_owned()], ..LeafSpec::authority("constrained") };
        self.by(6009, "s-constrained", &Authority::from_spec(&elsewhere), &spec()).curl =
            "SSL certificate problem: permitted subtree violation";
        let again = Authority::new("sound").cert_pem();
        let other_key = Authority::new("sound").issue(&spec());
        self.add(6010, "s-made-anew", again, &other_key).curl = "SSL certificate problem";
    }

    /// What rcgen does not make: rows F, J and K.
    fn make_weak(&mut self) {
        let old = openssl::v1_self_signed(self.dir, "v1", "/CN=v1");
        let v1 = fs::read_to_string(&old.cert).unwrap();
        let files = openssl::server_of(self.dir, "server-6011", HOST, &old, Strength::Sound);
        self.add_files(6011, "s-v1", v1, files);
        let ca = Authority::new("of weak ones");
        let signer = ca.pair.write_pair(self.dir, "weak-ca");
        for (port, part, strength, curl) in [
            (6012, "s-rsa-1024", Strength::Rsa1024, "SSL certificate problem: EE certificate key too weak"),
            (6013, "s-sha1", Strength::Sha1, "SSL certificate problem: CA signature digest algorithm too weak"),
        ] {
            let files = openssl::server_of(self.dir, &format!("server-{port}"), HOST, &signer, strength);
            self.add_files(port, part, ca.cert_pem(), files).curl = curl;
        }
    }

    /// What the leaf says: rows G, H and I, dates and names.
    fn make_leaves(&mut self) {
        let ca = Authority::new("of leaves");
        let spec = || LeafSpec::server(&[HOST], &[]);
        let with = |dns: &[&str], cn: &str| LeafSpec { cn: Some(cn.to_owned()), ..LeafSpec::server(dns, &[]) };
        let for_clients = LeafSpec { client_auth: true, server_auth: false, ..spec() };
        let no_name = "SSL: no alternative certificate subject name matches target host name";
        let over = "SSL certificate problem: certificate has expired";
        let early = "SSL certificate problem: certificate is not yet valid";
        for (port, part, spec, curl) in [
            // curl still takes the common name where there is no subjectAltName, and no star before a name without dots.
            (6021, "s-cn", with(&[], HOST), ""),
            (6022, "s-nobody", with(&[], "nobody"), "SSL: certificate subject name 'nobody' does not match target"),
            (6023, "s-other", with(&["other.test", "third.test"], HOST), no_name),
            (6024, "s-star", with(&["*.test"], "star"), no_name),
            (6025, "s-deep-star", with(&["*.a.test", "*"], "star"), no_name),
            (6026, "s-clients", for_clients, "SSL certificate problem: unsuitable certificate purpose"),
            (6027, "s-over", spec().expired(), over),
            (6028, "s-early", spec().not_yet_valid(), early),
        ] {
            self.by(port, part, &ca, &spec).curl = curl;
        }
        let address = |text: &str| LeafSpec::server(&[], &[text.parse().unwrap()]);
        for (host, port, part, spec, curl) in [
            (ADDRESS, 6031, "s-ip", address(ADDRESS), ""),
            (ADDRESS, 6032, "s-no-ip", spec(), no_name),
            (ADDRESS, 6033, "s-other-ip", address("10.77.0.2"), no_name),
            (ADDRESS, 6034, "s-ip-as-dns", LeafSpec::server(&[ADDRESS], &[]), no_name),
            (ADDRESS_6, 6035, "s-ip6", address(ADDRESS_6), ""),
            (ADDRESS_6, 6036, "s-no-ip6", spec(), no_name),
        ] {
            let server = self.by(port, part, &ca, &spec);
            (server.host, server.curl) = (host, curl);
        }
    }

    /// Whether the server shows its intermediate, and who has it: rows L1 and L2.
    fn make_chains(&mut self) {
        let spec = LeafSpec::server(&[HOST], &[]);
        let root = Authority::new("root of a chain");
        let middle = root.intermediate("middle of a chain");
        let leaf = middle.issue(&spec);
        self.add(6041, "s-chain", root.cert_pem(), &leaf);
        self.add(6042, "s-cut", root.cert_pem(), &leaf.without_chain()).curl =
            "SSL certificate problem: unable to get local issuer certificate";
        // curl takes any certificate of the file for an end of the path.
        self.add(6043, "s-middle", middle.cert_pem(), &leaf.without_chain());
    }

    /// Registries that send to other servers, those, and a proxy. The others demand a client certificate.
    fn make_elsewhere(&mut self) {
        let demand = format!("ssl_client_certificate {}/ca.crt; ssl_verify_client on;\n", self.dir.display());
        let sound = Authority::new("of those who send");
        let plain = self.image.clone();
        let challenge = "add_header WWW-Authenticate 'Bearer realm=\"https://token.test:6101/token\",service=\"r\"' always;\n\
             if ($http_authorization = '') { return 401 '{}'; }\n";
        let first = self.by(6100, "s-asks-for-token", &sound, &LeafSpec::server(&[HOST], &[]));
        (first.locations, first.sends_to) = (format!("{challenge}{plain}"), Some("token.test:6101"));
        let answer = "{\"token\":\"t\",\"access_token\":\"t\",\"expires_in\":300}";
        let token = self.by(6101, "s-token", &Authority::new("of tokens"), &LeafSpec::server(&["token.test"], &[]));
        (token.host, token.locations) = (
            "token.test",
            format!("{demand}location /token {{ default_type application/json; return 200 '{answer}'; }}\n"),
        );
        // Of its own: who has the blobs already does not ask for them.
        let other = Image::new(10, &[1000]);
        other.write_layout(&self.dir.join("layout"), "v1");
        let image = locations(&self.dir.join("layout"), &other);
        let own: String = image.split_inclusive('\n').filter(|line| !line.contains("/blobs/sha256:(")).collect();
        let redirect = "location /v2/demo/app/blobs/ { return 307 https://blobs.test:6111$request_uri; }\n";
        let second = self.by(6110, "s-redirects", &sound, &LeafSpec::server(&[HOST], &[]));
        (second.locations, second.sends_to) = (format!("{own}{redirect}"), Some("blobs.test:6111"));
        let store = self.by(6111, "s-blobs", &Authority::new("of blobs"), &LeafSpec::server(&["blobs.test"], &[]));
        (store.host, store.locations) = ("blobs.test", format!("{demand}{image}"));
        let proxy = self.by(6121, "s-proxy", &Authority::new("of the proxy"), &LeafSpec::server(&["proxy.test"], &[]));
        (proxy.host, proxy.locations) = ("proxy.test", demand);
    }
}

fn run(machine: &Machine, dir: &Path, servers: &[Server]) -> Running {
    let blocks: String = servers.iter().map(block).collect();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/{name};\n", dir.display()));
    let config = format!(
        "daemon off; user root; worker_processes 1; pid {0}/pid; error_log {0}/error.log;\nevents {{}}\nhttp {{\nlog_format who '$server_port $ssl_client_verify';\naccess_log {0}/access.log who;\n{1}{blocks}}}\n",
        dir.display(),
        temporary.concat()
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    // RSA 1024 and SHA-1 are below OpenSSL's default level.
    fs::write(
        dir.join("openssl.cnf"),
        "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = weak\n[weak]\nCipherString = DEFAULT:@SECLEVEL=0\n",
    )
    .unwrap();
    let mut command = machine.command("env");
    command.arg(format!("OPENSSL_CONF={}/openssl.cnf", dir.display()));
    command.args(["nginx", "-e", "error.log", "-p"]).arg(dir).arg("-c").arg(dir.join("nginx.conf"));
    let mut running = Running::start(command, &machine.logs());
    let last = servers.last().map(|server| server.port).unwrap();
    let said = || fs::read_to_string(dir.join("error.log")).unwrap_or_default();
    assert!(eventually(DEADLINE, || running.has_ended() || machine.listens_on(last)), "{}", said());
    assert!(!running.has_ended(), "{}{}", running.said(), said());
    running
}

fn block(server: &Server) -> String {
    let port = server.port;
    let address = if server.host == ADDRESS_6 { format!("[{ADDRESS_6}]") } else { ADDRESS.to_owned() };
    let PairFiles { cert, key } = &server.files;
    format!(
        "server {{ listen {address}:{port} ssl; ssl_certificate {}; ssl_certificate_key {};\n{} }}\n",
        cert.display(),
        key.display(),
        server.locations
    )
}
