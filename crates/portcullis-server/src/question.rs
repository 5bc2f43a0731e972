//! What a certificate may do, asked of files alone: the question of `portcullis policy check`.
//!
//! Owns no judgement: trust and policy are loaded, judged and asked by what the running server does it with.

use portcullis_certs::Certificate;
use portcullis_oci::RepositoryName;
use portcullis_tls::{ClientAuth, RefusedPeer};
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use time::OffsetDateTime;

use crate::config::Config;
use crate::document::Problem;
use crate::generation::{Generation, Generations};
use crate::policy::{Action, Caller, RuleVerdict};
use crate::reason::{Reason, own_host};
use crate::status::rfc3339;
use crate::{ServerError, policy};

/// May it?
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What would be presented, leaf first; empty: nothing.
    pub chain: &'a [Certificate],
    /// What would be done.
    pub action: Action,
    /// Where.
    pub repository: &'a RepositoryName,
}

/// What the server would say, and why. The keys are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Whether it may.
    pub allowed: bool,
    /// Whom the server would take the certificate for.
    pub identity: TrustVerdict,
    /// The policy file.
    pub policy: std::path::PathBuf,
    /// The line of the rule that allows it.
    pub rule: Option<usize>,
    /// What each rule says, in order; empty for whoever is not let in.
    pub rules: Vec<RuleVerdict>,
    /// What is worth knowing about policy and trust, such as a rule for a CA that does not exist.
    pub findings: Vec<String>,
}

/// Whom the server would take a certificate for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum TrustVerdict {
    /// It would be let in.
    Trusted {
        /// `ca:NAME` or `pin:NAME`.
        by: String,
        /// When the first certificate of its path ends, RFC 3339.
        until: String,
    },
    /// It would be let in as whoever shows no certificate.
    Anonymous,
    /// It would not be let in.
    Refused {
        /// The alert that would end its handshake; `None` where it would be told in an answer instead.
        alert: Option<&'static str>,
        /// One word for the reason.
        code: &'static str,
        /// Why, with the line or the pin that decides.
        reason: String,
        /// What the peer would be told.
        told: String,
    },
}

/// Loads trust and policy as a start would, and asks them.
///
/// # Errors
/// [`ServerError::Trust`], with every problem, where the server could not start: then there is no answer.
pub fn ask(config: &Config, question: &Question<'_>) -> Result<Answer, ServerError> {
    let generations = Generations::start(config).map_err(|problems| ServerError::Trust { problems })?;
    let generation = generations.current();
    let now = OffsetDateTime::now_utc();
    let (identity, caller) = match question.chain {
        [] => nobody(config, generation.tls.chain().first()),
        chain => {
            let chain: Vec<CertificateDer<'_>> = chain.iter().map(|certificate| certificate.der().clone()).collect();
            match generation.tls.trust().judge(&chain, now) {
                Ok(accepted) => {
                    let by = accepted.identity().trusted_by().to_string();
                    let trusted = TrustVerdict::Trusted { by, until: rfc3339(accepted.valid_until()) };
                    (trusted, Some(Caller::Trusted(accepted.identity().clone())))
                }
                Err(refusal) => (refused(config, &RefusedPeer::of_chain(&chain, refusal), now), None),
            }
        }
    };
    let of_policy = |caller: &Caller| {
        let policy: &policy::Policy = &generation.policy;
        let rule = policy.allows(caller, question.action, question.repository);
        (rule, policy.explain(caller, question.action, question.repository))
    };
    let (rule, rules) = caller.as_ref().map(of_policy).unwrap_or_default();
    let findings = findings(config, &generation);
    Ok(Answer {
        allowed: rule.is_some(),
        identity,
        policy: config.policy.clone(),
        rule,
        rules,
        findings: findings.iter().map(ToString::to_string).collect(),
    })
}

/// What is worth knowing about files that are fit to be served with.
pub(crate) fn findings(config: &Config, generation: &Generation) -> Vec<Problem> {
    let mut findings = generation.warnings.clone();
    if generation.policy.knows_anonymous() && config.client_auth != ClientAuth::Optional {
        let message =
            "there are rules for `anonymous`, and nobody is that: `tls.client_auth` in the config is not \"optional\"";
        findings.push(Problem::new(&config.policy, message));
    }
    findings
}

fn nobody(config: &Config, own: Option<&Certificate>) -> (TrustVerdict, Option<Caller>) {
    let alert = match config.client_auth {
        ClientAuth::Optional => return (TrustVerdict::Anonymous, Some(Caller::Anonymous)),
        ClientAuth::Require => Some("certificate_required"),
        ClientAuth::Explain => None,
    };
    let told = Reason::no_certificate(&own_host(own, config.listen.port()));
    let reason = "no certificate is presented".to_owned();
    (TrustVerdict::Refused { alert, code: told.code(), reason, told: told.to_string() }, None)
}

fn refused(config: &Config, peer: &RefusedPeer, now: OffsetDateTime) -> TrustVerdict {
    let told = Reason::refused(peer, now);
    let alert = match config.client_auth {
        ClientAuth::Require | ClientAuth::Optional => Some(peer.refusal.alert()),
        ClientAuth::Explain => None,
    };
    TrustVerdict::Refused { alert, code: told.code(), reason: peer.refusal.to_string(), told: told.to_string() }
}
