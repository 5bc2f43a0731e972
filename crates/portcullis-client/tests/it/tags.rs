//! Tags listed page by page, and deletions: what a registry can do wrong there.

use portcullis_client::{ClientError, MAX_LIST_PAGES, ProtocolFault};
use portcullis_oci::{ManifestReference, Tag};

use crate::image::Image;
use crate::site::Site;
use crate::stub::{Reply, reply, with};

async fn tags_of(site: &Site) -> Result<Vec<String>, ClientError> {
    let tags = site.client().await.tags(&"team/app".parse().unwrap()).await?;
    Ok(tags.iter().map(Tag::to_string).collect())
}

fn page(link: &str) -> Reply {
    with(reply(200, r#"{"name":"team/app","tags":["a"]}"#), "link", link)
}

#[tokio::test]
async fn a_list_is_read_to_its_end() {
    let site = Site::good().await;
    let image = Image::new(&[]);
    let names = ["1", "2", "3", "4", "5", "6", "latest"];
    for name in names.iter().rev() {
        image.put(&site.stub, "team/app", name);
    }
    image.put(&site.stub, "team/other", "elsewhere");
    assert_eq!(tags_of(&site).await.unwrap(), names);
    assert_eq!(
        site.stub.lines(),
        [
            "GET /v2/team/app/tags/list",
            "GET /v2/team/app/tags/list?n=3&last=3",
            "GET /v2/team/app/tags/list?n=3&last=6",
        ]
    );
}

#[tokio::test]
async fn every_spelling_of_the_next_page_within_the_registry() {
    for spelling in ["</next>", "<https://HOST/next>", "</x>; rel=\"first\", <../../../../next>"] {
        let site = Site::good().await;
        let link = format!("{}; rel=\"next\"", spelling.replace("HOST", site.host.as_str()));
        site.stub.rule(move |seen| match seen.target.as_str() {
            "/next" => Some(reply(200, r#"{"tags":["b"]}"#)),
            target => target.ends_with("/tags/list").then(|| page(&link)),
        });
        assert_eq!(tags_of(&site).await.unwrap(), ["a", "b"], "{spelling}");
    }
}

/// The certificate is for one origin; a next page elsewhere is not asked for, with or without it.
#[tokio::test]
async fn a_list_that_goes_on_elsewhere_is_not_followed() {
    let other = Site::good().await;
    for origin in ["https://OTHER", "http://OWN", "https://user:secret@OWN", "https://localhost", "//OTHER"] {
        let site = Site::good().await;
        let origin = origin.replace("OTHER", other.host.as_str()).replace("OWN", site.host.as_str());
        let link = format!("<{origin}/v2/team/app/tags/list?last=a>; rel=\"next\"");
        site.stub.rule(move |seen| seen.target.ends_with("/tags/list").then(|| page(&link)));
        let error = tags_of(&site).await.unwrap_err();
        let ClientError::Protocol { fault: ProtocolFault::ForeignPage { .. }, .. } = &error else {
            panic!("{origin}: {error}")
        };
        assert!(error.to_string().contains("another origin") && !error.to_string().contains("secret"), "{error}");
        assert_eq!(site.stub.lines().len(), 1, "{origin}");
    }
    assert_eq!(other.stub.connections(), 0);
}

#[tokio::test]
async fn a_list_without_an_end_is_given_up() {
    let site = Site::good().await;
    site.stub.rule(|seen| seen.target.contains("/tags/list").then(|| page("</v2/team/app/tags/list>; rel=next")));
    let error = tags_of(&site).await.unwrap_err();
    let ClientError::Protocol { fault: ProtocolFault::EndlessList { limit: MAX_LIST_PAGES, .. }, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(site.stub.lines().len(), MAX_LIST_PAGES);
}

#[tokio::test]
async fn a_repository_that_is_not_there() {
    let site = Site::good().await;
    let error = tags_of(&site).await.unwrap_err();
    assert!(error.is_not_found() && !error.is_refusal());
    assert!(error.to_string().contains("/v2/team/app/tags/list: 404 Not Found: NAME_UNKNOWN"), "{error}");
    assert!(error.advice().unwrap().contains("repository's name"));

    let unknown = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"x"}]}"#;
    for (status, not_found) in [(400, true), (500, false)] {
        let site = Site::good().await;
        site.stub.rule(move |seen| seen.target.contains("/tags/list").then(|| reply(status, unknown)));
        assert_eq!(tags_of(&site).await.unwrap_err().is_not_found(), not_found, "{status}");
    }
}

#[tokio::test]
async fn a_refusal_on_a_later_page_is_the_answer() {
    let site = Site::good().await;
    site.stub.rule(|seen| match seen.target.as_str() {
        "/next" => Some(reply(403, r#"{"errors":[{"code":"DENIED","message":"no"}]}"#)),
        target => target.ends_with("/tags/list").then(|| page("</next>; rel=\"next\"")),
    });
    let error = tags_of(&site).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
}

#[tokio::test]
async fn a_page_that_is_no_list() {
    let long = format!("{{\"tags\":[{}\"a\"]}}", "\"a\",".repeat(5_000_000));
    for (name, answer) in [
        ("page", "<html>login</html>".to_owned()),
        ("object", r#"{"tags":{"a":1}}"#.to_owned()),
        ("bad tag", r#"{"tags":["a","../b"]}"#.to_owned()),
        ("long", long),
    ] {
        let site = Site::good().await;
        site.stub.rule(move |seen| seen.target.contains("/tags/list").then(|| reply(200, answer.clone())));
        let error = tags_of(&site).await.unwrap_err();
        let expected = match &error {
            ClientError::Protocol { fault: ProtocolFault::BadBody { .. }, .. } => name != "long",
            ClientError::Protocol { fault: ProtocolFault::TooLong { .. }, .. } => name == "long",
            _ => false,
        };
        assert!(expected, "{name}: {error}");
    }
    let site = Site::good().await;
    site.stub.rule(|seen| seen.target.contains("/tags/list").then(|| page("/v2/team/app/tags/list?last=a")));
    let error = tags_of(&site).await.unwrap_err();
    let ClientError::Protocol { fault: ProtocolFault::BadHeader { header: "Link", .. }, .. } = &error else {
        panic!("a list that is cut short looks whole: {error}")
    };
}

#[tokio::test]
async fn a_tag_goes_alone_and_a_digest_takes_its_tags_along() {
    let site = Site::good().await;
    let image = Image::new(&[b"layer"]);
    for tag in ["1", "2", "3"] {
        image.put(&site.stub, "team/app", tag);
    }
    let client = site.client().await;
    let repository = "team/app".parse().unwrap();
    let one: ManifestReference = "1".parse().unwrap();
    client.delete_manifest(&repository, &one).await.unwrap();
    assert_eq!(tags_of(&site).await.unwrap(), ["2", "3"]);
    let error = client.delete_manifest(&repository, &one).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    client.delete_manifest(&repository, &ManifestReference::Digest(image.digest())).await.unwrap();
    assert!(tags_of(&site).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_deletion_is_sent_once_whatever_is_answered() {
    for status in [301, 403, 405, 429, 500, 503] {
        let site = Site::good().await;
        let elsewhere = "/v2/team/other/manifests/1";
        site.stub.rule(move |seen| {
            (seen.method == http::Method::DELETE).then(|| with(reply(status, ""), "location", elsewhere))
        });
        let client = site.client().await;
        let error = client.delete_manifest(&"team/app".parse().unwrap(), &"1".parse().unwrap()).await.unwrap_err();
        assert!(matches!(&error, ClientError::Status { answer, .. } if answer.status == status), "{error}");
        assert_eq!(error.is_refusal(), status == 403);
        assert_eq!(site.stub.lines(), ["DELETE /v2/team/app/manifests/1"], "{status}");
    }
}
