//! The data sets: what is pushed, in which order and how.

use portcullis_oci::{Algorithm, Digest};
use portcullis_testkit::image::random_bytes;
use serde_json::{Value, json};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const LAYER_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const EMPTY_JSON: &str = "application/vnd.oci.empty.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Blobs, and manifests in the order in which they can be pushed.
pub(super) struct DataSet {
    pub(super) algorithm: Algorithm,
    pub(super) blobs: Vec<(Digest, Vec<u8>)>,
    pub(super) manifests: Vec<Pushed>,
    /// Distinguishes the random bytes of one set.
    seed: u64,
}

/// A manifest, and how it is pushed.
pub(super) struct Pushed {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
    pub(super) subject: Option<Digest>,
    /// As the referrers list has it.
    pub(super) artifact_type: Option<String>,
    pub(super) annotations: Value,
    /// Without tags it is pushed by digest.
    pub(super) tags: Vec<String>,
    /// With `?tag=`, all in one request.
    pub(super) tags_in_query: bool,
}

type Build = fn(&mut DataSet);

/// The suite's names, and what it does not have: Docker's types, Helm charts, cosign's signatures.
pub(super) const SETS: [(&str, Build); 22] = [
    ("image", |set| set.image(LAYER_GZIP, "image", plain)),
    ("image-uncompressed", |set| set.image(LAYER, "image-uncompressed", plain)),
    ("large-manifest", large_manifest),
    ("index", |set| drop(index(set))),
    ("nested-index", nested_index),
    ("empty-index", |set| drop(set.index(&[], "empty-index", plain))),
    ("artifact", |set| drop(set.artifact(true, "artifact", plain))),
    ("artifact-index", artifact_index),
    ("artifact-without-layers", |set| drop(set.artifact(false, "artifact-without-layers", plain))),
    ("artifacts-with-subject", artifacts_with_subject),
    ("index-with-subject", index_with_subject),
    ("missing-subject", missing_subject),
    ("data-field", data_field),
    ("non-distributable-layers", non_distributable_layers),
    ("custom-fields", custom_fields),
    ("no-layers", no_layers),
    ("sparse (an index)", sparse_index),
    ("sha512", sha512),
    ("tag-param-sha256", |set| tag_param(set, Algorithm::Sha256)),
    ("tag-param-sha512", |set| tag_param(set, Algorithm::Sha512)),
    ("docker schema 2 and list", docker),
    ("helm chart and cosign signature", helm_and_cosign),
];

impl DataSet {
    pub(super) fn build(seed: u64, build: Build) -> Self {
        let mut set =
            Self { algorithm: Algorithm::Sha256, blobs: Vec::new(), manifests: Vec::new(), seed: seed * 1000 };
        build(&mut set);
        set
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(self.algorithm, bytes);
        self.blobs.push((digest, bytes.to_vec()));
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    fn random_blob(&mut self, media_type: &str) -> Value {
        self.seed += 1;
        let size = usize::try_from(self.seed % 500).unwrap();
        self.blob(media_type, &random_bytes(self.seed, 2000 + size))
    }

    /// An image with two layers, and its descriptor.
    fn manifest(&mut self, layer: &str, tag: &str, change: impl FnOnce(&mut Value)) -> Value {
        let config = self.random_blob(CONFIG);
        let layers = [self.random_blob(layer), self.random_blob(layer)];
        let mut manifest = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers});
        change(&mut manifest);
        self.push(&manifest, tag)
    }

    fn image(&mut self, layer: &str, tag: &str, change: impl FnOnce(&mut Value)) {
        self.manifest(layer, tag, change);
    }

    fn index(&mut self, manifests: &[Value], tag: &str, change: impl FnOnce(&mut Value)) -> Value {
        let mut index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        change(&mut index);
        self.push(&index, tag)
    }

    fn artifact(&mut self, with_layers: bool, tag: &str, change: impl FnOnce(&mut Value)) -> Value {
        let config = self.blob(EMPTY_JSON, b"{}");
        let layers =
            if with_layers { vec![self.random_blob("application/vnd.example.data")] } else { vec![config.clone()] };
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "artifactType": "application/vnd.example.artifact",
            "config": config,
            "layers": layers,
        });
        change(&mut manifest);
        self.push(&manifest, tag)
    }

    /// The next manifest, under a tag unless that is empty.
    fn push(&mut self, manifest: &Value, tag: &str) -> Value {
        let bytes = serde_json::to_vec(manifest).unwrap();
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let digest = Digest::of(self.algorithm, &bytes);
        let media_type = text(&manifest["mediaType"]).unwrap();
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.manifests.push(Pushed {
            digest,
            media_type,
            bytes,
            subject: manifest["subject"]["digest"].as_str().map(|digest| digest.parse().unwrap()),
            artifact_type: text(&manifest["artifactType"]).or_else(|| text(&manifest["config"]["mediaType"])),
            annotations: manifest["annotations"].clone(),
            tags: if tag.is_empty() { Vec::new() } else { vec![tag.to_owned()] },
            // By tag alone a registry takes the SHA-256.
            tags_in_query: self.algorithm != Algorithm::Sha256,
        });
        descriptor
    }
}

fn plain(_: &mut Value) {}

fn platform(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
    descriptor
}

fn index(set: &mut DataSet) -> Value {
    let children = ["amd64", "arm64"].map(|architecture| platform(set.manifest(LAYER_GZIP, "", plain), architecture));
    set.index(&children, "index", plain)
}

fn nested_index(set: &mut DataSet) {
    let inner = index(set);
    let image = set.manifest(LAYER_GZIP, "", plain);
    set.index(&[inner, image], "nested-index", plain);
}

fn large_manifest(set: &mut DataSet) {
    let annotations: Value = (0..39)
        .map(|number| (format!("large.{number}"), json!("x".repeat(100_000))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    set.image(LAYER_GZIP, "large-manifest", |manifest| manifest["annotations"] = annotations);
}

fn artifact_index(set: &mut DataSet) {
    let children = [set.artifact(true, "", plain), set.artifact(true, "", plain)];
    set.index(&children, "artifact-index", |index| index["artifactType"] = json!("application/vnd.example.artifact"));
}

fn artifacts_with_subject(set: &mut DataSet) {
    let subject = set.manifest(LAYER_GZIP, "artifacts-with-subject", plain);
    for number in 0..3 {
        let subject = subject.clone();
        set.artifact(true, "", |artifact| {
            artifact["subject"] = subject;
            artifact["artifactType"] = json!(format!("application/vnd.example.{}", number % 2));
            artifact["annotations"] = json!({"number": number.to_string()});
        });
    }
    // Without a type of its own it has that of its config.
    set.image(LAYER_GZIP, "tagged-referrer", |image| image["subject"] = subject);
}

fn index_with_subject(set: &mut DataSet) {
    let subject = index(set);
    set.index(&[], "index-with-subject", |index| index["subject"] = subject);
}

fn missing_subject(set: &mut DataSet) {
    let missing = Digest::of(set.algorithm, b"never pushed");
    let subject = json!({"mediaType": IMAGE, "digest": missing, "size": 12});
    set.artifact(true, "missing-subject", |artifact| artifact["subject"] = subject);
}

fn data_field(set: &mut DataSet) {
    set.artifact(true, "data-field", |artifact| artifact["config"]["data"] = json!("e30="));
}

fn non_distributable_layers(set: &mut DataSet) {
    set.image(LAYER_GZIP, "non-distributable-layers", |image| {
        let elsewhere = Digest::of(Algorithm::Sha256, b"elsewhere");
        let foreign = json!({
            "mediaType": LAYER_FOREIGN, "digest": elsewhere, "size": 9, "urls": [format!("https://store.example.com/{elsewhere}")],
        });
        image["layers"].as_array_mut().unwrap().push(foreign);
    });
}

fn custom_fields(set: &mut DataSet) {
    let child = set.manifest(LAYER_GZIP, "custom-fields", |image| {
        image["org.example.field"] = json!({"kept": ["as", "it", "is"]});
        image["layers"][0]["org.example.field"] = json!(1.5e300);
        image["config"]["org.example.field"] = Value::Null;
    });
    set.index(&[child], "custom-fields-index", |index| index["org.example.field"] = json!([{}]));
}

fn no_layers(set: &mut DataSet) {
    set.image(LAYER_GZIP, "no-layers", |image| image["layers"] = json!([]));
    // What is not named any more is pushed all the same, and harmless.
}

fn sparse_index(set: &mut DataSet) {
    let present = platform(set.manifest(LAYER_GZIP, "", plain), "amd64");
    let absent = json!({"mediaType": IMAGE, "digest": Digest::of(set.algorithm, b"not mirrored"), "size": 12});
    set.index(&[present, platform(absent, "riscv64")], "sparse-index", plain);
}

fn sha512(set: &mut DataSet) {
    set.algorithm = Algorithm::Sha512;
    let subject = index(set);
    set.artifact(true, "sha512-artifact", |artifact| artifact["subject"] = subject);
}

fn tag_param(set: &mut DataSet, algorithm: Algorithm) {
    set.algorithm = algorithm;
    set.image(LAYER_GZIP, "", plain);
    let last = set.manifests.last_mut().unwrap();
    last.tags = (0..12).map(|number| format!("tag-param-{number:02}")).collect();
    last.tags_in_query = true;
}

fn docker(set: &mut DataSet) {
    let image = set.manifest(DOCKER_LAYER, "docker", |image| {
        image["mediaType"] = json!(DOCKER_IMAGE);
        image["config"]["mediaType"] = json!(DOCKER_CONFIG);
    });
    let list = json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [platform(image, "amd64")]});
    set.push(&list, "docker-list");
}

fn helm_and_cosign(set: &mut DataSet) {
    let config = set.blob("application/vnd.cncf.helm.config.v1+json", br#"{"name":"chart","version":"1.0.0"}"#);
    let chart = set.random_blob("application/vnd.cncf.helm.chart.content.v1.tar+gzip");
    let helm = json!({
        "schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [chart],
        "annotations": {"org.opencontainers.image.title": "chart", "org.opencontainers.image.version": "1.0.0"},
    });
    let helm = set.push(&helm, "1.0.0");
    // Under a tag, as cosign before 3 does it, and as a referrer.
    let mut payload = set.blob("application/vnd.dev.cosign.simplesigning.v1+json", br#"{"critical":{}}"#);
    payload["annotations"] = json!({"dev.cosignproject.cosign/signature": "MEUCIQ=="});
    let config = set.random_blob(CONFIG);
    let signature = json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": [payload]});
    let tag = format!("{}.sig", helm["digest"].as_str().unwrap().replace(':', "-"));
    set.push(&signature, &tag);
    set.artifact(true, "", |bundle| {
        bundle["artifactType"] = json!("application/vnd.dev.sigstore.bundle.v0.3+json");
        bundle["subject"] = helm;
    });
}
