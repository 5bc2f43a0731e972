//! A Rust file taken apart as far as the rules need it: code without strings and comments, the strings, the comments,
//! and which lines are tests. It is no parser: it reads what compiles, and must not panic on what does not.

/// Code, comments and strings of one file, each with the line (from 1) where it begins.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Line by line; strings are empty (`""`) and comments gone.
    pub(super) code: Vec<String>,
    pub(super) comments: Vec<(usize, String)>,
    /// String literals without their quotes, escapes as written.
    pub(super) strings: Vec<(usize, String)>,
    /// For each line of `code`, whether it belongs to a test-only item.
    test_lines: Vec<bool>,
    /// The first thing that is neither blank nor an attribute is a `//!` or `/*!`.
    pub(super) has_module_doc: bool,
}

impl Source {
    pub(super) fn parse(text: &str) -> Source {
        let mut scanner = Scanner { rest: text, line: 1, code: String::new(), source: Source::default() };
        while scanner.step() {}
        let Scanner { code, mut source, .. } = scanner;
        source.code = code.split('\n').map(String::from).collect();
        source.test_lines = test_lines(&code);
        source.has_module_doc = has_module_doc(text);
        source
    }

    /// Whether the line (from 1) is inside `#[cfg(test)]`, `#[test]` or the like.
    pub(super) fn is_test(&self, line: usize) -> bool {
        self.test_lines.get(line.wrapping_sub(1)).copied().unwrap_or(false)
    }

    /// The lines of code outside tests, numbered.
    pub(super) fn shipped_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.code.iter().enumerate().map(|(index, code)| (index + 1, code.as_str()));
        numbered.filter(|(line, _)| !self.is_test(*line))
    }

    /// The strings outside tests.
    pub(super) fn shipped_strings(&self) -> impl Iterator<Item = (usize, &str)> {
        let all = self.strings.iter().map(|(line, text)| (*line, text.as_str()));
        all.filter(|(line, _)| !self.is_test(*line))
    }

    /// Names of `#[cfg(test)] mod name;`: modules in files of their own that are built for tests only.
    fn test_modules(&self) -> impl Iterator<Item = &str> {
        let test_lines = self.code.iter().enumerate().filter(|(index, _)| self.is_test(index + 1));
        test_lines
            .filter_map(|(_, code)| code.trim().strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name.trim()))
    }
}

/// Tests, benches, the testkit (which is only ever a dev-dependency), and what hangs below a `#[cfg(test)] mod x;`.
pub(super) fn is_test_file(path: &str, sources: &[(&str, Source)]) -> bool {
    let by_place = ["/tests/", "/benches/", "/testkit/", "portcullis-testkit/"];
    if by_place.iter().any(|place| path.contains(place)) {
        return true;
    }
    sources.iter().any(|(parent, source)| {
        let dir = module_dir(parent);
        source.test_modules().any(|name| {
            let below = format!("{dir}/{name}");
            path == format!("{below}.rs") || path.starts_with(&format!("{below}/"))
        })
    })
}

/// Where the child modules of a file lie.
fn module_dir(path: &str) -> &str {
    for root in ["/lib.rs", "/main.rs", "/mod.rs"] {
        if let Some(dir) = path.strip_suffix(root) {
            return dir;
        }
    }
    path.strip_suffix(".rs").unwrap_or(path)
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
    code: String,
    source: Source,
}

impl<'a> Scanner<'a> {
    /// Takes one token off `rest`; `false` at the end.
    fn step(&mut self) -> bool {
        let rest = self.rest;
        let Some(first) = rest.chars().next() else { return false };
        if rest.starts_with("//") {
            let comment = self.take(rest.find('\n').unwrap_or(rest.len()));
            self.source.comments.push((self.line, comment.into()));
        } else if rest.starts_with("/*") {
            self.block_comment();
        } else if let Some(hashes) = self.raw_string_hashes() {
            self.raw_string(hashes);
        } else if first == '"' {
            self.string();
        } else if first == '\'' {
            self.char_or_lifetime();
        } else {
            let text = self.take(first.len_utf8());
            self.push_code(text);
        }
        true
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn push_code(&mut self, text: &str) {
        self.line += text.matches('\n').count();
        self.code.push_str(text);
    }

    /// Keeps the line numbers of the code right across a token that is not kept.
    fn push_newlines_of(&mut self, text: &str) {
        self.push_code(&"\n".repeat(text.matches('\n').count()));
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        let mut end = 0;
        while end < self.rest.len() {
            let here = &self.rest[end..];
            if here.starts_with("/*") {
                depth += 1;
                end += 2;
            } else if here.starts_with("*/") {
                depth -= 1;
                end += 2;
                if depth == 0 {
                    break;
                }
            } else {
                end += here.chars().next().map_or(1, char::len_utf8);
            }
        }
        let comment = self.take(end);
        let numbered = comment.split('\n').enumerate();
        let line = self.line;
        self.source.comments.extend(numbered.map(|(index, text)| (line + index, text.to_owned())));
        self.push_newlines_of(comment);
    }

    /// For `r"`, `br#"`, `cr##"`: how many `#` there are.
    fn raw_string_hashes(&self) -> Option<usize> {
        if self.code.ends_with(is_word) {
            return None;
        }
        let rest = self.rest.strip_prefix(['b', 'c']).unwrap_or(self.rest).strip_prefix('r')?;
        let quoted = rest.trim_start_matches('#');
        quoted.starts_with('"').then_some(rest.len() - quoted.len())
    }

    fn raw_string(&mut self, hashes: usize) {
        let start = self.rest.find('"').map_or(self.rest.len(), |quote| quote + 1);
        let close = format!("\"{}", "#".repeat(hashes));
        let length = self.rest[start..].find(&close).unwrap_or(self.rest.len() - start);
        self.literal(start, length, close.len());
    }

    fn string(&mut self) {
        let mut escaped = false;
        let end = self.rest[1..].find(|c: char| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        self.literal(1, end.unwrap_or(self.rest.len() - 1), 1);
    }

    fn literal(&mut self, open: usize, length: usize, close: usize) {
        self.take(open);
        let text = self.take(length);
        self.take(close.min(self.rest.len()));
        self.source.strings.push((self.line, text.into()));
        self.push_code("\"\"");
        self.push_newlines_of(text);
    }

    /// `'a'` and `'\n'` are dropped; the `'` of a lifetime is code.
    fn char_or_lifetime(&mut self) {
        let after = &self.rest[1..];
        let length = if let Some(escape) = after.strip_prefix('\\') {
            // The escaped character may itself be a quote.
            let escaped = escape.chars().next().map_or(0, char::len_utf8);
            escape[escaped..].find('\'').map(|close| 1 + escaped + close)
        } else {
            let inside = after.chars().next().map_or(0, char::len_utf8);
            after[inside..].starts_with('\'').then_some(inside)
        };
        let taken = self.take(length.map_or(1, |inside| inside + 2));
        self.push_code(if length.is_some() { "' '" } else { taken });
    }
}

/// A character of a Rust identifier.
pub(super) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Blank lines and inner attributes may come before the doc.
fn has_module_doc(text: &str) -> bool {
    let mut rest = text.trim_start();
    while let Some(attribute) = rest.strip_prefix("#![") {
        let Some(length) = bracket_length(attribute) else { return false };
        rest = attribute[length..].trim_start();
    }
    rest.starts_with("//!") || rest.starts_with("/*!")
}

/// The length up to and with the `]` that closes an attribute whose `[` is already taken.
fn bracket_length(text: &str) -> Option<usize> {
    let mut depth = 1_usize;
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

fn test_lines(code: &str) -> Vec<bool> {
    let mut lines = vec![false; code.split('\n').count()];
    let mut at = 0;
    while let Some(found) = code[at..].find('#') {
        let start = at + found;
        at = start + 1;
        let after = code[at..].trim_start_matches('!');
        let inner = after.len() < code[at..].len();
        let Some(attribute) = after.strip_prefix('[') else { continue };
        let Some(length) = bracket_length(attribute) else { continue };
        if !is_test_attribute(&attribute[..length - 1]) {
            continue;
        }
        let body = code.len() - attribute.len() + length;
        let end = if inner { code.len() } else { body + item_length(&code[body..]) };
        let line = |offset: usize| code[..offset].matches('\n').count();
        lines[line(start)..=line(end)].fill(true);
        at = end;
    }
    lines
}

/// `test`, `tokio::test`, `cfg(test)`, `cfg(all(test, unix))`; not `cfg(not(test))`, not `cfg_attr(test, …)`.
fn is_test_attribute(attribute: &str) -> bool {
    let attribute: String = attribute.chars().filter(|c| !c.is_whitespace()).collect();
    let path = attribute.split('(').next().unwrap_or_default();
    if path == "cfg" {
        return !attribute.contains("not(test") && attribute.split(|c| !is_word(c)).any(|word| word == "test");
    }
    path.rsplit("::").next() == Some("test")
}

/// Up to the `}` or `;` that ends the item which begins here.
fn item_length(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && c == '}' {
                    return at;
                }
            }
            ';' if depth == 0 => return at,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests;
