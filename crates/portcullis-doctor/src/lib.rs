//! Says why an engine did, or did not, use a certificate: facts → checks → findings → report.
//!
//! [`gather`] does all I/O and judges nothing; [`examine`] runs the table of [`CHECKS`] on the facts and does no I/O, so that
//! each check is tested with a table of facts; [`Report`] is what came of it, ready for a person ([`Report::to_text`]) or a
//! program ([`Report::to_json`]). What a repair would change is a value too ([`Mend`]): nothing here writes a file.
//! [`explain`](fn@explain) translates what engines print. Must not know how files are written, nor the registry server.
//!
//! ```
//! use portcullis_doctor::{Environment, Options, Reach, Target, examine, gather};
//! # let root = tempfile::tempdir()?;
//! # let now = time::OffsetDateTime::UNIX_EPOCH;
//! let target: Target = "registry.test:5443".parse()?;
//! let options = Options { root: root.path().to_owned(), reach: Reach::Files, ..Options::default() };
//! let report = examine(&gather(&target, &options, &Environment::default(), now));
//! assert_eq!(report.host, "registry.test:5443");
//! assert!(report.findings.iter().all(|finding| finding.code.starts_with('D')));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod facts;
mod go_words;

mod checks;
mod diagnosis;
mod mend;

mod report;

mod explain;
mod lint;
mod pages;

pub use checks::{CHECKS, Check, check, examine};
pub use diagnosis::{Diagnosis, Evidence};
pub use explain::{Explanation, MAX_TEXT, Meaning, explain};
pub use facts::{
    Answer, Builder, Config, Contact, ContactEnd, DockerConfig, EngineFacts, Environment, Facts, HostsLine, Live,
    LiveFacts, Machine, Options, OtherHost, PairTrial, Reach, ServerDecision, Target, TextFile, VersionTrial, gather,
};
pub use go_words::go_refusal;
pub use lint::{CertificateView, lint, view};
pub use mend::Mend;
pub use pages::{index_page, page};
pub use report::{Report, Skipped, Style, Verdict, VerdictState, write_findings};
