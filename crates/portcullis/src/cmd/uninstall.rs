//! `portcullis uninstall`: takes away what `install` wrote, and nothing else.

use portcullis_pki::install::uninstall::{self, Removal, Undo, UninstallRequest};
use portcullis_pki::install::{Engine, Owner, Scope};

use super::install::{engine_of, record, restarts};
use super::system_trust;
use crate::args::UninstallArgs;
use crate::output;

pub(crate) fn run(args: &UninstallArgs) -> anyhow::Result<()> {
    let scope = if args.root.is_some() { Scope::System } else { Scope::of_this_process()? };
    let record = record(args.root.as_deref(), &scope);
    let (host, root) = (&args.host, args.root.as_deref());
    let owner = args.engine.and_then(engine_of).map(Owner::Engine);
    let request = UninstallRequest { host, owner, scope: &scope, root, record: &record };
    let removals = uninstall::plan(&request)?;
    if removals.is_empty() {
        output::line(&format!("nothing is recorded for {host} in {}", record.display()));
        return Ok(());
    }
    if !args.dry_run {
        uninstall::apply(&request, &removals)?;
    }
    for removal in &removals {
        tell(removal, args.dry_run);
    }
    if args.dry_run {
        output::line("nothing was removed (--dry-run)");
        return Ok(());
    }
    restarts(&engines_of(&removals));
    let of_system = removals.iter().any(|removal| removal.owner == Some(Owner::SystemStore));
    if of_system { system_trust::taken_out(args.root.as_deref()) } else { Ok(()) }
}

/// Those of which something was taken away.
fn engines_of(removals: &[Removal]) -> Vec<Engine> {
    let is_of = |engine: &Engine| {
        let touched = |removal: &&Removal| matches!(removal.what, Undo::Remove | Undo::TakeOut(_));
        removals.iter().filter(touched).any(|removal| removal.owner == Some(Owner::Engine(*engine)))
    };
    Engine::ALL.into_iter().filter(is_of).collect()
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
        (Undo::Elsewhere, _) => output::warning(&format!(
            "{path} is in the record, but install writes nothing there for this registry, or a link leads there: it stays"
        )),
        (Undo::Gone, _) => output::line(&format!("{path} is gone already")),
    }
}
