//! `portcullis push`: an image from an OCI layout directory or an archive to a registry.

use portcullis_client::{Archive, ImageSource, LayoutDir, plan_push, push_image};

use crate::args::{ImagePlace, PushArgs};
use crate::cmd::transfer;

pub(crate) fn run(args: &PushArgs) -> anyhow::Result<()> {
    transfer::run_resumable(transfer::GOES_ON, async {
        // What is no layout and no archive is found before anything is sent.
        let source = source(&args.from)?;
        let (reference, options) = (&args.reference, args.part.options());
        let audience = args.part.audience(args.client.quiet);
        let client = transfer::connect_to_push(&reference.host, &args.client).await?;
        if args.part.dry_run {
            let plan = plan_push(&client, &source, reference, &options).await?;
            transfer::tell_plan(&plan, &reference.to_string(), audience);
            return Ok(());
        }
        let pushed = push_image(&client, &source, reference, &options, &audience.progress()).await?;
        let counts = [
            ("manifests", pushed.manifests as u64),
            ("sent", pushed.sent as u64),
            ("sent_bytes", pushed.sent_bytes),
            ("existing", pushed.existing as u64),
        ];
        transfer::tell_end(&pushed.image.digest, &counts, audience);
        Ok(())
    })
}

fn source(place: &ImagePlace) -> anyhow::Result<ImageSource> {
    Ok(match place {
        ImagePlace::Layout(name) => ImageSource::in_layout(&LayoutDir::open(&name.directory)?, name.tag.as_ref())?,
        ImagePlace::OciArchive { file, tag } => {
            ImageSource::in_archive(&Archive::open(file)?, tag.as_ref().map(portcullis_oci::Tag::as_str))?
        }
        ImagePlace::DockerArchive { file, name } => {
            let name = name.as_ref().map(ToString::to_string);
            ImageSource::in_archive(&Archive::open(file)?, name.as_deref())?
        }
    })
}
