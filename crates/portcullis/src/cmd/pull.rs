//! `portcullis pull`: an image from a registry into an OCI layout directory or an archive.

use portcullis_client::{ArchiveForm, ImageTarget, LayoutDir, TransferOptions, pull_image};

use crate::args::{ImagePlace, PullArgs};
use crate::cmd::transfer;
use crate::output;

pub(crate) fn run(args: &PullArgs) -> anyhow::Result<()> {
    transfer::run(async {
        let options = options(args)?;
        let client = transfer::connect(&args.reference.host, &args.client).await?;
        let target = target(&args.to)?;
        let progress = transfer::progress(&args.client);
        let pulled = pull_image(&client, &args.reference, &target, &options, &progress).await?;
        output::line(&pulled.image.digest.to_string());
        Ok(())
    })
}

fn options(args: &PullArgs) -> anyhow::Result<TransferOptions> {
    match args.to {
        ImagePlace::Layout(_) | ImagePlace::OciArchive { .. } => Ok(args.part.options()),
        ImagePlace::DockerArchive { .. } => Ok(args.part.options_for_one()?),
    }
}

fn target(place: &ImagePlace) -> anyhow::Result<ImageTarget> {
    Ok(match place.clone() {
        ImagePlace::Layout(name) => ImageTarget::Layout { layout: LayoutDir::create(&name.directory)?, tag: name.tag },
        ImagePlace::OciArchive { file, tag } => ImageTarget::Archive { file, form: ArchiveForm::Oci { tag } },
        ImagePlace::DockerArchive { file, name } => ImageTarget::Archive { file, form: ArchiveForm::Docker { name } },
    })
}
