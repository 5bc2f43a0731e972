//! `portcullis push`: an image from an OCI layout directory or an archive to a registry.

use std::io::{self, IsTerminal as _};

use portcullis_client::{Archive, ImageSource, LayoutDir, MAX_STREAM, plan_push, push_image};

use crate::args::{FileWord, ImagePlace, PushArgs};
use crate::cmd::transfer;
use crate::exit::Misconfigured;

pub(crate) fn run(args: &PushArgs) -> anyhow::Result<()> {
    // What is no layout and no archive is found before anything is sent. Signals still end the process by themselves while
    // it waits for standard input: the file it is kept in has no name.
    let source = source(args)?;
    transfer::run_resumable(transfer::GOES_ON, async {
        let (reference, options) = (&args.reference, args.part.options());
        let audience = args.part.audience(args.client.quiet);
        let client = transfer::connect_to_push(reference, &args.client).await?;
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

fn source(args: &PushArgs) -> anyhow::Result<ImageSource> {
    Ok(match &args.from {
        ImagePlace::Layout(name) => ImageSource::in_layout(&LayoutDir::open(&name.directory)?, name.tag.as_ref())?,
        ImagePlace::OciArchive { file, tag } => {
            ImageSource::in_archive(&archive(file, args)?, tag.as_ref().map(portcullis_oci::Tag::as_str))?
        }
        ImagePlace::DockerArchive { file, name } => {
            let name = name.as_ref().map(ToString::to_string);
            ImageSource::in_archive(&archive(file, args)?, name.as_deref())?
        }
    })
}

fn archive(file: &FileWord, args: &PushArgs) -> anyhow::Result<Archive> {
    match file {
        FileWord::Path(path) => Ok(Archive::open(path)?),
        FileWord::Standard => {
            #[expect(clippy::disallowed_methods, reason = "the place says `-`")]
            let mut stdin = io::stdin().lock();
            if stdin.is_terminal() {
                let (from, reference) = (&args.from, &args.reference);
                return Err(Misconfigured(format!(
                    "standard input is a terminal: hand on an archive, as in docker save IMAGE | portcullis push {from} {reference}"
                ))
                .into());
            }
            Ok(Archive::from_stream(&mut stdin, MAX_STREAM)?)
        }
    }
}
