//! `portcullis copy`: an image from one registry to another, or from one repository to another.

use portcullis_client::{copy_image, plan_copy};

use crate::args::{CopyArgs, ProfileWord};
use crate::cmd::transfer;

pub(crate) fn run(args: &CopyArgs) -> anyhow::Result<()> {
    transfer::run_resumable(transfer::GOES_ON, async {
        let (from, to, options) = (&args.from, &args.to, args.part.options());
        let at_source = args.client(args.src_cert_dir.as_deref());
        let at_target = args.client(args.dest_cert_dir.as_deref());
        let audience = args.part.audience(at_target.quiet);
        let source = transfer::connect(from, &at_source).await?;
        // Engines may read where they do not push.
        let alike = args.src_cert_dir == args.dest_cert_dir && at_source.engine == ProfileWord::DockerDocs;
        let one = alike && from.host == to.host;
        let target = if one { source.clone() } else { transfer::connect_to_push(to, &at_target).await? };
        if args.part.dry_run {
            let plan = plan_copy((&source, from), (&target, to), &options).await?;
            transfer::tell_plan(&plan, &to.to_string(), audience);
            return Ok(());
        }
        let copied = copy_image((&source, from), (&target, to), &options, &audience.progress()).await?;
        let counts = [
            ("manifests", copied.manifests as u64),
            ("sent", copied.sent as u64),
            ("sent_bytes", copied.sent_bytes),
            ("mounted", copied.mounted as u64),
            ("existing", copied.existing as u64),
        ];
        transfer::tell_end(&copied.image.digest, &counts, audience);
        Ok(())
    })
}
