//! A registry on a machine of its own, an attacker from many addresses, and a client that must be served meanwhile.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use portcullis_certs::{ClientPair, pem};
use portcullis_testkit::image::Image;
use portcullis_testkit::pki::{Pair, PairFiles};
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use portcullis_tls::{Roots, client_config};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::frames;
use crate::netns::{ADDRESS, HOST, IP, Machine, NSENTER};
use crate::peers::SKOPEO;
use crate::process::{DEADLINE, eventually, run};
use crate::registry::{PORTCULLIS, Registry};

/// What the server's memory may grow by, in KiB.
const GROWTH: u64 = 64 << 10;
/// The default of `connections`, and what a server needs beside: files, the runtime, listeners.
const DESCRIPTORS: usize = 4096 + 128;
const PORT: u16 = 5443;
/// Nothing that an attacker does waits for longer.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// The registry under attack.
pub(super) struct Siege<'m> {
    machine: &'m Machine,
    registry: &'m Registry<'m>,
    certs: PathBuf,
    guest: Arc<ClientConfig>,
    guest_files: PairFiles,
    under_way: AtomicBool,
    over: AtomicBool,
}

/// Ends the attack, also when the test panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Attacks, and looks meanwhile whether `skopeo inspect` is served and what the server takes.
pub(super) fn besieged(attack: impl FnOnce(&Siege<'_>) + Send) {
    skip_unless!(IP, NSENTER, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    let siege = Siege::prepare(&machine, &registry);
    siege.inspect();
    registry.forget_peak_memory();
    let before = registry.peak_memory();
    let mut most_descriptors = 0;
    thread::scope(|scope| {
        let _ends = Ends(&siege.over);
        let attacker = scope.spawn(|| {
            machine.enter_network();
            attack(&siege);
        });
        let begun = || siege.under_way.load(Ordering::Relaxed) || attacker.is_finished();
        assert!(eventually(DEADLINE, begun), "the attack does not begin");
        for _ in 0..4 {
            siege.inspect();
            most_descriptors = most_descriptors.max(registry.descriptors());
            thread::sleep(Duration::from_millis(500));
        }
        assert!(!attacker.is_finished() || siege.under_way.load(Ordering::Relaxed), "the attack came to nothing");
    });
    let grown = registry.peak_memory().saturating_sub(before);
    eprintln!("memory: {before} KiB, grew by {grown} KiB; descriptors: {most_descriptors}");
    assert!(grown <= GROWTH, "memory grew from {before} KiB by {grown} KiB");
    assert!(most_descriptors <= DESCRIPTORS, "{most_descriptors} descriptors");
    assert!(!registry.log().contains("panicked"), "something panicked");
    siege.inspect();
}

impl<'m> Siege<'m> {
    fn prepare(machine: &'m Machine, registry: &'m Registry<'m>) -> Self {
        let pair = registry.new_client("ci-7");
        let certs = machine.subdir("certs");
        registry.fill_certs(&certs, &pair);
        Image::new(1, &[1000]).write_layout(&machine.dir().join("layout"), "v1");
        let reference = registry.reference("demo/app:1");
        let dir = certs.display().to_string();
        machine.run(PORTCULLIS, &["push", "oci:layout:v1", &reference, "--cert-dir", &dir]).ok();
        let attacking = registry.new_client("gone-wild");
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let guest = config(registry, &read(&attacking.cert), &read(&attacking.key));
        Self {
            machine,
            registry,
            certs,
            guest,
            guest_files: attacking,
            under_way: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// As an engine would, from an address of its own.
    #[track_caller]
    fn inspect(&self) {
        let mut command = self.machine.command("skopeo");
        command.args(["inspect", "--cert-dir"]).arg(&self.certs);
        command.arg(format!("docker://{}", self.registry.reference("demo/app:1")));
        run(command, &self.machine.logs(), DEADLINE).ok().says("sha256:");
    }

    /// The attack has its full force.
    pub(super) fn under_way(&self) {
        self.under_way.store(true, Ordering::Relaxed);
    }

    pub(super) fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    pub(super) fn wait(&self) {
        while self.goes_on() {
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Four threads at once.
    pub(super) fn on_all_sides(&self, attack: impl Fn(usize) + Sync) {
        thread::scope(|scope| {
            for side in 0..4 {
                let attack = &attack;
                scope.spawn(move || {
                    self.machine.enter_network();
                    attack(side);
                });
            }
        });
    }

    /// Whoever presents `pair`, and these certificates behind it.
    pub(super) fn identity(&self, pair: &Pair, more: &str) -> Arc<ClientConfig> {
        config(self.registry, &(pair.chain_pem() + more), &pair.key_pem())
    }

    /// A client that is trusted, with these certificates behind its own.
    pub(super) fn identity_of_guest(&self, more: &str) -> Arc<ClientConfig> {
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        config(self.registry, &(read(&self.guest_files.cert) + more), &read(&self.guest_files.key))
    }

    /// The handshake of a client that is trusted.
    pub(super) fn trusted(&self, address: usize, protocol: &[u8]) -> io::Result<Tls> {
        tls(address, &self.guest, protocol)
    }

    /// Frames without end over HTTP/2, unread, by a trusted client and by a stranger, again and again.
    pub(super) fn http2_flood(&self, frames: impl Fn(u32) -> Vec<u8> + Sync) {
        let stranger = portcullis_testkit::pki::Authority::new("stranger").client("mallory");
        let stranger = self.identity(&stranger, "");
        self.under_way();
        self.on_all_sides(|side| {
            let identity = if side == 0 { &stranger } else { &self.guest };
            for _ in 0..1000 {
                if !self.goes_on() {
                    break;
                }
                // However the server ends it.
                let _ended = tls(side, identity, b"h2").and_then(|stream| self.send_without_end(stream, &frames));
            }
        });
    }

    fn send_without_end(&self, mut stream: Tls, frames: impl Fn(u32) -> Vec<u8>) -> io::Result<()> {
        stream.write_all(&frames::preface())?;
        for batch in (0..2000).take_while(|_| self.goes_on()) {
            let batch: Vec<u8> = (batch * 50..(batch + 1) * 50).flat_map(&frames).collect();
            stream.write_all(&batch)?;
        }
        Ok(())
    }
}

/// From the attacker's address of this number.
pub(super) fn connect_from(address: usize) -> io::Result<TcpStream> {
    let last = u8::try_from(address + 1).expect("so few addresses");
    // Not for the programs that other tests of this process start meanwhile.
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new([127, 0, 7, last].into(), 0))?;
    connect(&socket, &SocketAddrV4::new(ADDRESS.parse().expect("an address"), PORT))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A whole handshake.
fn tls(address: usize, config: &Arc<ClientConfig>, protocol: &[u8]) -> io::Result<Tls> {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from(HOST).expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, connect_from(address)?);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// A handshake, and what the server says to it.
pub(super) fn greet(address: usize, config: &Arc<ClientConfig>, protocol: &[u8]) -> io::Result<usize> {
    let mut stream = tls(address, config, protocol)?;
    stream.sock.set_read_timeout(Some(Duration::from_millis(200)))?;
    stream.read(&mut [0])
}

fn config(registry: &Registry<'_>, chain: &str, key: &str) -> Arc<ClientConfig> {
    let path = Path::new("test");
    let ca = pem::read_certificates(&registry.ca()).0;
    let pair = ClientPair {
        name: "test".to_owned(),
        cert_path: "test.cert".into(),
        key_path: "test.key".into(),
        chain: pem::certificates(chain.as_bytes(), path).0,
        key: pem::private_key(key.as_bytes(), path).unwrap(),
    };
    Arc::new(client_config(&ca, Roots::Only, Some(&pair)).unwrap())
}
