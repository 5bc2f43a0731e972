//! What the import says: what became of every key, and what to type next.

use std::collections::BTreeSet;
use std::path::Path;

use portcullis_certs::{ShellCommand, Visible};

use super::translate::{Became, Remark, Translation};
use crate::home::{self, Home};

/// A line for each key, with its place.
pub(super) fn remarks(file: &Path, translation: &Translation) -> Vec<String> {
    let line = |remark: &Remark| {
        let became = match &remark.became {
            Became::Ours(ours) => format!("-> {}", Visible(ours)),
            Became::Needless(why) => format!("is not needed: {}", Visible(why)),
            Became::Missing(instead) => format!("has no counterpart: {}", Visible(instead)),
            Became::Unknown => "is no key of Distribution's: left out".to_owned(),
        };
        format!("{}:{}: {} {became}", file.display(), remark.line, Visible(&remark.key))
    };
    translation.remarks.iter().map(line).collect()
}

/// The way from here to a running server. `output`: where the configuration was written.
pub(super) fn next(home: &Home, file: &Path, output: Option<&Path>, translation: &Translation) -> Vec<String> {
    let mut lines = vec![String::new(), "next:".to_owned()];
    if !home.config_file().exists() {
        lines.push("  # makes CAs, a policy and an admin client; stop it when it listens".to_owned());
        lines.push(format!("  {}", up(home, translation)));
    }
    if output.is_none() {
        let (ours, before) = (home.config_file(), home.root().join("config.toml.before"));
        // Typed a second time it moves nothing, and the import then finds its file.
        let aside = ShellCommand::new([Path::new("mv"), Path::new("-n"), ours, &before]);
        let import = home.command(&["config", "import", &file.to_string_lossy(), "--output", &ours.to_string_lossy()]);
        lines.push(format!("  {aside} && {import}"));
    }
    lines.extend(trust(home, translation));
    if !translation.has_tls {
        lines.push(
            "  # it was served without TLS; here every client needs a certificate: portcullis cert new client NAME"
                .to_owned(),
        );
    }
    let config = output.unwrap_or(home.config_file()).into();
    let check = [home::program(), "serve".into(), "--config".into(), config, "--check".into()];
    lines.push(format!("  {}", ShellCommand::new(check)));
    lines
}

fn up(home: &Home, translation: &Translation) -> ShellCommand {
    let listen = translation.listen.map(|listen| listen.to_string());
    let options = [("--data", &translation.data), ("--listen", &listen), ("--name", &translation.host)];
    let given = options.iter().filter_map(|(option, value)| Some([*option, value.as_deref()?])).flatten();
    home.command(&["up"].into_iter().chain(given).collect::<Vec<_>>())
}

/// Whom Distribution let in. Two files of one name get two names.
fn trust(home: &Home, translation: &Translation) -> Vec<String> {
    let mut lines = Vec::new();
    let mut names = BTreeSet::new();
    for file in &translation.client_cas {
        let stem = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut words = vec!["trust", "add", file, "--as", "ca"];
        let name = format!("{stem}-{}", names.len() + 1);
        if !names.insert(stem) {
            words.extend(["--name", &name]);
        }
        lines.push(format!("  {}", home.command(&words)));
    }
    if !lines.is_empty() {
        lines.push(
            "  # Distribution also lets in whoever shows a self-signed certificate of these files itself; here a CA signs, and\n  \
             # is no client: where a file is such a client's certificate, add it with --as pin instead"
                .to_owned(),
        );
    }
    lines
}
