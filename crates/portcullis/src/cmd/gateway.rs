//! `portcullis gateway`: a registry behind mutual TLS, on this machine's loopback, for programs that present no client
//! certificate.

use std::ffi::OsStr;
use std::time::Duration;

use portcullis_certs::{ShellCommand, Visible};
use portcullis_client::{ClientOptions, Retries, Timeouts};
use portcullis_oci::Endpoint;

use crate::args::GatewayArgs;
use crate::cmd::transfer;
use crate::gateway::{Gateway, Listener, Openness, Place, Registry, Rules};
use crate::{output, signals};

/// Whoever asked waits, and has patience of its own: one repetition, soon.
const RETRIES: Retries = Retries {
    limit: 1,
    pause: Duration::from_millis(200),
    max_pause: Duration::from_secs(2),
    total: Duration::from_secs(10),
};

pub(crate) fn run(args: &GatewayArgs) -> anyhow::Result<()> {
    let open = Openness { any_user: args.any_user, beyond_loopback: args.i_know };
    let bound = args.listen.bind(open)?;
    let _log = output::start_log(args.log_json);
    transfer::run_serving(async {
        let stopped = signals::stopped()?;
        let listener = bound.into_listener()?;
        let stall = Duration::from_secs(args.stall.into());
        transfer::check_registry(&args.host, None, &args.client)?;
        let registry = Registry::connect(args.host.clone(), options(args, stall)).await?;
        say(args, &listener, &registry);
        let rules = Rules {
            push: args.push,
            delete: args.delete,
            repositories: args.repositories.iter().map(|repo| repo.glob.clone()).collect(),
        };
        Gateway::new(registry, rules, args.connections.into(), stall).serve(listener, stopped).await;
        tracing::info!("stopped");
        Ok(())
    })
}

fn options(args: &GatewayArgs, stall: Duration) -> ClientOptions {
    let timeouts = Timeouts { idle: stall, ..Timeouts::default() };
    ClientOptions { timeouts, retries: RETRIES, ..transfer::options(&args.client) }
}

/// What was opened, then what to type.
fn say(args: &GatewayArgs, listener: &Listener, registry: &Registry) {
    let client = registry.client();
    for finding in client.warnings() {
        output::warning(&finding.to_string());
    }
    if listener.is_beyond_loopback() {
        output::warning(&format!("whoever reaches {listener} can use {} under this certificate", registry.host()));
    }
    let image = format!("{}:1", repository(args));
    let pair = client
        .pair_used()
        .map_or_else(|| "without a client certificate".to_owned(), |pair| format!("with {}.cert", Visible(&pair)));
    let doing = match (args.push, args.delete) {
        (false, false) => "read-only",
        (true, false) => "pull and push",
        (false, true) => "pull and delete",
        (true, true) => "pull, push and delete",
    };
    let opened = format!("{} at {listener}, {doing}, {pair}", registry.host());
    match listener.authority() {
        Some(authority) => {
            output::line(&format!("{opened}: docker pull {authority}/{image}"));
            output::line(&format!("  skopeo inspect --tls-verify=false docker://{authority}/{image}"));
            output::line(&format!("  skopeo copy --src-tls-verify=false docker://{authority}/{image} oci:image"));
            if args.push {
                output::line(&format!("  docker push {authority}/{image}"));
                output::line(&format!("  skopeo copy --dest-tls-verify=false oci:image docker://{authority}/{image}"));
            }
        }
        None => output::line(&format!("{opened}: {}", over_socket(args))),
    }
}

/// A name that `--repo` takes in, where one is written out.
fn repository(args: &GatewayArgs) -> &str {
    let literal = args.repositories.iter().find(|repo| !repo.text.contains('*'));
    literal.map_or("app", |repo| &repo.text)
}

fn over_socket(args: &GatewayArgs) -> String {
    let Place::Unix(path) = &args.listen else { return String::new() };
    let url = format!("http://localhost{}", Endpoint::Base.to_request().1);
    let words: [&OsStr; 4] = ["curl".as_ref(), "--unix-socket".as_ref(), path.as_os_str(), url.as_ref()];
    ShellCommand::new(words).to_string()
}
