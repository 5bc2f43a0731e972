//! `portcullis pull`: an image from a registry into an OCI layout directory.

use portcullis_client::{LayoutDir, pull};
use portcullis_oci::Reference;

use crate::args::PullArgs;
use crate::cmd::transfer;
use crate::output;

pub(crate) fn run(args: &PullArgs) -> anyhow::Result<()> {
    transfer::run(async {
        let client = transfer::connect(&args.reference.host, &args.client).await?;
        let layout = LayoutDir::create(&args.to.0.directory)?;
        let reference = Reference { tag: args.reference.tag.clone(), ..args.reference.clone() };
        let pulled = pull(&client, &reference, &layout, &transfer::progress(&args.client)).await?;
        if let Some(tag) = &args.to.0.tag {
            layout.set_image(&pulled.image, Some(tag))?;
        }
        output::line(&pulled.image.digest.to_string());
        Ok(())
    })
}
