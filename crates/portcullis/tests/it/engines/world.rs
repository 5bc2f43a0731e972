//! The registry, whom it trusts, and the files that trees are made of. Composes a prediction about files with what the
//! registry says to the certificate that would be sent.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use portcullis_certs::{
    Certificate, CertificateRequest, Choice, Elsewhere, Endpoint, EngineProfile, EngineUser, LoadedPair, Outcome,
    Places, Scheme, Situation, TlsVersion, Version, pem, predict,
};
use portcullis_doctor::go_refusal;
use portcullis_testkit::image::Image;
use portcullis_testkit::pki::{Authority, KeyAlg, LeafSpec, PairFiles, openssl};
use time::OffsetDateTime;

use crate::netns::{ADDRESS, Machine};
use crate::process::{DEADLINE, Ran, run};
use crate::registry::Registry;

use super::corpus::{Case, Tree};
use super::observed::{Engine, Expected};
use super::servers::{self, ADDRESS_6, Servers};

/// Podman's files, for a program that takes any address.
const CURL: EngineProfile = EngineProfile { ipv6: EngineProfile::CONTAINERD.ipv6, ..EngineProfile::PODMAN };

/// Everything the corpus needs, made once.
pub(crate) struct World<'m> {
    pub(crate) machine: &'m Machine,
    registry: Registry<'m>,
    on_443: Registry<'m>,
    servers: Option<Servers>,
    /// Files by the names that the corpus uses.
    parts: BTreeMap<String, Vec<u8>>,
    versions: BTreeMap<Engine, Version>,
    /// The names that the registry lists in its CertificateRequest.
    hints: Vec<Vec<u8>>,
    trusted: Vec<Certificate>,
    pins: Vec<Certificate>,
}

impl<'m> World<'m> {
    pub(crate) fn new(machine: &'m Machine) -> Self {
        let on_443 = without_probe(Registry::up_in(machine, "registry443", 443));
        let registry = Registry::up_everywhere(machine, "registry", 5443, &["loop.test"]);
        let hosts = machine.dir().join("hosts");
        let more = format!("127.0.1.1 loop.test\n{ADDRESS} token.test blobs.test proxy.test proxied.example\n");
        let text = fs::read_to_string(&hosts).unwrap() + &more;
        fs::write(&hosts, text).unwrap();
        machine.run("ip", &["addr", "add", &format!("{ADDRESS_6}/128"), "dev", "lo"]).ok();
        let mut world = Self {
            machine,
            registry,
            on_443,
            servers: None,
            parts: BTreeMap::new(),
            versions: versions(machine),
            hints: vec![],
            trusted: vec![],
            pins: vec![],
        };
        world.make_parts();
        world.push_images();
        world
    }

    /// Takes away the last tree and lays out the next.
    pub(crate) fn lay_out(&self, case: &Case) {
        for root in [self.root("docker"), self.root("containers"), self.root("home")] {
            let _not_there = fs::remove_dir_all(&root);
            fs::create_dir_all(&root).unwrap();
        }
        (case.build)(&Tree { world: self, host: case.host });
    }

    /// `certs.d` of Docker, of containers, or of the user.
    pub(crate) fn root(&self, whose: &str) -> PathBuf {
        match whose {
            "home" => self.machine.dir().join("home/.config/containers/certs.d"),
            whose => self.machine.dir().join(format!("etc-{whose}/certs.d")),
        }
    }

    pub(crate) fn part(&self, name: &str) -> &[u8] {
        self.parts.get(name).unwrap_or_else(|| panic!("no part `{name}`"))
    }

    pub(crate) fn servers(&self) -> &Servers {
        self.servers.as_ref().unwrap()
    }

    /// What the engine does with the files, then what the two ends say to each other.
    pub(crate) fn predict(&self, case: &Case, engine: Engine) -> Expected {
        let made = self.prediction(case, engine);
        match &made.outcome {
            Outcome::Fails { text, .. } => Expected::Says(text.clone()),
            Outcome::NotAReference { text } => Expected::Says((*text).to_owned()),
            Outcome::NotRead(_) | Outcome::NoFiles | Outcome::Loaded => {
                let pulls = made.endpoints.iter().filter(|endpoint| endpoint.pulls);
                let met: Vec<Expected> = pulls.map(|endpoint| self.meet(engine, endpoint, made.elsewhere())).collect();
                let works = met.contains(&Expected::Works);
                if works { Expected::Works } else { met.into_iter().next().unwrap() }
            }
            other => panic!("{}: {other:?}", case.name),
        }
    }

    fn prediction(&self, case: &Case, engine: Engine) -> portcullis_certs::Prediction {
        let view = self.view();
        let (profile, places) = match engine {
            Engine::Dockerd => (&EngineProfile::DOCKER, Places::Own),
            Engine::Skopeo | Engine::Podman => (&EngineProfile::PODMAN, Places::Own),
            Engine::Curl => (&CURL, Places::Own),
            Engine::Ctr => (&EngineProfile::CONTAINERD, Places::Own),
        };
        let given = case.cert_dir.map(|dir| view.join(dir.trim_start_matches('/')));
        let ctr = [view.join("etc/docker/certs.d")];
        let places = match (&given, engine) {
            (Some(dir), Engine::Skopeo) => Places::HostDirectory(dir),
            (_, Engine::Ctr) => Places::Roots(&ctr),
            _ => places,
        };
        let loopback = [IpAddr::from([127, 0, 1, 1])];
        let own: [IpAddr; 1] = [ADDRESS.parse().unwrap()];
        let situation = Situation {
            user: EngineUser::Root { home: Some(Path::new("/home")) },
            version: self.versions.get(&engine).copied(),
            places,
            addresses: if case.host.starts_with("loop.") { &loopback } else { &own },
            ..Situation::here(&view, OffsetDateTime::now_utc())
        };
        predict(profile, &situation, &case.host.parse().unwrap())
    }

    /// The machine's private directories where the engines see them.
    fn view(&self) -> PathBuf {
        let view = self.machine.dir().join("view");
        if !view.exists() {
            fs::create_dir_all(view.join("etc")).unwrap();
            for (name, to) in [("etc/docker", "etc-docker"), ("etc/containers", "etc-containers"), ("home", "home")] {
                std::os::unix::fs::symlink(self.machine.dir().join(to), view.join(name)).unwrap();
            }
        }
        view
    }

    /// Client and registry meet: its certificate against the roots, then ours against its trust.
    fn meet(&self, engine: Engine, endpoint: &Endpoint, elsewhere: Elsewhere) -> Expected {
        if let Some(expected) = self.meet_front(engine, endpoint, elsewhere) {
            return expected;
        }
        if endpoint.authority.ends_with(".invalid") {
            return Expected::Says("no such host".to_owned());
        }
        let registry = if endpoint.authority.ends_with("5443") { &self.registry } else { &self.on_443 };
        let ca = certificates(&registry.ca());
        if endpoint.verifies && !endpoint.roots.iter().any(|root| ca.contains(&root.certificate)) {
            if engine == Engine::Curl {
                return Expected::Says("SSL certificate problem".to_owned());
            }
            return Expected::Says("x509: certificate signed by unknown authority".to_owned());
        }
        let request =
            CertificateRequest { version: TlsVersion::V1_3, schemes: &[], authorities: &self.hints_of(registry) };
        match endpoint.choose(&request) {
            Choice::Sends { pair, .. } => self.judge(registry, pair),
            // Without verification Docker falls back to HTTP, which the registry does not speak.
            Choice::SendsNothing { .. } if endpoint.scheme == Scheme::HttpsThenHttp => {
                Expected::Says("Client sent an HTTP request to an HTTPS server.".to_owned())
            }
            Choice::SendsNothing { .. } => Expected::Says("tls: certificate required".to_owned()),
        }
    }

    /// The same for a server whose own certificate is what matters: first it, then the one it sends to. The proxy takes no
    /// CONNECT, which is enough to see that the engine came so far.
    fn meet_front(&self, engine: Engine, endpoint: &Endpoint, elsewhere: Elsewhere) -> Option<Expected> {
        let fronts = &self.servers().fronts;
        let is_proxied = endpoint.authority.starts_with("proxied.");
        let authority = if is_proxied { "proxy.test:6121" } else { endpoint.authority.as_str() };
        let front = fronts.get(authority)?;
        if engine == Engine::Curl {
            return Some(if front.curl.is_empty() { Expected::Works } else { Expected::Says(front.curl.to_owned()) });
        }
        let roots: Vec<Certificate> = endpoint.roots.iter().map(|root| root.certificate.clone()).collect();
        let now = OffsetDateTime::now_utc();
        let refused = |authority: &str| go_refusal(&fronts[authority].chain, &roots, &authority.parse().unwrap(), now);
        assert_eq!(elsewhere, Elsewhere::Registrys, "what another rule would mean is to be written here");
        let refused = refused(authority).or_else(|| front.sends_to.and_then(refused));
        Some(match refused {
            Some(text) => Expected::Says(text),
            None if is_proxied => Expected::Says("Bad Request".to_owned()),
            None => Expected::Works,
        })
    }

    fn hints_of(&self, registry: &Registry<'_>) -> Vec<Vec<u8>> {
        if registry.home() == self.registry.home() { self.hints.clone() } else { hints(registry) }
    }

    fn judge(&self, registry: &Registry<'_>, pair: &LoadedPair) -> Expected {
        let leaf = &pair.chain[0];
        let facts = leaf.facts();
        let now = OffsetDateTime::now_utc();
        let says = |alert: &str| Expected::Says(format!("remote error: tls: {alert}"));
        if facts.not_after < now || facts.not_before > now {
            return says("expired certificate");
        }
        if self.pins.contains(leaf) {
            return Expected::Works;
        }
        let cas = if registry.home() == self.registry.home() { self.trusted.clone() } else { trusted(registry) };
        let known = pair.chain.iter().any(|link| cas.iter().any(|ca| link.is_signed_by(ca)));
        match &facts.extended_key_usage {
            _ if !known => says("unknown certificate authority"),
            Some(usage) if !usage.client_auth => says("unsupported certificate"),
            _ => Expected::Works,
        }
    }

    /// The control: curl with the files that Podman is predicted to use.
    pub(crate) fn curl(&self, case: &Case) -> Ran {
        let made = self.prediction(case, Engine::Curl);
        let endpoint = made.registry().unwrap();
        let mut command = self.machine.command("curl");
        command.args(["--silent", "--show-error", "--fail", "--output", "/dev/null"]);
        let bundle = self.machine.dir().join("curl.crt");
        let roots: Vec<u8> = endpoint.roots.iter().flat_map(|root| fs::read(&root.path).unwrap()).collect();
        fs::write(&bundle, roots).unwrap();
        command.arg("--cacert").arg(&bundle);
        if let Some(pair) = endpoint.pairs.first() {
            // To curl a colon in a path begins a passphrase.
            for (option, file) in [("--cert", &pair.cert_path), ("--key", &pair.key_path)] {
                let copy = self.machine.dir().join(format!("curl{option}"));
                fs::copy(file, &copy).unwrap();
                command.arg(option).arg(copy);
            }
        }
        command.arg(format!("https://{}/v2/", case.host));
        run(command, &self.machine.logs(), DEADLINE)
    }

    fn push_images(&mut self) {
        let image = Image::new(9, &[1000]);
        image.write_layout(&self.machine.dir().join("layout"), "v1");
        let servers = servers::start(self.machine, &image);
        self.parts.extend(servers.parts.iter().cloned());
        self.servers = Some(servers);
        for registry in [&self.registry, &self.on_443] {
            let from = registry.home().join("pki/clients");
            let client = fs::read_dir(&from).unwrap().next().unwrap().unwrap().path().display().to_string();
            let reference = registry.reference("demo/app:1");
            let push = ["push", "oci:layout:v1", &reference, "--cert-dir", &client];
            self.machine.run(crate::registry::PORTCULLIS, &push).ok();
        }
    }

    fn make_parts(&mut self) {
        let dir = self.machine.subdir("parts");
        let clients = Authority::new("corpus CA");
        let ca = clients.write_ca(&dir).display().to_string();
        self.registry.portcullis(&["trust", "add", &ca, "--as", "ca", "--name", "corpus"]).ok();
        let pinned = openssl::docker_page_recipe(&dir, "/CN=pinned");
        let pin = pinned.cert.display().to_string();
        self.registry.portcullis(&["trust", "add", &pin, "--as", "pin", "--name", "pinned"]).ok();
        self.pins = certificates(&pinned.cert);
        self.trusted = trusted(&self.registry);
        self.hints = hints(&self.registry);
        self.pair("pin", &pinned);
        let child = openssl::child_of(&self.machine.subdir("parts/child"), "child", "/CN=child", &pinned);
        self.pair("child", &child);
        self.make_pairs(&dir, &clients);
        self.make_formats(&dir);
        self.allow_everybody();
        let plain = self.on_443.new_client("plain");
        self.pair("plain", &plain);
        self.parts.insert("ca.crt".to_owned(), fs::read(self.registry.ca()).unwrap());
        self.parts.insert("ca443.crt".to_owned(), fs::read(self.on_443.ca()).unwrap());
        self.parts.insert("ca.key".to_owned(), fs::read(self.registry.home().join("pki/server-ca/ca.key")).unwrap());
        self.parts.insert("other.crt".to_owned(), Authority::new("other CA").cert_pem().into_bytes());
        self.make_damage();
    }

    fn make_pairs(&mut self, dir: &Path, clients: &Authority) {
        let middle = clients.intermediate("corpus intermediate");
        let alg = |alg| LeafSpec { alg, ..LeafSpec::client("kind") };
        let leaf = middle.client("leaf");
        let made = [
            ("good", clients.client("good")),
            ("expired", clients.issue(&LeafSpec::client("expired").expired())),
            ("future", clients.issue(&LeafSpec::client("future").not_yet_valid())),
            ("server", clients.issue(&LeafSpec::client("server").server_auth_only())),
            ("foreign", Authority::new("foreign CA").client("foreign")),
            ("p384", clients.issue(&alg(KeyAlg::P384))),
            ("p521", clients.issue(&alg(KeyAlg::P521))),
            ("ed25519", clients.issue(&alg(KeyAlg::Ed25519))),
            ("rsa", clients.issue(&alg(KeyAlg::Rsa2048))),
            ("chain", leaf),
        ];
        for (name, pair) in &made {
            let files = pair.write_pair(dir, name);
            self.pair(name, &files);
        }
        let leaf = &made[9].1;
        self.parts.insert("leaf.cert".to_owned(), leaf.cert_pem().into_bytes());
        let reversed = format!("{}{}", middle.cert_pem(), leaf.cert_pem());
        self.parts.insert("reversed.cert".to_owned(), reversed.into_bytes());
        let whole = format!("{}{}", leaf.chain_pem(), clients.cert_pem());
        self.parts.insert("whole.cert".to_owned(), whole.into_bytes());
    }

    /// The same certificates and keys in the forms that people bring.
    fn make_formats(&mut self, dir: &Path) {
        let at = |name: &str| dir.join(name);
        openssl::encrypt_pkcs8(&at("rsa.key"), &at("enc8.key"), "x");
        openssl::encrypt_traditional(&at("rsa.key"), &at("enc1.key"), "x");
        openssl::traditional(&at("rsa.key"), &at("pkcs1.key"));
        openssl::traditional(&at("good.key"), &at("sec1.key"));
        for name in ["enc8.key", "enc1.key", "pkcs1.key", "sec1.key"] {
            self.parts.insert(name.to_owned(), fs::read(at(name)).unwrap());
        }
        let run = |args: &[&str]| openssl::run(dir, args);
        let ca = self.registry.ca().display().to_string();
        self.parts.insert("ca.der".to_owned(), run(&["x509", "-in", &ca, "-outform", "DER"]));
        self.parts.insert("ca.trusted".to_owned(), run(&["x509", "-in", &ca, "-trustout"]));
        self.parts.insert("ca.p7b".to_owned(), run(&["crl2pkcs7", "-nocrl", "-certfile", &ca]));
        self.parts.insert("good.der".to_owned(), run(&["x509", "-in", "good.cert", "-outform", "DER"]));
        self.parts.insert("goodkey.der".to_owned(), run(&["pkey", "-in", "good.key", "-outform", "DER"]));
        self.parts.insert("good.text".to_owned(), run(&["x509", "-in", "good.cert", "-text"]));
        run(&["genpkey", "-algorithm", "ED448", "-out", "ed448.key"]);
        self.parts.insert("ed448.key".to_owned(), fs::read(at("ed448.key")).unwrap());
        self.parts.insert("public.pem".to_owned(), run(&["pkey", "-in", "good.key", "-pubout"]));
    }

    /// What editors, browsers and copying make of files.
    fn make_damage(&mut self) {
        let text = |name: &str| String::from_utf8(self.part(name).to_vec()).unwrap();
        let (ca, cert, key, other) = (text("ca.crt"), text("good.cert"), text("good.key"), text("other.crt"));
        let bad = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
        let made = [
            ("empty", String::new()),
            ("garbage", "garbage\n".to_owned()),
            ("html", "<!DOCTYPE html><html><body>Sign in</body></html>\n".to_owned()),
            ("bom.crt", format!("\u{feff}{ca}")),
            ("bom.cert", format!("\u{feff}{cert}")),
            ("crlf.crt", ca.replace('\n', "\r\n")),
            ("crlf.cert", cert.replace('\n', "\r\n")),
            ("crlf.key", key.replace('\n', "\r\n")),
            ("bundle.crt", format!("{other}{bad}{ca}")),
            ("keyed.crt", format!("{ca}{key}")),
            ("both.cert", format!("{cert}{key}")),
            ("bad.cert", bad.to_owned()),
        ];
        for (name, text) in made {
            self.parts.insert(name.to_owned(), text.into_bytes());
        }
    }

    /// The corpus is about certificates: whoever is trusted may pull.
    fn allow_everybody(&self) {
        let policy = self.registry.home().join("policy.toml");
        let text = fs::read_to_string(&policy).unwrap();
        let rule = |whom: &str| format!("\n[[rule]]\n{whom} = \"*\"\nrepositories = [\"**\"]\nallow = [\"pull\"]\n");
        fs::write(&policy, text + &rule("ca") + &rule("pin")).unwrap();
        self.registry.portcullis(&["reload"]).ok();
    }

    fn pair(&mut self, name: &str, files: &PairFiles) {
        let named = |suffix: &str| format!("{name}.{suffix}");
        self.parts.insert(named("cert"), fs::read(&files.cert).unwrap());
        self.parts.insert(named("key"), fs::read(&files.key).unwrap());
    }
}

/// Two registries on one machine: one probe's port is enough.
fn without_probe(mut registry: Registry<'_>) -> Registry<'_> {
    registry.stop();
    let config = registry.home().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("probe = \"off\"\n{text}")).unwrap();
    registry.start_again();
    registry
}

fn certificates(path: &Path) -> Vec<Certificate> {
    pem::read_certificates(path).0
}

fn trusted(registry: &Registry<'_>) -> Vec<Certificate> {
    below(&registry.home().join("trust/cas"))
}

fn below(dir: &Path) -> Vec<Certificate> {
    let files = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    files.flat_map(|path| certificates(&path)).collect()
}

/// CA subjects and pin issuers.
fn hints(registry: &Registry<'_>) -> Vec<Vec<u8>> {
    let cas = trusted(registry).into_iter().map(|ca| ca.facts().subject.der().to_vec());
    let pins = below(&registry.home().join("trust/pins")).into_iter().map(|pin| pin.facts().issuer.der().to_vec());
    cas.chain(pins).collect()
}

fn versions(machine: &Machine) -> BTreeMap<Engine, Version> {
    let engines = [Engine::Dockerd, Engine::Skopeo, Engine::Podman, Engine::Ctr, Engine::Curl];
    let version = |engine: Engine| {
        let said = machine.run(engine.name(), &["--version"]).ok().stdout;
        (engine, Version::find_in(&said).unwrap_or_else(|| panic!("no version in {said}")))
    };
    engines.map(version).into_iter().collect()
}
