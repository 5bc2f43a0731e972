//! What a run has found, what it was to reach, and both as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::args::Depth;
use crate::floor::Floor;
use crate::load::Outcome;
use crate::operations::{
    BLOB, BLOB_GET, BLOB_GET_8, BLOB_GET_H2, BLOB_GET_H2_LARGE, BLOB_HEAD, HANDSHAKE, IMAGES, MANIFEST_GET, PULLS_64,
    PUSH, PUSH_TWO,
};
use crate::peers::{DISTRIBUTION, Kind, NGINX, Peer};
use crate::run::{
    BLOB_HEAD_GC, BLOB_HEAD_REST, GET_GC, GET_LARGE, GET_REST, GET_SMALL, HEAD_LARGE, HEAD_SMALL, IDLE, IDLE_2000,
    START_LARGE, TAGS_FIRST, TAGS_WARM,
};

/// How ours is called in every table.
pub(crate) const OURS: &str = "Portcullis";

const MB: u64 = 1_000_000;

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) operation: &'static str,
    pub(crate) peer: String,
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) machine: String,
    pub(crate) depth: Depth,
    /// Name and version.
    pub(crate) peers: Vec<(String, String)>,
    pub(crate) floor: Floor,
    pub(crate) rows: Vec<Row>,
    /// What was not measured.
    pub(crate) left_out: Vec<LeftOut>,
}

/// A server that is not here, or one operation that it failed at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// The operation's name; `everything`.
    pub(crate) what: &'static str,
    pub(crate) peer: String,
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Copy)]
enum Measure {
    /// The server's CPU time for an operation.
    Cpu,
    /// The clock's for an operation, all connections together.
    Wall,
    P99,
    Memory,
}

#[derive(Debug, Clone, Copy)]
enum Against {
    Peer(&'static str),
    /// Another operation of ours.
    Ours(&'static str),
    /// The floor of a push: the larger of CPU and disk.
    PushFloor,
    /// Milliseconds, or millions of bytes.
    Absolute(u64),
}

/// A line of the table that this project has set itself.
#[derive(Debug, Clone, Copy)]
struct Goal {
    operation: &'static str,
    measure: Measure,
    against: Against,
    most: f64,
}

/// A goal, and how far it is reached.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) text: String,
    /// `None`: not measured in this run.
    pub(crate) reached: Option<bool>,
}

const fn goal(operation: &'static str, measure: Measure, against: Against, most: f64) -> Goal {
    Goal { operation, measure, against, most }
}

const GOALS: [Goal; 30] = [
    goal(BLOB_GET, Measure::Cpu, Against::Peer(NGINX), 0.40),
    goal(BLOB_GET, Measure::Cpu, Against::Peer(DISTRIBUTION), 0.33),
    goal(BLOB_GET_8, Measure::Cpu, Against::Peer(NGINX), 0.40),
    goal(BLOB_GET_8, Measure::Cpu, Against::Peer(DISTRIBUTION), 0.33),
    goal(BLOB_GET_H2, Measure::Cpu, Against::Ours(BLOB_GET), 1.6),
    goal(BLOB_GET_H2_LARGE, Measure::Cpu, Against::Ours(BLOB_GET), 1.6),
    goal(MANIFEST_GET, Measure::Cpu, Against::Peer(NGINX), 1.0),
    goal(MANIFEST_GET, Measure::Cpu, Against::Peer(DISTRIBUTION), 0.07),
    goal(BLOB_HEAD, Measure::Cpu, Against::Peer(NGINX), 0.8),
    goal(BLOB_HEAD, Measure::Cpu, Against::Peer(DISTRIBUTION), 0.1),
    goal(HANDSHAKE, Measure::Cpu, Against::Peer(NGINX), 0.4),
    goal(PUSH, Measure::Cpu, Against::Peer(DISTRIBUTION), 0.6),
    goal(PUSH, Measure::Wall, Against::Peer(DISTRIBUTION), 0.6),
    goal(PUSH, Measure::Wall, Against::PushFloor, 1.1),
    goal(PUSH_TWO, Measure::Cpu, Against::Peer(DISTRIBUTION), 0.6),
    goal(PUSH_TWO, Measure::Wall, Against::Peer(DISTRIBUTION), 0.6),
    goal(PUSH_TWO, Measure::Wall, Against::PushFloor, 1.1),
    goal(IMAGES, Measure::Wall, Against::Peer(DISTRIBUTION), 0.1),
    goal(PULLS_64, Measure::Memory, Against::Absolute(64), 1.0),
    goal(IDLE, Measure::Memory, Against::Absolute(15), 1.0),
    goal(IDLE_2000, Measure::Memory, Against::Absolute(60), 1.0),
    goal(GET_LARGE, Measure::Cpu, Against::Ours(GET_SMALL), 1.2),
    goal(GET_LARGE, Measure::P99, Against::Ours(GET_SMALL), 1.2),
    goal(HEAD_LARGE, Measure::Cpu, Against::Ours(HEAD_SMALL), 1.2),
    goal(HEAD_LARGE, Measure::P99, Against::Ours(HEAD_SMALL), 1.2),
    goal(TAGS_WARM, Measure::P99, Against::Absolute(10), 1.0),
    goal(TAGS_FIRST, Measure::P99, Against::Absolute(250), 1.0),
    goal(START_LARGE, Measure::Wall, Against::Absolute(200), 1.0),
    goal(BLOB_HEAD_GC, Measure::P99, Against::Ours(BLOB_HEAD_REST), 2.0),
    goal(GET_GC, Measure::P99, Against::Ours(GET_REST), 2.0),
];

impl Results {
    pub(crate) fn new(cores: usize, floor: Floor, depth: Depth) -> Self {
        Self { machine: machine(cores), depth, peers: Vec::new(), floor, rows: Vec::new(), left_out: Vec::new() }
    }

    pub(crate) fn peers(&mut self, peers: &[Peer]) {
        self.peers = peers
            .iter()
            .map(|peer| {
                let what = match peer.kind {
                    Kind::Nginx => ", static files",
                    Kind::Distribution => ", CNCF Distribution",
                    Kind::Portcullis | Kind::Foreign => "",
                };
                (peer.name.clone(), format!("{}{what}", peer.version))
            })
            .collect();
    }

    pub(crate) fn add(&mut self, operation: &'static str, peer: &str, outcome: Outcome) {
        self.rows.push(Row { operation, peer: peer.to_owned(), outcome });
    }

    /// Each reason once, although a server is looked for more than once.
    pub(crate) fn leave_out(&mut self, what: &'static str, peer: &str, reason: &anyhow::Error) {
        let left_out = LeftOut { what, peer: peer.to_owned(), reason: format!("{reason:#}") };
        if !self.left_out.contains(&left_out) {
            self.left_out.push(left_out);
        }
    }

    /// Whether something of ours failed: then the run did.
    pub(crate) fn ours_failed(&self) -> bool {
        self.left_out.iter().any(|left_out| left_out.peer == OURS)
    }

    pub(crate) fn add_time(&mut self, operation: &'static str, peer: &str, time: Duration) {
        self.rows.push(Row::without_load(operation, peer, time, None));
    }

    pub(crate) fn add_memory(&mut self, operation: &'static str, peer: &str, memory: Option<u64>) {
        self.rows.push(Row::without_load(operation, peer, Duration::ZERO, memory));
    }

    pub(crate) fn row(&self, operation: &str, peer: &str) -> Option<&Outcome> {
        self.rows.iter().find(|row| row.operation == operation && row.peer == peer).map(|row| &row.outcome)
    }

    /// The operations that were measured, each once, in their order.
    pub(crate) fn operations(&self) -> Vec<&'static str> {
        let mut operations: Vec<&'static str> = Vec::new();
        for row in &self.rows {
            if !operations.contains(&row.operation) {
                operations.push(row.operation);
            }
        }
        operations
    }

    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        GOALS.iter().map(|goal| self.verdict(goal)).filter(|verdict| verdict.reached.is_some()).collect()
    }

    fn verdict(&self, goal: &Goal) -> Verdict {
        let Goal { operation, measure, against, most } = *goal;
        let ours = self.row(operation, OURS).and_then(|outcome| measure.of(outcome));
        let (other, named) = match against {
            Against::Peer(peer) => (self.row(operation, peer).and_then(|outcome| measure.of(outcome)), peer.to_owned()),
            Against::Ours(other) => (self.row(other, OURS).and_then(|outcome| measure.of(outcome)), other.to_owned()),
            Against::PushFloor => {
                let floor = self.floor.upload(BLOB as u64).max(self.floor.disk(BLOB as u64));
                (Some(floor.as_secs_f64()), "the larger of CPU floor and disk".to_owned())
            }
            Against::Absolute(limit) => {
                let (value, unit) = measure.absolute(limit);
                (Some(value), format!("{limit} {unit}"))
            }
        };
        let ratio = ours.zip(other).filter(|(_, other)| *other > 0.0).map(|(ours, other)| ours / other);
        let found = ratio.map_or_else(|| "not measured".to_owned(), |ratio| format!("{ratio:.2}"));
        let text = format!("{operation}: {} at most {most:.2} of {named}: {found}", measure.name());
        Verdict { text, reached: ratio.map(|ratio| ratio <= most) }
    }

    pub(crate) fn to_json(&self) -> Value {
        let Floor { seal, sha256, send, receive, write } = self.floor;
        json!({
            "machine": self.machine,
            "quick": self.depth == Depth::Quick,
            "peers": self.peers.iter().map(|(name, version)| json!({"name": name, "version": version})).collect::<Vec<_>>(),
            "floor_ns_per_byte": {"aes_128_gcm": seal, "sha256": sha256, "loopback_send": send, "loopback_receive": receive, "write_and_sync": write},
            "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
            "left_out": self.left_out.iter().map(|out| json!({"operation": out.what, "peer": out.peer, "reason": out.reason})).collect::<Vec<_>>(),
            "goals": self.verdicts().iter().map(|verdict| json!({"goal": verdict.text, "reached": verdict.reached})).collect::<Vec<_>>(),
        })
    }
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}: {}", self.peer, self.what, self.reason)
    }
}

impl Row {
    fn to_json(&self) -> Value {
        let Outcome { operations, bytes, wall, p50, p99, cpu, memory } = &self.outcome;
        json!({
            "operation": self.operation, "peer": self.peer, "operations": operations, "bytes": bytes,
            "wall_us": micros(*wall), "p50_us": micros(*p50), "p99_us": micros(*p99), "cpu_us": cpu.map(micros), "peak_memory": memory,
        })
    }
}

impl Measure {
    #[expect(clippy::cast_precision_loss, reason = "measurements, not sums")]
    fn of(self, outcome: &Outcome) -> Option<f64> {
        match self {
            Self::Cpu => outcome.cpu.map(|cpu| cpu.as_secs_f64()),
            Self::Wall => Some(outcome.wall.as_secs_f64() / outcome.operations as f64),
            Self::P99 => Some(outcome.p99.as_secs_f64()),
            Self::Memory => outcome.memory.map(|memory| memory as f64),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "measurements, not sums")]
    fn absolute(self, limit: u64) -> (f64, &'static str) {
        match self {
            Self::Memory => ((limit * MB) as f64, "MB"),
            Self::Cpu | Self::Wall | Self::P99 => (Duration::from_millis(limit).as_secs_f64(), "ms"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "server CPU",
            Self::Wall => "time",
            Self::P99 => "p99",
            Self::Memory => "memory",
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn machine(cores: usize) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown CPU");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{}, {cores} cores, Linux {}", model.trim_start_matches([':', ' ', '\t']), kernel.trim())
}
