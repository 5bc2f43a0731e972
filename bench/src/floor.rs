//! What this machine needs at the least for a byte, whoever serves it: sealing, hashing, the kernel's loopback, the disk.
//! Measured in the same run, on the server's core.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest as _, Sha256};

use crate::cores::Cores;

/// A TLS record's.
const RECORD: usize = 16 * 1024;
const CHUNK: usize = 256 * 1024;
/// How long each is measured.
const TIME: Duration = Duration::from_millis(300);

/// Nanoseconds of CPU for a byte, and what the disk does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Floor {
    /// AES-128-GCM in records of 16 KiB, by the quicker of AWS-LC and ring.
    pub(crate) seal: f64,
    pub(crate) sha256: f64,
    /// Both ends of a TCP connection over loopback: the kernel does the receiving in the sender's time.
    pub(crate) send: f64,
    pub(crate) receive: f64,
    /// Wall time of writing and syncing a blob, for a byte.
    pub(crate) write: f64,
}

/// `directory` is where the registries keep their data; `blob` is what they are pushed.
pub(crate) fn measure(cores: &Cores, directory: &Path, blob: &[u8]) -> anyhow::Result<Floor> {
    let (send, receive) = loopback(cores)?;
    let cores = cores.clone();
    let (seal, sha256) = on_another_thread(move || {
        cores.pin_as_server()?;
        Ok((seal_aws_lc()?.min(seal_ring()?), hash()?))
    })?;
    Ok(Floor { seal, sha256, send, receive, write: write(directory, blob)? })
}

impl Floor {
    /// What a server spends at least to send so many bytes.
    pub(crate) fn download(self, bytes: u64) -> Duration {
        of(self.seal + self.send, bytes)
    }

    /// What it spends at least to take in so many, and hash them. Opening costs what sealing does.
    pub(crate) fn upload(self, bytes: u64) -> Duration {
        of(self.seal + self.receive + self.sha256, bytes)
    }

    /// How long the disk takes to write and sync so many.
    pub(crate) fn disk(self, bytes: u64) -> Duration {
        of(self.write, bytes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "measurements, not sums")]
fn of(nanoseconds: f64, bytes: u64) -> Duration {
    Duration::from_secs_f64(nanoseconds * bytes as f64 / 1e9)
}

/// Nanoseconds of this thread's CPU for each byte of `step`, which handles `bytes`.
#[expect(clippy::cast_precision_loss, reason = "measurements, not sums")]
fn per_byte(bytes: usize, mut step: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let (begun, before, mut done) = (Instant::now(), thread_cpu(), 0_u64);
    while begun.elapsed() < TIME {
        step()?;
        done += bytes as u64;
    }
    Ok(thread_cpu().saturating_sub(before).as_nanos() as f64 / done as f64)
}

fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn seal_aws_lc() -> anyhow::Result<f64> {
    use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16])?);
    let mut record = vec![1; RECORD];
    per_byte(RECORD, || {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut record)?);
        Ok(())
    })
}

fn seal_ring() -> anyhow::Result<f64> {
    use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let failed = |_| anyhow::anyhow!("ring cannot seal");
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(failed)?);
    let mut record = vec![1; RECORD];
    per_byte(RECORD, || {
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut record).map_err(failed)?);
        Ok(())
    })
}

fn hash() -> anyhow::Result<f64> {
    let (mut hasher, chunk) = (Sha256::new(), vec![1; CHUNK]);
    let spent = per_byte(CHUNK, || {
        hasher.update(&chunk);
        Ok(())
    });
    black_box(hasher.finalize());
    spent
}

/// For the sender and for the receiver, each measured where a server would be, the other end where the load is.
fn loopback(cores: &Cores) -> anyhow::Result<(f64, f64)> {
    let chunk = vec![1; CHUNK];
    let sending = pair(cores, move |stream| per_byte(CHUNK, || Ok(stream.write_all(&chunk)?)))?;
    let mut chunk = vec![1; CHUNK];
    let receiving = pair(cores, move |stream| per_byte(CHUNK, || Ok(stream.read_exact(&mut chunk)?)))?;
    Ok((sending, receiving))
}

/// Runs `work` on one end of a connection whose other end reads all it gets, and sends without end.
fn pair(
    cores: &Cores,
    work: impl FnOnce(&mut TcpStream) -> anyhow::Result<f64> + Send + 'static,
) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let other = TcpStream::connect(listener.local_addr()?)?;
    let (mut ours, _) = listener.accept()?;
    let (mut reader, mut writer) = (other.try_clone()?, other);
    let for_reader = cores.clone();
    let reading = std::thread::spawn(move || {
        for_reader.pin_load()?;
        let mut buffer = vec![0; CHUNK];
        while reader.read(&mut buffer).is_ok_and(|read| read > 0) {}
        anyhow::Ok(())
    });
    let for_writer = cores.clone();
    let writing = std::thread::spawn(move || {
        for_writer.pin_load()?;
        let chunk = vec![0; CHUNK];
        // Until the other end is gone.
        while writer.write_all(&chunk).is_ok() {}
        anyhow::Ok(())
    });
    let for_us = cores.clone();
    let measured = on_another_thread(move || {
        for_us.pin_as_server()?;
        work(&mut ours)
    });
    for thread in [reading, writing] {
        thread.join().map_err(|_| anyhow::anyhow!("an end of the loopback copy broke"))??;
    }
    measured
}

fn on_another_thread<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    std::thread::spawn(work).join().map_err(|_| anyhow::anyhow!("a measurement broke"))?
}

/// The median of three.
#[expect(clippy::cast_precision_loss, reason = "measurements, not sums")]
fn write(directory: &Path, blob: &[u8]) -> anyhow::Result<f64> {
    let path = directory.join("floor");
    let mut times = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let mut file = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        for chunk in blob.chunks(2 * CHUNK) {
            file.write_all(chunk)?;
        }
        file.sync_data()?;
        times.push(begun.elapsed());
        fs::remove_file(&path)?;
    }
    times.sort();
    Ok(times[1].as_nanos() as f64 / blob.len() as f64)
}
