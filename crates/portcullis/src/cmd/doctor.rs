//! `portcullis doctor`: looks, prints the report, and does the safe repairs when it is asked to.

mod mending;

use std::path::{Path, PathBuf};

use portcullis_certs::{Severity, Visible};
use portcullis_doctor::{
    Environment, Facts, Mend, Options, PairTrial, Reach, Report, ServerDecision, Target, examine, gather,
};
use portcullis_server::admin;
use time::OffsetDateTime;

use crate::args::DoctorArgs;
use crate::cmd::ask;
use crate::exit::{Found, Refused};
use crate::home::Home;
use crate::output;

pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let environment = Environment::of_process();
    let report = look(args, &environment);
    if args.json {
        output::json(&report.to_json())?;
    } else {
        output::text(&report.to_text(output::style(args.verbose)));
    }
    if args.fix {
        let report = mend(args, &environment, report)?;
        return verdict(&report);
    }
    verdict(&report)
}

fn look(args: &DoctorArgs, environment: &Environment) -> Report {
    let options = Options {
        root: args.root.clone(),
        reach: if args.offline { Reach::Files } else { Reach::Network },
        engines: args.engines.iter().map(|engine| engine.profile()).collect(),
    };
    let target: &Target = &args.target;
    let mut facts = gather(target, &options, environment, OffsetDateTime::now_utc());
    if !args.offline && args.root == Path::new("/") {
        facts.decisions = decisions(args, &facts);
    }
    examine(&facts)
}

/// What a Portcullis server on this very machine says about the pairs that were tried. That there is none, or that it is
/// another's, is no finding.
fn decisions(args: &DoctorArgs, facts: &Facts) -> Vec<ServerDecision> {
    let Ok(socket) = socket(args.home.home.as_deref()) else { return Vec::new() };
    let trials = facts.live().map(|live| live.pairs.as_slice()).unwrap_or_default();
    let ask = |trial: &PairTrial| {
        let leaf = trial.pair.chain.first()?;
        let why = ask::ask(admin::why(&socket, leaf.fingerprint())).ok()?;
        let verdict = why.verdict?;
        let accepted = verdict.refused.is_none();
        let said = verdict.refused.or(verdict.trusted_by.map(|by| format!("trusted by {by}")))?;
        let text = format!("{said} (generation {})", verdict.generation);
        Some(ServerDecision { cert_path: trial.pair.cert_path.clone(), text, accepted })
    };
    trials.iter().filter_map(ask).collect()
}

/// Where a server of this home would answer. Root stays root: the repairs that may follow are of root's files.
fn socket(home: Option<&Path>) -> anyhow::Result<PathBuf> {
    ask::socket(&Home::locate(home)?)
}

/// How often it is looked again: one repair can bring the next fault to light.
const ROUNDS: usize = 4;

/// Shows each repair, does it unless only shown, and looks again until nothing more can be done.
fn mend(args: &DoctorArgs, environment: &Environment, report: Report) -> anyhow::Result<Report> {
    let mut report = report;
    let mut done: Vec<Mend> = Vec::new();
    for _ in 0..ROUNDS {
        let mends = new_mends(&report, &done);
        if mends.is_empty() {
            break;
        }
        output::line("");
        let failed = mends.iter().filter(|mend| !mend_one(mend, args)).count();
        if args.dry_run {
            output::line("nothing was changed (--dry-run)");
            return Ok(report);
        }
        anyhow::ensure!(failed == 0, "{failed} of {} repairs were not done", mends.len());
        done.extend(mends);
        report = look(args, environment);
    }
    if done.is_empty() {
        output::line("\nnothing that --fix could do safely");
    } else {
        output::line("\nafter that:\n");
        output::text(&report.to_text(output::style(args.verbose)));
    }
    Ok(report)
}

/// What is safe to do and was not done before, each once. The directories come first: in one that everybody may change
/// nothing else is touched.
fn new_mends(report: &Report, done: &[Mend]) -> Vec<Mend> {
    let mut mends: Vec<Mend> = Vec::new();
    for mend in report.findings.iter().filter_map(|finding| finding.mend.as_ref()) {
        if !mends.contains(mend) && !done.contains(mend) {
            mends.push(mend.clone());
        }
    }
    let of_directories: Vec<Mend> = mends.iter().filter(|mend| mend.path().is_dir()).cloned().collect();
    if of_directories.is_empty() { mends } else { of_directories }
}

/// Whether it was done, or was only to be shown.
fn mend_one(mend: &Mend, args: &DoctorArgs) -> bool {
    output::line(&format!("fix: {}", mending::described(mend)));
    if args.dry_run {
        return true;
    }
    match mending::apply(mend, &args.root) {
        Ok(undo) => {
            output::line(&format!("  done; to undo it: {undo}"));
            true
        }
        Err(error) => {
            output::line(&format!("  not done: {}", Visible(&format!("{error:#}"))));
            false
        }
    }
}

/// 0 when nothing is wrong but notes; 3 when the registry refused every identity; 4 for everything else that was found.
fn verdict(report: &Report) -> anyhow::Result<()> {
    if report.refused {
        return Err(Refused(format!("{} lets nobody in with what is here", report.host)).into());
    }
    match report.worst() {
        Some(Severity::Fatal | Severity::Warning) => Err(Found(report.tally()).into()),
        Some(Severity::Note) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::chown;

    use rustix::process::geteuid;

    use super::*;

    /// The repairs come after it in the same thread, and need root's rights.
    #[test]
    fn root_stays_root_where_the_home_is_a_services() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.toml"), "admin_socket = \"/run/elsewhere/admin.sock\"\n").unwrap();
        let before = geteuid();
        if before.is_root() {
            chown(dir.path(), Some(65534), Some(65534)).unwrap();
        }
        assert_eq!(socket(Some(dir.path())).unwrap(), Path::new("/run/elsewhere/admin.sock"));
        assert_eq!(geteuid(), before);
    }
}
