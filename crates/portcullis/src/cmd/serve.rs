//! `portcullis serve`: the registry, from a config file.

use std::net::TcpListener;

use portcullis_server::{Config, Server};

use crate::args::ServeArgs;
use crate::home::Home;
use crate::{listen, output, signals};

pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let home = Home::of_config(&args.config)?;
    let config = home.config()?;
    if args.check {
        home.become_owner()?;
        home.check()?;
        Server::check(&config)?;
        output::line(&format!(
            "{} is in order: trust, policy and certificate can be served with",
            args.config.display()
        ));
        return Ok(());
    }
    let listener = listen::bind(config.listen)?;
    home.become_owner()?;
    home.check()?;
    serve(config, listener, args.log_json, || {})
}

/// Serves until a signal; `ready` is called when everything is checked and open, before the first connection.
pub(crate) fn serve(config: Config, listener: TcpListener, log_json: bool, ready: impl FnOnce()) -> anyhow::Result<()> {
    output::start_log(log_json);
    let server = Server::open(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(64).build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let stopped = signals::stopped()?;
        signals::reload_on_hangup(server.handle())?;
        ready();
        tracing::info!(listen = %listener.local_addr()?, "the registry is up");
        server.run(listener, stopped).await?;
        tracing::info!("stopped");
        Ok(())
    })
}
