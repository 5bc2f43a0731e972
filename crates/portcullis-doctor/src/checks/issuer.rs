//! Who issued the registry's certificate: an intermediate that is not sent (D64), a CA that is not here (D66).

use super::server::connect_to;
use super::trust::{Trust, candidates, files_that_would_do, shown, trusts};
use crate::diagnosis::{Diagnosis, name};
use crate::facts::Facts;
use portcullis_certs::{Certificate, Severity, ShellCommand};
use portcullis_client::Distrust;
use std::path::{Path, PathBuf};

/// What the registry sends ends in a certificate that nothing here issued, and it is proved that one is left out: the issuer
/// lies in a file here that is no root of these engines, or the registry sends others that do not lead on. By key and
/// signature: names alone cannot tell a missing intermediate from another CA.
pub(super) fn incomplete_chain(facts: &Facts) -> Vec<Diagnosis> {
    let Some(chain) = facts.live().and_then(shown) else { return Vec::new() };
    let (path, spare) = linked(chain);
    let Some(last) = path.last() else { return Vec::new() };
    if last.facts().self_issued || !is_refused(facts) {
        return Vec::new();
    }
    let is_ca = |it: &Certificate| it.facts().is_ca == Some(true);
    let issuers: Vec<_> =
        candidates(facts).filter(|(_, it)| is_ca(&it.certificate) && last.is_signed_by(&it.certificate)).collect();
    // One that is read as a root is enough to Go; D42 and D66 say why it is not.
    if issuers.iter().any(|(file, _)| super::files::has_suffix(file, "crt")) {
        return Vec::new();
    }
    let what = format!("the registry does not send the certificate of `{}`", last.facts().issuer);
    let sent = format!("it sends {} certificates, the last that fits is `{}`", chain.len(), last.facts().subject);
    let diagnosis = Diagnosis::new("D64", Severity::Fatal, what).value(sent);
    let text = "let the registry send its full chain: its own certificate, then the intermediate";
    match (issuers.first(), spare.first()) {
        (Some((file, located)), _) => {
            let diagnosis = diagnosis.at_line(&file.path, Some(located.line)).value("here it is");
            vec![diagnosis.say_of(&file.path, format!("{text}; {} has it", name(&file.path)))]
        }
        (None, Some(other)) => {
            let diagnosis = diagnosis.also(format!("`{}` did not issue it", other.facts().subject));
            let at = connect_to(facts);
            vec![diagnosis.say(text, ShellCommand::new(["openssl", "s_client", "-showcerts", "-connect", at.as_str()]))]
        }
        (None, None) => Vec::new(),
    }
}

/// The certificates of a chain that lead on from its first, by signature, and those that do not belong.
fn linked(chain: &[Certificate]) -> (Vec<&Certificate>, Vec<&Certificate>) {
    let mut rest: Vec<&Certificate> = chain.iter().collect();
    let mut path: Vec<&Certificate> = Vec::new();
    let mut next = (!rest.is_empty()).then(|| rest.remove(0));
    while let Some(current) = next {
        path.push(current);
        let issuer = rest.iter().position(|other| !current.facts().self_issued && current.is_signed_by(other));
        next = issuer.map(|at| rest.remove(at));
    }
    (path, rest)
}

fn is_refused(facts: &Facts) -> bool {
    facts.engines.iter().any(|engine| {
        matches!(trusts(engine, facts), Some(Trust::No(Distrust::UnknownIssuer | Distrust::Other { .. })))
    })
}

pub(super) fn unknown_issuer(facts: &Facts) -> Vec<Diagnosis> {
    let Some(chain) = facts.live().and_then(shown) else { return Vec::new() };
    let refusing = facts.engines.iter().filter_map(|engine| match trusts(engine, facts) {
        Some(Trust::No(reason @ (Distrust::UnknownIssuer | Distrust::Other { .. }))) => {
            Some((engine.profile.name, reason))
        }
        _ => None,
    });
    let refusing: Vec<(&'static str, Distrust)> = refusing.collect();
    let (Some((_, reason)), Some(last)) = (refusing.first(), chain.last()) else { return Vec::new() };
    let what = match reason {
        Distrust::Other { .. } => format!("the registry's certificate is not trusted: {reason}"),
        _ => format!("no CA that counts here issued the registry's certificate (issuer `{}`)", last.facts().issuer),
    };
    let mut diagnosis =
        Diagnosis::new("D66", Severity::Fatal, what).for_engines(refusing.iter().map(|(engine, _)| *engine));
    if chain.len() == 1 && !last.facts().self_issued {
        diagnosis = diagnosis
            .also("it sends one certificate: if that issuer is an intermediate CA, it leaves the intermediate out");
    }
    if let Some(id) = &last.facts().authority_key_id {
        diagnosis = diagnosis.also(format!("it names the key {} (AKI)", hex(id)));
    }
    for (file, located) in candidates(facts).filter(|(file, _)| super::files::has_suffix(file, "crt")) {
        let ours = &located.certificate;
        diagnosis = diagnosis.at_line(&file.path, Some(located.line)).value(compared(ours, last));
    }
    let engines = diagnosis.engines.clone();
    vec![match files_that_would_do(facts, chain).first() {
        Some((file, _)) => diagnosis.say(
            format!("{} would make it pass, but these engines do not read it as a root", name(&file.path)),
            into_directory(facts, &engines, &file.path, "ca.crt"),
        ),
        None => diagnosis.say(
            "get the CA's certificate from whoever runs the registry, compare its fingerprint, and put it into the directory",
            into_directory(facts, &engines, Path::new("ca.crt"), "ca.crt"),
        ),
    }]
}

/// Puts a certificate where the first of these engines reads it.
pub(super) fn into_directory(facts: &Facts, engines: &[&str], from: &Path, name: &str) -> ShellCommand {
    let predictions = facts.engines.iter().filter(|engine| engines.contains(&engine.profile.name));
    let mut predictions = predictions.map(|engine| &engine.prediction);
    let first = predictions.next();
    let directory =
        first.and_then(|made| made.taken().or_else(|| made.tried.first().map(|tried| tried.path.as_path())));
    // `install` overwrites: another CA may be in use under that name.
    let is_there =
        |path: &PathBuf| facts.directories.iter().flat_map(|directory| &directory.files).any(|file| file.path == *path);
    let free = |directory: &Path| {
        let numbered = (2..10).map(|number| directory.join(format!("{number}-{name}")));
        [directory.join(name)].into_iter().chain(numbered).find(|path| !is_there(path))
    };
    let to = directory.and_then(free).unwrap_or_else(|| name.into());
    ShellCommand::new([
        "install".into(),
        "-D".into(),
        "-m".into(),
        "644".into(),
        ShellCommand::operand(from),
        to.into(),
    ])
}

/// In what a CA here is not the one that is named.
fn compared(ours: &Certificate, theirs: &Certificate) -> String {
    let (mine, named) = (ours.facts(), theirs.facts());
    let id = mine.subject_key_id.as_deref().map(hex).map_or(String::new(), |id| format!(", key {id} (SKI)"));
    let verdict = if mine.subject != named.issuer {
        "another name"
    } else if theirs.is_signed_by(ours) {
        "the right CA, but it may not be used"
    } else {
        "the same name, another key: a CA that was made anew"
    };
    format!("`{}`{id}: {verdict}", mine.subject)
}

fn hex(octets: &[u8]) -> String {
    octets.iter().take(20).map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_testkit::pki::{Authority, LeafSpec, Pair};

    #[test]
    fn a_chain_is_linked_by_its_signatures() {
        let of = |pair: &Pair| Certificate::from_der(pair.cert_der().to_vec().into()).unwrap();
        let root = Authority::new("root");
        let middle = root.intermediate("middle");
        let leaf = of(&middle.issue(&LeafSpec::server(&["r.test"], &[])));
        let (root, namesake) = (of(&root.pair), of(&Authority::new("root").intermediate("middle").pair));
        let middle = of(&middle.pair);
        let lengths = |chain: &[&Certificate]| {
            let chain: Vec<Certificate> = chain.iter().map(|it| (*it).clone()).collect();
            let (path, spare) = linked(&chain);
            (path.len(), spare.len())
        };
        assert_eq!(lengths(&[]), (0, 0));
        assert_eq!(lengths(&[&leaf]), (1, 0));
        assert_eq!(lengths(&[&leaf, &middle, &root]), (3, 0));
        assert_eq!(lengths(&[&leaf, &root, &middle]), (3, 0), "Go does not mind the order");
        assert_eq!(lengths(&[&leaf, &namesake]), (1, 1));
        assert_eq!(lengths(&[&leaf, &root]), (1, 1));
        assert_eq!(lengths(&[&root, &root]), (1, 1), "no circle");
    }
}
