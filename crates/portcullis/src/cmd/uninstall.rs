//! `portcullis uninstall`: takes away what `install` wrote, and nothing else.

use portcullis_pki::install::Scope;
use portcullis_pki::install::uninstall::{self, Removal, Undo};

use super::install::{engine_of, record};
use crate::args::UninstallArgs;
use crate::output;

pub(crate) fn run(args: &UninstallArgs) -> anyhow::Result<()> {
    let scope = if args.root.is_some() { Scope::System } else { Scope::of_this_process()? };
    let record = record(args.root.as_deref(), &scope);
    let host = args.host.as_str();
    let engine = args.engine.and_then(engine_of);
    let removals = uninstall::plan(&record, host, engine)?;
    if removals.is_empty() {
        output::line(&format!("nothing is recorded for {host} in {}", record.display()));
        return Ok(());
    }
    if !args.dry_run {
        uninstall::apply(&record, host, &removals)?;
    }
    for removal in &removals {
        tell(removal, args.dry_run);
    }
    if args.dry_run {
        output::line("nothing was removed (--dry-run)");
    }
    Ok(())
}

fn tell(removal: &Removal, dry_run: bool) {
    let path = removal.path.display();
    match (&removal.what, dry_run) {
        (Undo::Remove, false) => output::line(&format!("removed {path}")),
        (Undo::Remove, true) => output::line(&format!("would remove {path}")),
        (Undo::TakeOut(block), dry_run) => {
            let does = if dry_run { "would take out of" } else { "took out of" };
            output::line(&format!("{does} {path}:"));
            block.lines().for_each(|line| output::line(&format!("  - {line}")));
        }
        (Undo::Changed, _) => output::warning(&format!("{path} was changed since it was written, and stays")),
        (Undo::Gone, _) => output::line(&format!("{path} is gone already")),
    }
}
