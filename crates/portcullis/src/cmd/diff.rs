//! `portcullis diff`: what two images differ in. Exit code 4 where they do.

mod json;
mod text;

use portcullis_client::compare;

use crate::args::{DiffArgs, ProfileWord};
use crate::cmd::transfer;
use crate::exit::Found;
use crate::output;

pub(crate) fn run(args: &DiffArgs) -> anyhow::Result<()> {
    transfer::run(async {
        let (first, second) = (&args.first, &args.second);
        let one = transfer::connect(first, &args.client).await?;
        // Podman's mirrors are a repository's, and for its tags or its digests.
        let alike = first.host == second.host && args.client.engine != ProfileWord::Podman;
        let other = if alike { one.clone() } else { transfer::connect(second, &args.client).await? };
        let comparison = compare((&one, first), (&other, second), args.platform.as_ref()).await?;
        let same = comparison.fields.is_empty() && comparison.images.is_empty();
        if args.json {
            output::json(&json::report(args, &comparison))?;
        } else {
            output::text(&text::report(args, &comparison));
        }
        // Indexes of different digests may say the same: another order, or fields that nobody looks at.
        if same { Ok(()) } else { Err(Found("the images differ".to_owned()).into()) }
    })
}
