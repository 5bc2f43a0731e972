//! What a registry gets that wants more than a certificate, and who never gets it.

use std::sync::{Arc, Mutex};

use http::Method;
use portcullis_client::{
    AuthFiles, Client, ClientError, ClientOptions, Credential, Credentials, Progress, ProtocolFault, Secret, copy,
    pull, push,
};
use portcullis_oci::RegistryHost;

use crate::image::{Image, noise};
use crate::site::{Pki, Site};
use crate::stub::{Reply, Seen, Stub, reply, with};

/// `user:pass` in base64.
const BASIC: &str = "Basic dXNlcjpwYXNz";

/// A registry that wants tokens of a token server on another host, which gives one for each set of scopes.
struct Tokens {
    registry: Site,
    server: Stub,
    /// Tokens that the registry has had enough of.
    revoked: Arc<Mutex<Vec<String>>>,
}

impl Tokens {
    async fn start() -> Self {
        let pki = Pki::new();
        let mut tls = pki.tls();
        tls.mandatory = false;
        let server = Stub::start(tls).await;
        let registry = Site::with_good_pair(&pki, pki.tls()).await;
        pki.server_ca.write_ca(&registry.certs_of(&format!("localhost:{}", server.address.port())));
        let challenge =
            format!("Bearer realm=\"https://localhost:{}/token\",service=\"the registry\"", server.address.port());
        let revoked: Arc<Mutex<Vec<String>>> = Arc::default();
        let gone = Arc::clone(&revoked);
        registry.stub.rule(move |seen| {
            let token = seen.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
            let good = token.is_some_and(|token| !gone.lock().unwrap().iter().any(|gone| gone == token));
            let allowed = good && token.is_some_and(|token| is_allowed(seen, token));
            (!allowed).then(|| with(reply(401, ""), "www-authenticate", &challenge))
        });
        let number = std::sync::atomic::AtomicUsize::new(0);
        server.rule(move |seen| {
            let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let asked =
                seen.form.as_deref().or(seen.target.split_once('?').map(|(_, query)| query)).unwrap_or_default();
            Some(reply(200, format!(r#"{{"token":"{number}/{asked}","expires_in":300}}"#)))
        });
        Self { registry, server, revoked }
    }

    async fn client(&self, credentials: Credentials) -> Client {
        Client::connect(&self.registry.host, &self.options(credentials)).await.unwrap()
    }

    fn options(&self, credentials: Credentials) -> ClientOptions {
        ClientOptions { credentials, ..self.registry.options() }
    }

    /// What the token server was asked for: its scopes, and how one logged in.
    fn asked(&self) -> Vec<(Vec<String>, Option<String>)> {
        self.server.log().iter().map(|seen| (scopes(&seen.target), seen.authorization.clone())).collect()
    }
}

fn scopes(target: &str) -> Vec<String> {
    let url = reqwest::Url::parse("https://x/").unwrap().join(target).unwrap();
    url.query_pairs().filter(|(key, _)| key == "scope").map(|(_, value)| value.into_owned()).collect()
}

/// The token says what it is for.
fn is_allowed(seen: &Seen, token: &str) -> bool {
    let Some(rest) = seen.target.strip_prefix("/v2/") else { return false };
    if rest.is_empty() {
        return true;
    }
    let repository = rest.split("/blobs/").next().unwrap().split("/manifests/").next().unwrap();
    let action = if matches!(seen.method, Method::GET | Method::HEAD) { "pull" } else { "pull,push" };
    scopes(&format!("/?{}", token.split_once('/').unwrap().1)).iter().any(|scope| {
        scope.strip_prefix(&format!("repository:{repository}:")).is_some_and(|actions| actions.starts_with(action))
    })
}

fn password() -> Credentials {
    let password = Secret::new("pass".to_owned());
    Credentials::Given(Credential::Password { username: "user".to_owned(), password })
}

fn an_image(tokens: &Tokens) -> Image {
    let image = Image::new(&[&noise(1, 200_000), &noise(2, 100), &noise(3, 100)]);
    image.put(&tokens.registry.stub, "team/app", "1");
    image
}

#[tokio::test]
async fn a_pull_gets_a_token_for_a_pull_once() {
    for (credentials, login) in [(Credentials::Anonymous, None), (password(), Some(BASIC.to_owned()))] {
        let tokens = Tokens::start().await;
        an_image(&tokens);
        let client = tokens.client(credentials).await;
        assert!(tokens.asked().is_empty(), "nothing is asked for before it is needed");
        let reference = tokens.registry.reference("team/app:1");
        pull(&client, &reference, &tokens.registry.layout(), &Progress::none()).await.unwrap();
        assert_eq!(tokens.asked(), [(vec!["repository:team/app:pull".to_owned()], login)]);
        let target = &tokens.server.log()[0].target;
        assert!(target.starts_with("/token?service=the+registry&scope="), "{target}");
    }
}

#[tokio::test]
async fn a_push_and_a_mount_say_what_they_need() {
    let tokens = Tokens::start().await;
    let image = an_image(&tokens);
    let client = tokens.client(password()).await;
    let (from, to) = (tokens.registry.reference("team/app:1"), tokens.registry.reference("other:1"));
    copy(&client, &from, &client, &to, &Progress::none()).await.unwrap();
    assert!(tokens.registry.stub.manifest("other", "1").is_some());
    let asked: Vec<_> = tokens.asked().into_iter().map(|(scopes, _)| scopes).collect();
    assert_eq!(asked[0], ["repository:team/app:pull"]);
    assert!(
        asked.iter().any(|scopes| *scopes == ["repository:other:pull,push", "repository:team/app:pull"]),
        "{asked:?}"
    );
    assert!(asked.len() <= 3, "{asked:?}");

    let tokens = Tokens::start().await;
    let layout = tokens.registry.layout();
    image.write(&layout);
    layout.set_image(&image.descriptor(), None).unwrap();
    let client = tokens.client(password()).await;
    push(&client, &layout, None, &tokens.registry.reference("new:1"), &Progress::none()).await.unwrap();
    assert_eq!(tokens.asked()[0].0, ["repository:new:pull"], "a HEAD asks for no more");
    assert_eq!(tokens.asked()[1].0, ["repository:new:pull,push"]);
    assert_eq!(tokens.asked().len(), 2);
}

#[tokio::test]
async fn a_token_that_the_registry_has_had_enough_of_is_replaced() {
    let tokens = Tokens::start().await;
    let image = an_image(&tokens);
    let client = tokens.client(Credentials::Anonymous).await;
    let (repository, tag) = ("team/app".parse().unwrap(), "1".parse().unwrap());
    client.manifest(&repository, &tag).await.unwrap();
    let used = tokens.registry.stub.log().last().unwrap().authorization.clone().unwrap();
    tokens.revoked.lock().unwrap().push(used.strip_prefix("Bearer ").unwrap().to_owned());
    assert_eq!(client.manifest(&repository, &tag).await.unwrap().digest, image.digest());
    assert_eq!(tokens.asked().len(), 2);
}

#[tokio::test]
async fn a_registry_that_never_has_enough_is_asked_twice() {
    let tokens = Tokens::start().await;
    let challenge = format!("Bearer realm=\"https://localhost:{}/token\"", tokens.server.address.port());
    let site = Site::good().await;
    site.stub.rule(move |seen| (seen.target != "/v2/").then(|| with(reply(401, ""), "www-authenticate", &challenge)));
    let mut options = tokens.options(Credentials::Anonymous);
    options.certs.location = site.options().certs.location;
    let port = tokens.server.address.port();
    let ca = std::fs::read(tokens.registry.certs_of(&format!("localhost:{port}")).join("ca.crt")).unwrap();
    std::fs::write(site.certs_of(&format!("localhost:{port}")).join("ca.crt"), ca).unwrap();
    let client = Client::connect(&site.host, &options).await.unwrap();
    let error = client.manifest(&"a".parse().unwrap(), &"1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Status { answer, .. } if answer.status == 401), "{error}");
    assert!(error.is_refusal());
    assert_eq!(site.stub.lines().len(), 2);
    assert_eq!(tokens.asked().len(), 1);
}

/// The token server's own directory says what is trusted and presented there; the registry's certificate stays at home.
#[tokio::test]
async fn the_token_server_sees_neither_certificate_nor_ca_of_the_registry() {
    let tokens = Tokens::start().await;
    an_image(&tokens);
    let client = tokens.client(password()).await;
    let fetch = async || client.manifest(&"team/app".parse().unwrap(), &"1".parse().unwrap()).await;
    fetch().await.unwrap();
    assert!(tokens.server.presented().is_empty());
    assert!(tokens.server.pairs().iter().all(|pair| pair == "nobody"));

    let tokens = Tokens::start().await;
    let port = tokens.server.address.port();
    std::fs::remove_file(tokens.registry.certs_of(&format!("localhost:{port}")).join("ca.crt")).unwrap();
    let client = tokens.client(password()).await;
    let error = client.manifest(&"team/app".parse().unwrap(), &"1".parse().unwrap()).await.unwrap_err();
    let ClientError::Connection { host, .. } = &error else { panic!("{error}") };
    assert_eq!(host.as_str(), format!("localhost:{port}"), "the registry's CA is not for the token server");
    assert!(tokens.server.log().is_empty());
}

#[tokio::test]
async fn a_token_goes_to_the_registry_only() {
    let tokens = Tokens::start().await;
    let image = an_image(&tokens);
    let pki = Pki::new();
    let mut tls = pki.tls();
    tls.mandatory = false;
    let store = Stub::start(tls).await;
    image.put(&store, "team/app", "1");
    let store_host = format!("localhost:{}", store.address.port());
    pki.server_ca.write_ca(&tokens.registry.certs_of(&store_host));
    // Rules are asked in order: this one comes after a good token was seen.
    tokens.registry.stub.rule(move |seen| {
        let target = format!("https://{store_host}{}", seen.target);
        seen.target.contains("/blobs/").then(|| with(reply(307, ""), "location", &target))
    });
    let client = tokens.client(password()).await;
    let reference = tokens.registry.reference("team/app:1");
    pull(&client, &reference, &tokens.registry.layout(), &Progress::none()).await.unwrap();
    assert!(store.log().len() >= 3);
    assert!(store.log().iter().all(|seen| seen.authorization.is_none()), "{:?}", store.log());
    assert!(store.presented().is_empty());
}

#[tokio::test]
async fn a_token_server_is_not_followed_elsewhere() {
    let tokens = Tokens::start().await;
    let site = Site::good().await;
    let elsewhere = Site::good().await;
    let target = format!("https://{}/token", elsewhere.host);
    let realm = site.host.clone();
    site.stub.rule(move |seen| match seen.target.as_str() {
        target_of if target_of.starts_with("/token") => Some(with(reply(307, ""), "location", &target)),
        _ => Some(with(reply(401, ""), "www-authenticate", &format!("Bearer realm=\"https://{realm}/token\""))),
    });
    let mut options = site.options();
    options.credentials = password();
    let client = Client::connect(&site.host, &options).await.unwrap();
    let error = client.ping().await.unwrap_err();
    assert!(matches!(&error, ClientError::Status { answer, .. } if answer.status == 307), "{error}");
    assert_eq!(elsewhere.stub.connections(), 0);
    drop(tokens);
}

#[tokio::test]
async fn a_password_goes_to_no_realm_that_is_not_https() {
    for realm in ["http://127.0.0.1:1/token", "https://evil:x@127.0.0.1:1/token"] {
        let site = Site::good().await;
        let challenge = format!("Bearer realm=\"{realm}\"");
        site.stub
            .rule(move |seen| (seen.target != "/v2/").then(|| with(reply(401, ""), "www-authenticate", &challenge)));
        let options = ClientOptions { credentials: password(), ..site.options() };
        let client = Client::connect(&site.host, &options).await.unwrap();
        let error = client.manifest(&"a".parse().unwrap(), &"1".parse().unwrap()).await.unwrap_err();
        assert!(
            matches!(&error, ClientError::Protocol { fault: ProtocolFault::UnsafeRealm { .. }, .. }),
            "{realm}: {error}"
        );
        assert!(site.stub.log().iter().all(|seen| seen.authorization.is_none()));
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_by_the_token_server() {
    let tokens = Tokens::start().await;
    let site = Site::good().await;
    let body = r#"{"details":"incorrect username or password"}"#;
    site.stub.rule(move |seen| {
        seen.target.starts_with("/token").then(|| with(reply(401, body), "www-authenticate", "Basic realm=\"x\""))
    });
    let realm = site.host.clone();
    site.stub.rule(move |_| {
        Some(with(reply(401, ""), "www-authenticate", &format!("Bearer realm=\"https://{realm}/token\"")))
    });
    let options = ClientOptions { credentials: password(), ..site.options() };
    let error = Client::connect(&site.host, &options).await.unwrap().ping().await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    assert!(error.to_string().contains("GET /token") && error.to_string().contains("incorrect username"), "{error}");
    assert!(!format!("{error:?}").contains("pass\""), "{error:?}");
    assert_eq!(site.stub.log().iter().filter(|seen| seen.authorization.is_some()).count(), 1);
    drop(tokens);
}

#[tokio::test]
async fn an_identity_token_is_posted_and_its_successor_used() {
    let site = Site::good().await;
    let realm = site.host.clone();
    site.stub.rule(move |seen| {
        let form = match &seen.form {
            None if seen.authorization.is_none() => {
                let challenge = format!("Bearer realm=\"https://{realm}/token?a=b\",service=s");
                return Some(with(reply(401, ""), "www-authenticate", &challenge));
            }
            None => return None,
            Some(form) => form,
        };
        assert_eq!(seen.target, "/token?a=b", "the address as it is");
        let first = form.contains("refresh_token=first%2B");
        assert!(first || form.contains("refresh_token=second"), "{form}");
        Some(reply(200, r#"{"access_token":"t","refresh_token":"second","expires_in":300}"#))
    });
    let image = Image::new(&[b"layer"]);
    image.put(&site.stub, "a", "1");
    image.put(&site.stub, "b", "1");
    let token = Credential::IdentityToken(Secret::new("first+".to_owned()));
    let options = ClientOptions { credentials: Credentials::Given(token), ..site.options() };
    let client = Client::connect(&site.host, &options).await.unwrap();
    for repository in ["a", "b"] {
        client.manifest(&repository.parse().unwrap(), &"1".parse().unwrap()).await.unwrap();
    }
    let forms: Vec<String> = site.stub.log().into_iter().filter_map(|seen| seen.form).collect();
    assert_eq!(forms.len(), 2);
    for (form, refresh) in forms.iter().zip(["first%2B", "second"]) {
        let repository = if refresh == "second" { "b" } else { "a" };
        assert_eq!(
            *form,
            format!(
                "client_id=portcullis&service=s&scope=repository%3A{repository}%3Apull&grant_type=refresh_token&refresh_token={refresh}"
            )
        );
    }
}

/// Each repository's is the successor of its own.
#[tokio::test]
async fn a_successor_is_no_other_repositorys() {
    let site = Site::good().await;
    let realm = site.host.clone();
    site.stub.rule(move |seen| match &seen.form {
        None if seen.authorization.is_none() => {
            let challenge = format!("Bearer realm=\"https://{realm}/token\"");
            Some(with(reply(401, ""), "www-authenticate", &challenge))
        }
        None => None,
        Some(form) => {
            let used = form.rsplit_once("refresh_token=").unwrap().1;
            Some(reply(200, format!(r#"{{"access_token":"t","refresh_token":"{used}x","expires_in":300}}"#)))
        }
    });
    let image = Image::new(&[b"layer"]);
    for repository in ["team/app", "team/two", "other"] {
        image.put(&site.stub, repository, "1");
    }
    let path = site.dir.path().join("auth.json");
    let auths = serde_json::json!({"auths": {
        site.host.as_str(): {"identitytoken": "all"}, format!("{}/team", site.host): {"identitytoken": "team"},
    }});
    std::fs::write(&path, auths.to_string()).unwrap();
    let options = ClientOptions { credentials: Credentials::Files(AuthFiles::named(&path)), ..site.options() };
    let client = Client::connect(&site.host, &options).await.unwrap();
    for repository in ["team/app", "other", "team/two"] {
        client.manifest(&repository.parse().unwrap(), &"1".parse().unwrap()).await.unwrap();
    }
    let forms = site.stub.log().into_iter().filter_map(|seen| seen.form);
    let used: Vec<String> = forms.map(|form| form.rsplit_once('=').unwrap().1.to_owned()).collect();
    assert_eq!(used, ["team", "all", "teamx"]);
}

#[tokio::test]
async fn a_token_server_of_oauth_alone_gets_a_form() {
    let site = Site::good().await;
    let realm = site.host.clone();
    site.stub.rule(move |seen| match (seen.target.starts_with("/token"), &seen.form, &seen.authorization) {
        (true, None, _) => Some(reply(405, "")),
        (true, Some(_), _) => Some(reply(200, r#"{"access_token":"t"}"#)),
        (false, _, None) => {
            Some(with(reply(401, ""), "www-authenticate", &format!("Bearer realm=\"https://{realm}/token\"")))
        }
        _ => None,
    });
    let options = ClientOptions { credentials: password(), ..site.options() };
    Client::connect(&site.host, &options).await.unwrap().ping().await.unwrap();
    let log = site.stub.log();
    let form = log.iter().find_map(|seen| seen.form.as_deref()).unwrap();
    assert!(form.ends_with("&grant_type=password&username=user&password=pass"), "{form}");
}

fn wants_basic(seen: &Seen) -> Option<Reply> {
    let wanted = seen.authorization.as_deref() != Some(BASIC);
    wanted.then(|| with(reply(401, ""), "www-authenticate", "Basic realm=\"Registry\""))
}

#[tokio::test]
async fn basic_goes_with_every_request() {
    let site = Site::good().await;
    site.stub.rule(wants_basic);
    let image = Image::new(&[b"layer"]);
    let layout = site.layout();
    image.write(&layout);
    layout.set_image(&image.descriptor(), None).unwrap();
    let options = ClientOptions { credentials: password(), ..site.options() };
    let client = Client::connect(&site.host, &options).await.unwrap();
    push(&client, &layout, None, &site.reference("a:1"), &Progress::none()).await.unwrap();
    let log = site.stub.log();
    assert!(log[0].authorization.is_none(), "not before it is asked for");
    assert!(log[1..].iter().all(|seen| seen.authorization.as_deref() == Some(BASIC)));
}

/// Each pair would be sent with it, and a lockout after a few wrong ones is usual.
#[tokio::test]
async fn a_wrong_password_is_sent_once() {
    let pki = Pki::new();
    let (a, b) = (pki.client_ca.client("a"), pki.client_ca.client("b"));
    let site = Site::without_pair(&pki, pki.tls().accept("a", &a).accept("b", &b)).await;
    a.write_pair(&site.certs(), "a");
    b.write_pair(&site.certs(), "b");
    site.stub.rule(|_| Some(with(reply(401, ""), "www-authenticate", "Basic realm=\"x\"")));
    let options = ClientOptions { credentials: password(), ..site.options() };
    let client = Client::connect(&site.host, &options).await.unwrap();
    let error = client.manifest(&"a".parse().unwrap(), &"1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Status { answer, .. } if answer.status == 401), "{error}");
    assert_eq!(site.stub.log().iter().filter(|seen| seen.authorization.is_some()).count(), 1);
}

#[tokio::test]
async fn a_login_that_nobody_has_is_a_refusal_with_advice() {
    let site = Site::good().await;
    site.stub.rule(wants_basic);
    let options = ClientOptions { credentials: Credentials::Anonymous, ..site.options() };
    let error = Client::connect(&site.host, &options).await.unwrap_err();
    assert!(error.is_refusal(), "{error}");
    assert!(error.advice().unwrap().contains("portcullis login"), "{error}");
}

#[tokio::test]
async fn a_repository_has_its_own_credential() {
    let site = Site::good().await;
    site.stub.rule(|seen| {
        let user = if seen.target.starts_with("/v2/team/") { "dGVhbTpw" } else { "YWxsOnA=" };
        let good = seen.authorization.as_deref() == Some(&format!("Basic {user}"));
        (!good).then(|| with(reply(401, ""), "www-authenticate", "Basic realm=\"x\""))
    });
    let image = Image::new(&[b"layer"]);
    image.put(&site.stub, "team/app", "1");
    image.put(&site.stub, "other", "1");
    let path = site.dir.path().join("auth.json");
    let auths = serde_json::json!({"auths": {
        site.host.as_str(): {"auth": "YWxsOnA="}, format!("{}/team", site.host): {"auth": "dGVhbTpw"},
    }});
    std::fs::write(&path, auths.to_string()).unwrap();
    let options = ClientOptions { credentials: Credentials::Files(AuthFiles::named(&path)), ..site.options() };
    let client = Client::connect(&site.host, &options).await.unwrap();
    for repository in ["team/app", "other"] {
        client.manifest(&repository.parse().unwrap(), &"1".parse().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named_when_it_is_needed() {
    let site = Site::good().await;
    let path = site.dir.path().join("auth.json");
    let options = ClientOptions { credentials: Credentials::Files(AuthFiles::named(&path)), ..site.options() };
    assert!(Client::connect(&site.host, &options).await.is_ok(), "nobody asked for it");
    site.stub.rule(wants_basic);
    let error = Client::connect(&site.host, &options).await.unwrap_err();
    assert!(error.to_string().contains("auth.json: it does not exist"), "{error}");
    std::fs::write(&path, "user:pass").unwrap();
    let error = Client::connect(&site.host, &options).await.unwrap_err();
    assert!(matches!(&error, ClientError::AuthFile { .. }), "{error}");
    assert!(!error.to_string().contains("pass"), "{error}");
}

/// The next pair is tried when the token does not help.
#[tokio::test]
async fn a_token_does_not_hide_which_certificate_is_refused() {
    let tokens = Tokens::start().await;
    let pki = Pki::new();
    let (a, b) = (pki.client_ca.client("a"), pki.client_ca.client("b"));
    let site = Site::without_pair(&pki, pki.tls().accept("a", &a).accept("b", &b)).await;
    a.write_pair(&site.certs(), "a");
    b.write_pair(&site.certs(), "b");
    let realm: RegistryHost = site.host.clone();
    site.stub.rule(move |seen| match (seen.target.starts_with("/token"), &seen.authorization, seen.pair.as_deref()) {
        (true, ..) => Some(reply(200, r#"{"token":"t"}"#)),
        (_, None, _) => {
            Some(with(reply(401, ""), "www-authenticate", &format!("Bearer realm=\"https://{realm}/token\"")))
        }
        (_, _, Some("a")) => Some(reply(403, r#"{"errors":[{"code":"DENIED","message":"not you"}]}"#)),
        _ => None,
    });
    let image = Image::new(&[b"layer"]);
    image.put(&site.stub, "a", "1");
    let client = Client::connect(&site.host, &site.options()).await.unwrap();
    assert_eq!(client.pair_used().as_deref(), Some("a"));
    client.manifest(&"a".parse().unwrap(), &"1".parse().unwrap()).await.unwrap();
    assert_eq!(client.pair_used().as_deref(), Some("b"));
    drop(tokens);
}
