//! `portcullis push`: an image from an OCI layout directory or an archive to a registry.

use portcullis_client::{Archive, ImageSource, LayoutDir, push_image};

use crate::args::{ImagePlace, PushArgs};
use crate::cmd::transfer;
use crate::output;

pub(crate) fn run(args: &PushArgs) -> anyhow::Result<()> {
    transfer::run(async {
        // What is no layout and no archive is found before anything is sent.
        let source = source(&args.from)?;
        let client = transfer::connect(&args.reference.host, &args.client).await?;
        let progress = transfer::progress(&args.client);
        let pushed = push_image(&client, &source, &args.reference, &args.part.options(), &progress).await?;
        output::line(&pushed.image.digest.to_string());
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
