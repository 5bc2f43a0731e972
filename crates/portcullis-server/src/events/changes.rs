//! What one trust generation has that another has not, in words.

use std::collections::BTreeSet;

use crate::events::audit::{Text, listed};
use crate::generation::Generation;
use crate::status::rfc3339;

/// Both lists are bounded as an audit line's are.
pub(super) struct Changes {
    pub(super) added: Vec<Text>,
    pub(super) removed: Vec<Text>,
}

/// Everything that `after` has is added where nothing was before.
pub(super) fn between(before: Option<&Generation>, after: &Generation) -> Changes {
    let (old, new) = (before.map(certificates).unwrap_or_default(), certificates(after));
    let (old_deny, new_deny) = (before.map(deny).unwrap_or_default(), deny(after));
    let mut added: Vec<String> = new.difference(&old).cloned().collect();
    let mut removed: Vec<String> = old.difference(&new).cloned().collect();
    if before.is_none_or(|before| before.policy != after.policy) {
        added.push("policy".to_owned());
    }
    if before.is_none_or(|before| before.mode != after.mode) {
        added.push(format!("mode {}", after.mode.as_str()));
    }
    added.extend(new_deny.difference(&old_deny).map(|rule| format!("deny {rule}")));
    removed.extend(old_deny.difference(&new_deny).map(|rule| format!("deny {rule}")));
    let texts = |words: Vec<String>| listed(words.iter().map(Text::of));
    Changes { added: texts(added), removed: texts(removed) }
}

fn certificates(generation: &Generation) -> BTreeSet<String> {
    let trusted = generation.tls.trust().certificates();
    let trusted = trusted.map(|(by, certificate)| format!("{by} {}", certificate.fingerprint()));
    let own = generation.tls.chain().first().map(|leaf| format!("server certificate {}", leaf.fingerprint()));
    let crls = generation.tls.trust().crls().map(|crl| {
        let number = crl.list.number().map_or_else(|| "without a number".to_owned(), ToString::to_string);
        format!("crl:{} {number} until {}", crl.ca, rfc3339(crl.list.next_update()))
    });
    trusted.chain(own).chain(crls).collect()
}

fn deny(generation: &Generation) -> BTreeSet<String> {
    generation.deny.iter().map(|entry| entry.rule.to_string()).collect()
}
