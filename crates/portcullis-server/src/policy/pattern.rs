//! Patterns for what is made of components: repositories, URIs, DNS names, e-mail addresses. `*` stands for one
//! component or a part of one and never crosses a separator; `**` stands for any number of components.
//!
//! A right that is given by a pattern must not reach further than it reads: `*.example.test` is not for
//! `a.b.example.test`. (The deny list's patterns cross separators: there more is safer.)

use portcullis_certs::glob;

/// A pattern, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    separator: char,
    components: Vec<String>,
}

impl Pattern {
    /// `None`: `**` is there and is not a whole component. `a**` reads like "everything that begins with a" and would
    /// mean something else.
    pub(super) fn new(text: &str, separator: char) -> Option<Self> {
        let components: Vec<String> = text.split(separator).map(str::to_owned).collect();
        let fits = |component: &String| component == "**" || !component.contains("**");
        components.iter().all(fits).then_some(Self { separator, components })
    }

    pub(super) fn components(&self) -> impl Iterator<Item = &str> {
        self.components.iter().map(String::as_str)
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let components: Vec<&str> = text.split(self.separator).collect();
        components_match(&self.components, &components)
    }
}

impl Pattern {
    /// Whether a text that goes on after `text` and a separator can match.
    pub(super) fn reaches_below(&self, text: &str) -> bool {
        let globs = &self.components;
        // The components that may come next; `**` may also be over.
        let follow = |mut next: Vec<bool>| {
            for at in 0..globs.len() {
                next[at + 1] |= next[at] && globs[at] == "**";
            }
            next
        };
        let mut open = vec![false; globs.len() + 1];
        open[0] = true;
        open = follow(open);
        for component in text.split(self.separator) {
            let mut next = vec![false; globs.len() + 1];
            for (at, pattern) in globs.iter().enumerate().filter(|(at, _)| open[*at]) {
                match pattern.as_str() {
                    "**" => next[at] = true,
                    pattern => next[at + 1] |= glob(pattern, component),
                }
            }
            open = follow(next);
        }
        open[..globs.len()].contains(&true)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, separator: char, text: &str) -> bool {
        Pattern::new(pattern, separator).expect(pattern).matches(text)
    }

    #[test]
    fn what_may_lie_below() {
        for (pattern, text, expected) in [
            ("**", "a", true),
            ("**", "a/b", true),
            ("*", "a", false),
            ("team/**", "team", true),
            ("team/**", "team/a/b", true),
            ("team/**", "other", false),
            ("team/*", "team", true),
            ("team/*", "team/a", false),
            ("team/*/x", "team/a", true),
            ("**/app", "a/b/c", true),
            ("a/**/b/c", "a/x/b", true),
            ("a/**/b/c", "b", false),
            ("te*/x", "team", true),
        ] {
            let pattern = Pattern::new(pattern, '/').expect(pattern);
            assert_eq!(pattern.reaches_below(text), expected, "{pattern:?} {text}");
        }
    }

    #[test]
    fn components() {
        for (pattern, text, expected) in [
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
            assert_eq!(matches(pattern, '/', text), expected, "{pattern} {text}");
        }
        assert!(matches("*.example.test", '.', "a.example.test"));
        assert!(!matches("*.example.test", '.', "a.b.example.test"));
        assert!(matches("**.example.test", '.', "a.b.example.test"));
    }

    /// A pattern that tries every division of the name would not end within a lifetime.
    #[test]
    fn a_name_chosen_to_be_slow() {
        let pattern = format!("{}b-*-*-*-*-*-*-*-x", "**/a/".repeat(30));
        assert!(!matches(&pattern, '/', &["a"; 120].join("/")));
        assert!(!matches("*-*-*-*-*-*-*-*-*-x", '/', &format!("a{}b", "-".repeat(250))));
    }

    #[test]
    fn two_stars_are_a_whole_component() {
        for text in ["a**", "**a", "a/***/b"] {
            assert_eq!(Pattern::new(text, '/'), None, "{text}");
        }
    }
}
