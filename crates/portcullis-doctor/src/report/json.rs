//! The report for a program. The keys are stable; docs/doctor.md has the schema.

use super::{Report, Verdict};
use crate::diagnosis::{Diagnosis, Evidence, shown};
use crate::mend::Mend;
use portcullis_certs::{Fix, ShellCommand};
use serde_json::{Value, json};

/// Changed when a key changes its meaning or goes away; new keys may come without.
const SCHEMA: u32 = 1;

impl Report {
    /// The report as a JSON value.
    pub fn to_json(&self) -> Value {
        json!({
            "schema": SCHEMA,
            "host": self.host,
            "server": self.server,
            "refused": self.refused,
            "verdicts": self.verdicts.iter().map(verdict).collect::<Vec<_>>(),
            "findings": self.findings.iter().map(Diagnosis::to_json).collect::<Vec<_>>(),
            "skipped": self.skipped.iter().map(|s| json!({ "code": s.code, "reason": s.reason })).collect::<Vec<_>>(),
        })
    }
}

fn verdict(verdict: &Verdict) -> Value {
    json!({
        "engine": verdict.engine,
        "version": verdict.version,
        "state": verdict.state.as_str(),
        "codes": verdict.codes,
        "summary": verdict.summary,
        "directory": verdict.directory,
        "basis": verdict.basis,
    })
}

impl Diagnosis {
    /// One finding of [`Report::to_json`].
    pub fn to_json(&self) -> Value {
        json!({
            "code": self.code,
            "severity": self.severity.to_string(),
            "engines": self.engines,
            "milder": self.milder.iter().map(|(engine, s)| json!({ "engine": engine, "severity": s.to_string() })).collect::<Vec<_>>(),
            "what": self.what,
            "why": self.why,
            "evidence": self.evidence.iter().map(evidence).collect::<Vec<_>>(),
            "fix": fix(&self.fix),
            "mend": self.mend.as_ref().map(mend),
        })
    }
}

fn evidence(evidence: &Evidence) -> Value {
    json!({ "path": evidence.path.as_deref().map(shown), "line": evidence.line, "value": evidence.value })
}

fn fix(fix: &Fix) -> Value {
    match fix {
        Fix::Run(command) => {
            json!({ "kind": "run", "text": command.to_string(), "command": command.to_string(), "argv": argv(command) })
        }
        Fix::Say { text, command } => {
            json!({ "kind": "say", "text": text, "command": command.to_string(), "argv": argv(command) })
        }
        Fix::NothingToDo => json!({ "kind": "nothing", "text": "nothing to do" }),
    }
}

/// What is not UTF-8 is replaced: `text` has it exactly.
fn argv(command: &ShellCommand) -> Vec<Vec<String>> {
    command.steps().map(|step| step.iter().map(|word| word.to_string_lossy().into_owned()).collect()).collect()
}

fn mend(mend: &Mend) -> Value {
    let kind = match mend {
        Mend::Rename { .. } => "rename",
        Mend::MoveInto { .. } => "move-into",
        Mend::Mode { .. } => "mode",
        Mend::ToPem { .. } => "to-pem",
        Mend::Reorder { .. } => "reorder",
    };
    json!({ "kind": kind, "path": shown(mend.path()) })
}
