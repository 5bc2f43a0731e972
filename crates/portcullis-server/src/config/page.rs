//! docs/config.md and the template say the same.

use std::collections::BTreeMap;

use super::TEMPLATE;

/// Each key of the file, as `table.key`, with its default as TOML has it.
fn template() -> BTreeMap<String, String> {
    let mut table = "";
    let mut keys = BTreeMap::new();
    for line in TEMPLATE.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = name;
        } else if let Some((key, value)) = line.strip_prefix("# ").and_then(|line| line.split_once(" = ")) {
            let value = value.split(" #").next().unwrap_or_default().trim();
            // `client_auth` says its other values after it.
            let value = value.split_once("\" ").map_or(value.to_owned(), |(first, _)| format!("{first}\""));
            let key = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
            keys.insert(key, value);
        }
    }
    keys
}

/// The page that people read has every key with its default: those of `[limits]` in the table of bounds, where they
/// stand without quotes, some with more words.
#[test]
fn the_page_has_every_key_with_its_default() {
    let page = include_str!("../../../../docs/config.md");
    let rows = page.lines().filter_map(|line| {
        let (key, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        // Another table is about a value.
        (!key.contains(' ')).then_some((key.to_owned(), rest.split(" | ").next()?.to_owned()))
    });
    let rows: BTreeMap<String, String> = rows.collect();
    let template = template();
    for (key, value) in &template {
        let said = match key.strip_prefix("limits.") {
            Some(key) => rows.get(key).map(|said| said.split([',', 'e']).next().unwrap_or_default().trim()),
            None => rows.get(key).map(|said| said.trim_matches('`')),
        };
        let value = if key.starts_with("limits.") { value.trim_matches('"') } else { value };
        assert_eq!(said, Some(value), "`{key}` in docs/config.md");
    }
    let known = |key: &String| template.contains_key(key) || template.contains_key(&format!("limits.{key}"));
    assert_eq!(rows.keys().filter(|key| !known(key)).collect::<Vec<_>>(), [""; 0], "rows without a key");
    assert_eq!(rows.len(), template.len());
}
