//! A YAML file as a tree in which everything knows its line. Must not know what any key means.
//!
//! Aliases and merge keys are followed, as in the Go library that Distribution reads its file with, up to a bound.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// How many things a file may hold, aliases counted each time they are followed.
const MAX_NODES: usize = 10_000;
/// How deep they may lie in each other.
const MAX_DEPTH: usize = 50;

/// Something wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing stands behind the key, or `null`, or `~`.
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// The key's own line.
    pub(super) line: usize,
    pub(super) node: Node,
}

/// The first document of the file, and all that is wrong in it. Nothing after a syntax error is looked at.
pub(super) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        match event {
            Ok((Event::DocumentEnd, _)) => break,
            Ok((event, span)) => builder.take(event, span.start.line()),
            Err(error) => builder.problem(error.marker().line(), error.info().to_owned()),
        }
        if builder.is_broken {
            break;
        }
    }
    let root = builder.root.unwrap_or(Node { line: 1, value: Value::Null });
    if builder.problems.is_empty() { Ok(root) } else { Err(builder.problems) }
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    problems: Vec<Problem>,
    /// The rest of the file means nothing any more.
    is_broken: bool,
}

/// A list or map whose end has not come yet.
struct Open {
    line: usize,
    anchor: usize,
    value: Value,
    /// A key that waits for its value.
    key: Option<(String, usize)>,
}

impl Builder {
    fn problem(&mut self, line: usize, text: String) {
        self.problems.push(Problem { line, text });
        self.is_broken = true;
    }

    fn take(&mut self, event: Event<'_>, line: usize) {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let is_null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { Value::Null } else { Value::Text(text.into_owned()) };
                self.put(Node { line, value }, anchor);
            }
            Event::SequenceStart(anchor, _) => self.begin(Value::List(Vec::new()), anchor, line),
            Event::MappingStart(anchor, _) => self.begin(Value::Map(Vec::new()), anchor, line),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { line, anchor, value, .. }) = self.open.pop() {
                    self.put(Node { line, value: merged(value) }, anchor);
                }
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.put(node, 0),
                None => self.problem(line, "the alias leads to nothing, or into itself".to_owned()),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
        }
    }

    fn begin(&mut self, value: Value, anchor: usize, line: usize) {
        if self.open.len() >= MAX_DEPTH {
            return self.problem(line, format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.open.push(Open { line, anchor, value, key: None });
    }

    fn put(&mut self, node: Node, anchor: usize) {
        self.nodes += size(&node);
        if self.nodes > MAX_NODES {
            return self.problem(node.line, format!("more than {MAX_NODES} values"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match (&mut open.value, open.key.take()) {
            (Value::List(list), _) => list.push(node),
            (Value::Map(entries), Some((key, line))) => {
                let first = entries.iter().find(|entry| entry.key == key).map(|entry| entry.line);
                entries.push(Entry { key: key.clone(), line, node });
                if let Some(first) = first {
                    // Not broken: the rest can still be read.
                    self.problems.push(Problem { line, text: format!("`{key}` stands in line {first} already") });
                }
            }
            (Value::Map(_), None) => match node.value {
                Value::Text(key) => open.key = Some((key, node.line)),
                Value::Null | Value::List(_) | Value::Map(_) => {
                    self.problem(node.line, "a key must be a text".to_owned());
                }
            },
            (Value::Null | Value::Text(_), _) => {}
        }
    }
}

/// What `<<` brings in, for the keys that the map does not have itself.
fn merged(value: Value) -> Value {
    let Value::Map(entries) = value else { return value };
    let (merges, mut own): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| entry.key == "<<");
    let sources = merges.into_iter().flat_map(|entry| match entry.node.value {
        Value::List(list) => list,
        _ => vec![entry.node],
    });
    for source in sources {
        let Value::Map(entries) = source.value else { continue };
        for entry in entries {
            if own.iter().all(|known| known.key != entry.key) {
                own.push(entry);
            }
        }
    }
    Value::Map(own)
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Text(_) => 1,
        Value::List(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.node)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `line:key=value` of all leaves.
    fn flat(text: &str) -> Vec<String> {
        fn walk(path: &str, node: &Node, found: &mut Vec<String>) {
            match &node.value {
                Value::Null => found.push(format!("{}:{path}=null", node.line)),
                Value::Text(text) => found.push(format!("{}:{path}={text}", node.line)),
                Value::List(list) => list.iter().for_each(|node| walk(&format!("{path}[]"), node, found)),
                Value::Map(map) => {
                    for Entry { key, node, .. } in map {
                        walk(&format!("{path}.{key}"), node, found);
                    }
                }
            }
        }
        let mut found = Vec::new();
        walk("", &parse(text).unwrap(), &mut found);
        found
    }

    #[test]
    fn lines_of_everything() {
        let text = "version: 0.1\nhttp:\n  addr: ':5000'\n  tls: {clientcas: [a, \"b\"]}\nredis:\n";
        let expected = [
            "1:.version=0.1",
            "3:.http.addr=:5000",
            "4:.http.tls.clientcas[]=a",
            "4:.http.tls.clientcas[]=b",
            "5:.redis=null",
        ];
        let found = flat(text);
        assert_eq!(found[..4], expected[..4]);
        assert!(found[4].ends_with(".redis=null"), "{found:?}");
    }

    #[test]
    fn aliases_and_merge_keys() {
        let text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: *a\n";
        let found = flat(text);
        for expected in ["4:.b.y=3", "1:.b.x=1", "1:.c.y=2"] {
            assert!(found.iter().any(|line| line == expected), "{expected}: {found:?}");
        }
        assert!(!found.iter().any(|line| line.ends_with(".b.y=2")), "{found:?}");
    }

    #[test]
    fn what_is_wrong_has_a_line() {
        for (text, line) in
            [("a: 1\nb: [1, 2\n", 3), ("a: 1\na: 2\n", 2), ("a: 1\n? [x]\n: 2\n", 2), ("a: *nothing\n", 1)]
        {
            let problems = parse(text).unwrap_err();
            assert!((1..=line).contains(&problems[0].line), "{text}: {problems:?}");
        }
    }

    #[test]
    fn a_small_file_cannot_become_large() {
        let level = |level: usize| {
            let before = if level == 0 { "x, ".to_owned() } else { format!("*a{}, ", level - 1) };
            format!("a{level}: &a{level} [{}]\n", before.repeat(10).trim_end_matches(", "))
        };
        let bomb: String = (0..10).map(level).collect();
        assert!(parse(&bomb).unwrap_err()[0].text.contains("10000"));
        let deep = |levels: usize| format!("a: {}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(&deep(MAX_DEPTH - 1)).is_ok());
        assert!(parse(&deep(MAX_DEPTH)).is_err());
    }
}
