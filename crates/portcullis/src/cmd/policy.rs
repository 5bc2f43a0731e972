//! `portcullis policy check`: may this certificate do that, and which line says so. Works on files, without a server.

use std::path::Path;

use anyhow::bail;
use portcullis_certs::{Certificate, Severity, pem};
use portcullis_server::{Action, Answer, Question, TrustVerdict};

use crate::args::{ActionWord, PolicyCheckArgs, PolicyCommand};
use crate::exit::Found;
use crate::home::Home;
use crate::output;

pub(crate) fn run(command: PolicyCommand) -> anyhow::Result<()> {
    match command {
        PolicyCommand::Check(args) => check(&args),
    }
}

fn check(args: &PolicyCheckArgs) -> anyhow::Result<()> {
    let chain = args.cert.as_deref().map(read).transpose()?.unwrap_or_default();
    let home = Home::existing(args.home.home.as_deref())?;
    let action = match args.action {
        ActionWord::Pull => Action::Pull,
        ActionWord::Push => Action::Push,
        ActionWord::Delete => Action::Delete,
    };
    let question = Question { chain: &chain, action, repository: &args.repository };
    let answer = portcullis_server::ask(&home.config()?, &question)?;
    for finding in &answer.findings {
        output::warning(finding);
    }
    if args.json {
        output::json(&answer)?;
    } else {
        for line in lines(&question, &answer) {
            output::line(&line);
        }
    }
    if !answer.allowed {
        return Err(Found(format!("not allowed: {} in {}", question.action.as_str(), args.repository)).into());
    }
    Ok(())
}

/// Before the home is, since root then goes on as the home's owner, who may not read it.
fn read(path: &Path) -> anyhow::Result<Vec<Certificate>> {
    let (chain, findings) = pem::read_certificates(path);
    for finding in &findings {
        output::note(&format!("{finding}\n  {}", finding.fix()));
    }
    if findings.iter().any(|finding| finding.severity == Severity::Fatal) {
        bail!("there is no certificate to ask for in {}", path.display());
    }
    Ok(chain)
}

fn lines(question: &Question<'_>, answer: &Answer) -> Vec<String> {
    let who = question.chain.first().map_or_else(
        || "whoever shows no certificate".to_owned(),
        |leaf| format!("{} ({})", leaf.facts().subject, leaf.fingerprint()),
    );
    let mut lines = vec![who];
    match &answer.identity {
        TrustVerdict::Trusted { by, until } => lines.push(format!("  let in    as {by}, until {until}")),
        TrustVerdict::Anonymous => lines.push("  let in    as anonymous".to_owned()),
        TrustVerdict::Refused { alert, code, reason, told } => {
            lines.push(match alert {
                Some(alert) => format!("  refused   in the handshake, alert {alert}: {reason}"),
                None => format!("  refused   at the first request ({code}): {reason}"),
            });
            lines.push(format!("  told      {told}"));
            return lines;
        }
    }
    lines.extend(of_policy(question, answer));
    lines
}

fn of_policy(question: &Question<'_>, answer: &Answer) -> Vec<String> {
    let what = format!("{} in {}", question.action.as_str(), question.repository);
    let place = |line: usize| format!("{}:{line}", answer.policy.display());
    if let Some(line) = answer.rule {
        return vec![format!("  allowed   {what}, by {}", place(line))];
    }
    let mut lines = vec![format!("  refused   {what}: no rule allows it")];
    lines.extend(answer.rules.iter().map(|rule| format!("    {}: {}", place(rule.line), rule.misses.join("; "))));
    lines
}
