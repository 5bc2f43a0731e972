//! The policy: who may do what in which repository. Nothing is allowed that no rule allows.
//!
//! Owns the grammar of `policy.toml` and the answer to "may it". Must not know connections or requests.

mod names;
mod pattern;
mod whom;

use std::path::Path;

use portcullis_oci::RepositoryName;
use portcullis_tls::{Identity, TrustStore};
use serde::Serialize;

use crate::crl_rules::CaTables;
use crate::document::{Located, Problem, Problems, Table};

use self::pattern::Pattern;
use self::whom::{Against, Groups, Matchers, Whom, read_groups};

/// What a rule can allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read manifests, blobs and tags.
    Pull,
    /// Write them.
    Push,
    /// Remove them.
    Delete,
}

/// Who asks. Only a verdict makes an [`Identity`], so that no certificate that is not trusted can be asked for.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Whoever shows no certificate, where that is let in at all.
    Anonymous,
    /// A certificate that is trusted.
    Trusted(Identity),
}

/// A policy that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    groups: Groups,
    rules: Vec<Rule>,
    cas: CaTables,
}

/// What one rule says to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleVerdict {
    /// The rule's line in the policy file.
    pub line: usize,
    /// Why it does not allow it; empty where it does.
    pub misses: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    line: usize,
    whom: Whom,
    repositories: Vec<RepositoryGlob>,
    actions: Vec<Action>,
}

/// A pattern for repositories: `*` stands for one path component, or a part of one; `**` for any number of components.
///
/// ```
/// use portcullis_server::RepositoryGlob;
///
/// let glob = RepositoryGlob::parse("team/*").ok_or("no pattern")?;
/// assert!(glob.matches(&"team/app".parse()?));
/// assert!(!glob.matches(&"team/app/cache".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryGlob(Pattern);

impl Action {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    /// The word in the policy, in messages and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }
}

impl Policy {
    /// Reads the text of the policy file at `path`.
    ///
    /// A policy without a single rule is a problem too: it would refuse everybody, which no one writes on purpose.
    ///
    /// # Errors
    /// Every problem in it, with its line.
    ///
    /// ```
    /// use std::path::Path;
    /// use portcullis_server::Policy;
    ///
    /// let text = r#"
    /// [groups]
    /// builders = [{ ca = "clients", spiffe = "spiffe://example.org/ci/*" }, { pin = "old-builder" }]
    ///
    /// [[rule]]
    /// group = "builders"
    /// repositories = ["team/**"]
    /// allow = ["pull", "push"]
    /// "#;
    /// assert!(Policy::parse(Path::new("policy.toml"), text).is_ok());
    /// ```
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let (mut root, mut problems) = Problems::read(path, text);
        let groups = read_groups(root.table(&mut problems, "groups"), &mut problems);
        let tables = root.tables(&mut problems, "rule");
        let read = |table| Rule::read(table, &groups, &mut problems);
        let rules: Vec<Rule> = tables.into_iter().filter_map(read).collect();
        let cas = CaTables::read(&mut root, &mut problems);
        root.finish(&mut problems, &["rule", "groups", "ca"]);
        let mut found = problems.into_found();
        if rules.is_empty() && found.is_empty() {
            found.push(Problem::new(path, "there is no [[rule]]: nobody could do anything"));
        }
        if found.is_empty() { Ok(Self { groups, rules, cas }) } else { Err(found) }
    }

    /// What is asked of each CA's revocation list.
    pub(crate) fn cas(&self) -> &CaTables {
        &self.cas
    }

    /// The line of the first rule that allows it; `None`: refused.
    pub fn allows(&self, caller: &Caller, action: Action, repository: &RepositoryName) -> Option<usize> {
        let allows = |rule: &&Rule| rule.covers(action, repository) && rule.whom.matches(caller, &self.groups);
        self.rules.iter().find(allows).map(|rule| rule.line)
    }

    /// Whether any rule may allow it in a repository below `path`: where none does, there is nothing to look for.
    pub(crate) fn reaches_below(&self, caller: &Caller, action: Action, path: &RepositoryName) -> bool {
        let reaches = |rule: &Rule| {
            rule.actions.contains(&action)
                && rule.repositories.iter().any(|glob| glob.reaches_below(path))
                && rule.whom.matches(caller, &self.groups)
        };
        self.rules.iter().any(reaches)
    }

    /// What every rule says to it, in order: for whoever asks why. The first without misses is [`allows`](Self::allows)'.
    pub fn explain(&self, caller: &Caller, action: Action, repository: &RepositoryName) -> Vec<RuleVerdict> {
        let verdict = |rule: &Rule| {
            let mut misses = rule.whom.misses(caller, &self.groups);
            if !rule.actions.contains(&action) {
                let allowed: Vec<&str> = rule.actions.iter().map(|action| action.as_str()).collect();
                misses.push(format!("it allows {}, not {}", allowed.join(" and "), action.as_str()));
            }
            if !rule.repositories.iter().any(|glob| glob.matches(repository)) {
                misses.push(format!("its repositories do not take in {repository}"));
            }
            RuleVerdict { line: rule.line, misses }
        };
        self.rules.iter().map(verdict).collect()
    }

    /// Whether whoever shows no certificate may do anything at all.
    pub(crate) fn knows_anonymous(&self) -> bool {
        self.rules.iter().any(|rule| rule.whom == Whom::Anonymous)
    }

    /// Holds the policy against the trust it shall be in force with.
    ///
    /// # Errors
    /// Rules that would take names from any of several CAs. What is only without effect comes back.
    pub(crate) fn check(&self, path: &Path, trust: &TrustStore) -> Result<Vec<Problem>, Vec<Problem>> {
        let mut against = Against::default();
        let of_rules = self.rules.iter().filter_map(|rule| rule.whom.own());
        for matchers in of_rules.chain(self.groups.values().flatten()) {
            Matchers::check(matchers, trust, &mut against);
        }
        let problems = |found: Vec<(usize, String)>| {
            let problem = |(line, message)| Problem { path: path.to_owned(), line: Some(line), message };
            let mut problems: Vec<Problem> = found.into_iter().map(problem).collect();
            problems.sort_by_key(|problem| problem.line);
            problems
        };
        if against.errors.is_empty() { Ok(problems(against.warnings)) } else { Err(problems(against.errors)) }
    }
}

impl Rule {
    fn read(mut table: Table<'_>, groups: &Groups, problems: &mut Problems<'_>) -> Option<Self> {
        let line = table.line();
        let whom = Whom::read(&mut table, groups, problems);
        let repositories = match table.strings(problems, "repositories") {
            Some(globs) => globs_of(&globs, problems),
            None => {
                problems.at(line, "a rule says where it holds: `repositories = [\"**\"]` is everywhere");
                Vec::new()
            }
        };
        let actions = match table.strings(problems, "allow") {
            Some(words) => actions_of(&words, problems),
            None => {
                problems.at(line, "a rule says what it allows: `allow = [\"pull\", \"push\", \"delete\"]`");
                Vec::new()
            }
        };
        table.finish(problems, &Whom::keys().chain(["repositories", "allow"]).collect::<Vec<_>>());
        let whom = whom?;
        (!repositories.is_empty() && !actions.is_empty()).then_some(Self { line, whom, repositories, actions })
    }

    fn covers(&self, action: Action, repository: &RepositoryName) -> bool {
        self.actions.contains(&action) && self.repositories.iter().any(|glob| glob.matches(repository))
    }
}

impl RepositoryGlob {
    /// `None`: no repository's name could look like this.
    pub fn parse(text: &str) -> Option<Self> {
        let pattern = Pattern::new(text, '/')?;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-*".contains(c);
        let fits = |component: &str| !component.is_empty() && component.chars().all(allowed);
        let all_fit = pattern.components().all(fits);
        all_fit.then_some(Self(pattern))
    }

    /// Whether it takes this repository in.
    pub fn matches(&self, repository: &RepositoryName) -> bool {
        self.0.matches(repository.as_str())
    }

    fn reaches_below(&self, path: &RepositoryName) -> bool {
        self.0.reaches_below(path.as_str())
    }
}

fn globs_of(texts: &Located<Vec<String>>, problems: &mut Problems<'_>) -> Vec<RepositoryGlob> {
    let mut globs = Vec::new();
    for text in &texts.value {
        match RepositoryGlob::parse(text) {
            Some(glob) => globs.push(glob),
            None => problems.at(
                texts.line,
                format!("{text:?} is no repository pattern: lower-case names with `*` within a component and `**` for any number of components"),
            ),
        }
    }
    if texts.value.is_empty() {
        problems.at(texts.line, "`repositories` is empty: the rule could never hold");
    }
    globs
}

fn actions_of(words: &Located<Vec<String>>, problems: &mut Problems<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    for word in &words.value {
        match Action::ALL.into_iter().find(|action| action.as_str() == word) {
            Some(action) => actions.push(action),
            None => problems.at(words.line, format!("{word:?} is no action: pull, push and delete are")),
        }
    }
    if words.value.is_empty() {
        problems.at(words.line, "`allow` is empty: the rule could never hold");
    }
    actions
}

#[cfg(test)]
mod tests;
