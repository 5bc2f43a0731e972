//! The grammar of `storage.immutable`: which tags never change once they are set. Must not know who asks.

use portcullis_certs::glob;
use portcullis_oci::{RepositoryName, Tag};
use portcullis_store::ImmutableTags;

use crate::policy::RepositoryGlob;

/// `release/**:v*`: a repository pattern as in the policy, a colon, and a pattern of tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRule {
    text: String,
    repositories: RepositoryGlob,
    tags: String,
}

impl TagRule {
    /// `None` for what is no such pattern.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (repositories, tags) = text.rsplit_once(':')?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-*".contains(c);
        if tags.is_empty() || tags.len() > Tag::MAX_BYTES || !tags.chars().all(allowed) {
            return None;
        }
        let repositories = RepositoryGlob::parse(repositories)?;
        Some(Self { text: text.to_owned(), repositories, tags: tags.to_owned() })
    }

    fn holds_for(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        self.repositories.matches(repository) && glob(&self.tags, tag.as_str())
    }
}

/// For the store, which keeps them.
pub(crate) fn immutable(rules: &[TagRule]) -> ImmutableTags {
    let rules = rules.to_vec();
    ImmutableTags::new(move |repository, tag| {
        rules.iter().find(|rule| rule.holds_for(repository, tag)).map(|rule| rule.text.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_match_repository_and_tag() {
        for (rule, repository, tag, expected) in [
            ("release/**:v*", "release/app", "v1.0", true),
            ("release/**:v*", "release/a/b", "v", true),
            ("release/**:v*", "release/app", "latest", false),
            ("release/**:v*", "team/app", "v1.0", false),
            ("**:*", "a/b", "latest", true),
            ("app:1.0", "app", "1.0", true),
            ("app:1.0", "app", "1x0", false),
        ] {
            let holds = TagRule::parse(rule).expect(rule);
            let holds = holds.holds_for(&repository.parse().expect("a name"), &tag.parse().expect("a tag"));
            assert_eq!(holds, expected, "{rule} {repository}:{tag}");
        }
    }

    #[test]
    fn what_is_no_rule() {
        let long = format!("a:{}", "v".repeat(129));
        for rule in ["", ":", "app", "app:", ":v*", "App:v1", "app:v 1", "app:a/b", "a**:v", "app:v?", &long] {
            assert_eq!(TagRule::parse(rule), None, "{rule}");
        }
        assert!(TagRule::parse(&format!("a:{}", "v".repeat(128))).is_some());
    }
}
