//! What two images of registries differ in, as a person wants to know it: for which machines there are images, what their
//! configs say, which layers they share. Contents of layers are not looked at.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_oci::{Content, Descriptor, Digest, Manifest, ManifestReference, Platform, PlatformChoice, Reference};
use serde_json::Value;

use crate::choice::is_image_config;
use crate::manifests::FetchedManifest;
use crate::select::small_blob;
use crate::transfer::same_host;
use crate::{Client, ClientError};

/// The most images of one index that are compared.
pub const MAX_COMPARED: usize = 256;

/// What two images differ in.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The digests; equal ones leave nothing else to say.
    pub digests: Sides<Digest>,
    /// The manifests' or indexes' own fields: media type, artifact type, annotations.
    pub fields: Vec<Change>,
    /// Machine by machine, in order of their names; one with nothing to say about is left out.
    pub images: Vec<ImageChange>,
}

/// Something of the first image and its counterpart of the second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sides<T> {
    /// The first image's.
    pub first: T,
    /// The second image's.
    pub second: T,
}

/// A field with another value, or on one side only.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Which, with dots: `config.Env.PATH`, `annotations.org.opencontainers.image.version`.
    pub field: String,
    /// The values; `None` where there is none.
    pub values: Sides<Option<Value>>,
}

/// What the images for one machine differ in.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageChange {
    /// The machine, `linux/arm64`; empty where none is stated.
    pub platform: String,
    /// What is different.
    pub what: Difference,
}

/// How the images for one machine differ.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// Only the first has one.
    OnlyFirst(Digest),
    /// Only the second has one.
    OnlySecond(Digest),
    /// Both have one, of these digests.
    Changed {
        /// The manifests.
        digests: Sides<Digest>,
        /// Fields of the manifest and of the config.
        fields: Vec<Change>,
        /// The layers.
        layers: Layers,
    },
}

/// Layers, the base first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// How many the two begin with in common.
    pub common: usize,
    /// What comes after that.
    pub then: Sides<Vec<Layer>>,
    /// The bytes of all layers.
    pub bytes: Sides<u64>,
}

/// A layer, with the step that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes, as it is sent.
    pub size: u64,
    /// `created_by` of the config's history, where there is one: text of whoever built it.
    pub made_by: Option<String>,
}

/// Compares two images. With a platform only the images for that machine are looked at.
///
/// # Errors
/// Any [`ClientError`], with the host that it is about.
pub async fn compare(
    (first, first_reference): (&Client, &Reference),
    (second, second_reference): (&Client, &Reference),
    platform: Option<&PlatformChoice>,
) -> Result<Comparison, ClientError> {
    let first = Side::fetch(first, first_reference).await?;
    let second = Side::fetch(second, second_reference).await?;
    let digests = Sides { first: first.root.digest, second: second.root.digest };
    if digests.first == digests.second {
        return Ok(Comparison { digests, fields: Vec::new(), images: Vec::new() });
    }
    let (one, other) = (first.images(platform).await?, second.images(platform).await?);
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let mut images = Vec::new();
    for name in names {
        let what = match (one.get(name), other.get(name)) {
            (Some(one), Some(other)) if one == other => continue,
            (Some(one), Some(other)) => changed(&first.image(*one).await?, &second.image(*other).await?),
            (Some(one), None) => Difference::OnlyFirst(*one),
            (None, Some(other)) => Difference::OnlySecond(*other),
            (None, None) => continue,
        };
        images.push(ImageChange { platform: name.clone(), what });
    }
    let fields = if platform.is_some() { Vec::new() } else { root_fields(&first.root.manifest, &second.root.manifest) };
    Ok(Comparison { digests, fields, images })
}

/// One of the two.
struct Side<'a> {
    client: &'a Client,
    reference: &'a Reference,
    root: FetchedManifest,
}

/// An image with its config.
struct Image {
    digest: Digest,
    manifest: Manifest,
    config: Value,
}

impl<'a> Side<'a> {
    async fn fetch(client: &'a Client, reference: &'a Reference) -> Result<Self, ClientError> {
        same_host(client, reference)?;
        let root = client.manifest(&reference.repository, &reference.manifest()).await?;
        Ok(Self { client, reference, root })
    }

    /// The images by the machine that they are for.
    async fn images(&self, platform: Option<&PlatformChoice>) -> Result<BTreeMap<String, Digest>, ClientError> {
        let Content::Index { manifests } = &self.root.manifest.content else {
            let image = self.image(self.root.digest).await?;
            let machine: Option<Platform> = serde_json::from_value(image.config).ok();
            let machine = machine.filter(|machine| !machine.os.is_empty());
            let name = machine.as_ref().map(ToString::to_string).unwrap_or_default();
            let is_wanted =
                |choice: &PlatformChoice| machine.as_ref().is_some_and(|there| choice.rank(there).is_some());
            if platform.is_some_and(|choice| !is_wanted(choice)) {
                return Err(no_platform(platform, vec![name]));
            }
            // Of one machine that was asked for, the spelling makes no difference.
            return Ok(BTreeMap::from([(platform.map_or(name, ToString::to_string), image.digest)]));
        };
        if manifests.len() > MAX_COMPARED {
            return Err(ClientError::TooMany { limit: MAX_COMPARED, unit: "images of one index" });
        }
        if let Some(choice) = platform {
            let offered = || manifests.iter().filter_map(|child| Some((child.platform.as_ref()?, child)));
            let names = || offered().map(|(machine, _)| machine.to_string()).collect();
            let best = choice.best(offered()).ok_or_else(|| no_platform(platform, names()))?;
            return Ok(BTreeMap::from([(choice.to_string(), best.digest)]));
        }
        let mut images = BTreeMap::new();
        for child in manifests {
            insert(&mut images, &name_of(child), child.digest);
        }
        Ok(images)
    }

    async fn image(&self, digest: Digest) -> Result<Image, ClientError> {
        let manifest = if digest == self.root.digest {
            self.root.manifest.clone()
        } else {
            let reference = ManifestReference::Digest(digest);
            self.client.manifest(&self.reference.repository, &reference).await?.manifest
        };
        let config = match &manifest.content {
            Content::Image { config, .. } if is_image_config(config) => {
                let bytes = small_blob(self.client, &self.reference.repository, config).await?;
                // A config that is no JSON is compared by its digest, as a part of the manifest.
                serde_json::from_slice(&bytes).unwrap_or(Value::Null)
            }
            _ => Value::Null,
        };
        Ok(Image { digest, manifest, config })
    }
}

/// What an index says a manifest is for. Attestations of BuildKit are for nothing, and say whose they are.
fn name_of(child: &Descriptor) -> String {
    match child.annotations.get("vnd.docker.reference.type") {
        Some(kind) => kind.clone(),
        None => child.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Several for one machine are told apart by their place.
fn insert(images: &mut BTreeMap<String, Digest>, name: &str, digest: Digest) {
    let mut free = name.to_owned();
    for number in 2.. {
        if !images.contains_key(&free) {
            break;
        }
        free = format!("{name} ({number})");
    }
    images.insert(free, digest);
}

fn no_platform(wanted: Option<&PlatformChoice>, available: Vec<String>) -> ClientError {
    ClientError::NoPlatform { wanted: wanted.map(ToString::to_string).unwrap_or_default(), available }
}

fn root_fields(first: &Manifest, second: &Manifest) -> Vec<Change> {
    // Those of an image that is in no index are told with it.
    let is_index = |manifest: &Manifest| matches!(manifest.content, Content::Index { .. });
    if is_index(first) || is_index(second) {
        changes(&manifest_fields(first), &manifest_fields(second))
    } else {
        Vec::new()
    }
}

fn changed(first: &Image, second: &Image) -> Difference {
    let fields = |image: &Image| {
        let mut fields = manifest_fields(&image.manifest);
        flatten("", &image.config, &mut fields);
        fields
    };
    Difference::Changed {
        digests: Sides { first: first.digest, second: second.digest },
        fields: changes(&fields(first), &fields(second)),
        layers: layers(first, second),
    }
}

fn layers(first: &Image, second: &Image) -> Layers {
    let [one, other] = [first, second].map(|image| match &image.manifest.content {
        Content::Image { layers, .. } => layers.as_slice(),
        Content::Index { manifests } => manifests.as_slice(),
        Content::Schema1 { .. } => &[],
    });
    let common = one.iter().zip(other).take_while(|(one, other)| one.digest == other.digest).count();
    let then = |image: &Image, layers: &[Descriptor]| {
        let steps = steps(&image.config);
        let layer = |(place, layer): (usize, &Descriptor)| Layer {
            digest: layer.digest,
            size: layer.size,
            made_by: steps.get(place).cloned().flatten(),
        };
        layers.iter().enumerate().skip(common).map(layer).collect()
    };
    let bytes = |layers: &[Descriptor]| layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
    Layers {
        common,
        then: Sides { first: then(first, one), second: then(second, other) },
        bytes: Sides { first: bytes(one), second: bytes(other) },
    }
}

/// The steps of the history that made a layer each.
fn steps(config: &Value) -> Vec<Option<String>> {
    let history = config.get("history").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let makes_a_layer = |step: &&Value| step.get("empty_layer").and_then(Value::as_bool) != Some(true);
    history.iter().filter(makes_a_layer).map(|step| Some(step.get("created_by")?.as_str()?.to_owned())).collect()
}

fn manifest_fields(manifest: &Manifest) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::from([("mediaType".to_owned(), Value::from(manifest.media_type.clone()))]);
    if let Some(artifact_type) = &manifest.artifact_type {
        fields.insert("artifactType".to_owned(), Value::from(artifact_type.clone()));
    }
    if let Some(subject) = &manifest.subject {
        fields.insert("subject".to_owned(), Value::from(subject.digest.to_string()));
    }
    if let Content::Image { config, .. } = &manifest.content {
        fields.insert("config media type".to_owned(), Value::from(config.media_type.clone()));
        if !is_image_config(config) {
            fields.insert("config digest".to_owned(), Value::from(config.digest.to_string()));
        }
    }
    for (key, value) in &manifest.annotations {
        fields.insert(format!("annotations.{key}"), Value::from(value.clone()));
    }
    fields
}

/// A config's fields by their paths. Layers and history are told elsewhere, and of the environment each variable is a
/// field of its own.
fn flatten(path: &str, value: &Value, fields: &mut BTreeMap<String, Value>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(_) if path == "rootfs" => {}
        Value::Array(_) if path == "history" => {}
        Value::Object(object) => object.iter().for_each(|(key, value)| flatten(&below(key), value, fields)),
        Value::Array(list) if path == "config.Env" => {
            for text in list.iter().filter_map(Value::as_str) {
                let (name, value) = text.split_once('=').unwrap_or((text, ""));
                fields.insert(below(name), Value::from(value));
            }
        }
        Value::Null => {}
        other => {
            fields.insert(path.to_owned(), other.clone());
        }
    }
}

fn changes(first: &BTreeMap<String, Value>, second: &BTreeMap<String, Value>) -> Vec<Change> {
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let values = |name: &String| Sides { first: first.get(name).cloned(), second: second.get(name).cloned() };
    let change = |name: &String| Change { field: name.clone(), values: values(name) };
    names.into_iter().map(change).filter(|change| change.values.first != change.values.second).collect()
}

#[cfg(test)]
mod tests {
    use portcullis_oci::Algorithm;
    use serde_json::json;

    use super::*;

    fn image(config: Value, layers: &[&str]) -> Image {
        let descriptor = |text: &str| json!({"mediaType": "x/y", "size": text.len(), "digest": digest(text)});
        let mut body = json!({"schemaVersion": 2, "config": descriptor("config"),
            "layers": layers.iter().map(|layer| descriptor(layer)).collect::<Vec<_>>()});
        body["config"]["mediaType"] = json!(portcullis_oci::media::OCI_IMAGE_CONFIG);
        let body = body.to_string();
        Image { digest: digest(&body), manifest: Manifest::parse(body.as_bytes(), None).unwrap(), config }
    }

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn parts(first: &Image, second: &Image) -> (Vec<Change>, Layers) {
        match changed(first, second) {
            Difference::Changed { fields, layers, .. } => (fields, layers),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_field_of_a_config_is_compared_by_its_path() {
        let first = image(
            json!({"os": "linux", "created": "1", "config": {"Env": ["A=1", "PATH=/bin", "X"], "Cmd": ["a"], "Labels": {"v": "1"}},
                "history": [{}], "rootfs": {"diff_ids": ["a"]}}),
            &[],
        );
        let second = image(
            json!({"os": "linux", "created": "2", "config": {"Env": ["PATH=/usr/bin", "X"], "Cmd": ["a", "b"], "Labels": null},
                "history": [], "rootfs": {"diff_ids": ["b"]}}),
            &[],
        );
        let (fields, _) = parts(&first, &second);
        let told: Vec<_> =
            fields.iter().map(|change| (change.field.as_str(), &change.values.first, &change.values.second)).collect();
        let (one, two) = (|value: Value| Some(value), None);
        assert_eq!(
            told,
            [
                ("config.Cmd", &one(json!(["a"])), &one(json!(["a", "b"]))),
                ("config.Env.A", &one(json!("1")), &two),
                ("config.Env.PATH", &one(json!("/bin")), &one(json!("/usr/bin"))),
                ("config.Labels.v", &one(json!("1")), &two),
                ("created", &one(json!("1")), &one(json!("2"))),
            ]
        );
    }

    #[test]
    fn layers_are_in_common_from_the_base_up() {
        let history = json!({"history": [{"created_by": "FROM"}, {"created_by": "ENV", "empty_layer": true}, {"created_by": "RUN"}]});
        let (_, layers) = parts(&image(history, &["base", "b"]), &image(Value::Null, &["base", "other", "b"]));
        assert_eq!(layers.common, 1);
        assert_eq!(layers.bytes, Sides { first: 5, second: 10 });
        let [only] = &layers.then.first[..] else { panic!("{layers:?}") };
        assert_eq!((only.digest, only.made_by.as_deref()), (digest("b"), Some("RUN")));
        assert_eq!(
            layers.then.second.iter().map(|layer| layer.digest).collect::<Vec<_>>(),
            [digest("other"), digest("b")]
        );
    }

    #[test]
    fn two_for_one_machine_are_two() {
        let mut images = BTreeMap::new();
        for text in ["a", "b", "c"] {
            insert(&mut images, "linux/amd64", digest(text));
        }
        let names: Vec<&str> = images.keys().map(String::as_str).collect();
        assert_eq!(names, ["linux/amd64", "linux/amd64 (2)", "linux/amd64 (3)"]);
    }
}
