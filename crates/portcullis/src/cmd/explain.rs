//! `portcullis explain`: what a code or a pasted error text means.

use portcullis_doctor::{Explanation, explain};
use serde_json::{Value, json};

use crate::args::ExplainArgs;
use crate::output;

pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let explanation = explain(&args.words.join(" "));
    if args.json {
        output::json(&as_json(&explanation))?;
    } else {
        output::text(&explanation.to_text(output::style(false)));
    }
    match explanation {
        Explanation::Unknown { .. } => {
            anyhow::bail!("nothing is known about this text; try: portcullis doctor HOST[:PORT]")
        }
        Explanation::Code(_) | Explanation::Text { .. } => Ok(()),
    }
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
