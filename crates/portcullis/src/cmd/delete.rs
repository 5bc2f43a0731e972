//! `portcullis delete`: a tag, or a manifest with all its tags.

use portcullis_certs::ShellCommand;
use portcullis_client::{Client, ClientError};
use portcullis_oci::ManifestReference;

use crate::args::DeleteArgs;
use crate::cmd::transfer;
use crate::output;
use crate::place::DeletePlace;

pub(crate) fn run(args: &DeleteArgs) -> anyhow::Result<()> {
    transfer::run(async {
        let place = &args.place;
        let client = transfer::connect_to_registry(&place.host, Some(&place.repository), &args.client).await?;
        if args.dry_run {
            return would_delete(&client, place).await;
        }
        let deleted = client.delete_manifest(&place.repository, &place.manifest).await;
        deleted.map_err(|error| explain(error, place))?;
        output::line(&format!("deleted {place}"));
        if !args.client.quiet {
            output::note(&match place.manifest {
                ManifestReference::Tag(_) => "its manifest stays, under its digest and its other tags".to_owned(),
                ManifestReference::Digest(_) => {
                    format!("the tags of {}/{} that pointed to it are deleted too", place.host, place.repository)
                }
            });
        }
        Ok(())
    })
}

/// The digest, and the tags that would go with it.
async fn would_delete(client: &Client, place: &DeletePlace) -> anyhow::Result<()> {
    let fetched = client.manifest(&place.repository, &place.manifest).await?;
    output::line(&format!("would delete {place}"));
    if let ManifestReference::Digest(digest) = &place.manifest {
        for tag in client.tags(&place.repository).await? {
            let head = client.head_manifest(&place.repository, &ManifestReference::Tag(tag.clone())).await?;
            if head.is_some_and(|head| head.digest == Some(*digest)) {
                output::line(&format!("would delete {}/{}:{tag}", place.host, place.repository));
            }
        }
    } else {
        output::note(&format!("its manifest {} would stay", fetched.digest));
    }
    Ok(())
}

/// Distribution 2 answers 400 or 405 to a tag.
fn explain(error: ClientError, place: &DeletePlace) -> anyhow::Error {
    let by_tag = matches!(place.manifest, ManifestReference::Tag(_));
    match &error {
        ClientError::Status { answer, .. } if by_tag && matches!(answer.status, 400 | 405) => {
            let show = ShellCommand::new(["portcullis".to_owned(), "manifest".to_owned(), place.to_string()]);
            let hint = format!("{place} is not deleted; some registries delete by digest only, which `{show}` prints");
            anyhow::Error::new(error).context(hint)
        }
        _ => error.into(),
    }
}
