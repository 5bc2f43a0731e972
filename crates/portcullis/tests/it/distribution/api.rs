//! The registry API as curl speaks it, with either registry: many requests over one connection.

use std::fs;

use portcullis_testkit::image::Blob;

use crate::netns::Machine;
use crate::peers::Answer;
use crate::process::{DEADLINE, read_lossy, run};

/// Every type there is: Distribution has a 404 or a conversion for who does not name the one it has.
const ACCEPT: [&str; 6] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
];

/// One registry, as one client sees it.
pub(crate) struct Api<'m> {
    machine: &'m Machine,
    base: String,
    identity: String,
}

/// A request: method, path or URL, and a body with its type.
pub(crate) struct Request {
    method: &'static str,
    path: String,
    body: Option<(String, Vec<u8>)>,
}

impl Request {
    pub(crate) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), body: None }
    }

    pub(crate) fn head(path: &str) -> Self {
        Self { method: "HEAD", ..Self::get(path) }
    }

    pub(crate) fn post(path: &str) -> Self {
        Self { method: "POST", body: Some((String::new(), Vec::new())), ..Self::get(path) }
    }

    pub(crate) fn put(path: &str, media_type: &str, bytes: &[u8]) -> Self {
        Self { method: "PUT", body: Some((media_type.to_owned(), bytes.to_owned())), ..Self::get(path) }
    }

    pub(crate) fn put_manifest(repository: &str, reference: &str, manifest: &Blob) -> Self {
        Self::put(&format!("/v2/{repository}/manifests/{reference}"), &manifest.media_type, &manifest.bytes)
    }
}

impl<'m> Api<'m> {
    /// `identity`: words of a curl command line.
    pub(crate) fn new(machine: &'m Machine, base: &str, identity: &[String]) -> Self {
        let options = identity.chunks(2).map(|word| format!("{} = \"{}\"\n", &word[0][2..], word[1]));
        Self { machine, base: base.to_owned(), identity: options.collect() }
    }

    /// The answers in the order of the requests.
    #[track_caller]
    pub(crate) fn send(&self, requests: &[Request]) -> Vec<Answer> {
        if requests.is_empty() {
            return Vec::new();
        }
        let dir = self.machine.subdir("transfers");
        let transfers: Vec<String> = requests.iter().enumerate().map(|(at, one)| self.transfer(at, one)).collect();
        fs::write(dir.join("config"), transfers.join("next\n")).unwrap();
        let mut command = self.machine.command("curl");
        command.args(["--config", "transfers/config"]);
        let ran = run(command, &self.machine.logs(), DEADLINE).ok();
        let statuses: Vec<u16> = ran.stdout.lines().map(|status| status.parse().unwrap()).collect();
        assert_eq!(statuses.len(), requests.len(), "{ran}");
        let answer = |(at, status)| Answer {
            status,
            headers: read_lossy(&dir.join(format!("{at}.headers"))),
            body: fs::read(dir.join(format!("{at}.got"))).unwrap(),
        };
        statuses.into_iter().enumerate().map(answer).collect()
    }

    #[track_caller]
    pub(crate) fn one(&self, request: Request) -> Answer {
        self.send(&[request]).remove(0)
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.one(Request::get(path))
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.one(Request { method: "DELETE", ..Request::get(path) })
    }

    fn transfer(&self, at: usize, request: &Request) -> String {
        let Request { method, path, body } = request;
        let url = if path.starts_with('/') { format!("{}{path}", self.base) } else { path.clone() };
        let dir = self.machine.subdir("transfers");
        fs::write(dir.join(format!("{at}.got")), "").unwrap();
        let mut lines = vec![
            format!("url = \"{url}\"\noutput = \"transfers/{at}.got\"\ndump-header = \"transfers/{at}.headers\""),
            "silent\nshow-error\nwrite-out = \"%{http_code}\\n\"".to_owned(),
            format!("header = \"Accept: {}\"\n{}", ACCEPT.join(", "), self.identity),
            if *method == "HEAD" { "head".to_owned() } else { format!("request = \"{method}\"") },
        ];
        if let Some((media_type, bytes)) = body {
            fs::write(dir.join(format!("{at}.sent")), bytes).unwrap();
            lines.push(format!("data-binary = \"@transfers/{at}.sent\"\nheader = \"Content-Type: {media_type}\""));
        }
        lines.join("\n") + "\n"
    }
}

impl Answer {
    /// The same; panics unless it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}{}", self.headers, String::from_utf8_lossy(&self.body));
        self
    }
}
