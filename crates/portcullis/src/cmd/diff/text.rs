//! The report of `diff` for a person: `-` is the first image's, `+` the second's, as in `diff -u`.

use portcullis_certs::Visible;
use portcullis_client::{Change, Comparison, Difference, Layer, Layers};
use serde_json::Value;

use crate::args::DiffArgs;
use crate::cmd::size;

/// The most characters of a value, or of a build step, that are shown.
const SHOWN: usize = 200;

pub(super) fn report(args: &DiffArgs, comparison: &Comparison) -> String {
    let mut lines = Vec::new();
    if comparison.digests.first == comparison.digests.second {
        return format!("the same image: {}\n", comparison.digests.first);
    }
    lines.push(format!("- {}  {}", args.first, comparison.digests.first));
    lines.push(format!("+ {}  {}", args.second, comparison.digests.second));
    if comparison.fields.is_empty() && comparison.images.is_empty() {
        lines.push(
            "different digests, and nothing that differs in machines, configs, layers and annotations".to_owned(),
        );
    }
    lines.extend(comparison.fields.iter().flat_map(|change| field("", change)));
    for image in &comparison.images {
        lines.push(String::new());
        let name =
            if image.platform.is_empty() { "no platform stated".into() } else { Visible(&image.platform).to_string() };
        match &image.what {
            Difference::OnlyFirst(digest) => lines.push(format!("- {name}  {digest}")),
            Difference::OnlySecond(digest) => lines.push(format!("+ {name}  {digest}")),
            Difference::Changed { fields, layers: changed, .. } => {
                lines.push(name);
                lines.extend(fields.iter().flat_map(|change| field("  ", change)));
                lines.extend(layers(changed));
            }
        }
    }
    lines.join("\n") + "\n"
}

fn field(indent: &str, change: &Change) -> Vec<String> {
    let side = |sign: char, value: &Option<Value>| {
        value
            .as_ref()
            .map(|value| format!("{indent}{sign} {}: {}", Visible(&change.field), Visible(&cut(&value.to_string()))))
    };
    let sides = [side('-', &change.values.first), side('+', &change.values.second)];
    sides.into_iter().flatten().collect()
}

fn layers(changed: &Layers) -> Vec<String> {
    if changed.then.first.is_empty() && changed.then.second.is_empty() {
        return vec![format!("  layers: the same {}", changed.common)];
    }
    let sizes = format!("{} -> {}", size(changed.bytes.first), size(changed.bytes.second));
    let mut lines = vec![format!("  layers: {} in common; {sizes} in all", changed.common)];
    lines.extend(changed.then.first.iter().map(|one| layer('-', one)));
    lines.extend(changed.then.second.iter().map(|one| layer('+', one)));
    lines
}

fn layer(sign: char, layer: &Layer) -> String {
    let step = layer.made_by.as_ref().map(|step| format!("  {}", Visible(&cut(step)))).unwrap_or_default();
    format!("  {sign} {}  {}{step}", layer.digest, size(layer.size))
}

fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
