//! `portcullis referrers`: what has an image for its subject, one per line: digest, type, size.

use portcullis_certs::Visible;
use portcullis_oci::ManifestReference;

use crate::args::ReferrersArgs;
use crate::cmd::{size, transfer};
use crate::output;

pub(crate) fn run(args: &ReferrersArgs) -> anyhow::Result<()> {
    transfer::run(async {
        let reference = &args.reference;
        let client = transfer::connect(reference, &args.client).await?;
        let digest = match reference.manifest() {
            ManifestReference::Digest(digest) => digest,
            tag @ ManifestReference::Tag(_) => client.manifest(&reference.repository, &tag).await?.digest,
        };
        let wanted = args.artifact_type.as_deref();
        let referrers = client.referrers(&reference.repository, &digest, wanted).await?;
        if args.json {
            return output::json(&referrers);
        }
        if referrers.is_empty() && !args.client.quiet {
            output::note(&format!("nothing refers to {digest}"));
        }
        for referrer in &referrers {
            let kind = referrer.artifact_type.as_ref().unwrap_or(&referrer.media_type);
            output::line(&format!("{}  {}  {}", referrer.digest, Visible(kind), size(referrer.size)));
        }
        Ok(())
    })
}
