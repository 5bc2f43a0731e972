//! Does an engine trust the registry's certificate, and which file makes it so? Pure: the chain was recorded, the roots
//! were read.

use crate::facts::{Contact, EngineFacts, Facts, LiveFacts};
use portcullis_certs::{Certificate, DirectorySurvey, Endpoint, FileSurvey, LocatedCertificate};
use portcullis_client::Distrust;
use portcullis_tls::Roots;

use crate::facts::verdict;

/// An engine's verdict on the registry's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A root of its files leads to it.
    ByFiles,
    /// A root of the system leads to it.
    BySystem,
    /// It does not verify at all: an insecure registry.
    NotVerified,
    /// It refuses.
    No(Distrust),
}

/// What this engine makes of the chain that the registry showed; `None` without one, or when it never gets there.
pub(crate) fn trusts(engine: &EngineFacts, facts: &Facts) -> Option<Trust> {
    let live = facts.live()?;
    let chain = shown(live)?;
    let endpoint = engine.prediction.registry()?;
    Some(judge(endpoint, chain, live.by_system.as_ref(), facts))
}

/// The same for any endpoint and chain of the registry's name.
fn judge(endpoint: &Endpoint, chain: &[Certificate], by_system: Option<&Result<(), Distrust>>, facts: &Facts) -> Trust {
    if !endpoint.verifies {
        return Trust::NotVerified;
    }
    let roots: Vec<Certificate> = endpoint.roots.iter().map(|root| root.certificate.clone()).collect();
    match (verdict(chain, &roots, Roots::Only, &facts.target.host, facts.now), by_system) {
        (Ok(()), _) => Trust::ByFiles,
        (Err(_), Some(Ok(()))) if endpoint.system_roots => Trust::BySystem,
        // A root leads there and another thing is wrong: that is the more telling reason.
        (Err(Distrust::UnknownIssuer), Some(Err(system))) if endpoint.system_roots => Trust::No(system.clone()),
        (Err(files), _) => Trust::No(files),
    }
}

/// The chain of the first conversation.
pub(crate) fn shown(live: &LiveFacts) -> Option<&[Certificate]> {
    let contact: &Contact = live.greeting.as_ref()?;
    (!contact.chain.is_empty()).then_some(contact.chain.as_slice())
}

/// Every certificate of every file that was looked at, engines' directories and roots alike, which by itself would make the
/// chain pass.
pub(crate) fn files_that_would_do<'a>(
    facts: &'a Facts,
    chain: &[Certificate],
) -> Vec<(&'a FileSurvey, &'a LocatedCertificate)> {
    let passes = |located: &LocatedCertificate| {
        verdict(chain, std::slice::from_ref(&located.certificate), Roots::Only, &facts.target.host, facts.now).is_ok()
    };
    candidates(facts).filter(|(_, located)| passes(located)).collect()
}

/// Every certificate file of the directories that count.
pub(crate) fn candidates(facts: &Facts) -> impl Iterator<Item = (&FileSurvey, &LocatedCertificate)> {
    let files = facts.directories.iter().flat_map(|directory: &DirectorySurvey| &directory.files);
    files.flat_map(|file| file.certificates.iter().map(move |located| (file, located)))
}
