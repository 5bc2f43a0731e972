//! `portcullis catalog`: the repositories of a registry, one per line.

use portcullis_oci::RepositoryName;

use crate::args::CatalogArgs;
use crate::cmd::transfer;
use crate::output;

pub(crate) fn run(args: &CatalogArgs) -> anyhow::Result<()> {
    transfer::run(async {
        let client = transfer::connect_to_registry(&args.host, None, &args.client).await?;
        let repositories = client.repositories().await?;
        if args.json {
            return output::json(&repositories.iter().map(RepositoryName::as_str).collect::<Vec<_>>());
        }
        if repositories.is_empty() && !args.client.quiet {
            output::note(&format!("{} shows no repositories", args.host));
        }
        for repository in &repositories {
            output::line(repository.as_str());
        }
        Ok(())
    })
}
