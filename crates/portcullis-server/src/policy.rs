//! The policy: which identity may do what in which repository. Nothing is allowed that no rule allows.
//!
//! Owns the grammar of `policy.toml` and the answer to "may it". Must not know connections or requests.

use std::path::Path;

use portcullis_certs::{Fingerprint, glob};
use portcullis_oci::RepositoryName;
use portcullis_tls::{Identity, TrustedBy};

use crate::document::{Located, Problem, Problems, Table};

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

/// A policy that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    line: usize,
    who: Who,
    repositories: Vec<RepositoryGlob>,
    actions: Vec<Action>,
}

/// All that are given must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Who {
    ca: Option<String>,
    pin: Option<String>,
    fingerprint: Option<Fingerprint>,
}

/// `*` stands for one path component, or a part of one; `**` for any number of components.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RepositoryGlob(Vec<String>);

impl Action {
    const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

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
    /// [[rule]]
    /// ca = "clients"
    /// repositories = ["team/**"]
    /// allow = ["pull", "push"]
    /// "#;
    /// assert!(Policy::parse(Path::new("policy.toml"), text).is_ok());
    /// ```
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let (mut root, mut problems) = Problems::read(path, text);
        let tables = root.tables(&mut problems, "rule");
        let rules: Vec<Rule> = tables.into_iter().filter_map(|table| Rule::read(table, &mut problems)).collect();
        root.finish(&mut problems, &["rule"]);
        let mut found = problems.into_found();
        if rules.is_empty() && found.is_empty() {
            found.push(Problem::new(path, "there is no [[rule]]: nobody could do anything"));
        }
        if found.is_empty() { Ok(Self { rules }) } else { Err(found) }
    }

    /// The line of the first rule that allows it; `None`: refused.
    pub fn allows(&self, identity: &Identity, action: Action, repository: &RepositoryName) -> Option<usize> {
        self.rules.iter().find(|rule| rule.allows(identity, action, repository)).map(|rule| rule.line)
    }
}

impl Rule {
    fn read(mut table: Table<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let line = table.line();
        let found = problems.count();
        let who = Who::read(&mut table, problems);
        // Where it says so wrongly, that has been reported.
        if who == Who::default() && problems.count() == found {
            problems.at(line, "a rule says whom it is for: `ca`, `pin` or `fingerprint` (`ca = \"*\"` is every CA)");
        }
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
        table.finish(problems, &["ca", "pin", "fingerprint", "repositories", "allow"]);
        (!repositories.is_empty() && !actions.is_empty()).then_some(Self { line, who, repositories, actions })
    }

    fn allows(&self, identity: &Identity, action: Action, repository: &RepositoryName) -> bool {
        self.actions.contains(&action)
            && self.who.matches(identity)
            && self.repositories.iter().any(|glob| glob.matches(repository))
    }
}

impl Who {
    fn read(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Self {
        let mut word = |key: &str| {
            let text = table.string(problems, key)?;
            if text.value.is_empty() {
                problems.at(text.line, format!("`{key}` is empty"));
            }
            Some(text.value)
        };
        let (ca, pin) = (word("ca"), word("pin"));
        let wanted = "a certificate's SHA-256, such as \"sha256:4f9c…\" (`portcullis cert show` prints it)";
        let fingerprint = table.parsed(problems, "fingerprint", wanted, |text| text.parse().ok());
        if let (Some(_), Some(_)) = (&ca, &pin) {
            problems
                .at(table.line(), "a certificate is trusted by a `ca` or as a `pin`, never by both: write two rules");
        }
        Self { ca, pin, fingerprint }
    }

    fn matches(&self, identity: &Identity) -> bool {
        let (ca, pin) = match identity.trusted_by() {
            TrustedBy::Ca(name) => (Some(name), None),
            TrustedBy::Pin(name) => (None, Some(name)),
        };
        let matches = |wanted: &Option<String>, name: Option<&String>| match (wanted, name) {
            (None, _) => true,
            (Some(pattern), Some(name)) => glob(pattern, name),
            (Some(_), None) => false,
        };
        matches(&self.ca, ca)
            && matches(&self.pin, pin)
            && self.fingerprint.is_none_or(|fingerprint| fingerprint == identity.fingerprint())
    }
}

impl RepositoryGlob {
    fn parse(text: &str) -> Option<Self> {
        let components: Vec<String> = text.split('/').map(str::to_owned).collect();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-*".contains(c);
        let fits = |component: &String| {
            !component.is_empty()
                && component.chars().all(allowed)
                // `a**` reads like "everything below a" and would mean something else.
                && (component == "**" || !component.contains("**"))
        };
        components.iter().all(fits).then_some(Self(components))
    }

    fn matches(&self, repository: &RepositoryName) -> bool {
        let components: Vec<&str> = repository.components().collect();
        components_match(&self.0, &components)
    }
}

/// Never more than the product of both lengths: names come from peers. Only the latest `**` has to take more, since
/// whatever an earlier one could take, it can too.
fn components_match(globs: &[String], components: &[&str]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut latest = None;
    loop {
        match globs.get(at) {
            None if from == components.len() => return true,
            Some(pattern) if pattern == "**" => {
                at += 1;
                latest = Some((at, from));
            }
            Some(pattern) if components.get(from).is_some_and(|component| glob(pattern, component)) => {
                (at, from) = (at + 1, from + 1);
            }
            _ => match latest {
                Some((after, taken)) if taken < components.len() => {
                    (at, from) = (after, taken + 1);
                    latest = Some((after, taken + 1));
                }
                _ => return false,
            },
        }
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
mod tests {
    use super::*;

    fn matches(glob: &str, name: &str) -> bool {
        RepositoryGlob::parse(glob).expect(glob).matches(&name.parse().expect(name))
    }

    #[test]
    fn repository_globs() {
        for (glob, name, expected) in [
            ("**", "a", true),
            ("**", "a/b/c", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("team/**", "team/app", true),
            ("team/**", "team/a/b", true),
            ("team/**", "team", true),
            ("team/**", "teams/app", false),
            ("team/*", "team/app", true),
            ("team/*", "team/a/b", false),
            ("**/app", "app", true),
            ("**/app", "a/b/app", true),
            ("**/app", "a/apps", false),
            ("team-*/app", "team-7/app", true),
            ("a*b*c", "axxbyyc", true),
            ("**/a/**/b", "a/x/a/b/y/b", true),
            ("**/a/**/b", "a/x/b/y", false),
            ("**/**", "a", true),
        ] {
            assert_eq!(matches(glob, name), expected, "{glob} {name}");
        }
    }

    /// A pattern that tries every division of the name would not end within a lifetime.
    #[test]
    fn a_name_chosen_to_be_slow() {
        let glob = format!("{}b-*-*-*-*-*-*-*-x", "**/a/".repeat(30));
        assert!(!matches(&glob, &["a"; 120].join("/")));
        assert!(!matches("*-*-*-*-*-*-*-*-*-x", &format!("a{}b", "-".repeat(250))));
    }

    #[test]
    fn what_is_no_glob() {
        for glob in ["", "/", "a/", "A", "a**", "a b", "../x", "a//b", "?"] {
            assert!(RepositoryGlob::parse(glob).is_none() || glob == "../x", "{glob}");
        }
    }

    #[test]
    fn every_problem_with_its_line() {
        let text = "[[rule]]\nca = \"x\"\npin = \"y\"\nrepositories = [\"A\"]\nallow = [\"pul\"]\n\n[[rule]]\nrepositories = [\"**\"]\nallow = [\"pull\"]\nx = 1\n";
        let found = Policy::parse(Path::new("p"), text).expect_err("wrong");
        let lines: Vec<_> = found.iter().filter_map(|problem| problem.line).collect();
        assert_eq!(lines, [1, 4, 5, 7, 10], "{found:#?}");
    }

    #[test]
    fn an_empty_policy_is_a_problem() {
        assert!(Policy::parse(Path::new("p"), "").is_err());
        assert!(Policy::parse(Path::new("p"), "rule = 5").is_err());
        assert!(
            Policy::parse(Path::new("p"), "[[rule]]\nca = \"\"\nrepositories = [\"**\"]\nallow = [\"pull\"]").is_err()
        );
    }
}
