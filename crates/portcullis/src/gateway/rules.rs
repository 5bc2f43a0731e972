//! What may pass the gateway: from this machine's programs to the distribution API, as far as it was opened. A
//! [`Passage`] is the proof, and what is sent on is written anew from it. Must not know how it is sent.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, Uri};
use portcullis_oci::{Endpoint, RepositoryName, UploadStart};
use portcullis_server::RepositoryGlob;

use super::refusal::Refusal;

/// What the gateway was opened for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// Uploads and manifests may be written.
    pub(crate) push: bool,
    /// Manifests and blobs may be deleted.
    pub(crate) delete: bool,
    /// Only these; all where there is none.
    pub(crate) repositories: Vec<RepositoryGlob>,
}

/// Where a connection came in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entrance {
    Tcp {
        /// Our address, as the peer reached it.
        local: SocketAddr,
        /// Whether the user said `localhost` for it.
        is_localhost: bool,
    },
    Unix,
}

/// A request that may be sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Passage {
    pub(super) method: Method,
    pub(super) endpoint: Endpoint,
    /// The query of a list, in whose words the registry named its next page.
    pub(super) page: Option<String>,
}

impl Rules {
    /// Judges a request by its head.
    pub(super) fn judge(
        &self,
        entrance: Entrance,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Passage, Refusal> {
        entrance.check(headers)?;
        if uri.authority().is_some() {
            return Err(Refusal::AbsoluteTarget);
        }
        let endpoint = Endpoint::parse(method, uri.path(), uri.query())?;
        let endpoint = self.allow(endpoint)?;
        let page = if is_list(&endpoint) { uri.query().map(str::to_owned) } else { None };
        Ok(Passage { method: method.clone(), endpoint, page })
    }

    fn allow(&self, endpoint: Endpoint) -> Result<Endpoint, Refusal> {
        match &endpoint {
            Endpoint::Catalog { .. } if !self.repositories.is_empty() => return Err(Refusal::CatalogHidden),
            Endpoint::DeleteManifest { .. } | Endpoint::DeleteBlob { .. } if !self.delete => {
                return Err(Refusal::NoDeletion);
            }
            endpoint if is_push(endpoint) && !self.push => return Err(Refusal::ReadOnly),
            _ => {}
        }
        match endpoint.repository() {
            Some(repository) if !self.covers(repository) => Err(Refusal::OutsideRepositories(repository.clone())),
            _ => Ok(self.without_foreign_mount(endpoint)),
        }
    }

    fn covers(&self, repository: &RepositoryName) -> bool {
        self.repositories.is_empty() || self.repositories.iter().any(|glob| glob.matches(repository))
    }

    /// A mount reads from another repository, or from whichever the registry finds. Where that may be one outside, it
    /// becomes the upload that a registry answers with when it cannot mount (distribution spec, "Mounting a blob").
    fn without_foreign_mount(&self, endpoint: Endpoint) -> Endpoint {
        match endpoint {
            Endpoint::StartUpload { repository, start: UploadStart::Mount { from, digest } } => {
                let start = match from {
                    Some(from) if self.covers(&from) => UploadStart::Mount { digest, from: Some(from) },
                    None if self.repositories.is_empty() => UploadStart::Mount { digest, from: None },
                    _ => UploadStart::Session { algorithm: digest.algorithm() },
                };
                Endpoint::StartUpload { repository, start }
            }
            other => other,
        }
    }
}

impl Entrance {
    /// A web page can make a browser on this machine send requests here, by our address or by a name of its own that it
    /// lets lead here ("DNS rebinding"). A browser says so: with the name in `Host`, with `Origin` for what changes
    /// something (Fetch §3.2) and with `Sec-Fetch-*` (Fetch Metadata §2). No registry client sends the last two.
    fn check(self, headers: &HeaderMap) -> Result<(), Refusal> {
        let is_browsers = |name: &str| name == ORIGIN.as_str() || name.starts_with("sec-fetch-");
        if let Some(name) = headers.keys().map(http::HeaderName::as_str).find(|name| is_browsers(name)) {
            return Err(Refusal::Browser(name.to_owned()));
        }
        let Self::Tcp { local, is_localhost } = self else { return Ok(()) };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        if host.is_some_and(|host| names(host, local, is_localhost)) { Ok(()) } else { Err(Refusal::OtherHost) }
    }
}

/// Whether `Host` is our own address and port; port 80 goes without saying (RFC 9110 §7.2).
fn names(host: &str, local: SocketAddr, is_localhost: bool) -> bool {
    const HTTP: u16 = 80;
    let is_local = |ip: IpAddr, port: u16| ip.to_canonical() == local.ip().to_canonical() && port == local.port();
    if let Ok(address) = host.parse::<SocketAddr>() {
        return is_local(address.ip(), address.port());
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse() {
        return (host.starts_with('[') || !host.contains(':')) && is_local(ip, HTTP);
    }
    let (name, port) = host.split_once(':').map_or((host, Some(HTTP)), |(name, port)| (name, port.parse().ok()));
    is_localhost && name.eq_ignore_ascii_case("localhost") && port == Some(local.port())
}

fn is_push(endpoint: &Endpoint) -> bool {
    matches!(
        endpoint,
        Endpoint::PutManifest { .. }
            | Endpoint::StartUpload { .. }
            | Endpoint::UploadStatus { .. }
            | Endpoint::AppendUpload { .. }
            | Endpoint::FinishUpload { .. }
            | Endpoint::CancelUpload { .. }
    )
}

fn is_list(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Catalog { .. } | Endpoint::ListTags { .. } | Endpoint::Referrers { .. })
}

impl Passage {
    /// Whether a body goes with it.
    pub(super) fn takes_body(&self) -> bool {
        matches!(
            self.endpoint,
            Endpoint::PutManifest { .. }
                | Endpoint::StartUpload { start: UploadStart::Monolithic { .. }, .. }
                | Endpoint::AppendUpload { .. }
                | Endpoint::FinishUpload { .. }
        )
    }

    /// Whether it only reads.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

#[cfg(test)]
mod tests {
    use portcullis_oci::Algorithm;

    use super::*;

    const ENTRANCE: Entrance =
        Entrance::Tcp { local: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5000), is_localhost: false };
    const BLOB: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const UPLOAD: &str = "01010101-0101-0101-0101-010101010101";

    fn rules(words: &[&str], repositories: &[&str]) -> Rules {
        let repositories = repositories.iter().map(|glob| RepositoryGlob::parse(glob).unwrap()).collect();
        Rules { push: words.contains(&"push"), delete: words.contains(&"delete"), repositories }
    }

    fn judge(rules: &Rules, method: &str, target: &str, headers: &[(&'static str, &str)]) -> Result<Passage, Refusal> {
        let mut map = HeaderMap::new();
        map.insert(HOST, "127.0.0.1:5000".parse().unwrap());
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        rules.judge(ENTRANCE, &method.parse().unwrap(), &target.parse().unwrap(), &map)
    }

    fn status(rules: &Rules, method: &str, target: &str) -> u16 {
        judge(rules, method, target, &[]).map_or_else(|refusal| refusal.status().0.as_u16(), |_| 200)
    }

    #[test]
    fn what_is_open_to_whom() {
        let every = |name: &str| {
            [
                ("GET", format!("/v2/{name}/tags/list?n=5"), ""),
                ("GET", format!("/v2/{name}/referrers/{BLOB}"), ""),
                ("GET", format!("/v2/{name}/manifests/1"), ""),
                ("HEAD", format!("/v2/{name}/manifests/1"), ""),
                ("GET", format!("/v2/{name}/blobs/{BLOB}"), ""),
                ("HEAD", format!("/v2/{name}/blobs/{BLOB}"), ""),
                ("PUT", format!("/v2/{name}/manifests/1"), "push"),
                ("POST", format!("/v2/{name}/blobs/uploads/"), "push"),
                ("GET", format!("/v2/{name}/blobs/uploads/{UPLOAD}"), "push"),
                ("PATCH", format!("/v2/{name}/blobs/uploads/{UPLOAD}"), "push"),
                ("PUT", format!("/v2/{name}/blobs/uploads/{UPLOAD}?digest={BLOB}"), "push"),
                ("DELETE", format!("/v2/{name}/blobs/uploads/{UPLOAD}"), "push"),
                ("DELETE", format!("/v2/{name}/manifests/1"), "delete"),
                ("DELETE", format!("/v2/{name}/blobs/{BLOB}"), "delete"),
            ]
        };
        for words in [&[][..], &["push"], &["delete"], &["push", "delete"]] {
            for (method, target, wants) in every("team/app") {
                let expected = if wants.is_empty() || words.contains(&wants) { 200 } else { 403 };
                assert_eq!(status(&rules(words, &[]), method, &target), expected, "{words:?} {method} {target}");
                assert_eq!(status(&rules(words, &["team/*"]), method, &target), expected, "{words:?} {target}");
            }
            for (method, target, _) in every("other/app") {
                assert_eq!(status(&rules(words, &["team/*", "x"]), method, &target), 403, "{words:?} {target}");
            }
        }
    }

    #[test]
    fn the_catalog_names_all() {
        assert_eq!(status(&rules(&[], &[]), "GET", "/v2/_catalog"), 200);
        assert_eq!(status(&rules(&[], &["**"]), "GET", "/v2/_catalog"), 403);
        assert_eq!(status(&rules(&[], &["team/*"]), "GET", "/v2/"), 200);
    }

    #[test]
    fn what_is_no_part_of_the_api() {
        let all = rules(&["push", "delete"], &[]);
        for target in
            ["/", "/metrics", "/v1/", "/v2/app", "/v2/../admin", "/v2/a%2Fb/tags/list", "/debug/pprof/", "/v3/"]
        {
            assert_eq!(status(&all, "GET", target), 404, "{target}");
        }
        for (method, target) in [("POST", "/v2/"), ("OPTIONS", "/v2/"), ("TRACE", "/v2/"), ("PATCH", "/v2/a/tags/list")]
        {
            assert_eq!(status(&all, method, target), 405, "{method} {target}");
        }
        assert_eq!(status(&all, "GET", "http://127.0.0.1:5000/v2/"), 400);
    }

    #[test]
    fn a_mount_from_outside_becomes_an_upload() {
        let start = |rules: &Rules, query: &str| {
            let target = format!("/v2/team/app/blobs/uploads/?mount={BLOB}{query}");
            let Endpoint::StartUpload { start, .. } = judge(rules, "POST", &target, &[]).unwrap().endpoint else {
                panic!("no upload")
            };
            start
        };
        let (all, some) = (rules(&["push"], &[]), rules(&["push"], &["team/*"]));
        let session = UploadStart::Session { algorithm: Algorithm::Sha256 };
        for (rules, query, mounts) in [
            (&all, "&from=other/app", true),
            (&all, "", true),
            (&some, "&from=team/base", true),
            (&some, "&from=other/app", false),
            (&some, "", false),
        ] {
            let start = start(rules, query);
            assert_eq!(matches!(start, UploadStart::Mount { .. }), mounts, "{query}");
            assert!(mounts || start == session);
        }
    }

    #[test]
    fn a_page_keeps_the_registrys_own_words() {
        let all = rules(&["push"], &[]);
        let passage = judge(&all, "GET", "/v2/app/tags/list?token=a%2Fb&n=2", &[]).unwrap();
        assert_eq!(passage.page.as_deref(), Some("token=a%2Fb&n=2"));
        let passage = judge(&all, "GET", "/v2/app/manifests/1?x=y", &[]).unwrap();
        assert_eq!(passage.page, None);
    }

    #[test]
    fn no_browser_and_no_other_host() {
        let all = rules(&["push"], &[]);
        for (name, value) in [
            ("origin", "http://evil.test"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:5000"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "navigate"),
            ("host", "evil.test:5000"),
            ("host", "127.0.0.1"),
            ("host", "127.0.0.1:5001"),
            ("host", "127.0.0.2:5000"),
            ("host", "127.1:5000"),
            ("host", "localhost:5000"),
            ("host", "127.0.0.1:5000.evil.test"),
            ("host", "user@127.0.0.1:5000"),
            ("host", ""),
        ] {
            let judged = judge(&all, "GET", "/v2/", &[(name, value)]);
            assert!(matches!(judged, Err(Refusal::Browser(_) | Refusal::OtherHost)), "{name}: {value}: {judged:?}");
        }
        assert!(matches!(
            all.judge(ENTRANCE, &Method::GET, &Uri::from_static("/v2/"), &HeaderMap::new()),
            Err(Refusal::OtherHost)
        ));
    }

    #[test]
    fn our_own_names() {
        for (host, local, is_localhost, expected) in [
            ("127.0.0.1:5000", "127.0.0.1:5000", false, true),
            ("127.0.0.1", "127.0.0.1:80", false, true),
            ("127.0.0.1", "127.0.0.1:5000", false, false),
            ("[::1]:5000", "[::1]:5000", false, true),
            ("[::1]", "[::1]:80", false, true),
            ("::1", "[::1]:80", false, false),
            ("127.0.0.1:5000", "[::ffff:127.0.0.1]:5000", false, true),
            ("localhost:5000", "127.0.0.1:5000", true, true),
            ("LocalHost:5000", "127.0.0.1:5000", true, true),
            ("localhost", "127.0.0.1:80", true, true),
            ("localhost", "127.0.0.1:5000", true, false),
            ("localhost:5000", "127.0.0.1:5000", false, false),
            ("localhost.evil.test:5000", "127.0.0.1:5000", true, false),
        ] {
            assert_eq!(names(host, local.parse().unwrap(), is_localhost), expected, "{host} at {local}");
        }
    }
}
