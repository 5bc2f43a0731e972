//! What each key becomes, and that what comes out is a configuration.

use portcullis_server::{ClientAuth, Config, Mode};

use super::super::yaml;
use super::*;

fn translated(text: &str) -> Translation {
    translate(&yaml::parse(text).unwrap())
}

fn config(text: &str) -> Config {
    let translation = translated(text);
    assert_eq!(translation.problems, []);
    Config::parse(Path::new("/home/config.toml"), &translation.config_toml()).unwrap()
}

/// `line key: what`
fn remarks(text: &str) -> Vec<String> {
    let of = |remark: &Remark| {
        let became = match &remark.became {
            Became::Ours(ours) => format!("becomes {ours}"),
            Became::Needless(_) => "needless".to_owned(),
            Became::Missing(_) => "missing".to_owned(),
            Became::Unknown => "unknown".to_owned(),
        };
        format!("{} {}: {became}", remark.line, remark.key)
    };
    translated(text).remarks.iter().map(of).collect()
}

/// Debian's own file, but for its comments.
const DEBIAN: &str = r"version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/docker-registry
  delete:
    enabled: true
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
auth:
  htpasswd:
    realm: basic-realm
    path: /etc/docker/registry
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
";

#[test]
fn debians_file() {
    let config = config(DEBIAN);
    assert_eq!(config.listen, "[::]:5000".parse().unwrap());
    assert_eq!(config.data, Path::new("/var/lib/docker-registry"));
    assert_eq!(
        remarks(DEBIAN),
        [
            "1 version: needless",
            "3 log.fields: missing",
            "6 storage.cache: needless",
            "9 storage.filesystem.rootdirectory: becomes [storage] data = \"/var/lib/docker-registry\"",
            "11 storage.delete.enabled: becomes \"delete\" in `allow` of a rule in policy.toml; `up` gives it to the admin alone",
            "13 http.addr: becomes listen = \"[::]:5000\"",
            "14 http.headers: missing",
            "17 auth.htpasswd: missing",
            "21 health.storagedriver: needless",
        ]
    );
}

#[test]
fn everything_that_maps() {
    let text = r#"version: 0.1
log: {formatter: json, level: debug}
storage:
  filesystem: {rootdirectory: "/srv/a \"b\"", maxthreads: 100}
  maintenance:
    uploadpurging: {enabled: true, age: 168h, interval: 24h, dryrun: false}
    readonly: {enabled: false}
http:
  addr: 10.0.0.1:5000
  net: tcp
  host: https://registry.example.com:5000
  draintimeout: 1m30s
  tls:
    certificate: /etc/docker/registry/tls.crt
    key: /etc/docker/registry/tls.key
    clientcas:
      - /etc/docker/registry/ca one.pem
      - /etc/docker/registry/two.pem
    clientauth: require-and-verify-client-cert
    minimumtls: tls1.2
  debug: {addr: "localhost:5001", prometheus: {enabled: true, path: /metrics}}
"#;
    let config = config(text);
    assert_eq!(config.listen, "10.0.0.1:5000".parse().unwrap());
    assert_eq!(config.probe, Some("127.0.0.1:5001".parse().unwrap()));
    assert_eq!(config.data, Path::new("/srv/a \"b\""));
    assert_eq!(config.certificate, Path::new("/etc/docker/registry/tls.crt"));
    assert_eq!(config.key, Path::new("/etc/docker/registry/tls.key"));
    assert_eq!(config.upload_expiry, Duration::from_hours(168));
    assert_eq!(config.limits.drain_timeout, Duration::from_secs(90));
    let translation = translated(text);
    assert_eq!(translation.client_cas, ["/etc/docker/registry/ca one.pem", "/etc/docker/registry/two.pem"]);
    assert_eq!(translation.host.as_deref(), Some("registry.example.com"));
    assert!(translation.has_tls);
    let lines: Vec<usize> = translation.remarks.iter().map(|remark| remark.line).collect();
    assert!([9, 11, 14, 17, 18].iter().all(|line| lines.contains(line)), "{lines:?}");
}

/// Every key of the table is translated as a file says it, and none of them is taken for unknown.
#[test]
fn every_known_key_has_an_answer() {
    for (key, _) in rules::RULES.iter().filter(|(key, _)| *key != "version") {
        let parts: Vec<&str> = key.split('.').collect();
        let nested = parts.iter().enumerate().map(|(depth, part)| format!("{}{part}:\n", "  ".repeat(depth)));
        let text = format!("version: 0.1\n{}", nested.collect::<String>());
        assert!(!remarks(&text).iter().any(|remark| remark.ends_with("unknown")), "{text}");
    }
}

/// A client without a certificate is anonymous then, and may do what policy.toml gives it: nothing, unless it says so.
#[test]
fn a_certificate_that_need_not_be_given() {
    let text = "version: 0.1\nhttp: {tls: {clientauth: verify-client-cert-if-given}}\n";
    assert_eq!(config(text).client_auth, ClientAuth::Optional);
    for other in ["request-client-cert", "require-any-client-cert", "require-and-verify-client-cert"] {
        let text = text.replace("verify-client-cert-if-given", other);
        assert_eq!(config(&text).client_auth, ClientAuth::Require, "{other}");
    }
}

#[test]
fn maintenance_without_writes() {
    let text = "version: 0.1\nstorage: {maintenance: {readonly: {enabled: true}}}\n";
    assert_eq!(config(text).mode, Mode::ReadOnly);
    assert_eq!(config(&text.replace("true", "false")).mode, Mode::ReadWrite);
}

#[test]
fn storage_in_all_its_forms() {
    for text in ["storage: filesystem", "storage: {filesystem: }", "storage: {filesystem: {maxthreads: 3}}"] {
        assert_eq!(config(&format!("version: 0.1\n{text}\n")).data, Path::new("/var/lib/registry"), "{text}");
    }
    for bucket in ["s3", "gcs", "azure", "swift", "oss", "inmemory"] {
        for text in [format!("storage: {bucket}"), format!("storage: {{{bucket}: {{bucket: b}}}}")] {
            let found = remarks(&format!("version: 0.1\n{text}\n"));
            assert!(found[1].ends_with("missing"), "{found:?}");
        }
    }
    let relative = "version: 0.1\nstorage: {filesystem: {rootdirectory: data}}\nhttp: {tls: {key: tls.key}}\n";
    assert!(remarks(relative)[1..].iter().all(|remark| remark.ends_with("missing")));
}

#[test]
fn addresses_as_go_reads_them() {
    for (text, expected) in [
        (":5000", Some("[::]:5000")),
        ("0.0.0.0:5000", Some("0.0.0.0:5000")),
        ("[::1]:5000", Some("[::1]:5000")),
        ("localhost:5000", Some("127.0.0.1:5000")),
        ("registry.example.com:5000", None),
        (":https", None),
        ("5000", None),
        (":70000", None),
    ] {
        assert_eq!(address(text), expected.map(|text| text.parse().unwrap()), "{text}");
    }
}

#[test]
fn durations_as_go_reads_them() {
    for (text, ours) in [
        ("168h", "168h"),
        ("1h30m", "90m"),
        ("1.5h", "90m"),
        ("90s", "90s"),
        ("250ms", "250ms"),
        ("60000000000", "1m"),
        ("100000h", "8784h"),
    ] {
        assert_eq!(go_duration(text).map(our_duration).as_deref(), Some(ours), "{text}");
    }
    for text in ["", "h", "1", "1d", "1h30", "-1h", "one"].into_iter().filter(|text| *text != "1") {
        assert_eq!(go_duration(text), None, "{text}");
    }
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let text = "version: 0.2\nstorage: [a]\nhttp:\n  addr: [1]\n  draintimeout: soon\n  tls:\n    clientcas: /a\n    clientauth: maybe\n";
    let lines: Vec<usize> = translated(text).problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 2, 4, 5, 7, 8]);
    for text in ["", "a", "- a\n", "storage: filesystem\n"] {
        assert_eq!(translated(text).problems.len(), 1, "{text}");
    }
}

#[test]
fn what_distribution_does_not_know_either_is_said() {
    let found =
        remarks("version: 0.1\nstorage: {filesystem: {rootdirectory: /a, rotdirectory: /b}}\nhtpp: {addr: x}\n");
    assert_eq!(found[2..], ["2 storage.filesystem.rotdirectory: unknown", "3 htpp: unknown"]);
}
