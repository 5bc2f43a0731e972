//! `portcullis explain`: what a code or a pasted error text means.

use portcullis_doctor::{Check, Explanation, Meaning, explain};
use serde_json::{Value, json};

use crate::args::ExplainArgs;
use crate::output;

pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let explanation = explain(&args.words.join(" "));
    if args.json {
        output::json(&as_json(&explanation))?;
    } else {
        output::text(&as_text(&explanation));
    }
    match explanation {
        Explanation::Unknown { .. } => {
            anyhow::bail!("nothing is known about this text; try: portcullis doctor HOST[:PORT]")
        }
        Explanation::Code(_) | Explanation::Text { .. } => Ok(()),
    }
}

fn as_text(explanation: &Explanation) -> String {
    match explanation {
        Explanation::Code(check) => about(check),
        Explanation::Text { shown, by, meanings } => {
            let list: Vec<String> = meanings.iter().enumerate().map(|(index, meaning)| point(index, meaning)).collect();
            format!(
                "{shown}\n  printed by {by}\n\n{}\nto see which it is: portcullis doctor HOST[:PORT]\n",
                list.join("\n")
            )
        }
        Explanation::Unknown { .. } => String::new(),
    }
}

fn about(check: &Check) -> String {
    let Check { code, title, severity, why, text, fix, .. } = check;
    format!("{code}  {title}\n  at worst  {severity}\n  why       {why}\n  fix       {fix}\n\n{text}\n")
}

fn point(index: usize, meaning: &Meaning) -> String {
    let Meaning { code, meaning: text, tell } = meaning;
    format!("{}. {text}  ({code})\n   told by  {tell}\n   fix      {}\n", index + 1, meaning.fix())
}

fn as_json(explanation: &Explanation) -> Value {
    match explanation {
        Explanation::Code(check) => json!({
            "code": check.code, "title": check.title, "severity": check.severity.to_string(),
            "why": check.why, "text": check.text, "fix": check.fix,
        }),
        Explanation::Text { shown, by, meanings } => json!({
            "text": shown, "by": by,
            "meanings": meanings.iter().map(|meaning| json!({
                "code": meaning.code, "meaning": meaning.meaning, "tell": meaning.tell, "fix": meaning.fix(),
            })).collect::<Vec<_>>(),
        }),
        Explanation::Unknown { shown } => json!({ "text": shown, "meanings": [] }),
    }
}
