//! The URL grammar: whatever is read is written so that it is read the same.

use http::Method;
use portcullis_oci::Endpoint;

/// `bytes`: a method, a space, and a target.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((method, target)) = text.split_once(' ') else { return };
    let Ok(method) = method.parse::<Method>() else { return };
    let parse = |method: &Method, target: &str| {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Endpoint::parse(method, path, query)
    };
    let Ok(endpoint) = parse(&method, target) else { return };
    let (method, target) = endpoint.to_request();
    assert_eq!(parse(&method, &target), Ok(endpoint), "{target}");
    assert!(target.starts_with("/v2/") && target.is_ascii(), "{target}");
    assert!(!target.split('?').next().is_some_and(|path| path.contains("/../")), "{target}");
}
