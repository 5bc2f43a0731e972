//! `portcullis pull`: an image from a registry into an OCI layout directory or an archive.

use portcullis_client::{
    ArchiveFile, ArchiveForm, ImageTarget, LayoutDir, Spool, TransferOptions, plan_pull, pull_image,
};

use crate::args::{FileWord, ImagePlace, PullArgs};
use crate::cmd::transfer;
use crate::exit::Misconfigured;
use crate::output;

pub(crate) fn run(args: &PullArgs) -> anyhow::Result<()> {
    let hint = match args.to {
        ImagePlace::Layout(_) => "what has come is kept, and the same command goes on from there",
        ImagePlace::OciArchive { .. } | ImagePlace::DockerArchive { .. } => {
            "nothing was left behind, and the same command begins anew; to go on where it stopped, pull to oci:DIR"
        }
    };
    transfer::run_resumable(hint, async {
        refuse_terminal(args)?;
        let (options, audience) = (options(args)?, args.part.audience(args.client.quiet));
        let client = transfer::connect(&args.reference, &args.client).await?;
        if args.part.dry_run {
            let there = match &args.to {
                ImagePlace::Layout(name) => LayoutDir::open(&name.directory).ok(),
                ImagePlace::OciArchive { .. } | ImagePlace::DockerArchive { .. } => None,
            };
            let plan = plan_pull(&client, &args.reference, there.as_ref(), &options).await?;
            transfer::tell_plan(&plan, &args.to.to_string(), audience);
            return Ok(());
        }
        let target = target(&args.to)?;
        let pulled = pull_image(&client, &args.reference, &target, &options, &audience.progress()).await?;
        if let ImageTarget::Archive { file: ArchiveFile::Unnamed(archive), .. } = target {
            transfer::aside(move || output::archive(&archive)).await?;
            output::note(&pulled.image.digest.to_string());
            return Ok(());
        }
        let counts = [
            ("manifests", pulled.manifests as u64),
            ("fetched", pulled.fetched as u64),
            ("fetched_bytes", pulled.fetched_bytes),
            ("reused", pulled.reused as u64),
        ];
        transfer::tell_end(&pulled.image.digest, &counts, audience);
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
        ImagePlace::OciArchive { file, tag } => {
            ImageTarget::Archive { file: archive_file(file)?, form: ArchiveForm::Oci { tag } }
        }
        ImagePlace::DockerArchive { file, name } => {
            ImageTarget::Archive { file: archive_file(file)?, form: ArchiveForm::Docker { name } }
        }
    })
}

fn archive_file(file: FileWord) -> anyhow::Result<ArchiveFile> {
    Ok(match file {
        FileWord::Path(path) => ArchiveFile::Named(path),
        FileWord::Standard => ArchiveFile::Unnamed(Spool::create()?),
    })
}

fn refuse_terminal(args: &PullArgs) -> Result<(), Misconfigured> {
    if !args.to.is_stream() || args.part.dry_run {
        return Ok(());
    }
    args.part.refuse_events()?;
    if output::is_shown() {
        let (to, reference) = (&args.to, &args.reference);
        return Err(Misconfigured(format!(
            "standard output is a terminal, and an archive is no text: hand it on, as in portcullis pull {reference} --to {to} | docker load"
        )));
    }
    Ok(())
}
