//! A TOML or YAML file as one kind of tree, whose values know their line. Knows no engine.
//!
//! A tree has at most [`NODE_LIMIT`] values and [`DEPTH_LIMIT`] levels, and no YAML alias is followed: an alias can make
//! a small file into a tree of any size.

use super::NotTaken;
use saphyr_parser::{Event, Parser, ScalarStyle};
use toml::de::{DeTable, DeValue};

const NODE_LIMIT: usize = 50_000;
const DEPTH_LIMIT: usize = 64;

/// A value with the line it starts in.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// A YAML scalar without quotes: what it is depends on who reads it.
    Plain(String),
    Bool(bool),
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<(String, Node)>),
    /// Numbers and dates of TOML, which nothing here wants.
    Other,
}

impl Node {
    pub(super) fn toml(text: &str) -> Result<Self, NotTaken> {
        let table = DeTable::parse(text).map_err(|error| NotTaken {
            line: error.span().map_or(1, |span| line_at(text, span.start)),
            reason: error.message().to_owned(),
        })?;
        Ok(Self { line: 1, value: of_table(text, table.get_ref()) })
    }

    pub(super) fn yaml(text: &str) -> Result<Self, NotTaken> {
        // YAML counts more line ends than people do, and the end of the file as a line.
        let last = line_at(text, text.len());
        let mut build = Building::default();
        for event in Parser::new_from_str(text) {
            let (event, span) =
                event.map_err(|error| not_taken(line_of(error.marker().line()).clamp(1, last), error.info()))?;
            build.take(event, line_of(span.start.line()).clamp(1, last))?;
        }
        Ok(build.root.unwrap_or(Self { line: 1, value: Value::Table(Vec::new()) }))
    }

    /// The entries of a table; none of anything else.
    pub(super) fn entries(&self) -> &[(String, Self)] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// The value at the end of a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// A text; `name` is for the error.
    pub(super) fn text(&self, name: &str) -> Result<&str, NotTaken> {
        match &self.value {
            Value::Text(text) | Value::Plain(text) => Ok(text),
            _ => Err(self.wrong(name, "a string")),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<&str>, NotTaken> {
        match &self.value {
            Value::List(items) => items.iter().map(|item| item.text(name)).collect(),
            _ => Err(self.wrong(name, "a list of strings")),
        }
    }

    /// A truth value; YAML 1.1's words too, which Go's yaml.v2 takes.
    pub(super) fn truth(&self, name: &str) -> Result<bool, NotTaken> {
        match &self.value {
            Value::Bool(value) => Ok(*value),
            Value::Plain(word) => match word.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "y" => Ok(true),
                "false" | "no" | "off" | "n" => Ok(false),
                _ => Err(self.wrong(name, "true or false")),
            },
            _ => Err(self.wrong(name, "true or false")),
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Plain(word) if matches!(word.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// That this value is not what it should be.
    pub(super) fn wrong(&self, name: &str, wanted: &str) -> NotTaken {
        not_taken(self.line, &format!("`{name}` is not {wanted}"))
    }
}

pub(super) fn not_taken(line: u32, reason: &str) -> NotTaken {
    NotTaken { line, reason: reason.to_owned() }
}

fn of_table(text: &str, table: &DeTable<'_>) -> Value {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let node = |(key, value): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| {
        let line = line_at(text, key.span().start);
        (key.get_ref().to_string(), Node { line, value: of_value(text, value.get_ref()) })
    };
    Value::Table(entries.into_iter().map(node).collect())
}

/// Recursion is bounded by the parser, which takes 80 levels.
fn of_value(text: &str, value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(word) => Value::Text(word.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| Node { line: line_at(text, item.span().start), value: of_value(text, item.get_ref()) })
                .collect(),
        ),
        DeValue::Table(table) => of_table(text, table),
        _ => Value::Other,
    }
}

fn line_at(text: &str, offset: usize) -> u32 {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    line_of(before.iter().filter(|&&b| b == b'\n').count() + 1)
}

fn line_of(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

/// A YAML tree being built from events.
#[derive(Default)]
struct Building {
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    documents: usize,
}

struct Open {
    line: u32,
    is_table: bool,
    items: Vec<Node>,
    entries: Vec<(String, Node)>,
    /// With its line: an entry is found where its key stands, in TOML too.
    key: Option<(String, u32)>,
}

impl Building {
    fn take(&mut self, event: Event<'_>, line: u32) -> Result<(), NotTaken> {
        self.nodes += 1;
        if self.nodes > NODE_LIMIT || self.open.len() > DEPTH_LIMIT {
            return Err(not_taken(line, "the file is larger or deeper than any file of this kind"));
        }
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(not_taken(line, "a second document, which is not read"));
                }
            }
            Event::Alias(_) => return Err(not_taken(line, "an alias, which is not followed here")),
            Event::Scalar(word, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                let value = if plain { Value::Plain(word.into_owned()) } else { Value::Text(word.into_owned()) };
                return self.close(Node { line, value });
            }
            Event::SequenceStart(..) => self.start(line, false),
            Event::MappingStart(..) => self.start(line, true),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    let value = if open.is_table { Value::Table(open.entries) } else { Value::List(open.items) };
                    return self.close(Node { line: open.line, value });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, line: u32, is_table: bool) {
        self.open.push(Open { line, is_table, items: Vec::new(), entries: Vec::new(), key: None });
    }

    /// Puts a finished value where it belongs.
    fn close(&mut self, node: Node) -> Result<(), NotTaken> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        if !open.is_table {
            open.items.push(node);
            return Ok(());
        }
        match open.key.take() {
            None => open.key = Some((node.text("a key")?.to_owned(), node.line)),
            Some((key, line)) if open.entries.iter().any(|(name, _)| *name == key) => {
                return Err(not_taken(line, &format!("`{key}` is there twice")));
            }
            Some((key, line)) => open.entries.push((key, Node { line, ..node })),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_keeps_the_order_of_the_file_and_the_lines() {
        let tree = Node::toml("b = 1\n\n[t.\"z\"]\nx = true\n[t.\"a\"]\ny = ['q']\n").unwrap();
        assert_eq!(
            tree.entries().iter().map(|(key, node)| (key.as_str(), node.line)).collect::<Vec<_>>(),
            [("b", 1), ("t", 3)]
        );
        let inner: Vec<&str> = tree.get("t").unwrap().entries().iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(inner, ["z", "a"]);
        assert!(tree.at(&["t", "z", "x"]).unwrap().truth("x").unwrap());
        assert_eq!(tree.at(&["t", "a", "y"]).unwrap().texts("y").unwrap(), ["q"]);
        assert_eq!(Node::toml("a = 1\nb = [").unwrap_err().line, 2);
    }

    #[test]
    fn yaml_of_both_styles() {
        let tree = Node::yaml("a:\n  - x\n  - 'y'\nb: {c: yes, d: \"yes\"}\ne: ~\n").unwrap();
        assert_eq!(tree.get("a").unwrap().texts("a").unwrap(), ["x", "y"]);
        assert!(tree.at(&["b", "c"]).unwrap().truth("c").unwrap());
        assert!(tree.at(&["b", "d"]).unwrap().truth("d").is_err(), "a quoted word is a string");
        assert!(tree.get("e").unwrap().is_null());
        assert_eq!(tree.at(&["b", "d"]).unwrap().line, 4);
        assert!(Node::yaml("").unwrap().entries().is_empty());
    }

    #[test]
    fn yaml_that_is_not_taken() {
        let refused = |text: &str| Node::yaml(text).unwrap_err();
        assert_eq!(refused("a: 1\na: 2\n"), not_taken(2, "`a` is there twice"));
        assert_eq!(refused("a: &x [1]\nb: *x\n").line, 2);
        assert_eq!(refused("a: 1\n---\nb: 2\n").line, 2);
        assert_eq!(refused("a:\n\t- b\n").line, 2);
        assert!(Node::yaml(&"[".repeat(DEPTH_LIMIT + 2)).is_err());
    }
}
