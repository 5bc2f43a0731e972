//! Both directions of the grammar.

use http::Method;
use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const UPLOAD: &str = "00112233-4455-6677-8899-aabbccddeeff";

fn parse(line: &str) -> Result<Endpoint, RouteError> {
    let (method, target) = line.split_once(' ').expect("method and target");
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    Endpoint::parse(&method.parse().expect("a method"), path, query)
}

#[test]
fn every_endpoint_goes_both_ways() {
    for line in [
        "GET /v2/".to_owned(),
        "GET /v2/_catalog?n=10&last=a".to_owned(),
        "GET /v2/a/b/tags/list?n=1".to_owned(),
        format!("GET /v2/a/referrers/{DIGEST}?artifactType=application%2Fx"),
        "GET /v2/a/manifests/latest".to_owned(),
        format!("HEAD /v2/a/manifests/{DIGEST}"),
        format!("PUT /v2/a/manifests/{DIGEST}?tag=a&tag=b"),
        "DELETE /v2/a/manifests/latest".to_owned(),
        format!("GET /v2/a/blobs/{DIGEST}"),
        format!("HEAD /v2/a/blobs/{DIGEST}"),
        format!("DELETE /v2/a/blobs/{DIGEST}"),
        "POST /v2/a/blobs/uploads/".to_owned(),
        "POST /v2/a/blobs/uploads/?digest-algorithm=sha512".to_owned(),
        format!("POST /v2/a/blobs/uploads/?digest={}", DIGEST.replace(':', "%3A")),
        format!("POST /v2/a/blobs/uploads/?mount={}&from=b%2Fc", DIGEST.replace(':', "%3A")),
        format!("GET /v2/a/blobs/uploads/{UPLOAD}"),
        format!("PATCH /v2/a/blobs/uploads/{UPLOAD}"),
        format!("PUT /v2/a/blobs/uploads/{UPLOAD}?digest={}", DIGEST.replace(':', "%3A")),
        format!("DELETE /v2/a/blobs/uploads/{UPLOAD}"),
    ] {
        let (method, target) = parse(&line).expect(&line).to_request();
        assert_eq!(format!("{method} {target}"), line);
    }
}

#[test]
fn names_may_contain_the_grammars_own_words() {
    for name in ["manifests", "a/blobs/uploads", "tags/list", "blobs", "v2", "a/manifests/b"] {
        let endpoint = parse(&format!("GET /v2/{name}/manifests/latest")).expect(name);
        assert_eq!(endpoint.repository().map(RepositoryName::as_str), Some(name));
    }
}

#[test]
fn spellings_of_other_clients() {
    assert_eq!(parse("GET /v2"), Ok(Endpoint::Base));
    assert!(parse("POST /v2/a/blobs/uploads").is_ok());
    assert!(parse(&format!("GET /v2/a/blobs/{}", DIGEST.replace(':', "%3A"))).is_ok());
    assert!(parse("GET /v2/a/manifests/latest?ns=docker.io").is_ok());
}

#[test]
fn wrong_requests_get_their_own_error() {
    for (line, expected) in [
        ("GET /", RouteError::NotFound),
        ("GET /v1/", RouteError::NotFound),
        ("GET /v2/a", RouteError::NotFound),
        ("GET /v2/a/b/c", RouteError::NotFound),
        ("GET /v2/a%2Fb/manifests/x", RouteError::NotFound),
        ("GET /v2/a%252e/manifests/x", RouteError::NotFound),
        ("GET /v2/a%ff/manifests/x", RouteError::NotFound),
        ("POST /v2/", RouteError::Method { allowed: "GET, HEAD" }),
        ("POST /v2/a/manifests/x", RouteError::Method { allowed: "GET, HEAD, PUT, DELETE" }),
        ("GET /v2/a/blobs/uploads/", RouteError::Method { allowed: "POST" }),
        ("GET /v2//manifests/x", RouteError::Name(InvalidName::Empty)),
        ("GET /v2/../../etc/manifests/x", RouteError::Name(InvalidName::Component { component: "..".to_owned() })),
        ("GET /v2/%2e%2e/manifests/x", RouteError::Name(InvalidName::Component { component: "..".to_owned() })),
        ("GET /v2/a/manifests/..", RouteError::Reference(InvalidTag { tag: "..".to_owned() })),
        ("DELETE /v2/a/manifests/..", RouteError::Reference(InvalidTag { tag: "..".to_owned() })),
        ("PUT /v2/a/manifests/..", RouteError::Tag(InvalidTag { tag: "..".to_owned() })),
        ("PATCH /v2/a/blobs/uploads/..", RouteError::UploadId),
        ("PATCH /v2/a/blobs/uploads/0011223344556677-8899-aabbccddeeff", RouteError::UploadId),
        ("GET /v2/a/tags/list?n=x", RouteError::Query { key: "n", problem: "is not a number" }),
    ] {
        assert_eq!(parse(line), Err(expected), "{line}");
    }
    let missing = parse(&format!("PUT /v2/a/blobs/uploads/{UPLOAD}"));
    assert_eq!(missing, Err(RouteError::Query { key: "digest", problem: "is missing" }));
    let twice = parse(&format!("PUT /v2/a/blobs/uploads/{UPLOAD}?digest={DIGEST}&digest={DIGEST}"));
    assert_eq!(twice, Err(RouteError::Query { key: "digest", problem: "stands twice" }));
    assert!(matches!(parse("GET /v2/a/blobs/sha256:00"), Err(RouteError::Digest(_))));
}

/// Any endpoint at all, each kind as likely as the others.
fn endpoints() -> impl Strategy<Value = Endpoint> {
    let name =
        || "[a-z0-9]{1,8}([._/-][a-z0-9]{1,8}){0,4}".prop_map(|name| name.parse::<RepositoryName>().expect("a name"));
    let tag = || "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}".prop_map(|tag| tag.parse::<Tag>().expect("a tag"));
    let digest = || {
        let sha512 = prop::collection::vec(any::<u8>(), 64)
            .prop_map(|bytes| Digest::Sha512(bytes.try_into().expect("64 bytes")));
        prop_oneof![any::<[u8; 32]>().prop_map(Digest::Sha256), sha512]
    };
    let reference =
        move || prop_oneof![tag().prop_map(ManifestReference::Tag), digest().prop_map(ManifestReference::Digest)];
    let text = || proptest::option::of("\\PC{0,20}");
    let page = move || (proptest::option::of(any::<u32>()), text()).prop_map(|(n, last)| Page { n, last });
    let id = || any::<[u8; 16]>().prop_map(UploadId::from_bytes);
    let start = move || {
        prop_oneof![
            prop::sample::select(Algorithm::ALL.to_vec()).prop_map(|algorithm| UploadStart::Session { algorithm }),
            digest().prop_map(|digest| UploadStart::Monolithic { digest }),
            (digest(), proptest::option::of(name())).prop_map(|(digest, from)| UploadStart::Mount { digest, from }),
        ]
    };
    let tags = prop::collection::vec(tag(), 0..=query::MAX_TAGS);
    prop_oneof![
        Just(Endpoint::Base),
        page().prop_map(|page| Endpoint::Catalog { page }),
        (name(), page()).prop_map(|(repository, page)| Endpoint::ListTags { repository, page }),
        (name(), digest(), text(), page()).prop_map(|(repository, digest, artifact_type, page)| Endpoint::Referrers {
            repository,
            digest,
            artifact_type,
            page
        }),
        (name(), reference()).prop_map(|(repository, reference)| Endpoint::GetManifest { repository, reference }),
        (name(), reference()).prop_map(|(repository, reference)| Endpoint::HeadManifest { repository, reference }),
        (name(), reference(), tags).prop_map(|(repository, reference, tags)| Endpoint::PutManifest {
            repository,
            reference,
            tags
        }),
        (name(), reference()).prop_map(|(repository, reference)| Endpoint::DeleteManifest { repository, reference }),
        (name(), digest()).prop_map(|(repository, digest)| Endpoint::GetBlob { repository, digest }),
        (name(), digest()).prop_map(|(repository, digest)| Endpoint::HeadBlob { repository, digest }),
        (name(), digest()).prop_map(|(repository, digest)| Endpoint::DeleteBlob { repository, digest }),
        (name(), start()).prop_map(|(repository, start)| Endpoint::StartUpload { repository, start }),
        (name(), id()).prop_map(|(repository, id)| Endpoint::UploadStatus { repository, id }),
        (name(), id()).prop_map(|(repository, id)| Endpoint::AppendUpload { repository, id }),
        (name(), id(), digest()).prop_map(|(repository, id, digest)| Endpoint::FinishUpload { repository, id, digest }),
        (name(), id()).prop_map(|(repository, id)| Endpoint::CancelUpload { repository, id }),
    ]
}

proptest! {
    #[test]
    fn every_endpoint_written_is_read_back(endpoint in endpoints()) {
        let (method, target) = endpoint.to_request();
        let (path, query) = target.split_once('?').map_or((target.as_str(), None), |(path, query)| (path, Some(query)));
        prop_assert_eq!(Endpoint::parse(&method, path, query), Ok(endpoint));
    }

    /// What other clients may write, percent-encoded where nobody has to and with queries that nobody knows: if it is
    /// read, then it is read as what we write for it.
    #[test]
    fn what_is_read_is_written_as_it_was_meant(
        endpoint in endpoints(),
        encoded in any::<u64>(),
        extra in "(&x[a-z]{0,2}=[a-z%+]{0,4}){0,2}",
    ) {
        let (method, target) = endpoint.to_request();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let encode = |(at, c): (usize, char)| match c {
            '/' | '%' => c.to_string(),
            c if encoded >> (at % 64) & 1 == 1 => format!("%{:02x}", u32::from(c)),
            c => c.to_string(),
        };
        let path: String = path.char_indices().map(encode).collect();
        let query = format!("{query}{extra}");
        prop_assert_eq!(Endpoint::parse(&method, &path, Some(query.trim_start_matches('&'))), Ok(endpoint));
    }

    #[test]
    fn no_request_line_panics(method in "GET|HEAD|PUT|POST|PATCH|DELETE", target in "/v2/\\PC{0,80}", query in "\\PC{0,40}") {
        let method: Method = method.parse().expect("a method");
        let _ = Endpoint::parse(&method, &target, Some(&query));
    }
}
