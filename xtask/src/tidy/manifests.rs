//! Rules about Cargo.toml, Cargo.lock and deny.toml: one place for versions, licence, edition and lints.
//!
//! Reads lines, not TOML: the manifests are written in one plain form, and another form is a problem of its own.

use super::{File, Problem, words};

const INHERITED: [&str; 6] = [
    "version.workspace = true",
    "edition.workspace = true",
    "rust-version.workspace = true",
    "license.workspace = true",
    "publish.workspace = true",
    "workspace = true", // under [lints]
];

pub(super) fn check(files: &[File]) -> Vec<Problem> {
    // fuzz/ is a workspace of its own: it wants another compiler, and CI does not build it.
    let is_member = |file: &&File| file.path.ends_with("/Cargo.toml") && !file.path.starts_with("fuzz/");
    let mut problems: Vec<Problem> = files.iter().filter(is_member).flat_map(check_member).collect();
    let tomls = files.iter().filter(|file| file.is("toml"));
    problems.extend(tomls.flat_map(check_open_ends));
    let find = |path: &str| files.iter().find(|file| file.path == path);
    if let (Some(lock), Some(deny)) = (find("Cargo.lock"), find("deny.toml")) {
        problems.extend(check_banned(lock, deny));
    }
    problems
}

fn check_member(file: &File) -> Vec<Problem> {
    let mut problems = check_inherited(file);
    problems.extend(check_name(file));
    problems.extend(check_dependencies(file));
    problems
}

fn check_inherited(file: &File) -> Vec<Problem> {
    let is_there = |wanted: &&str| file.text.lines().any(|line| line.trim() == *wanted);
    let missing = INHERITED.iter().filter(|wanted| !is_there(wanted));
    let place = |wanted: &str| if wanted.contains('.') { "[package]" } else { "[lints]" };
    missing.map(|wanted| Problem::new(&file.path, 0, format!("{} lacks `{wanted}`", place(wanted)))).collect()
}

/// `ls crates` is the map.
fn check_name(file: &File) -> Option<Problem> {
    let folder = file.path.rsplit('/').nth(1)?;
    let wanted = format!("name = {folder:?}");
    let is_named = file.text.lines().any(|line| line.trim() == wanted);
    (!is_named).then(|| Problem::new(&file.path, 0, format!("a crate is named like its folder: `{wanted}`")))
}

fn check_dependencies(file: &File) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut in_dependencies = false;
    let mut open_brackets = 0;
    for (index, line) in file.text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let is_continued = open_brackets > 0;
        open_brackets += balance(line);
        if is_continued || line.is_empty() {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            open_brackets = 0;
            in_dependencies = section.ends_with("dependencies]");
            if section.contains("dependencies.") {
                let text = format!("`{line}`: write it as `name = {{ workspace = true, … }}` under its section");
                problems.push(Problem::new(&file.path, index + 1, text));
            }
        } else if in_dependencies && !is_inherited(line) {
            let text = format!("`{line}`: versions stand in the root Cargo.toml, here it is `workspace = true`");
            problems.push(Problem::new(&file.path, index + 1, text));
        }
    }
    problems
}

fn is_inherited(line: &str) -> bool {
    let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    line.contains(".workspace=true") || line.contains("={workspace=true")
}

/// Brackets opened less brackets closed.
fn balance(line: &str) -> i32 {
    line.chars()
        .map(|c| match c {
            '[' | '{' => 1,
            ']' | '}' => -1,
            _ => 0,
        })
        .sum()
}

fn check_open_ends(file: &File) -> Vec<Problem> {
    let comments = file.text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, line.split_once('#')?.1)));
    comments.filter_map(|(line, comment)| words::check_open_ends(&file.path, line, comment)).collect()
}

/// The bans of deny.toml hold in CI too, which does not run cargo-deny.
fn check_banned(lock: &File, deny: &File) -> Vec<Problem> {
    let banned: Vec<&str> = banned_crates(&deny.text).collect();
    let packages =
        lock.text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, quoted(line, "name = ")?)));
    packages
        .filter(|(_, name)| banned.contains(name))
        .map(|(line, name)| Problem::new(&lock.path, line, format!("{name} is banned: the reason is in deny.toml")))
        .collect()
}

/// The `{ crate = "name", … }` lines of `deny = [ … ]`.
fn banned_crates(deny: &str) -> impl Iterator<Item = &str> {
    let list = deny.lines().skip_while(|line| line.trim() != "deny = [").take_while(|line| line.trim() != "]");
    list.filter_map(|line| quoted(line.trim(), "{ crate = "))
}

fn quoted<'a>(line: &'a str, before: &str) -> Option<&'a str> {
    line.strip_prefix(before)?.strip_prefix('"')?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"[package]
name = "portcullis-oci"
version.workspace = true
edition.workspace = true
rust-version.workspace = true
license.workspace = true
publish.workspace = true

[lints]
workspace = true

[dependencies]
bytes.workspace = true # a reason
tokio = { workspace = true, features = [
    "rt",
] }

[features]
slow = []
"#;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    fn found(text: &str) -> Vec<String> {
        check(&[file("crates/portcullis-oci/Cargo.toml", text)]).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn the_plain_form_is_good() {
        assert_eq!(found(GOOD), [""; 0]);
    }

    #[test]
    fn each_inherited_field_is_demanded() {
        for wanted in INHERITED {
            let text = GOOD.replace(&format!("\n{wanted}\n"), "\n");
            assert!(found(&text).iter().any(|problem| problem.contains(wanted)), "{wanted}");
        }
    }

    #[test]
    fn versions_stand_in_one_place() {
        for line in ["sha2 = \"0.11\"", "sha2 = { version = \"0.11\" }", "sha2 = { path = \"../sha2\" }"] {
            for section in ["[dependencies]", "[dev-dependencies]", "[target.'cfg(unix)'.dependencies]"] {
                let problems = found(&format!("{GOOD}{section}\n{line}\n"));
                assert_eq!(problems.len(), 1, "{section} {line}: {problems:?}");
            }
        }
        assert_eq!(found(&format!("{GOOD}[dependencies.sha2]\nworkspace = true\n")).len(), 1);
    }

    #[test]
    fn a_crate_is_named_like_its_folder() {
        assert_eq!(found(&GOOD.replace("portcullis-oci", "oci")).len(), 1);
    }

    #[test]
    fn the_root_manifest_is_no_member() {
        assert_eq!(check(&[file("Cargo.toml", "[workspace.dependencies]\nsha2 = \"0.11\"\n")]), []);
    }

    #[test]
    fn bans_hold_for_the_lock_file() {
        let lock = file("Cargo.lock", "[[package]]\nname = \"openssl-sys\"\n\n[[package]]\nname = \"rustls\"\n");
        let deny = file("deny.toml", "[bans]\ndeny = [\n    { crate = \"openssl-sys\", reason = \"x\" },\n]\n");
        let found: Vec<String> = check(&[lock, deny]).iter().map(Problem::to_string).collect();
        assert_eq!(found, ["Cargo.lock:2: openssl-sys is banned: the reason is in deny.toml"]);
    }
}
