//! Which cores the servers and the load get. Must not know what they do there.

use std::process::Command;

use anyhow::{Context as _, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The machine's cores, shared out: servers never run where the load is made.
#[derive(Debug, Clone)]
pub(crate) struct Cores {
    server: usize,
    load: Vec<usize>,
}

/// What a server may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// One core, with the load elsewhere.
    One,
    /// Two cores; where there are no more, the load has to share them.
    Two,
}

impl Cores {
    /// # Errors
    /// There is only one core.
    pub(crate) fn of_this_machine() -> anyhow::Result<Self> {
        let set = sched_getaffinity(None).context("the cores of this process cannot be read")?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
        match all.split_first() {
            Some((server, load)) if !load.is_empty() => Ok(Self { server: *server, load: load.to_vec() }),
            _ => bail!("two cores are needed: one for the server, one for the load"),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.load.len() + 1
    }

    /// Keeps this thread, and those it will start, to the cores of the load.
    pub(crate) fn pin_load(&self) -> anyhow::Result<()> {
        pin(&self.load)
    }

    /// Keeps this thread to the server's core: what a server would have to do is measured here.
    pub(crate) fn pin_as_server(&self) -> anyhow::Result<()> {
        pin(&[self.server])
    }

    /// `program`, to be started where servers run.
    pub(crate) fn command(&self, share: Share, program: &std::path::Path) -> Command {
        let mut cores = vec![self.server];
        if share == Share::Two {
            cores.extend(self.load.first());
        }
        let list = cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &list]).arg(program);
        command
    }
}

fn pin(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    sched_setaffinity(None, &set).context("this thread cannot be kept to its cores")
}
