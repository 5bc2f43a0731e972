//! What the policy asks of each CA's revocation list: the tables `[ca.NAME]` of `policy.toml`.
//!
//! They stand in the policy and not in the configuration because they are part of a trust generation: changed, they are
//! in force within a second, refused whole when they are wrong, and nothing is restarted.

use std::collections::BTreeMap;

use portcullis_tls::{CrlPresence, CrlRule, CrlRules, StaleCrl};

use crate::document::{Problems, Table};

/// The rules, and the lines they stand on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CaTables {
    pub(crate) rules: CrlRules,
    pub(crate) lines: BTreeMap<String, usize>,
}

impl CaTables {
    pub(crate) fn read(root: &mut Table<'_>, problems: &mut Problems<'_>) -> Self {
        let mut tables = Self::default();
        for (name, mut table) in root.named_tables(problems, "ca") {
            let presence = table.parsed(problems, "crl", "\"required\", \"if-present\" or \"off\"", presence);
            let stale = table.parsed(problems, "crl_stale", "\"reject\" or \"warn\"", stale);
            tables.lines.insert(name.clone(), table.line());
            table.finish(problems, &["crl", "crl_stale"]);
            let rule = CrlRule { presence: presence.unwrap_or_default(), stale: stale.unwrap_or_default() };
            tables.rules.insert(name, rule);
        }
        tables
    }
}

fn presence(word: &str) -> Option<CrlPresence> {
    Some(match word {
        "required" => CrlPresence::Required,
        "if-present" => CrlPresence::IfPresent,
        "off" => CrlPresence::Off,
        _ => return None,
    })
}

fn stale(word: &str) -> Option<StaleCrl> {
    Some(match word {
        "reject" => StaleCrl::Reject,
        "warn" => StaleCrl::Warn,
        _ => return None,
    })
}
