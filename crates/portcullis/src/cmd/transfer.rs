//! What the client commands share: the way to the registry, and how progress is told.

use std::collections::HashMap;
use std::sync::Mutex;

use portcullis_certs::EngineProfile;
use portcullis_client::{CertsChoice, Client, ClientOptions, Event, Location, Progress};
use portcullis_oci::RegistryHost;
use portcullis_tls::Roots;

use crate::args::{ClientArgs, ProfileWord, RootsWord};
use crate::output;

/// Runs a client command; its error gets the advice that the client has for it.
pub(crate) fn run<T>(transfer: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(transfer)
}

/// Connects and says which pair was taken.
pub(crate) async fn connect(host: &RegistryHost, args: &ClientArgs) -> anyhow::Result<Client> {
    let client = Client::connect(host, &options(args)).await?;
    for finding in client.warnings() {
        output::warning(&finding.to_string());
    }
    if !args.quiet {
        match client.pair_used() {
            Some(pair) => output::note(&format!("{host}: using the client certificate {pair}.cert")),
            None => output::note(&format!("{host}: without a client certificate")),
        }
    }
    Ok(client)
}

/// One line per step. A blob's own progress is not drawn.
pub(crate) fn progress(args: &ClientArgs) -> Progress {
    if args.quiet {
        return Progress::none();
    }
    let sizes = Mutex::new(HashMap::new());
    Progress::new(move |event| {
        let text = match event {
            Event::BlobStarted { digest, size, .. } => {
                // Only this closure holds the lock, and it does not panic.
                sizes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(digest, size);
                return;
            }
            Event::BlobFinished { digest } => {
                let size = sizes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&digest);
                format!("{} done ({} bytes)", short(&digest), size.unwrap_or(0))
            }
            Event::BlobExists { digest, .. } => format!("{} is there already", short(&digest)),
            Event::BlobMounted { digest, .. } => format!("{} is mounted", short(&digest)),
            Event::BlobForeign { digest } => format!("{} is fetched from elsewhere, left out", short(&digest)),
            Event::Retrying { request, reason, pause } => {
                format!("{request}: {reason}; again in {:.1} s", pause.as_secs_f32())
            }
            Event::Planned { blobs, bytes } => format!("{blobs} blobs, {bytes} bytes"),
            Event::Manifest { .. } | Event::BlobAdvanced { .. } | Event::Tagged { .. } => return,
        };
        output::note(&text);
    })
}

/// How the registry is reached, by what was typed.
pub(crate) fn options(args: &ClientArgs) -> ClientOptions {
    let profile = match args.engine {
        ProfileWord::DockerDocs => EngineProfile::DOCKER_DOCS,
        ProfileWord::Podman => EngineProfile::PODMAN,
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
    ClientOptions { certs: CertsChoice { profile, location }, roots, ..ClientOptions::default() }
}

/// As engines abbreviate it: twelve digits.
fn short(digest: &portcullis_oci::Digest) -> String {
    format!("{}:{}", digest.algorithm(), &digest.hex()[..12])
}
