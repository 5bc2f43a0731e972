//! `up --constrain-names`: a server CA that may certify the registry's own names only, as each verifier sees it.

use std::fs;

use portcullis_testkit::pki::PairFiles;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;

use crate::netns::{ADDRESS, IP, Machine, NSENTER};
use crate::peers::{CURL, OPENSSL, SKOPEO, curl, curl_identity};
use crate::registry::{PORTCULLIS, Registry};

#[test]
fn the_server_ca_is_limited_to_its_own_names() {
    skip_unless!(IP, NSENTER, CURL, OPENSSL, SKOPEO, Need::Namespaces);
    let machine = Machine::new();
    let mut registry = Registry::up_with(&machine, &["--constrain-names", "--name", ADDRESS]);
    let ca = registry.ca().display().to_string();
    let shown = machine.run("openssl", &["x509", "-in", &ca, "-noout", "-ext", "nameConstraints"]).ok();
    shown.says("X509v3 Name Constraints: critical").says("DNS:registry.test").says("IP:10.77.0.1/255.255.255.255");

    // OpenSSL by name and by address, Go, and rustls with our verdicts.
    let admin = PairFiles::named(&registry.home().join("pki/clients/admin"), "client");
    assert_eq!(curl(&machine, &registry, &admin, &[], "/v2/").status, 200);
    let mut words = curl_identity(&registry, Some(&admin));
    let url = format!("https://{ADDRESS}:5443/v2/");
    words.extend(["--fail".to_owned(), url]);
    machine.run("curl", &words.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    registry.fill_certs(&machine.docker_certs(&registry.host()), &admin);
    registry.fill_certs(&machine.podman_certs(&registry.host()), &admin);
    let target = format!("docker://{}", registry.reference("team/app"));
    machine.run("skopeo", &["list-tags", &target]).fails().says("404");
    machine.run(PORTCULLIS, &["tags", &registry.reference("team/app")]).fails().says("NAME_UNKNOWN");

    // Such a CA may go into a system's store as it is.
    let tree = machine.subdir("system");
    for dir in ["etc/docker", "usr/local/share/ca-certificates", "usr/sbin"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    fs::write(tree.join("usr/sbin/update-ca-certificates"), "").unwrap();
    let host = registry.host();
    let install = |from: &std::path::Path| {
        let (from, tree) = (from.display().to_string(), tree.display().to_string());
        let words =
            ["install", &host, "--from", &from, "--engine", "docker", "--system-trust", "--root", &tree, "--dry-run"];
        machine.run(PORTCULLIS, &words)
    };
    install(&registry.home().join("pki/clients/admin")).ok();

    // What lies below a name can be added, another name cannot, and the certificate before stays.
    registry.portcullis(&["cert", "new", "server", "--name", "mirror.registry.test"]).ok();
    let refused = registry.portcullis(&["cert", "new", "server", "--name", "registry.example"]).exits(1);
    refused.says("registry.example").says("name constraints");
    assert_eq!(registry.stop().code(), Some(0));
    registry.start_again();
    assert_eq!(curl(&machine, &registry, &admin, &[], "/v2/").status, 200);
}
