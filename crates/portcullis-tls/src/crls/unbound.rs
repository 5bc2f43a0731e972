//! Lists whose issuer is not in `trust/cas`: an intermediate CA that is known from the chains that clients send. Whether its
//! key signed a list can be told only when it is met.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_certs::{Certificate, Fingerprint, RevocationList};

use super::may_sign_lists;

/// Keys of one name that a list was held against. A CA has few; what is forgotten is checked again.
const MAX_JUDGED: usize = 16;

/// One such list.
#[derive(Debug, Clone)]
pub(super) struct Unbound {
    list: RevocationList,
    /// Which keys made its signature, and which did not: the whole list is hashed for each answer, and clients connect
    /// often.
    judged: Arc<Mutex<HashMap<Fingerprint, bool>>>,
}

impl Unbound {
    pub(super) fn new(list: RevocationList) -> Self {
        Self { list, judged: Arc::default() }
    }

    pub(super) fn list(&self) -> &RevocationList {
        &self.list
    }

    /// Whether the issuer, which stands in a path that is proven, made this list and may.
    pub(super) fn is_of(&self, issuer: &Certificate) -> bool {
        let facts = issuer.facts();
        facts.subject.der() == self.list.issuer().der() && may_sign_lists(issuer) && self.is_signed_by(issuer)
    }

    fn is_signed_by(&self, issuer: &Certificate) -> bool {
        let key = issuer.facts().key_hash;
        if let Some(known) = self.judged().get(&key) {
            return *known;
        }
        let is_signed = self.list.is_signed_by(issuer);
        let mut judged = self.judged();
        if judged.len() >= MAX_JUDGED {
            judged.clear();
        }
        judged.insert(key, is_signed);
        is_signed
    }

    fn judged(&self) -> std::sync::MutexGuard<'_, HashMap<Fingerprint, bool>> {
        // Each entry is whole: nothing panics while it is held.
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
