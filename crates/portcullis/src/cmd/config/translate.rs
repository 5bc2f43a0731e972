//! Distribution's configuration becomes ours: a tree in, settings and remarks out. Reads no file but in its text.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use portcullis_server::TEMPLATE;

use super::rules::{self, Rule, Setting};
use super::yaml::{Node, Problem, Value};

/// Where Distribution keeps its images if its file does not say.
const DEFAULT_DATA: &str = "/var/lib/registry";

/// What became of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) line: usize,
    /// As a path: `http.tls.key`.
    pub(super) key: String,
    pub(super) became: Became,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Became {
    /// This, here.
    Ours(String),
    /// Nothing, because it is not needed.
    Needless(String),
    /// Nothing, because there is no such thing.
    Missing(String),
    /// It is no key of Distribution's.
    Unknown,
}

/// All that a file says.
#[derive(Debug, Default)]
pub(super) struct Translation {
    pub(super) remarks: Vec<Remark>,
    pub(super) problems: Vec<Problem>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) data: Option<String>,
    /// The name that clients type, if the file knows it.
    pub(super) host: Option<String>,
    pub(super) client_cas: Vec<String>,
    pub(super) has_tls: bool,
    /// By section and key, as TOML.
    settings: BTreeMap<(&'static str, &'static str), String>,
}

/// Translates the whole tree.
pub(super) fn translate(root: &Node) -> Translation {
    let mut translation = Translation::default();
    match &root.value {
        Value::Map(_) => translation.walk("", root),
        _ => translation
            .problem(root.line, "this is no configuration: keys such as `version` and `storage` are expected"),
    }
    if !translation.remarks.iter().any(|remark| remark.key == "version") && translation.problems.is_empty() {
        translation.problem(1, "there is no `version`: Distribution's own file begins with version: 0.1");
    }
    translation.remarks.sort_by_key(|remark| remark.line);
    translation.problems.sort_by_key(|problem| problem.line);
    translation
}

impl Translation {
    /// The file of defaults, with what differs filled in.
    pub(super) fn config_toml(&self) -> String {
        let mut section = "";
        let mut lines = Vec::new();
        for line in TEMPLATE.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name;
            }
            let set = self.settings.iter().find(|((of, key), _)| {
                *of == section && line.strip_prefix("# ").is_some_and(|rest| rest.starts_with(&format!("{key} = ")))
            });
            lines.push(set.map_or_else(|| line.to_owned(), |((_, key), value)| format!("{key} = {value}")));
        }
        lines.join("\n") + "\n"
    }

    fn walk(&mut self, path: &str, node: &Node) {
        let Value::Map(entries) = &node.value else { return };
        for entry in entries {
            let key = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            let is_map = matches!(entry.node.value, Value::Map(_));
            match (rules::of(&key), rules::goes_deeper(&key)) {
                (_, true) if is_map => {
                    self.enter(&key, &entry.node);
                    self.walk(&key, &entry.node);
                }
                (Some((Rule::Maps(setting), true)), _) => self.set(setting, &key, entry.line, &entry.node),
                (Some((Rule::Needless(why), _)), _) => self.remark(entry.line, &key, Became::Needless(why.to_owned())),
                (Some((Rule::Missing(instead), _)), _) => {
                    self.remark(entry.line, &key, Became::Missing(instead.to_owned()));
                }
                // `storage: filesystem`
                (None, true) if key == "storage" => self.storage_by_name(entry.line, &entry.node),
                (None, true) if entry.node.value == Value::Null => {}
                (None, true) => self.problem(entry.line, &format!("`{key}` must be a map")),
                (Some((Rule::Maps(_), false)) | None, _) => self.remark(entry.line, &key, Became::Unknown),
            }
        }
    }

    /// What the mere presence of a map says.
    fn enter(&mut self, key: &str, node: &Node) {
        match key {
            "http.tls" => self.has_tls = true,
            "storage.filesystem" if !has(node, "rootdirectory") => self.default_data(node.line),
            _ => {}
        }
    }

    fn storage_by_name(&mut self, line: usize, node: &Node) {
        match &node.value {
            Value::Text(name) if name == "filesystem" => self.default_data(line),
            Value::Text(name) => match rules::of(&format!("storage.{name}")) {
                Some((Rule::Missing(instead), _)) => self.remark(line, "storage", Became::Missing(instead.to_owned())),
                _ => self.problem(line, &format!("`storage` is {name:?}, which is no driver of Distribution's")),
            },
            _ => self.problem(line, "`storage` must name a driver"),
        }
    }

    fn default_data(&mut self, line: usize) {
        self.put_data(line, "storage.filesystem", DEFAULT_DATA.to_owned());
    }

    fn set(&mut self, setting: Setting, key: &str, line: usize, node: &Node) {
        match setting {
            Setting::ClientCas => self.set_client_cas(key, line, node),
            Setting::ReadOnly => self.set_read_only(key, line, node),
            Setting::DataDirectory if node.value == Value::Null => self.default_data(line),
            // Distribution takes its own default for a key without a value.
            _ if node.value == Value::Null => {}
            _ => match &node.value {
                Value::Text(text) => self.set_text(setting, key, line, text),
                _ => self.problem(line, &format!("`{key}` must be a single value")),
            },
        }
    }

    fn set_text(&mut self, setting: Setting, key: &str, line: usize, text: &str) {
        match setting {
            Setting::Version if text == "0.1" => {
                self.remark(line, key, Became::Needless("the only version there is".to_owned()));
            }
            Setting::Version => self.problem(line, &format!("`version` is {text:?}: only 0.1 is known")),
            Setting::Address => self.set_address(key, line, text, "listen"),
            Setting::ProbeAddress => self.set_address(key, line, text, "probe"),
            Setting::Host => self.set_host(key, line, text),
            Setting::Certificate => self.set_path(key, line, text, "certificate"),
            Setting::Key => self.set_path(key, line, text, "key"),
            Setting::DataDirectory if Path::new(text).is_absolute() => self.put_data(line, key, text.to_owned()),
            Setting::DataDirectory => self.remark(line, key, Became::Missing(relative(text, "`data` of [storage]"))),
            Setting::DrainTimeout => self.set_duration(key, line, text, ("limits", "drain_timeout")),
            Setting::PurgeAge => self.set_duration(key, line, text, ("storage", "upload_expiry")),
            Setting::Net | Setting::Prefix | Setting::LogFormatter | Setting::MinimumTls => {
                self.remark(line, key, word(setting, text));
            }
            Setting::ClientAuth if text == "verify-client-cert-if-given" => {
                self.put(line, key, ("tls", "client_auth"), quoted("optional"));
            }
            Setting::ClientAuth => match client_auth(text) {
                Some(became) => self.remark(line, key, became),
                None => self.problem(line, &format!("`{key}` is {text:?}, which is no mode of Distribution's")),
            },
            Setting::DeleteEnabled => match truth(text) {
                Some(enabled) => self.remark(line, key, deletion(enabled)),
                None => self.problem(line, &format!("`{key}` is {text:?}, must be true or false")),
            },
            Setting::ClientCas | Setting::ReadOnly => {}
        }
    }

    fn set_address(&mut self, key: &str, line: usize, text: &str, ours: &'static str) {
        let Some(address) = address(text) else {
            let instead = format!(
                "{text:?} is no address and port number here: write it as `{ours}` by hand, such as \"10.0.0.1:5443\""
            );
            return self.remark(line, key, Became::Missing(instead));
        };
        if ours == "listen" {
            self.listen = Some(address);
        }
        self.put(line, key, ("", ours), quoted(&address.to_string()));
    }

    fn set_host(&mut self, key: &str, line: usize, text: &str) {
        let after = text.split_once("://").map_or(text, |(_, after)| after);
        let authority = after.split('/').next().unwrap_or_default();
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        self.host = (!host.is_empty()).then(|| host.to_owned());
        let why = "Location is always relative; the name must be one of the server's certificate";
        self.remark(line, key, Became::Needless(why.to_owned()));
    }

    fn set_path(&mut self, key: &str, line: usize, text: &str, ours: &'static str) {
        if Path::new(text).is_absolute() {
            self.put(line, key, ("tls", ours), quoted(text));
        } else {
            self.remark(line, key, Became::Missing(relative(text, &format!("`{ours}` of [tls]"))));
        }
    }

    fn set_client_cas(&mut self, key: &str, line: usize, node: &Node) {
        let Value::List(files) = &node.value else {
            return self.problem(line, &format!("`{key}` must be a list of files"));
        };
        for file in files {
            let Value::Text(path) = &file.value else {
                self.problem(file.line, &format!("`{key}` must be a list of files"));
                continue;
            };
            self.client_cas.push(path.clone());
            let became = format!("{path} as a CA in trust/cas, with a command below");
            self.remark(file.line, key, Became::Ours(became));
        }
    }

    fn set_read_only(&mut self, key: &str, line: usize, node: &Node) {
        let enabled = match &node.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == "enabled"),
            _ => None,
        };
        match enabled.map(|entry| (&entry.node.value, entry.line)) {
            Some((Value::Text(text), at)) => match truth(text) {
                Some(true) => self.put(line, key, ("storage", "mode"), quoted("read-only")),
                Some(false) => {}
                None => self.problem(at, &format!("`{key}.enabled` is {text:?}, must be true or false")),
            },
            Some((_, at)) => self.problem(at, &format!("`{key}.enabled` must be true or false")),
            None => self.problem(line, &format!("`{key}` must have `enabled`, true or false")),
        }
    }

    fn set_duration(&mut self, key: &str, line: usize, text: &str, ours: (&'static str, &'static str)) {
        let Some(time) = go_duration(text) else {
            return self.problem(line, &format!("`{key}` is {text:?}, must be a time such as 60s or 168h"));
        };
        if time.is_zero() {
            return;
        }
        self.put(line, key, ours, quoted(&our_duration(time)));
    }

    fn put_data(&mut self, line: usize, key: &str, path: String) {
        self.put(line, key, ("storage", "data"), quoted(&path));
        self.data = Some(path);
    }

    fn put(&mut self, line: usize, key: &str, (section, ours): (&'static str, &'static str), value: String) {
        let place = if section.is_empty() { String::new() } else { format!("[{section}] ") };
        self.remark(line, key, Became::Ours(format!("{place}{ours} = {value}")));
        self.settings.insert((section, ours), value);
    }

    fn remark(&mut self, line: usize, key: &str, became: Became) {
        self.remarks.push(Remark { line, key: key.to_owned(), became });
    }

    fn problem(&mut self, line: usize, text: &str) {
        self.problems.push(Problem { line, text: text.to_owned() });
    }
}

fn has(node: &Node, key: &str) -> bool {
    matches!(&node.value, Value::Map(entries) if entries.iter().any(|entry| entry.key == key))
}

/// JSON's strings are TOML's, too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn relative(text: &str, ours: &str) -> String {
    format!("{text:?} starts at the directory that Distribution was started in: write the whole path as {ours}")
}

fn word(setting: Setting, text: &str) -> Became {
    let needless = |why: &str| Became::Needless(why.to_owned());
    let missing = |instead: &str| Became::Missing(instead.to_owned());
    match (setting, text) {
        (Setting::Net, "" | "tcp") => needless("it is always TCP"),
        (Setting::Net, _) => missing("it is always TCP"),
        (Setting::Prefix, "" | "/") => needless("there is no prefix"),
        (Setting::Prefix, _) => missing("there is no prefix: give the registry a name or a port of its own"),
        (Setting::LogFormatter, "json") => Became::Ours("serve --log-json".to_owned()),
        (Setting::LogFormatter, "" | "text") => needless("the log is text unless --log-json is given"),
        (Setting::LogFormatter, _) => missing("the log is text, or JSON lines with --log-json"),
        (_, "" | "tls1.2") => needless("TLS 1.2 and 1.3 are offered"),
        (_, "tls1.3") => missing("TLS 1.2 is offered beside 1.3, with ECDHE and AEAD only"),
        _ => missing("nothing older than TLS 1.2 is offered"),
    }
}

/// `None`: it is none of Distribution's words.
fn client_auth(text: &str) -> Option<Became> {
    Some(match text {
        "require-and-verify-client-cert" => Became::Needless("that is what is always done here".to_owned()),
        "request-client-cert" | "require-any-client-cert" => Became::Missing(
            "Distribution lets in any certificate then, whoever signed it; here it must be trusted: portcullis trust add"
                .to_owned(),
        ),
        _ => return None,
    })
}

fn deletion(enabled: bool) -> Became {
    Became::Ours(if enabled {
        "\"delete\" in `allow` of a rule in policy.toml; `up` gives it to the admin alone".to_owned()
    } else {
        "nothing: nobody may delete unless a rule in policy.toml allows \"delete\"".to_owned()
    })
}

/// As Go's YAML library reads it.
fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => Some(false),
        _ => None,
    }
}

/// As Go listens on it: without a host on every address.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let ip: IpAddr = match host {
        "" => Ipv6Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).parse().ok()?,
    };
    Some(SocketAddr::new(ip, port.parse().ok()?))
}

/// `time.ParseDuration`: numbers with units, one after the other; a bare number is nanoseconds.
fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    if let Ok(nanoseconds) = text.parse() {
        return Some(Duration::from_nanos(nanoseconds));
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let behind = &rest[digits..];
        let unit_end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &behind[..unit_end])?;
        seconds += number * unit;
        rest = &behind[unit_end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

/// In the largest unit that fits; never less than it was, and at most what a configuration takes.
fn our_duration(time: Duration) -> String {
    let longest = Duration::from_hours(24 * 366);
    let milliseconds = time.min(longest).as_millis().max(1);
    for (unit, length) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds.is_multiple_of(length) {
            return format!("{}{unit}", milliseconds / length);
        }
    }
    format!("{milliseconds}ms")
}

#[cfg(test)]
mod tests;
