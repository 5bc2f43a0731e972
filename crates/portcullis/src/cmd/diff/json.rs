//! The report of `diff --json`. Its keys are stable.

use portcullis_client::{Change, Comparison, Difference, Layer, Sides};
use serde_json::{Value, json};

use crate::args::DiffArgs;

pub(super) fn report(args: &DiffArgs, comparison: &Comparison) -> Value {
    json!({
        "first": side(&args.first.to_string(), &comparison.digests.first.to_string()),
        "second": side(&args.second.to_string(), &comparison.digests.second.to_string()),
        "fields": comparison.fields.iter().map(field).collect::<Vec<_>>(),
        "images": comparison.images.iter().map(|image| {
            let mut told = difference(&image.what);
            told["platform"] = json!(image.platform);
            told
        }).collect::<Vec<_>>(),
    })
}

fn side(reference: &str, digest: &str) -> Value {
    json!({"reference": reference, "digest": digest})
}

/// A value that is not there is left out, so that it differs from null.
fn field(change: &Change) -> Value {
    let mut told = json!({"field": change.field});
    if let Some(value) = &change.values.first {
        told["first"] = value.clone();
    }
    if let Some(value) = &change.values.second {
        told["second"] = value.clone();
    }
    told
}

fn difference(what: &Difference) -> Value {
    match what {
        Difference::OnlyFirst(digest) => json!({"first": digest}),
        Difference::OnlySecond(digest) => json!({"second": digest}),
        Difference::Changed { digests, fields, layers } => json!({
            "first": digests.first,
            "second": digests.second,
            "fields": fields.iter().map(field).collect::<Vec<_>>(),
            "layers": {
                "common": layers.common,
                "first": all(&layers.then).first,
                "second": all(&layers.then).second,
                "bytes": {"first": layers.bytes.first, "second": layers.bytes.second},
            },
        }),
    }
}

fn all(layers: &Sides<Vec<Layer>>) -> Sides<Vec<Value>> {
    let told = |layers: &[Layer]| layers.iter().map(layer).collect();
    Sides { first: told(&layers.first), second: told(&layers.second) }
}

fn layer(layer: &Layer) -> Value {
    let mut told = json!({"digest": layer.digest, "size": layer.size});
    if let Some(step) = &layer.made_by {
        told["created_by"] = json!(step);
    }
    told
}
