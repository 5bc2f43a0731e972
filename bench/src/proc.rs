//! What the kernel says of a server's processes: CPU time, memory without file pages, and who listens on a port.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often memory is looked at.
const SAMPLE_TIME: Duration = Duration::from_millis(20);

/// What the kernel counts CPU time in towards programs (USER_HZ): a hundredth of a second on every machine that runs
/// containers. The sums it makes them from are exact.
const TICK_MS: u64 = 10;

/// A server: the process that was started, and all that it has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Processes {
    first: u32,
}

/// Looks at memory until it is asked for the peak.
#[derive(Debug)]
pub(crate) struct PeakMemory {
    stop: Arc<AtomicBool>,
    sampler: JoinHandle<u64>,
}

impl Processes {
    pub(crate) fn of(pid: u32) -> Self {
        Self { first: pid }
    }

    /// Whoever listens on a port of this machine.
    pub(crate) fn listening_on(address: SocketAddr) -> Option<Self> {
        let inode = listening_inode(address.port())?;
        let link = format!("socket:[{inode}]");
        pids().find(|pid| has_open(*pid, &link)).map(Self::of)
    }

    /// User and system time so far, of all of them.
    pub(crate) fn cpu(self) -> Duration {
        self.all().into_iter().filter_map(cpu_of).sum()
    }

    /// Bytes of memory that are no file's pages, of all of them.
    pub(crate) fn memory(self) -> u64 {
        self.all().into_iter().filter_map(anonymous_of).sum()
    }

    pub(crate) fn watch_memory(self) -> PeakMemory {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sampler = std::thread::spawn(move || {
            let mut peak = 0;
            while !stopped.load(Ordering::Relaxed) {
                peak = peak.max(self.memory());
                std::thread::sleep(SAMPLE_TIME);
            }
            peak.max(self.memory())
        });
        PeakMemory { stop, sampler }
    }

    fn all(self) -> Vec<u32> {
        let mut family = vec![self.first];
        let mut children: Vec<(u32, u32)> = pids().filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
        loop {
            let (found, rest): (Vec<_>, Vec<_>) = children.into_iter().partition(|(_, parent)| family.contains(parent));
            if found.is_empty() {
                return family;
            }
            family.extend(found.into_iter().map(|(pid, _)| pid).filter(|pid| *pid != self.first));
            children = rest;
        }
    }
}

impl PeakMemory {
    /// The most that was seen since it began to look.
    pub(crate) fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.sampler.join().unwrap_or(0)
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// proc(5): the fields behind the name, which may hold spaces and brackets itself; the first of them is the third.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn parent_of(pid: u32) -> Option<u32> {
    stat_fields(pid)?.get(1)?.parse().ok()
}

/// User and system time of the children that have ended and were waited for.
pub(crate) fn cpu_of_children() -> Duration {
    let fields = stat_fields(std::process::id()).unwrap_or_default();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(13) + ticks(14)) * TICK_MS)
}

fn cpu_of(pid: u32) -> Option<Duration> {
    let fields = stat_fields(pid)?;
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * TICK_MS))
}

fn anonymous_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

fn listening_inode(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let end = format!(":{port:04X}");
    tables.iter().flat_map(|table| table.lines()).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // State 0A is LISTEN.
        let listens = fields.get(1)?.ends_with(&end) && *fields.get(3)? == "0A";
        listens.then(|| fields.get(9).map(ToString::to_string)).flatten()
    })
}

fn has_open(pid: u32, link: &str) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target.as_os_str() == link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let us = Processes::of(std::process::id());
        assert!(us.memory() > 0);
        assert!(us.watch_memory().end() > 0);
        assert!(us.all().contains(&std::process::id()));
    }

    #[test]
    fn who_listens_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(Processes::listening_on(address), Some(Processes::of(std::process::id())));
    }
}
