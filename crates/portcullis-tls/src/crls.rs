//! Revocation lists, each bound to the CA whose key signed it, and what is asked of each CA's list.
//!
//! A CA without a list does not lock its clients out unless its rule says so (webpki's default would: every certificate
//! of a chain needs a list, and a second CA without one shuts its clients out). What a list is, is
//! `portcullis-certs`' matter.

mod unbound;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use portcullis_certs::trust_dir::CrlFile;
use portcullis_certs::{Certificate, Fingerprint, RevocationList, SignatureKind};
use time::OffsetDateTime;

use crate::Refusal;
use unbound::Unbound;

/// Lists of one CA whose numbers and dates disagree about which is the newer one: past this many the one that was made
/// first goes.
const MAX_DISAGREEING: usize = 8;

/// What is asked of the revocation list of one CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CrlRule {
    /// Whether there must be one.
    pub presence: CrlPresence,
    /// What happens past its nextUpdate.
    pub stale: StaleCrl,
}

/// Whether a CA must have a revocation list. Ordered: the later one is stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum CrlPresence {
    /// Its list is not looked at.
    Off,
    /// Its list counts if there is one.
    #[default]
    IfPresent,
    /// Without a list nothing it issued is accepted.
    Required,
}

/// What a list is worth past its nextUpdate. Ordered: the later one is stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum StaleCrl {
    /// It still counts; that it is out of date is told loudly.
    #[default]
    Warn,
    /// Nothing its CA issued is accepted until there is a newer one.
    Reject,
}

/// The rules by the CA's name (the file's stem in `trust/cas`); a CA that is not named has the default rule.
pub type CrlRules = BTreeMap<String, CrlRule>;

/// Why a revocation list does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlFault {
    /// No CA of that name is loaded: it counts only for an issuer of that name whose certificate a client sends.
    #[error(
        "it was issued by {issuer}, and no CA of that name is in trust/cas: it counts only for an intermediate CA of that name whose certificate a client sends, and is not remembered"
    )]
    NoCa {
        /// The list's issuer.
        issuer: String,
    },
    /// A CA of that name is loaded, and its key did not make the signature.
    #[error("it was not signed by the key of the CA {ca}, whose name it bears: it was changed, or is another CA's")]
    OtherKey {
        /// The CA's name in `trust/cas`.
        ca: String,
    },
    /// The CA's keyUsage does not allow it to sign lists.
    #[error("the CA {ca} may not sign revocation lists: its keyUsage lacks cRLSign")]
    MayNotSign {
        /// The CA's name in `trust/cas`.
        ca: String,
    },
    /// Another list of the same CA lies there, and they speak of different certificates: the newest of them is not the
    /// whole.
    #[error(
        "it is one of several lists over which the CA {ca} divides what it revoked (their issuingDistributionPoint differs): one that has all is needed"
    )]
    Divided {
        /// The CA's name in `trust/cas`.
        ca: String,
    },
    /// Signed with SHA-1 or older.
    #[error("it is signed with {algorithm}, which is broken: issue it again with SHA-256")]
    Signature {
        /// The signature algorithm.
        algorithm: String,
    },
}

/// A list in `trust/crls` that does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlRejected {
    /// The file.
    pub path: PathBuf,
    /// The line of its PEM block.
    pub line: Option<u32>,
    /// What is wrong.
    pub fault: CrlFault,
}

/// The list that is in force for one CA.
#[derive(Debug, Clone)]
pub struct CaCrl {
    /// The CA's name (the file's stem in `trust/cas`).
    pub ca: String,
    /// The SHA-256 of the CA's key.
    pub ca_key: Fingerprint,
    /// The list.
    pub list: RevocationList,
}

/// A CA as lists are bound to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NamedCa<'a> {
    pub(crate) name: &'a str,
    pub(crate) certificate: &'a Certificate,
}

/// The lists in force, and the rules, by the CA's key: a CA that was renewed with its key is one CA.
#[derive(Debug, Clone, Default)]
pub(crate) struct Crls {
    /// The newest of each CA; several where they disagree, by number and date, about which that is.
    lists: HashMap<Fingerprint, Vec<CaCrl>>,
    unbound: Vec<Unbound>,
    rules: HashMap<Fingerprint, CrlRule>,
    by_name: CrlRules,
}

impl Crls {
    pub(crate) fn set_rules<'a>(&mut self, cas: impl Iterator<Item = NamedCa<'a>>, rules: &CrlRules) {
        self.by_name.clone_from(rules);
        for ca in cas {
            let named = rules.get(ca.name).copied().unwrap_or_default();
            // One key under two names: the stricter rule is the safe reading.
            let rule = self.rules.entry(ca.certificate.facts().key_hash).or_insert(named);
            rule.presence = rule.presence.max(named.presence);
            rule.stale = rule.stale.max(named.stale);
        }
    }

    /// Takes each list that its CA signed, where none of those that are there is newer. One whose issuer is not here is
    /// kept for those whose path leads through it, and reported.
    pub(crate) fn add<'a>(
        &mut self,
        cas: &(impl Iterator<Item = NamedCa<'a>> + Clone),
        files: &[CrlFile],
    ) -> Vec<CrlRejected> {
        let mut rejected = Vec::new();
        for file in files {
            let offered = issuer(cas.clone(), &file.list).and_then(|ca| {
                let (ca, ca_key) = (ca.name.to_owned(), ca.certificate.facts().key_hash);
                self.offer(CaCrl { ca, ca_key, list: file.list.clone() })
            });
            if let Err(fault) = offered {
                if matches!(fault, CrlFault::NoCa { .. }) {
                    self.offer_unbound(&file.list);
                }
                rejected.push(CrlRejected { path: file.path.clone(), line: file.line, fault });
            }
        }
        rejected
    }

    /// Takes the lists of an earlier set that none of ours supersedes, for the CAs whose key `is_kept`; returns them. Whether
    /// the CA is loaded does not matter: without it a list has no effect, and when it comes back beside an older list,
    /// the newer one is still known.
    pub(crate) fn keep_newer(&mut self, earlier: &Self, is_kept: impl Fn(Fingerprint) -> bool) -> Vec<CaCrl> {
        let kept = earlier.iter().filter(|old| is_kept(old.ca_key));
        kept.filter(|old| self.take((*old).clone())).cloned().collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &CaCrl> {
        self.lists.values().flatten()
    }

    /// Every list, also those whose issuer is not here.
    pub(crate) fn all(&self) -> impl Iterator<Item = &RevocationList> {
        self.iter().map(|crl| &crl.list).chain(self.unbound.iter().map(Unbound::list))
    }

    /// Before the path is known: whether the list of any of these CAs, which bear the issuer's name, names it. The
    /// signature is looked at only where the number is on the list, so that a stranger's certificates cost a look-up.
    pub(crate) fn check_claimed<'a>(
        &self,
        certificate: &Certificate,
        cas: impl Iterator<Item = &'a Certificate>,
    ) -> Result<(), Refusal> {
        for ca in cas {
            if let Some(crl) = self.revoking(certificate, ca)
                && certificate.is_signed_by(ca)
            {
                return Err(Refusal::Revoked { ca: crl.ca.clone() });
            }
        }
        Ok(())
    }

    /// One certificate of a path and its issuer: refused when the list names it, or when the rule wants a list that is
    /// not there, does not speak of such a certificate, or is out of date. Otherwise until when that holds, if it ends by itself. An issuer that is not loaded has
    /// the rule of the CA that the path ends at, `root`.
    pub(crate) fn check_issued(
        &self,
        certificate: &Certificate,
        issuer: &Certificate,
        root: &str,
        now: OffsetDateTime,
    ) -> Result<Option<OffsetDateTime>, Refusal> {
        let rule = self.rule(issuer, root);
        if rule.presence == CrlPresence::Off {
            return Ok(None);
        }
        if let Some(crl) = self.revoking(certificate, issuer) {
            return Err(Refusal::Revoked { ca: crl.ca.clone() });
        }
        let unbound = self.unbound_of(issuer);
        if let Some(list) = unbound.iter().find(|list| list.lists(&certificate.facts().serial)) {
            return Err(Refusal::Revoked { ca: list.issuer().to_string() });
        }
        let bound = self.lists.get(&issuer.facts().key_hash).into_iter().flatten().map(|crl| &crl.list);
        let covering = bound.chain(unbound).filter(|list| list.covers(certificate));
        match covering.max_by_key(|list| list.next_update()) {
            None if rule.presence == CrlPresence::Required => Err(Refusal::CrlMissing { ca: root.to_owned() }),
            None => Ok(None),
            Some(_) if rule.stale == StaleCrl::Warn => Ok(None),
            Some(list) if now > list.next_update() => {
                let loaded = self.lists.get(&issuer.facts().key_hash).and_then(|lists| lists.first());
                let ca = loaded.map_or_else(|| list.issuer().to_string(), |crl| crl.ca.clone());
                Err(Refusal::CrlStale { ca, next_update: list.next_update() })
            }
            Some(list) => Ok(Some(list.next_update())),
        }
    }

    /// The lists of one CA have one scope: of several that each say a part, the newest would take the place of the others.
    fn offer(&mut self, crl: CaCrl) -> Result<(), CrlFault> {
        let mut own = self.lists.get(&crl.ca_key).into_iter().flatten();
        if own.any(|own| own.list.scope() != crl.list.scope()) {
            return Err(CrlFault::Divided { ca: crl.ca });
        }
        self.take(crl);
        Ok(())
    }

    /// Returns whether it is in force from now on and was not before.
    fn take(&mut self, crl: CaCrl) -> bool {
        let lists = self.lists.entry(crl.ca_key).or_default();
        if lists.iter().any(|own| own.list == crl.list || own.list.supersedes(&crl.list)) {
            return false;
        }
        lists.retain(|own| !crl.list.supersedes(&own.list));
        lists.push(crl);
        if lists.len() > MAX_DISAGREEING {
            lists.sort_by_key(|own| own.list.this_update());
            lists.remove(0);
        }
        true
    }

    /// Who signed it is not known yet: it takes the place of no other.
    fn offer_unbound(&mut self, list: &RevocationList) {
        let is_there = self.unbound.iter().any(|own| own.list() == list);
        if !is_there && !SignatureKind::is_sha1_or_older(list.signature()) {
            self.unbound.push(Unbound::new(list.clone()));
        }
    }

    /// The newest of the lists that this issuer made and that were bound to none: it is met in a path only. Of each scope
    /// there may be one.
    fn unbound_of(&self, issuer: &Certificate) -> Vec<&RevocationList> {
        let all: Vec<&RevocationList> =
            self.unbound.iter().filter(|list| list.is_of(issuer)).map(Unbound::list).collect();
        let is_past =
            |list: &RevocationList| all.iter().any(|other| other.scope() == list.scope() && other.supersedes(list));
        all.iter().filter(|list| !is_past(list)).copied().collect()
    }

    fn revoking(&self, certificate: &Certificate, issuer: &Certificate) -> Option<&CaCrl> {
        let key = &issuer.facts().key_hash;
        let mut lists = self.lists.get(key).into_iter().flatten();
        let crl = lists.find(|crl| crl.list.lists(&certificate.facts().serial))?;
        self.rules.get(key).is_none_or(|rule| rule.presence != CrlPresence::Off).then_some(crl)
    }

    fn rule(&self, issuer: &Certificate, root: &str) -> CrlRule {
        let own = self.rules.get(&issuer.facts().key_hash).copied();
        own.or_else(|| self.by_name.get(root).copied()).unwrap_or_default()
    }
}

/// The CA that made the list, if it may.
fn issuer<'a>(cas: impl Iterator<Item = NamedCa<'a>> + Clone, list: &RevocationList) -> Result<NamedCa<'a>, CrlFault> {
    let mut named = cas.filter(|ca| ca.certificate.facts().subject.der() == list.issuer().der());
    let first = named.clone().next().ok_or_else(|| CrlFault::NoCa { issuer: list.issuer().to_string() })?;
    if SignatureKind::is_sha1_or_older(list.signature()) {
        return Err(CrlFault::Signature { algorithm: list.signature().to_string() });
    }
    let signer = named.find(|ca| list.is_signed_by(ca.certificate));
    let signer = signer.ok_or_else(|| CrlFault::OtherKey { ca: first.name.to_owned() })?;
    if !may_sign_lists(signer.certificate) {
        return Err(CrlFault::MayNotSign { ca: signer.name.to_owned() });
    }
    Ok(signer)
}

/// RFC 5280 §4.2.1.3: where there is a keyUsage, it must have cRLSign.
fn may_sign_lists(ca: &Certificate) -> bool {
    ca.facts().key_usage.is_none_or(|usage| usage.crl_sign)
}
