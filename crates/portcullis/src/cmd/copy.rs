//! `portcullis copy`: an image from one registry to another, or from one repository to another.

use portcullis_client::copy_image;

use crate::args::CopyArgs;
use crate::cmd::transfer;
use crate::output;

pub(crate) fn run(args: &CopyArgs) -> anyhow::Result<()> {
    transfer::run(async {
        let (from, to) = (&args.from, &args.to);
        let at_source = args.client(args.src_cert_dir.as_deref());
        let at_target = args.client(args.dest_cert_dir.as_deref());
        let source = transfer::connect(&from.host, &at_source).await?;
        let one = from.host == to.host && args.src_cert_dir == args.dest_cert_dir;
        let target = if one { source.clone() } else { transfer::connect(&to.host, &at_target).await? };
        let (options, progress) = (args.part.options(), transfer::progress(&at_target));
        let copied = copy_image((&source, from), (&target, to), &options, &progress).await?;
        output::line(&copied.image.digest.to_string());
        Ok(())
    })
}
