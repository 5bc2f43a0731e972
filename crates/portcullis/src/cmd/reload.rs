//! `portcullis reload`: has the running server read trust, policy and certificate again.

use anyhow::bail;
use portcullis_server::admin;

use crate::args::AskArgs;
use crate::cmd::ask;
use crate::home::Home;
use crate::output;

pub(crate) fn run(args: &AskArgs) -> anyhow::Result<()> {
    let home = Home::existing(args.home.home.as_deref())?;
    let reloaded = ask::ask(admin::reload(&ask::socket(&home)?))?;
    if args.json {
        output::json(&reloaded)?;
    }
    if !reloaded.problems.is_empty() {
        bail!(
            "the files are refused, generation {} stays in force\n  {}",
            reloaded.generation,
            reloaded.problems.join("\n  ")
        );
    }
    if !args.json {
        output::line(&format!("in force: generation {}", reloaded.generation));
    }
    Ok(())
}
