//! `portcullis manifest`: a manifest's bytes, exactly as the registry has them.

use portcullis_certs::Visible;

use crate::args::ManifestArgs;
use crate::cmd::transfer;
use crate::output;

pub(crate) fn run(args: &ManifestArgs) -> anyhow::Result<()> {
    transfer::run(async {
        let reference = &args.reference;
        let client = transfer::connect(reference, &args.client).await?;
        let fetched = client.manifest(&reference.repository, &reference.manifest()).await?;
        if !args.client.quiet {
            output::note(&format!("{} {}", fetched.digest, Visible(&fetched.manifest.media_type)));
        }
        Ok(output::bytes(&fetched.bytes)?)
    })
}
