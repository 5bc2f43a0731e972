//! `docs/engines.md`: the rows of the profiles, and what was predicted and observed. Written by the test, compared with
//! what is committed when the programs are of the versions that it was written with.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use portcullis_certs::{Checked, EngineProfile, Known, Row, Rules, SearchRoot, Texts, Version};

use crate::dockerd::Dockerd;
use crate::netns::Machine;

use super::observed::{Engine, Line};

/// Set to `1` to write the page.
const WRITE: &str = "PORTCULLIS_WRITE_DOCS";
const COMMAND: &str = "PORTCULLIS_WRITE_DOCS=1 cargo test -p portcullis --test it engines::every_prediction_holds";

/// Prints the table, and writes or compares the page.
pub(crate) fn check(machine: &Machine, docker: &Dockerd<'_>, lines: &[Line]) {
    let versions = versions(machine, docker);
    let table = table(lines);
    eprintln!("{versions}\n{table}");
    let page = format!("{}{versions}\n{table}{}", introduction(), profiles());
    let path = path();
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &page).unwrap();
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    if !committed.contains(&versions) && !committed.is_empty() {
        eprintln!("other versions than in docs/engines.md: the page is not compared");
        return;
    }
    assert!(committed == page, "docs/engines.md is not what this test sees; to write it again:\n  {COMMAND}");
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/engines.md")
}

fn introduction() -> String {
    format!(
        "# What each engine makes of its certificate files\n\n\
         Written by a test; do not edit. To write it again: `{COMMAND}`.\n\n\
         `portcullis-certs` predicts, for a registry and a tree of files, what each engine reads, what it would send, and in which words it stops.\n\
         The predictions for dockerd (classic image store), skopeo, podman and containerd's `ctr` are held against the programs: each row below was laid out in front of a live registry that demands client certificates, and the program was asked for an image.\n\
         **Those for Docker's containerd image store, nerdctl, BuildKit and k3s rest on their source and on tables of our own: no test has run these engines.**\n\
         For versions other than those named here the rows further down say what is known, and how.\n\n\
         ## Predicted and observed\n\n"
    )
}

/// The programs that were asked.
fn versions(machine: &Machine, docker: &Dockerd<'_>) -> String {
    let daemon = docker.docker(&["version", "--format", "{{.Server.Version}}"]).ok().stdout;
    let of = |program: &str| {
        let said = machine.run(program, &["--version"]).ok().stdout;
        Version::find_in(&said).map_or(said.clone(), |version| version.to_string())
    };
    let daemon = Version::find_in(&daemon).map_or(daemon.clone(), |version| version.to_string());
    format!(
        "Asked: dockerd {daemon}, skopeo {}, podman {}, ctr {}; curl {} as a control, with the files that Podman was predicted to use.\n",
        of("skopeo"),
        of("podman"),
        of("ctr"),
        of("curl")
    )
}

/// Engines with the same outcome share a row.
fn table(lines: &[Line]) -> String {
    let mut text = "| | tree | engine | predicted | observed |\n|---|---|---|---|---|\n".to_owned();
    for of_case in lines.chunk_by(|a, b| (a.group, a.case) == (b.group, b.case)) {
        let mut rest: Vec<&Line> = of_case.iter().collect();
        while let Some(first) = rest.first().copied() {
            let outcome = |line: &Line| (line.predicted.to_string(), line.observed());
            let (same, other): (Vec<&Line>, Vec<&Line>) =
                rest.into_iter().partition(|line| outcome(line) == outcome(first));
            let engines: Vec<&str> = same.iter().map(|line| line.engine).map(Engine::name).collect();
            let (predicted, observed) = outcome(first);
            let cells = [first.group, first.case, &engines.join(", "), &predicted, &observed].map(cell);
            writeln!(text, "| {} |", cells.join(" | ")).unwrap();
            rest = other;
        }
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Every row of every profile.
fn profiles() -> String {
    let mut text = "\n## The rows\n\nWhich versions a row holds for, and how it is known.\n".to_owned();
    for profile in EngineProfile::ALL {
        writeln!(text, "\n### `{}`: {}\n", profile.name, profile.title).unwrap();
        let checked = match profile.checked {
            Checked::Observed(program) => format!("Checked against {program}."),
            Checked::TableOnly => "From its source; no test has run it.".to_owned(),
        };
        writeln!(text, "{checked} Assumed where no version is found: {}.\n", profile.assumed).unwrap();
        writeln!(text, "Looks in {}; without root in {}.\n", places(profile.roots), places(profile.rootless_roots))
            .unwrap();
        text += "| rule | holds | versions | known |\n|---|---|---|---|\n";
        text += &rules(profile);
    }
    text
}

fn rules(profile: &EngineProfile) -> String {
    let Rules {
        unreadable_directory,
        missing_key,
        orphan_key,
        useless_root,
        bad_block,
        root_not_a_file,
        dangling_root,
    } = profile.rules;
    let Texts {
        missing_key: no_key,
        orphan_key: orphan,
        unreadable_root,
        useless_root: useless,
        unreadable_pair,
        bad_pair,
    } = profile.texts;
    [
        rows("directory may not be listed", unreadable_directory, ToString::to_string),
        rows("`.cert` without `.key`", missing_key, ToString::to_string),
        rows("`.key` without `.cert`", orphan_key, ToString::to_string),
        rows("`.crt` without a certificate", useless_root, ToString::to_string),
        rows("bad block in a `.crt`", bad_block, ToString::to_string),
        rows("`.crt` that is no file", root_not_a_file, ToString::to_string),
        rows("`.crt` that links to nothing", dangling_root, ToString::to_string),
        rows("says to a `.cert` without `.key`", no_key, quoted),
        rows("says to a `.key` without `.cert`", orphan, quoted),
        rows("says to a `.crt` it cannot read", unreadable_root, quoted),
        rows("says to a `.crt` without a certificate", useless, quoted),
        rows("says to a pair it cannot read", unreadable_pair, quoted),
        rows("says to a pair that does not load", bad_pair, quoted),
        rows("loopback", profile.loopback, debug),
        rows("files of an insecure registry", profile.insecure, debug),
        rows("Docker Hub's directory", profile.hub, debug),
        rows("directories called like files", profile.subdirectories, debug),
        rows("an IPv6 address in brackets", profile.ipv6, debug),
        rows("the system's roots", profile.system_roots, debug),
        rows("files for a token server, a store of blobs, a proxy", profile.elsewhere, debug),
        rows("a change counts", profile.reload, debug),
    ]
    .concat()
}

fn rows<T>(rule: &str, rows: &[Row<T>], show: impl Fn(&T) -> String) -> String {
    let row = |row: &Row<T>| {
        let cells = [rule.to_owned(), show(&row.holds), row.versions.to_string(), known(row.known)];
        format!("| {} |\n", cells.map(|text| cell(&text)).join(" | "))
    };
    rows.iter().map(row).collect()
}

fn known(known: Known) -> String {
    known.to_string()
}

fn quoted(text: &&str) -> String {
    format!("`{text}`")
}

fn debug<T: std::fmt::Debug>(value: &T) -> String {
    format!("{value:?}")
}

fn places(roots: &[SearchRoot]) -> String {
    let place = |root: &SearchRoot| match root {
        SearchRoot::Home(path) => format!("`~/{path}`"),
        SearchRoot::ConfigHome(path) => format!("`$XDG_CONFIG_HOME/{path}`"),
        SearchRoot::System(path) => format!("`{path}`"),
    };
    roots.iter().map(place).collect::<Vec<_>>().join(", ")
}
