//! `portcullis push`: an image from an OCI layout directory to a registry.

use portcullis_client::{LayoutDir, push};

use crate::args::PushArgs;
use crate::cmd::transfer;
use crate::output;

pub(crate) fn run(args: &PushArgs) -> anyhow::Result<()> {
    transfer::run(async {
        // A directory that is no layout is found before anything is sent.
        let layout = LayoutDir::open(&args.from.0.directory)?;
        layout.image(args.from.0.tag.as_ref())?;
        let client = transfer::connect(&args.reference.host, &args.client).await?;
        let progress = transfer::progress(&args.client);
        let pushed = push(&client, &layout, args.from.0.tag.as_ref(), &args.reference, &progress).await?;
        output::line(&pushed.image.digest.to_string());
        Ok(())
    })
}
