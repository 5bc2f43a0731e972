//! Whom a rule is for: matchers on what made a certificate trusted and on the names it states, alone or in groups.

use std::collections::BTreeMap;

use portcullis_certs::{Fingerprint, glob, trust_dir};
use portcullis_tls::{Identity, TrustStore, TrustedBy};

use super::Caller;
use super::names::{NameKind, NameMatcher};
use crate::document::{Problems, Table};

/// The keys that say whom a rule is for, beside `group` and `anonymous`.
const KEYS: [&str; 10] = ["ca", "pin", "fingerprint", "spiffe", "uri", "dns", "email", "cn", "o", "ou"];

/// Whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whom {
    /// Whoever shows no certificate.
    Anonymous,
    /// Whoever matches all, and one of the group.
    Certificate { own: Matchers, group: Option<String> },
}

/// All of them must match; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Matchers {
    pub(super) line: usize,
    all: Vec<Matcher>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Matcher {
    Ca(String),
    Pin(String),
    Fingerprint(Fingerprint),
    Name(NameMatcher),
}

/// The groups of a policy: who is in them matches one of the sets. A group names no groups, so that there are no cycles.
pub(super) type Groups = BTreeMap<String, Vec<Matchers>>;

/// What a set of matchers and the trust at hand say to each other.
#[derive(Debug, Default)]
pub(super) struct Against {
    /// The policy must not be in force.
    pub(super) errors: Vec<(usize, String)>,
    /// It does less than it reads.
    pub(super) warnings: Vec<(usize, String)>,
}

/// `[groups]`
pub(super) fn read_groups(mut table: Table<'_>, problems: &mut Problems<'_>) -> Groups {
    let mut groups = Groups::new();
    for (name, line) in table.keys(problems) {
        if !trust_dir::is_name(&name) {
            problems.at(line, format!("{name:?} is no name for a group: 1 to 64 of A-Z a-z 0-9 . _ -"));
        }
        let found = problems.count();
        let members = table.tables(problems, &name);
        if members.is_empty() && problems.count() == found {
            problems.at(line, format!("the group {name:?} is empty: nobody could be in it"));
        }
        let members = members.into_iter().filter_map(|member| read_member(member, problems)).collect();
        groups.insert(name, members);
    }
    groups
}

fn read_member(mut table: Table<'_>, problems: &mut Problems<'_>) -> Option<Matchers> {
    let found = problems.count();
    let matchers = Matchers::read(&mut table, problems);
    if matchers.is_none() && problems.count() == found {
        problems.at(table.line(), format!("a member of a group says who it is: {}", KEYS.join(", ")));
    }
    table.finish(problems, &KEYS);
    matchers
}

impl Whom {
    /// The keys of a rule that are read here.
    pub(super) fn keys() -> impl Iterator<Item = &'static str> {
        KEYS.into_iter().chain(["group", "anonymous"])
    }

    /// `None`: it has been reported.
    pub(super) fn read(table: &mut Table<'_>, groups: &Groups, problems: &mut Problems<'_>) -> Option<Self> {
        let (line, found) = (table.line(), problems.count());
        let own = Matchers::read(table, problems);
        let group = table.string(problems, "group");
        if let Some(group) = &group
            && !groups.contains_key(&group.value)
        {
            let known: Vec<&str> = groups.keys().map(String::as_str).collect();
            let known =
                if known.is_empty() { "there are none".to_owned() } else { format!("known: {}", known.join(", ")) };
            problems.at(group.line, format!("there is no group {:?}; {known}", group.value));
        }
        match table.boolean(problems, "anonymous") {
            Some(anonymous) if !anonymous.value => {
                problems.at(anonymous.line, "`anonymous = false` says nothing: leave it out");
                return None;
            }
            Some(anonymous) if own.is_some() || group.is_some() => {
                problems.at(
                    anonymous.line,
                    "`anonymous` is for whoever shows no certificate, and stands alone in its rule",
                );
                return None;
            }
            Some(_) => return Some(Self::Anonymous),
            None => {}
        }
        // Where it says so wrongly, that has been reported.
        if own.is_none() && group.is_none() && problems.count() == found {
            problems.at(
                line,
                format!(
                    "a rule says whom it is for: {}, group or anonymous (`ca = \"*\"` is every CA)",
                    KEYS.join(", ")
                ),
            );
        }
        let own = own.unwrap_or(Matchers { line, all: Vec::new() });
        (problems.count() == found).then(|| Self::Certificate { own, group: group.map(|group| group.value) })
    }

    pub(super) fn matches(&self, caller: &Caller, groups: &Groups) -> bool {
        match (self, caller) {
            (Self::Anonymous, Caller::Anonymous) => true,
            (Self::Certificate { own, group }, Caller::Trusted(identity)) => {
                let in_group = |name: &String| {
                    groups.get(name).is_some_and(|members| members.iter().any(|member| member.match_all(identity)))
                };
                own.all.iter().all(|matcher| matcher.matches(identity)) && group.as_ref().is_none_or(in_group)
            }
            (Self::Anonymous, Caller::Trusted(_)) | (Self::Certificate { .. }, Caller::Anonymous) => false,
        }
    }

    /// Why it does not match; empty where it does.
    pub(super) fn misses(&self, caller: &Caller, groups: &Groups) -> Vec<String> {
        if self.matches(caller, groups) {
            return Vec::new();
        }
        match (self, caller) {
            (Self::Certificate { own, group }, Caller::Trusted(identity)) => {
                let wrong = own.all.iter().filter(|matcher| !matcher.matches(identity));
                let mut misses: Vec<String> = wrong.map(|matcher| matcher.miss(identity)).collect();
                if let Some(group) = group
                    && !groups.get(group).is_some_and(|members| members.iter().any(|member| member.match_all(identity)))
                {
                    misses.push(format!("it is for the group {group:?}, of which no member matches"));
                }
                misses
            }
            (Self::Anonymous, _) => vec!["it is for whoever shows no certificate".to_owned()],
            (Self::Certificate { .. }, Caller::Anonymous) => vec!["it is for those with a certificate".to_owned()],
        }
    }

    pub(super) fn own(&self) -> Option<&Matchers> {
        match self {
            Self::Anonymous => None,
            Self::Certificate { own, .. } => Some(own),
        }
    }
}

impl Matchers {
    /// `None`: there are none, or they are wrong and have been reported.
    fn read(table: &mut Table<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let line = table.line();
        let mut all = Vec::new();
        for (key, matcher) in [("ca", Matcher::Ca as fn(String) -> Matcher), ("pin", Matcher::Pin)] {
            let wanted = "the name of a file, such as \"clients\", or a pattern of such names (`*` for any part)";
            let is_pattern = |text: &str| trust_dir::is_name(&text.replace('*', "x")).then(|| text.to_owned());
            all.extend(table.parsed(problems, key, wanted, is_pattern).map(matcher));
        }
        let wanted = "a certificate's SHA-256, such as \"sha256:4f9c…\" (`portcullis cert show` prints it)";
        let fingerprint = table.parsed(problems, "fingerprint", wanted, |text| text.parse().ok());
        all.extend(fingerprint.map(Matcher::Fingerprint));
        for kind in NameKind::ALL {
            let name = table.parsed(problems, kind.as_str(), kind.wanted(), |text| NameMatcher::new(kind, text));
            all.extend(name.map(Matcher::Name));
        }
        let matchers = Self { line, all };
        let has = |wanted: fn(&Matcher) -> bool| matchers.all.iter().any(wanted);
        if has(|matcher| matches!(matcher, Matcher::Pin(_))) {
            if has(|matcher| matches!(matcher, Matcher::Ca(_))) {
                problems.at(line, "a certificate is trusted by a `ca` or as a `pin`, never by both: write two rules");
            }
            if has(|matcher| matches!(matcher, Matcher::Name(_))) {
                problems.at(line, "a pin has one name, its file's: what it says of itself gives no rights");
            }
        }
        (!matchers.all.is_empty()).then_some(matchers)
    }

    fn match_all(&self, identity: &Identity) -> bool {
        self.all.iter().all(|matcher| matcher.matches(identity))
    }

    /// Names are the word of whoever issued the certificate: with several CAs a rule says whose word it takes.
    pub(super) fn check(&self, trust: &TrustStore, against: &mut Against) {
        let mut cas: Vec<&str> = trust.ca_names().collect();
        cas.sort_unstable();
        cas.dedup();
        let mut named = None;
        for matcher in &self.all {
            let (what, pattern, found) = match matcher {
                Matcher::Ca(pattern) => {
                    named = Some(pattern);
                    ("CA", pattern, cas.iter().any(|name| glob(pattern, name)))
                }
                Matcher::Pin(pattern) => ("pin", pattern, trust.pin_names().any(|name| glob(pattern, name))),
                Matcher::Fingerprint(_) | Matcher::Name(_) => continue,
            };
            // What was removed from trust must not keep the removal from being in force: no error. A bare pattern is for
            // those that will come.
            if !found && !pattern.contains('*') {
                against.warnings.push((self.line, format!("there is no {what} {pattern:?} in trust: nobody matches")));
            }
        }
        let several = cas.len() > 1 || trust.distinct_cas() > 1;
        let is_one = named.is_some_and(|pattern| !pattern.contains('*'));
        let key = self.all.iter().find_map(|matcher| match matcher {
            Matcher::Name(name) => Some(name.key()),
            _ => None,
        });
        if let Some(key) = key
            && several
            && !is_one
        {
            let message = format!(
                "`{key}` is what a certificate says of itself, and {} CAs are trusted: say whose word counts, `ca = \"…\"` without `*` ({})",
                cas.len().max(trust.distinct_cas()),
                cas.join(", ")
            );
            against.errors.push((self.line, message));
        }
    }
}

impl Matcher {
    fn matches(&self, identity: &Identity) -> bool {
        match (self, identity.trusted_by()) {
            (Self::Ca(pattern), TrustedBy::Ca(name)) | (Self::Pin(pattern), TrustedBy::Pin(name)) => {
                glob(pattern, name)
            }
            (Self::Fingerprint(fingerprint), _) => *fingerprint == identity.fingerprint(),
            // A pin vouches for one certificate and not for what that says of itself: everybody can write "admin".
            (Self::Name(name), TrustedBy::Ca(_)) => name.matches(identity.certificate().facts()),
            (Self::Ca(_) | Self::Name(_), TrustedBy::Pin(_)) | (Self::Pin(_), TrustedBy::Ca(_)) => false,
        }
    }

    fn miss(&self, identity: &Identity) -> String {
        let trusted_by = match identity.trusted_by() {
            TrustedBy::Ca(name) => format!("the CA {name:?}"),
            TrustedBy::Pin(name) => format!("the pin {name:?}"),
        };
        match (self, identity.trusted_by()) {
            (Self::Ca(pattern), _) => format!("ca = {pattern:?}, the certificate is trusted by {trusted_by}"),
            (Self::Pin(pattern), _) => format!("pin = {pattern:?}, the certificate is trusted by {trusted_by}"),
            (Self::Fingerprint(fingerprint), _) => format!("fingerprint = \"{fingerprint}\" is another certificate's"),
            (Self::Name(name), TrustedBy::Pin(_)) => {
                format!("{} = {:?}, and the names in a pinned certificate give no rights", name.key(), name.text())
            }
            (Self::Name(name), TrustedBy::Ca(_)) => {
                let found = name.found(identity.certificate().facts());
                format!("{} = {:?}, {found}", name.key(), name.text())
            }
        }
    }
}
