//! `portcullis push`: an image from an OCI layout directory or an archive to a registry.

use std::io::{self, IsTerminal as _};

use portcullis_client::{Archive, ImageSource, LayoutDir, MAX_STREAM, plan_push, push_image};
use portcullis_oci::{Reference, Tag};

use crate::args::{FileWord, ImagePlace, PushArgs};
use crate::cmd::transfer;
use crate::exit::Misconfigured;

pub(crate) fn run(args: &PushArgs) -> anyhow::Result<()> {
    transfer::run_resumable(transfer::GOES_ON, async {
        // What is no layout and no archive is found before anything is sent.
        let (from, to) = (args.from.clone(), args.reference.clone());
        let source = transfer::aside(move || source(&from, &to)).await?;
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

fn source(from: &ImagePlace, to: &Reference) -> anyhow::Result<ImageSource> {
    let archive = |file: &FileWord| match file {
        FileWord::Path(path) => Ok(Archive::open(path)?),
        FileWord::Standard => from_stdin(from, to),
    };
    Ok(match from {
        ImagePlace::Layout(name) => ImageSource::in_layout(&LayoutDir::open(&name.directory)?, name.tag.as_ref())?,
        ImagePlace::OciArchive { file, tag } => {
            ImageSource::in_archive(&archive(file)?, tag.as_ref().map(Tag::as_str))?
        }
        ImagePlace::DockerArchive { file, name } => {
            let name = name.as_ref().map(ToString::to_string);
            ImageSource::in_archive(&archive(file)?, name.as_deref())?
        }
    })
}

fn from_stdin(from: &ImagePlace, to: &Reference) -> anyhow::Result<Archive> {
    #[expect(clippy::disallowed_methods, reason = "the place says `-`")]
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        return Err(Misconfigured(format!(
            "standard input is a terminal: hand on an archive, as in docker save IMAGE | portcullis push {from} {to}"
        ))
        .into());
    }
    Ok(Archive::from_stream(&mut stdin, MAX_STREAM)?)
}
