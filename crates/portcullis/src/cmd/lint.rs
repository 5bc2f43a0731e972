//! `portcullis cert lint`: what is wrong with certificate files, without a registry.

use portcullis_certs::Severity;
use portcullis_doctor::{Diagnosis, lint, write_findings};
use time::OffsetDateTime;

use crate::args::CertLintArgs;
use crate::exit::Found;
use crate::output;

pub(crate) fn run(args: &CertLintArgs) -> anyhow::Result<()> {
    for path in &args.files {
        anyhow::ensure!(path.symlink_metadata().is_ok(), "{} does not exist", super::shown(path));
    }
    let now = OffsetDateTime::now_utc();
    let found: Vec<Diagnosis> = args.files.iter().flat_map(|path| lint(path, now)).collect();
    if args.json {
        output::json(&found.iter().map(Diagnosis::to_json).collect::<Vec<_>>())?;
    } else if found.is_empty() {
        output::line("nothing to find fault with");
    } else {
        output::text(&write_findings(&found, output::style(false)));
    }
    match found.iter().filter(|finding| finding.severity > Severity::Note).count() {
        0 => Ok(()),
        wrong => Err(Found(format!("{wrong} found")).into()),
    }
}
