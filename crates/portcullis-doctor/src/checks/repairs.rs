//! Which of the possible repairs stand when all findings are seen together. Pure; whoever applies them checks again.

use crate::diagnosis::Diagnosis;
use crate::facts::Facts;
use crate::mend::Mend;
use portcullis_certs::{DirectorySurvey, EntryKind, FileSurvey, Fix, ShellCommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Adds what no single finding shows, and leaves out what is for a person to decide.
pub(super) fn settle(findings: &mut [Diagnosis], facts: &Facts) {
    for finding in findings.iter_mut().filter(|finding| finding.code == "D03") {
        let path = finding.evidence.first().and_then(|evidence| evidence.path.as_deref());
        let root = facts.roots.iter().find(|root| Some(root.path.as_path()) == path);
        finding.mend = root.and_then(|root| move_down(root, facts));
        if let Some(Mend::MoveInto { directory, files }) = &finding.mend {
            let make = [OsString::from("mkdir"), "-p".into(), ShellCommand::operand(directory)];
            finding.fix = Fix::Run(ShellCommand::new(make).then(moved(files.iter().map(PathBuf::as_path), directory)));
        }
    }
    drop_read(findings, facts);
    drop_rivals(findings);
    drop_taken(findings, facts);
}

/// `-i`: nothing is overwritten unasked.
pub(super) fn moved<'a>(files: impl Iterator<Item = &'a Path>, to: &Path) -> Vec<OsString> {
    let mv = ["mv", "-i"].into_iter().map(OsString::from);
    mv.chain(files.map(ShellCommand::operand)).chain([ShellCommand::operand(to)]).collect()
}

/// The files beside the host directories, if they are one registry's: at most one CA file and at most one pair, nothing that
/// is a link, and an engine that looks for the directory, which does not exist.
fn move_down(root: &DirectorySurvey, facts: &Facts) -> Option<Mend> {
    let directory = root.path.join(facts.target.host.as_str());
    let tried = facts.engines.iter().flat_map(|engine| &engine.prediction.tried);
    let is_wanted = tried.into_iter().any(|tried| tried.path == directory);
    let exists = root.files.iter().any(|file| file.path == directory);
    let files: Vec<&FileSurvey> = root.files.iter().filter(|file| is_certificate_file(file)).collect();
    let are_plain = files.iter().all(|file| file.kind == EntryKind::File);
    let with = |suffix: &str| -> Vec<&Path> {
        files.iter().map(|file| file.path.as_path()).filter(|path| has_extension(path, suffix)).collect()
    };
    let is_one_set = match (with("crt").as_slice(), with("cert").as_slice(), with("key").as_slice()) {
        ([_], [], []) => true,
        ([] | [_], [cert], [key]) => cert.file_stem() == key.file_stem(),
        _ => false,
    };
    let files = files.iter().map(|file| file.path.clone()).collect();
    (is_wanted && !exists && are_plain && is_one_set).then_some(Mend::MoveInto { directory, files })
}

/// Directories called `x.crt` are no files that belong one level down.
pub(super) fn is_certificate_file(file: &FileSurvey) -> bool {
    let is_named = ["crt", "cert", "key"].iter().any(|suffix| has_extension(&file.path, suffix));
    is_named && file.kind != EntryKind::Directory
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// A directory that one engine misses by its name may be the one that another reads.
fn drop_read(findings: &mut [Diagnosis], facts: &Facts) {
    for finding in findings {
        let is_read = |from: &Path| facts.engines.iter().any(|engine| engine.prediction.taken() == Some(from));
        if matches!(&finding.mend, Some(Mend::Rename { from, .. }) if is_read(from)) {
            finding.mend = None;
        }
    }
}

/// Several sets of files that could all become the host's directory: which one is meant nobody knows.
fn drop_rivals(findings: &mut [Diagnosis]) {
    let is_layout = |finding: &&Diagnosis| matches!(finding.code, "D02" | "D03" | "D04" | "D05" | "D08");
    let mends: Vec<Mend> = findings.iter().filter(is_layout).filter_map(|finding| finding.mend.clone()).collect();
    for finding in findings.iter_mut().filter(|finding| is_layout(&&**finding)) {
        let Some(mend) = &finding.mend else { continue };
        if mends.iter().any(|other| other != mend && host_directory(other) == host_directory(mend)) {
            finding.mend = None;
        }
    }
}

/// The host's directory as it will be.
fn host_directory(mend: &Mend) -> Option<&Path> {
    match mend {
        Mend::Rename { to, .. } => Some(to),
        Mend::MoveInto { directory, .. } => Some(directory),
        Mend::Mode { .. } | Mend::ToPem { .. } | Mend::Reorder { .. } => None,
    }
}

/// A name that is taken, or that two files would get, is for a person to decide about.
fn drop_taken(findings: &mut [Diagnosis], facts: &Facts) {
    let surveys = facts.roots.iter().chain(&facts.directories);
    let mut taken: Vec<PathBuf> = surveys.flat_map(|survey| &survey.files).map(|file| file.path.clone()).collect();
    let mut given: Vec<Mend> = Vec::new();
    for finding in findings {
        let Some(mend @ Mend::Rename { to, .. }) = &finding.mend else { continue };
        // Several findings may have the same repair.
        if given.contains(mend) {
            continue;
        }
        if taken.contains(to) {
            finding.mend = None;
        } else {
            taken.push(to.clone());
            given.push(mend.clone());
        }
    }
}
