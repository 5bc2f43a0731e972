//! Debian's nginx in front of a registry: it refuses with HTTP answers of its own, after the handshake.

use portcullis_client::{ClientError, Refusal};
use portcullis_testkit::pki::Authority;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::served::{Served, Setting};

const PROGRAM: &str = "nginx";

/// `ssl_verify_client on`: 400 with a page, in both versions of TLS; or, with `optional_no_ca`, what its administrator chose.
#[test]
fn the_next_pair_is_tried_after_each_of_its_refusals() {
    skip_unless!(Need::Program(PROGRAM));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for version in ["TLSv1.2", "TLSv1.3"] {
            for (rule, status) in [
                ("ssl_verify_client on;", 400),
                ("ssl_verify_client optional_no_ca; if ($ssl_client_verify != SUCCESS) { return 403; }", 403),
                ("ssl_verify_client on; error_page 495 496 =401 /none;", 401),
                ("ssl_verify_client optional_no_ca; if ($ssl_client_verify != SUCCESS) { return 503; }", 503),
            ] {
                let nginx = start(version, rule).await;
                let error = nginx.connect().await.unwrap_err();
                assert!(error.is_refusal() || status == 503, "{version} {rule}: {error}");

                for name in ["a", "b"] {
                    Authority::new("another CA").client("stranger").write_pair(&nginx.certs(), name);
                }
                let error = nginx.connect().await.unwrap_err();
                let statuses = statuses(&error);
                assert_eq!(statuses, [("a".to_owned(), status), ("b".to_owned(), status)], "{version} {rule}: {error}");

                nginx.pki.good.write_pair(&nginx.certs(), "c");
                let client = nginx.connect().await.unwrap();
                assert_eq!(client.pair_used().as_deref(), Some("c"), "{version} {rule}");
            }
        }
    });
}

fn statuses(error: &ClientError) -> Vec<(String, u16)> {
    let ClientError::Refused { attempts, .. } = error else { panic!("{error:?}") };
    let status = |refusal: &Refusal| match refusal {
        Refusal::Answer(answer) => answer.status,
        Refusal::Handshake(failure) => panic!("{failure}"),
    };
    attempts.iter().map(|attempt| (attempt.pair.clone().unwrap(), status(&attempt.refusal))).collect()
}

async fn start(version: &str, rule: &str) -> Served {
    let configure = |setting: &Setting<'_>| {
        format!(
            "daemon off; master_process off; pid {own}/pid; error_log {own}/error.log;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path {own}/body; proxy_temp_path {own}/proxy;\n\
             fastcgi_temp_path {own}/fastcgi; uwsgi_temp_path {own}/uwsgi; scgi_temp_path {own}/scgi;\n\
             server {{ listen {address} ssl; ssl_protocols {version};\n\
             ssl_certificate {cert}; ssl_certificate_key {key}; ssl_client_certificate {own}/ca.crt;\n\
             {rule}\n\
             location / {{ return 200 \"{{}}\"; }} location /none {{ return 401 \"none\"; }} }} }}\n",
            own = setting.own.display(),
            address = setting.address,
            cert = setting.server.cert.display(),
            key = setting.server.key.display(),
        )
    };
    Served::start(PROGRAM, configure, |command, setting, config| {
        command.arg("-p").arg(setting.own).arg("-c").arg(config).arg("-e").arg(setting.own.join("error.log"));
    })
    .await
}
