//! Pulls whose process is killed in the middle: the next one asks only for what is missing. Pushes whose connection breaks:
//! they go on from what the registry has acknowledged.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use portcullis_testkit::image::Image;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use rustix::process::Signal;

use crate::netns::{ADDRESS, HOST, IP, Machine, NSENTER};
use crate::process::{DEADLINE, Ran, Running, eventually, read_lossy};
use crate::registry::{PORTCULLIS, Registry};

const ABOUT: usize = 24_000_000;

/// So much of the layer is on the disk, or more, when the pull is killed.
const PART: u64 = 4_000_000;

/// The port of the way to the registry that stops.
const SLOW: u16 = 5600;

const WORDS: [&str; 5] = ["pull", "registry.test:5600/demo/app:1", "--to", "oci:out", "--json"];

/// A way to the registry that lets so many bytes of its answers through, and then no more, or breaks each time that so many
/// have come the other way; TLS goes through as it is.
struct SlowWay {
    listener: TcpListener,
    left: Arc<AtomicU64>,
    breaks: Breaks,
}

/// After how many bytes each, the next one first.
type Breaks = Arc<Mutex<Vec<u64>>>;

impl SlowWay {
    fn open(machine: &Machine) -> Self {
        let (left, breaks) = (Arc::new(AtomicU64::new(u64::MAX)), Breaks::default());
        let shared = (Arc::clone(&left), Arc::clone(&breaks));
        let open = || {
            machine.enter_network();
            let listener = TcpListener::bind((ADDRESS, SLOW)).unwrap();
            let accepting = listener.try_clone().unwrap();
            // In the network of the thread that starts it.
            thread::spawn(move || accept(&accepting, &shared.0, &shared.1));
            listener
        };
        let listener = thread::scope(|scope| scope.spawn(open).join().unwrap());
        Self { listener, left, breaks }
    }

    fn let_through(&self, bytes: u64) {
        self.left.store(bytes, Ordering::Relaxed);
    }

    fn break_after(&self, breaks: &[u64]) {
        *self.breaks.lock().unwrap() = breaks.to_vec();
    }

    fn has_broken(&self) -> bool {
        self.breaks.lock().unwrap().is_empty()
    }
}

impl Drop for SlowWay {
    fn drop(&mut self) {
        self.let_through(u64::MAX);
        let _ended = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, left: &Arc<AtomicU64>, breaks: &Breaks) {
    while let Ok((client, _)) = listener.accept() {
        let server = TcpStream::connect((ADDRESS, 5443)).unwrap();
        let (from, to, breaks) = (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(breaks));
        thread::spawn(move || {
            ask(&from, &to, &breaks);
            (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both))
        });
        let left = Arc::clone(left);
        thread::spawn(move || {
            answer(&server, &client, &left);
            client.shutdown(Shutdown::Both)
        });
    }
}

fn ask(mut client: &TcpStream, mut server: &TcpStream, breaks: &Mutex<Vec<u64>>) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = client.read(&mut piece) {
        if is_break(&mut breaks.lock().unwrap(), count as u64) || server.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}

fn is_break(breaks: &mut Vec<u64>, came: u64) -> bool {
    let Some(left) = breaks.first_mut() else { return false };
    *left = left.saturating_sub(came);
    let is_now = *left == 0;
    if is_now {
        breaks.remove(0);
    }
    is_now
}

/// One connection at a time has much to say in these tests, so that nobody else takes from what is left.
fn answer(mut server: &TcpStream, mut client: &TcpStream, left: &AtomicU64) {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let room = usize::try_from(left.load(Ordering::Relaxed)).unwrap_or(usize::MAX).min(piece.len());
        if room == 0 {
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        let Ok(count @ 1..) = server.read(&mut piece[..room]) else { return };
        if client.write_all(&piece[..count]).is_err() {
            return;
        }
        let taken = |left: u64| (left < u64::MAX).then(|| left.saturating_sub(count as u64));
        let _unlimited = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
    }
}

struct Case<'m> {
    machine: &'m Machine,
    registry: Registry<'m>,
    way: SlowWay,
    image: Image,
}

impl<'m> Case<'m> {
    fn new(machine: &'m Machine) -> Self {
        let registry = Registry::up(machine);
        let pair = registry.new_client("ci-7");
        for port in [5443, SLOW] {
            registry.fill_certs(&machine.docker_certs(&format!("{HOST}:{port}")), &pair);
        }
        let image = Image::new(7, &[ABOUT]);
        image.write_layout(&machine.dir().join("layout"), "v1");
        machine.run(PORTCULLIS, &["push", "oci:layout", &registry.reference("demo/app:1")]).ok();
        Self { machine, registry, way: SlowWay::open(machine), image }
    }

    /// The layer's, a tar.
    fn size(&self) -> u64 {
        self.image.layers[0].bytes.len() as u64
    }

    fn part(&self) -> PathBuf {
        self.machine.dir().join(format!("out/.portcullis-partial-sha256-{}", self.image.layers[0].digest.hex()))
    }

    /// Has a pull of an empty layout killed in the middle of the layer; how much of it is there.
    fn killed(&self, signal: Signal) -> u64 {
        self.way.let_through(ABOUT as u64 / 2);
        let mut command = self.machine.command(PORTCULLIS);
        command.args(WORDS);
        let mut pull = Running::start(command, &self.machine.logs());
        let length = || fs::metadata(self.part()).map_or(0, |part| part.len());
        assert!(eventually(DEADLINE, || pull.has_ended() || length() >= PART), "{}", pull.said());
        pull.signal(signal);
        let ran = pull.wait(DEADLINE).fails();
        let had = length();
        assert!(had >= PART && had < self.size(), "{had}: {ran}");
        had
    }

    fn pull(&self) -> Ran {
        self.way.let_through(u64::MAX);
        self.machine.run(PORTCULLIS, &WORDS)
    }

    /// The layer is right, and nothing else was left.
    #[track_caller]
    fn assert_whole(&self) {
        let out = self.machine.dir().join("out");
        for blob in self.image.blobs().chain([&self.image.manifest]) {
            assert!(fs::read(out.join("blobs/sha256").join(blob.digest.hex())).unwrap() == blob.bytes);
        }
        assert_eq!(fs::read_dir(&out).unwrap().count(), 3, "blobs, index.json, oci-layout");
    }

    /// The registry's own record of the layer's GETs that were answered with this status and so many bytes.
    #[track_caller]
    fn is_logged(&self, status: u16, bytes: u64) {
        let path = format!("/blobs/{}", self.image.layers[0].digest);
        let words = ["method=GET", &path, &format!("status={status}"), &format!("sent={bytes} ")];
        self.registry.log_line(&words);
    }
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let case = Case::new(&machine);
    for signal in [Signal::KILL, Signal::INT] {
        let had = case.killed(signal);
        let pulled = case.pull().ok();
        let resumed = format!(r#""moved":{had},"size":{},"state":"resumed""#, case.size());
        assert!(pulled.stdout.contains(&resumed), "{resumed}: {pulled}");
        case.is_logged(206, case.size() - had);
        case.assert_whole();
        fs::remove_dir_all(machine.dir().join("out")).unwrap();
    }
}

#[test]
fn a_part_that_was_damaged_meanwhile_is_fetched_again() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let case = Case::new(&machine);
    let had = case.killed(Signal::KILL);
    let mut part = fs::read(case.part()).unwrap();
    part[usize::try_from(PART).unwrap() / 2] ^= 1;
    fs::write(case.part(), part).unwrap();
    case.pull().ok();
    case.is_logged(206, case.size() - had);
    case.is_logged(200, case.size());
    case.assert_whole();
    assert!(!read_lossy(&machine.dir().join("out/index.json")).is_empty());
}

/// After a break a blob goes in chunks, and what a chunk's answer has acknowledged is not sent again.
#[test]
fn a_push_that_breaks_goes_on_after_the_last_chunk() {
    const CHUNK: u64 = portcullis_client::CAREFUL_CHUNK;
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let registry = Registry::up(&machine);
    registry.fill_certs(&machine.docker_certs(&format!("{HOST}:{SLOW}")), &registry.new_client("ci-7"));
    let image = Image::new(8, &[60_000_000]);
    let size = image.layers[0].bytes.len() as u64;
    image.write_layout(&machine.dir().join("layout"), "v1");
    let way = SlowWay::open(&machine);
    // In the middle of the whole blob, and of the third chunk.
    way.break_after(&[10_000_000, 40_000_000]);

    let reference = format!("{HOST}:{SLOW}/demo/app:1");
    let pushed = machine.run(PORTCULLIS, &["push", "oci:layout", &reference, "--json"]).ok();
    assert!(way.has_broken());
    let digest = image.layers[0].digest.to_string();
    let resumed = |line: &&str| line.contains(&digest) && line.contains(r#""state":"resumed""#);
    let resumed: Vec<&str> = pushed.stdout.lines().filter(resumed).collect();
    // More than once where the registry has not noticed the break yet.
    let acknowledged = format!(r#""moved":{},"#, 2 * CHUNK);
    assert!(!resumed.is_empty() && resumed.iter().all(|line| line.contains(&acknowledged)), "{pushed}");
    registry.log_line(&["method=PUT", "/blobs/uploads/", "status=201", &format!("received={} ", size - 3 * CHUNK)]);

    machine.run(PORTCULLIS, &["pull", &reference, "--to", "oci:out"]).ok();
    let pulled = fs::read(machine.dir().join("out/blobs/sha256").join(image.layers[0].digest.hex())).unwrap();
    assert!(pulled == image.layers[0].bytes);
}
