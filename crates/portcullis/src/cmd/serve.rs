//! `portcullis serve`: the registry, from a config file.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::ensure;
use portcullis_server::{Config, Server};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use crate::args::ServeArgs;
use crate::home::{Home, program};
use crate::listen::Port;
use crate::{output, signals};

pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let home = Home::of_config(&args.config)?;
    let config = home.config()?;
    if args.check {
        home.become_owner()?;
        home.check()?;
        for finding in Server::check(&config)? {
            output::warning(&finding.to_string());
        }
        output::line(&format!(
            "{} is in order: trust, policy and certificate can be served with",
            args.config.display()
        ));
        return Ok(());
    }
    let port = Port::bind(config.listen)?;
    home.become_owner()?;
    home.check()?;
    check_owner(&config.data)?;
    serve(config, port, args.log_json, || {})
}

/// Serves until a signal. Nobody can connect before everything is checked and open; then `ready` is called.
pub(crate) fn serve(config: Config, port: Port, log_json: bool, ready: impl FnOnce()) -> anyhow::Result<()> {
    let _log = output::start_log(log_json);
    raise_descriptors(config.limits.connections);
    let disk_threads = config.limits.disk_threads;
    let server = Server::open_with_output(config, output::lines())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(disk_threads).build()?;
    runtime.block_on(async {
        let listener = port.listen()?;
        let stopped = signals::stopped()?;
        signals::reload_on_hangup(server.handle())?;
        ready();
        tracing::info!(listen = %listener.local_addr()?, "the registry is up");
        server.run(listener, stopped).await?;
        tracing::info!("stopped");
        Ok(())
    })
}

/// Each connection is a descriptor, and so is each blob that is being read: most systems give a program 1,024 unless it
/// asks for more.
fn raise_descriptors(connections: usize) {
    let wanted = connections as u64 * 2 + 128;
    let limit = getrlimit(Resource::Nofile);
    // `None` is no limit.
    let Some(current) = limit.current.filter(|current| *current < wanted) else { return };
    let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised_to = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).map_or(current, |()| raised);
    if raised_to < connections as u64 + 128 {
        tracing::warn!(
            descriptors = raised_to,
            connections,
            "fewer descriptors than connections: raise LimitNOFILE= or `ulimit -Hn`, or lower limits.connections"
        );
    }
}

/// Root can write anywhere, but what it adds to another user's volume that user's registry could not change any more.
pub(crate) fn check_owner(data: &Path) -> anyhow::Result<()> {
    let Ok(metadata) = fs::metadata(data) else { return Ok(()) };
    let (owner, us) = (metadata.uid(), geteuid().as_raw());
    ensure!(
        owner == us || us != 0,
        "{} belongs to user {owner}: what root adds there, that user could not change any more\n  \
         serve as that user: sudo -u '#{owner}' {} …",
        data.display(),
        program().to_string_lossy(),
    );
    Ok(())
}
