//! Rules about Markdown: a relative link leads to a file of the repository, and its `#anchor` to a heading there.

use super::{File, Problem, words};

pub(super) fn check(file: &File, files: &[File], paths: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (line, text) in prose(&file.text) {
        problems.extend(words::check_open_ends(&file.path, line, &text));
        for target in targets(&text) {
            problems.extend(dead(&file.path, target, files, paths).map(|text| Problem::new(&file.path, line, text)));
        }
    }
    problems
}

/// What is wrong with a link, if anything is. Links with a scheme are not followed: tests need no network.
fn dead(from: &str, target: &str, files: &[File], paths: &[String]) -> Option<String> {
    let has_scheme = target.split(['/', '#', '?']).next().is_some_and(|first| first.contains(':'));
    if has_scheme || target.is_empty() {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let Some(path) = resolve(from, path) else {
        return Some(format!("link `{target}` leaves the repository"));
    };
    let is_folder = |listed: &String| path.is_empty() || listed.starts_with(&format!("{path}/"));
    if !paths.contains(&path) && !paths.iter().any(is_folder) {
        return Some(format!("link `{target}`: there is no {path}"));
    }
    let page = files.iter().find(|file| file.path == path && file.is("md"))?;
    let has_heading = anchor.is_empty() || anchors(&page.text).iter().any(|heading| heading == anchor);
    (!has_heading).then(|| format!("link `{target}`: {path} has no heading for #{anchor}"))
}

/// The path from the root that a link in the file `from` means; `None` above the root.
fn resolve(from: &str, target: &str) -> Option<String> {
    if target.is_empty() {
        return Some(from.into());
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if target.starts_with('/') {
        parts.clear();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The lines outside fenced code, numbered, with inline code blanked.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fence = None;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mark = ["```", "~~~"].into_iter().find(|mark| line.trim_start().starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (Some(_), _) => {}
            (None, None) => lines.push((index + 1, without_code(line))),
        }
    }
    lines
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// What `[text](target "title")` and `[label]: target` point to.
fn targets(line: &str) -> Vec<&str> {
    let mut targets: Vec<&str> = line
        .match_indices("](")
        .filter_map(|(at, open)| line[at + open.len()..].split(')').next())
        .map(first_word)
        .collect();
    if line.starts_with('[')
        && let Some((_, target)) = line.split_once("]: ")
    {
        targets.push(first_word(target));
    }
    targets
}

fn first_word(target: &str) -> &str {
    let target = target.trim();
    match target.strip_prefix('<') {
        Some(bracketed) => bracketed.split('>').next().unwrap_or_default(),
        None => target.split_whitespace().next().unwrap_or_default(),
    }
}

/// The anchors that a repository host makes of the headings; a repeated one gets `-1`, `-2` behind it.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    let mut slugs: Vec<String> = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        let is_heading = !fenced && heading.len() < line.len() && heading.starts_with(' ');
        if is_heading {
            let slug = slug(heading.trim());
            let before = slugs.iter().filter(|other| **other == slug).count();
            anchors.push(if before == 0 { slug.clone() } else { format!("{slug}-{before}") });
            slugs.push(slug);
        }
    }
    anchors
}

fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let page = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let files = [page("docs/a.md", text), page("README.md", "# Run it\n## `up` & away\n## `up` & away\n")];
        let paths = ["README.md", "docs/a.md", "docs/guides/b.md", "src/lib.rs"].map(String::from);
        check(&files[0], &files, &paths).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn links_that_lead_somewhere_are_good() {
        let text = "[a](../README.md#run-it) [b](guides/b.md \"title\") [c](<guides>) [d](#here) ![e](../src/lib.rs)\n\
                    [f](https://example.org/gone) [g](mailto:x@example.org) [h](/README.md#up--away-1)\n\
                    # Here\n[i]: guides/b.md";
        assert_eq!(found(text), [""; 0]);
    }

    #[test]
    fn dead_links_are_found_with_their_line() {
        for (target, expected) in [
            ("gone.md", "docs/a.md:2: link `gone.md`: there is no docs/gone.md"),
            ("../README.md#gone", "docs/a.md:2: link `../README.md#gone`: README.md has no heading for #gone"),
            ("#gone", "docs/a.md:2: link `#gone`: docs/a.md has no heading for #gone"),
            ("../../x", "docs/a.md:2: link `../../x` leaves the repository"),
        ] {
            assert_eq!(found(&format!("first\nsee [x]({target}).")), [expected]);
            assert_eq!(found(&format!("first\n[x]: {target}")), [expected]);
        }
    }

    #[test]
    fn code_has_no_links() {
        assert_eq!(found("```\n[x](gone.md)\n```\n`[x](gone.md)` ~~~\n~~~sh\n[x](gone)\n~~~"), [""; 0]);
    }

    #[test]
    fn open_ends_count_in_prose() {
        assert_eq!(found("TODO: write this").len(), 1);
    }
}
