//! One auth file, read: which of its entries is for a registry (docker/cli `cli/config`, containers/image
//! `pkg/docker/config`), and what it says. Pure. Must not know where files are.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use portcullis_oci::{RegistryHost, RepositoryName, docker_hub};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::files::AuthFileFault;
use super::{Credential, helper::Helper};
use crate::error::ClientError;
use crate::secret::Secret;

/// The names of Docker Hub, and the one under which its credentials are kept (docker/cli `IndexServer`).
const HUB: [&str; 3] = [docker_hub::NAME, docker_hub::FORMER_NAME, docker_hub::REGISTRY];
const HUB_KEY: &str = "https://index.docker.io/v1/";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The JSON object of an auth file.
pub(super) struct AuthFile(pub(super) Map<String, Value>);

/// Who has the credential.
pub(super) enum Holder {
    /// A helper, which knows it by this name.
    Helper(Helper, String),
    /// The file itself.
    Entry(Credential),
}

impl AuthFile {
    /// Those who may have it, in order: the registry's helper, the helper for all, the entries from the repository
    /// upwards.
    pub(super) fn holders(
        &self,
        host: &RegistryHost,
        repository: Option<&RepositoryName>,
    ) -> Result<Vec<Holder>, HolderFault> {
        let mut holders = Vec::new();
        if let Some((helper, server)) = self.helper(host).map_err(HolderFault::Helper)? {
            holders.push(Holder::Helper(helper, server));
        }
        for key in keys(host, repository) {
            if let Some((key, entry)) = self.entry(&key)
                && let Some(credential) = credential(key, entry).map_err(HolderFault::Entry)?
            {
                holders.push(Holder::Entry(credential));
            }
        }
        Ok(holders)
    }

    /// The helper for a registry, with the name that it knows the registry by.
    pub(super) fn helper(&self, host: &RegistryHost) -> Result<Option<(Helper, String)>, ClientError> {
        let own = self.object("credHelpers").and_then(|helpers| {
            let mut found = helpers.iter().filter(|(key, _)| normal(key) == canonical(host.as_str()));
            found.find_map(|(key, name)| Some((name.as_str()?, key.clone())))
        });
        let all = || Some((self.0.get("credsStore")?.as_str().filter(|name| !name.is_empty())?, server_key(host)));
        own.or_else(all).map(|(name, server)| Ok((Helper::new(name)?, server))).transpose()
    }

    /// Whether an entry, or a helper, is for the registry or for something on it.
    pub(super) fn may_have(&self, host: &RegistryHost) -> bool {
        let canonical = canonical(host.as_str());
        let below = format!("{canonical}/");
        let is_meant = |key: &String| normal(key) == canonical || normal(key).starts_with(&below);
        let has_text = |key: &str| self.0.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        has_text("credsStore")
            || ["auths", "credHelpers"].iter().filter_map(|key| self.object(key)).flat_map(Map::keys).any(is_meant)
    }

    /// Every name under which the file has an entry for the registry itself.
    pub(super) fn keys_of(&self, host: &RegistryHost) -> Vec<String> {
        let canonical = canonical(host.as_str());
        let auths = self.object("auths").into_iter().flat_map(Map::keys);
        auths.filter(|key| normal(key) == canonical).cloned().collect()
    }

    /// The entry with this name, else the first, in byte order, that means the same.
    fn entry(&self, key: &str) -> Option<(&str, &Value)> {
        let auths = self.object("auths")?;
        let exact = auths.get_key_value(key);
        let found = exact.or_else(|| auths.iter().find(|(other, _)| normal(other) == canonical(key)));
        found.map(|(key, entry)| (key.as_str(), entry))
    }

    fn object(&self, key: &str) -> Option<&Map<String, Value>> {
        self.0.get(key)?.as_object()
    }
}

/// Why the holders are not known.
pub(super) enum HolderFault {
    Helper(ClientError),
    Entry(AuthFileFault),
}

/// The name under which a registry is written into a file, and known to a helper.
pub(super) fn server_key(host: &RegistryHost) -> String {
    if HUB.contains(&host.as_str()) { HUB_KEY.to_owned() } else { host.to_string() }
}

/// `host/team/app`, `host/team`, `host`.
fn keys(host: &RegistryHost, repository: Option<&RepositoryName>) -> Vec<String> {
    let full = repository.map_or_else(|| host.to_string(), |repository| format!("{host}/{repository}"));
    let mut keys = vec![full];
    while let Some((parent, _)) = keys[keys.len() - 1].rsplit_once('/') {
        keys.push(parent.to_owned());
    }
    keys
}

/// What a name in a file means: without a scheme, and then without the path that only an address has.
fn normal(key: &str) -> String {
    match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(rest) => canonical(rest.split('/').next().unwrap_or_default()),
        None => canonical(key),
    }
}

/// One name for Docker Hub, also in front of a repository.
fn canonical(name: &str) -> String {
    let (host, rest) = name.split_at(name.find('/').unwrap_or(name.len()));
    if HUB.contains(&host) { format!("{}{rest}", HUB[0]) } else { name.to_owned() }
}

/// What an entry holds. One that is empty stands for a helper's.
fn credential(key: &str, entry: &Value) -> Result<Option<Credential>, AuthFileFault> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let secret = |text: &str| Secret::new(text.to_owned());
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credential::IdentityToken(secret(token))));
    }
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Credential::RegistryToken(secret(token))));
    }
    if let Some(auth) = text("auth") {
        return decoded(auth).map(Some).ok_or_else(|| AuthFileFault::Auth { key: key.to_owned() });
    }
    match (text("username"), text("password")) {
        (Some(username), Some(password)) => {
            Ok(Some(Credential::Password { username: username.to_owned(), password: secret(password) }))
        }
        _ => Ok(None),
    }
}

/// `user:password` in base64; Docker takes zeros off the end of it.
fn decoded(auth: &str) -> Option<Credential> {
    let bytes = Zeroizing::new(BASE64.decode(auth).ok()?);
    let (username, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    let password = Secret::new(password.trim_matches('\0').to_owned());
    Some(Credential::Password { username: username.to_owned(), password })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(value: Value) -> AuthFile {
        let Value::Object(object) = value else { panic!("no object") };
        AuthFile(object)
    }

    fn auth(username: &str) -> Value {
        json!({"auth": Secret::new("pw".to_owned()).encoded(username)})
    }

    fn who(file: &AuthFile, host: &str, repository: Option<&str>) -> Vec<String> {
        let repository = repository.map(|name| name.parse().unwrap());
        let Ok(holders) = file.holders(&host.parse().unwrap(), repository.as_ref()) else { panic!("no holders") };
        let name = |holder| match holder {
            Holder::Helper(helper, server) => format!("{helper:?} {server}"),
            Holder::Entry(Credential::Password { username, .. }) => username,
            Holder::Entry(other) => format!("{other:?}"),
        };
        holders.into_iter().map(name).collect()
    }

    #[test]
    fn the_entry_nearest_to_the_repository_comes_first() {
        let file = file(json!({"auths": {
            "r.test": auth("host"), "r.test/team": auth("team"), "r.test/team/app": auth("app"),
            "r.test/te": auth("other"), "r.test:5000": auth("port"),
        }}));
        assert_eq!(who(&file, "r.test", Some("team/app")), ["app", "team", "host"]);
        assert_eq!(who(&file, "r.test", Some("team/app/x")), ["app", "team", "host"]);
        assert_eq!(who(&file, "r.test", Some("team2")), ["host"]);
        assert_eq!(who(&file, "r.test", None), ["host"]);
        assert_eq!(who(&file, "r.test:5000", Some("team/app")), ["port"]);
        assert!(who(&file, "r.test:5001", Some("team/app")).is_empty());
        assert!(who(&file, "test", None).is_empty());
    }

    #[test]
    fn addresses_of_older_versions_mean_their_host() {
        let file = file(json!({"auths": {"https://r.test:5000/v1/": auth("old"), "http://p.test": auth("plain")}}));
        assert_eq!(who(&file, "r.test:5000", Some("a/b")), ["old"]);
        assert_eq!(who(&file, "p.test", None), ["plain"]);
        assert!(who(&file, "r.test", None).is_empty());
    }

    #[test]
    fn docker_hub_has_many_names() {
        let file = file(json!({"auths": {"https://index.docker.io/v1/": auth("hub")}}));
        for host in HUB {
            assert_eq!(who(&file, host, Some("library/alpine")), ["hub"], "{host}");
        }
        assert_eq!(server_key(&"docker.io".parse().unwrap()), HUB_KEY);
    }

    #[test]
    fn helpers_come_before_entries() {
        let file = file(json!({
            "auths": {"r.test": auth("entry"), "s.test": {}},
            "credHelpers": {"r.test": "own"}, "credsStore": "all",
        }));
        assert_eq!(who(&file, "r.test", None), [r#"Helper("own") r.test"#, "entry"]);
        assert_eq!(who(&file, "s.test", None), [r#"Helper("all") s.test"#]);
        assert_eq!(who(&file, "docker.io", None), [r#"Helper("all") https://index.docker.io/v1/"#]);
    }

    #[test]
    fn what_an_entry_says() {
        let parse = |entry: Value| credential("r.test", &entry);
        let password = |username: &str, password: &str| {
            let password = Secret::new(password.to_owned());
            Ok(Some(Credential::Password { username: username.to_owned(), password }))
        };
        assert_eq!(parse(json!({"auth": "dTpwOnc="})), password("u", "p:w"));
        assert_eq!(parse(json!({"auth": "dTpwOnc"})), password("u", "p:w"));
        assert_eq!(parse(json!({"auth": "dTpwAAA="})), password("u", "p"));
        assert_eq!(parse(json!({"username": "u", "password": "p"})), password("u", "p"));
        assert_eq!(
            parse(json!({"auth": "dTo=", "identitytoken": "t"})),
            Ok(Some(Credential::IdentityToken(Secret::new("t".to_owned()))))
        );
        assert_eq!(
            parse(json!({"registrytoken": "t"})),
            Ok(Some(Credential::RegistryToken(Secret::new("t".to_owned()))))
        );
        assert_eq!(parse(json!({})), Ok(None));
        assert_eq!(parse(json!({"username": "u"})), Ok(None));
        for bad in ["dXA=", "!", "/w=="] {
            let fault = parse(json!({ "auth": bad })).unwrap_err();
            assert!(!fault.to_string().contains(bad), "{fault}");
        }
    }

    #[test]
    fn whether_there_may_be_any() {
        let host = "r.test".parse().unwrap();
        for (value, expected) in [
            (json!({"auths": {"r.test": {}}}), true),
            (json!({"auths": {"r.test/a": {}}}), true),
            (json!({"auths": {"https://r.test/v2/": {}}}), true),
            (json!({"credHelpers": {"r.test": "x"}}), true),
            (json!({"credsStore": "x"}), true),
            (json!({"credsStore": ""}), false),
            (json!({"auths": {"r.test2": {}, "s.test": {}}}), false),
            (json!({"auths": null}), false),
        ] {
            assert_eq!(file(value.clone()).may_have(&host), expected, "{value}");
        }
    }
}
