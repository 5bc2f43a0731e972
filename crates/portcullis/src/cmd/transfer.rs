//! What the client commands share: the way to the registry, and how progress is told.

mod progress;

use std::time::Duration;

use portcullis_certs::engine_files::{PullBy, RegistriesConf};
use portcullis_certs::{EngineProfile, RegistriesPlace, read_registries_conf};
use portcullis_client::{
    AuthFiles, AuthOrder, CertsChoice, Client, ClientError, ClientOptions, Credentials, Location, PassedOver, Purpose,
    TransferPlan, Transport, check_registry_as_podman,
};
use portcullis_oci::{Descriptor, Digest, Reference, RegistryHost, RepositoryName, Tag};
use portcullis_tls::Roots;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

pub(crate) use progress::Audience;

use crate::args::{ClientArgs, ProfileWord, RootsWord};
use crate::cmd::size;
use crate::exit::Interrupted;
use crate::output;

/// How long an interrupted command may take to put away what it has begun.
const PUT_AWAY: Duration = Duration::from_secs(10);

/// What holds for an interrupted push or copy.
pub(crate) const GOES_ON: &str =
    "the tag is what it was, blobs that have arrived whole are kept for now, and the same command goes on from there";

/// Runs a client command; its error gets the advice that the client has for it.
pub(crate) fn run<T>(transfer: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    run_resumable("the same command does it again", transfer)
}

/// Runs what serves others until it ends by itself, with threads for them and signals of its own.
pub(crate) fn run_serving<T>(serving: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serving)
}

/// As [`run`]; `hint` says how to go on after an interruption.
pub(crate) fn run_resumable<T>(
    hint: &'static str,
    transfer: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    // One thread for all connections; hashing and writing have their own. With two, half of the work was waking the other
    // one up: 70,000 times for a gibibyte.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let signal = tokio::select! {
            ended = transfer => return ended,
            _ = interrupt.recv() => 2,
            _ = terminate.recv() => 15,
        };
        tasks_are_gone().await;
        Err(Interrupted { signal, hint }.into())
    });
    // Temporary files are removed by the threads that write them, once nobody sends them more.
    runtime.shutdown_timeout(PUT_AWAY);
    ended
}

/// Runs what may wait for ever for whoever is at the other end of a terminal or a pipe, on a thread that no signal waits
/// for.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (sender, done) = oneshot::channel();
    std::thread::Builder::new().name("aside".to_owned()).spawn(move || drop(sender.send(work())))?;
    // It ends without a word only by a panic, which was printed.
    done.await?
}

/// The transfer was dropped, and with it all tasks were told to end: they do so when they are polled. Connections that say
/// good-bye are not waited for.
async fn tasks_are_gone() {
    let metrics = tokio::runtime::Handle::current().metrics();
    for _ in 0..200 {
        if metrics.num_alive_tasks() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Connects to read an image, where the engine would, and says which pair was taken.
pub(crate) async fn connect(reference: &Reference, args: &ClientArgs) -> anyhow::Result<Client> {
    let Reference { host, repository, digest, .. } = reference;
    if args.engine != ProfileWord::Podman {
        return connect_to_list(host, repository, args).await;
    }
    let by = if digest.is_some() { PullBy::Digest } else { PullBy::Tag };
    let conf = registries_conf()?;
    let client = Client::connect_as_podman(&conf, (host, repository), by, &options(args), &passed_over()).await?;
    Ok(introduce(client, args))
}

/// Connects to list a repository's tags, where the engine would: Podman does it at the registry itself.
pub(crate) async fn connect_to_list(
    host: &RegistryHost,
    repository: &RepositoryName,
    args: &ClientArgs,
) -> anyhow::Result<Client> {
    connect_for(Purpose::Read, host, repository, args).await
}

/// Connects to push, where the engine would, and says which pair was taken.
pub(crate) async fn connect_to_push(reference: &Reference, args: &ClientArgs) -> anyhow::Result<Client> {
    connect_for(Purpose::Push, &reference.host, &reference.repository, args).await
}

/// Connects to the registry itself, whatever the engine would ask in its place.
pub(crate) async fn connect_to_registry(
    host: &RegistryHost,
    repository: Option<&RepositoryName>,
    args: &ClientArgs,
) -> anyhow::Result<Client> {
    check_registry(host, repository, args)?;
    Ok(introduce(Client::connect(host, &options(args)).await?, args))
}

/// Whether the engine's configuration lets the registry be asked as it is typed.
pub(crate) fn check_registry(
    host: &RegistryHost,
    repository: Option<&RepositoryName>,
    args: &ClientArgs,
) -> anyhow::Result<()> {
    if args.engine == ProfileWord::Podman {
        check_registry_as_podman(&registries_conf()?, host, repository, &options(args))?;
    }
    Ok(())
}

async fn connect_for(
    purpose: Purpose,
    host: &RegistryHost,
    repository: &RepositoryName,
    args: &ClientArgs,
) -> anyhow::Result<Client> {
    if args.engine != ProfileWord::Containerd {
        return connect_to_registry(host, Some(repository), args).await;
    }
    let client = Client::connect_as_containerd(host, &options(args), purpose, &passed_over()).await?;
    Ok(introduce(client, args))
}

fn registries_conf() -> Result<RegistriesConf, ClientError> {
    read_registries_conf(RegistriesPlace::Search).map_err(ClientError::EngineFile)
}

fn passed_over() -> PassedOver {
    PassedOver::new(|host, error| output::warning(&format!("passed over {host}: {error}")))
}

fn introduce(client: Client, args: &ClientArgs) -> Client {
    let host = client.peer();
    for finding in client.warnings() {
        output::warning(&finding.to_string());
    }
    if !args.quiet {
        match client.pair_used() {
            Some(pair) => output::note(&format!("{host}: using the client certificate {pair}.cert")),
            None => output::note(&format!("{host}: without a client certificate")),
        }
    }
    client
}

/// What a dry run found.
pub(crate) fn tell_plan(plan: &TransferPlan, to: &str, audience: Audience) {
    let bytes = |blobs: &[Descriptor]| blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
    let (wanted, there) = (bytes(&plan.wanted), bytes(&plan.there));
    match audience {
        Audience::Program => {
            let digests = |blobs: &[Descriptor]| blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>();
            output::json_line(&json!({
                "event": "dry-run", "digest": plan.image.digest, "tag": plan.tag.as_ref().map(Tag::as_str),
                "manifests": plan.manifests, "wanted": digests(&plan.wanted), "there": digests(&plan.there),
                "bytes": wanted,
            }));
        }
        Audience::Person | Audience::Nobody => {
            if audience == Audience::Person {
                output::note(&format!("would transfer {} blobs ({}) to {to}", plan.wanted.len(), size(wanted)));
                output::note(&format!("{} blobs ({}) are there already", plan.there.len(), size(there)));
                output::note("nothing was written: this was a dry run");
            }
            output::line(&plan.image.digest.to_string());
        }
    }
}

/// The last word of a transfer: the digest, or for a program an event.
pub(crate) fn tell_end(digest: &Digest, counts: &[(&str, u64)], audience: Audience) {
    if audience != Audience::Program {
        return output::line(&digest.to_string());
    }
    let mut told = json!({"event": "done", "digest": digest});
    for (key, count) in counts {
        told[*key] = json!(count);
    }
    output::json_line(&told);
}

/// How the registry is reached, by what was typed.
pub(crate) fn options(args: &ClientArgs) -> ClientOptions {
    let profile = match args.engine {
        ProfileWord::DockerDocs => EngineProfile::DOCKER_DOCS,
        ProfileWord::Podman => EngineProfile::PODMAN,
        ProfileWord::Containerd => EngineProfile::CONTAINERD,
    };
    let location = match (&args.certs_dir, &args.cert_dir) {
        (Some(root), _) => Location::Root(root.clone()),
        (None, Some(directory)) => Location::HostDirectory(directory.clone()),
        (None, None) => Location::Search,
    };
    let roots = match args.roots {
        RootsWord::Merge => Roots::Merge,
        RootsWord::Only => Roots::Only,
        RootsWord::Fallback => Roots::Fallback,
    };
    let transport = if args.plain_http { Transport::PlainHttp } else { Transport::Tls };
    let credentials = Credentials::Files(auth_files(args));
    let certs = CertsChoice { profile, location };
    ClientOptions { certs, roots, transport, credentials, ..ClientOptions::default() }
}

/// Where user names and passwords are.
pub(crate) fn auth_files(args: &ClientArgs) -> AuthFiles {
    match (&args.authfile, args.engine) {
        (Some(file), _) => AuthFiles::named(file),
        // containerd has none of its own; nerdctl and ctr's users have Docker's.
        (None, ProfileWord::DockerDocs | ProfileWord::Containerd) => AuthFiles::of_the_user(AuthOrder::DockerFirst),
        (None, ProfileWord::Podman) => AuthFiles::of_the_user(AuthOrder::ContainersFirst),
    }
}
