//! `portcullis tags`: the tags of a repository, one per line.

use portcullis_oci::Tag;

use crate::args::TagsArgs;
use crate::cmd::transfer;
use crate::output;
use crate::place::RepositoryPlace;

pub(crate) fn run(args: &TagsArgs) -> anyhow::Result<()> {
    transfer::run(async {
        let RepositoryPlace { host, repository } = &args.repository;
        let client = transfer::connect_to_list(host, repository, &args.client).await?;
        let tags = client.tags(repository).await?;
        if args.json {
            return output::json(&tags.iter().map(Tag::as_str).collect::<Vec<_>>());
        }
        if tags.is_empty() && !args.client.quiet {
            output::note(&format!("{host}/{repository} has no tags"));
        }
        for tag in &tags {
            output::line(tag.as_str());
        }
        Ok(())
    })
}
