//! Broken set-ups, one snapshot of the text each. `INSTA_UPDATE=always` writes them anew; read what changed.

use crate::machine::{HOST, Machine, PLAIN, assert_pasteable, lasting, stable};
use portcullis_testkit::pki::{Authority, LeafSpec, openssl, recipe_shaped, write_file};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

fn check(name: &str, machine: &Machine) {
    let report = stable(machine.report(), machine.root());
    let text = report.to_text(PLAIN);
    assert_pasteable(&report, &text);
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

/// `name(machine) { what is wrong with it }`
macro_rules! setups {
    ($($name:ident($machine:ident) $body:block)*) => {$(
        #[test]
        fn $name() {
            #[allow(unused_mut, clippy::allow_attributes, reason = "only some set-ups change the environment")]
            let mut $machine = Machine::new();
            $body
            check(stringify!($name), &$machine);
        }
    )*};
}

setups! {
    nothing_wrong(m) { m.good(); }

    no_directory(m) {}

    misspelled_root(m) {
        let directory = m.root().join("etc/docker/cert.d").join(HOST);
        m.ca.write_ca(&directory);
    }

    files_above_an_empty_directory(m) {
        m.directory();
        m.ca.write_ca(&m.root().join("etc/docker/certs.d"));
    }

    files_one_level_too_high(m) {
        m.ca.write_ca(&m.root().join("etc/docker/certs.d"));
    }

    upper_case_and_scheme(m) {
        m.ca.write_ca(&m.host_directory("Registry.test:5443"));
        m.ca.write_ca(&m.host_directory("https:registry.test"));
        m.ca.write_ca(&m.host_directory("my registry"));
    }

    port_443(m) {
        m.target = "registry.test".to_owned();
        m.ca.write_ca(&m.host_directory("registry.test:443"));
    }

    another_port(m) { m.ca.write_ca(&m.host_directory("registry.test:5000")); }

    containerds_spelling(m) { m.ca.write_ca(&m.host_directory("registry.test_5443_")); }

    ipv6_with_older_engines(m) {
        m.target = "[fd00::1]:5443".to_owned();
        m.ca.write_ca(&m.host_directory("[fd00::1]:5443"));
    }

    ipv6_without_brackets(m) {
        m.without("usr/bin/podman");
        m.write("var/lib/dpkg/status", "Package: docker-ce\nVersion: 5:27.1.1-1\n\n");
        m.target = "[fd00::1]:5443".to_owned();
        m.ca.write_ca(&m.host_directory("fd00::1:5443"));
    }

    docker_hub(m) {
        m.target = "docker.io".to_owned();
        m.ca.write_ca(&m.host_directory("index.docker.io"));
    }

    empty_directory_hides_the_full_one(m) {
        m.good();
        fs::create_dir_all(m.root().join("root/.config/containers/certs.d").join(HOST)).unwrap();
    }

    two_directories(m) {
        m.good();
        m.ca.write_ca(&m.root().join("etc/containers/certs.d").join(HOST));
    }

    anybody_may_add_a_ca(m) {
        let directory = m.good();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    }

    key_missing(m) { fs::remove_file(m.good().join("client.key")).unwrap(); }

    ca_called_cert(m) {
        let directory = m.directory();
        write_file(&directory.join("ca.cert"), m.ca.cert_pem().as_bytes(), 0o644);
    }

    certificate_called_crt(m) {
        let directory = m.directory();
        m.ca.write_ca(&directory);
        let pair = m.ca.issue(&lasting("ci-7"));
        pair.write_pair(&directory, "registry");
        fs::rename(directory.join("registry.cert"), directory.join("registry.crt")).unwrap();
    }

    key_of_the_ca(m) {
        let directory = m.good();
        write_file(&directory.join("ca.key"), m.ca.pair.key_pem().as_bytes(), 0o600);
    }

    pem_suffixes(m) {
        let directory = m.directory();
        write_file(&directory.join("ca.pem"), m.ca.cert_pem().as_bytes(), 0o644);
        let pair = m.ca.issue(&lasting("ci-7"));
        write_file(&directory.join("client.pem"), pair.cert_pem().as_bytes(), 0o644);
        write_file(&directory.join("client.CRT"), pair.cert_pem().as_bytes(), 0o644);
    }

    kubernetes_secret(m) {
        let directory = m.directory();
        m.ca.write_ca(&directory);
        let pair = m.ca.issue(&lasting("ci-7"));
        write_file(&directory.join("tls.crt"), pair.cert_pem().as_bytes(), 0o644);
        write_file(&directory.join("tls.key"), pair.key_pem().as_bytes(), 0o600);
    }

    apple_double(m) {
        let directory = m.good();
        write_file(&directory.join("._client.cert"), &[0, 5, 0x16, 7, 0, 2, 0, 0], 0o644);
    }

    der_ca(m) { write_file(&m.directory().join("ca.crt"), m.ca.cert_der(), 0o644); }

    byte_order_mark(m) {
        let text = format!("\u{feff}{}", m.ca.cert_pem());
        write_file(&m.directory().join("ca.crt"), text.as_bytes(), 0o644);
    }

    saved_web_page(m) {
        write_file(&m.directory().join("ca.crt"), b"<!DOCTYPE html><html><title>Sign in</title></html>", 0o644);
    }

    empty_ca(m) { write_file(&m.directory().join("ca.crt"), b"", 0o644); }

    one_bad_block(m) {
        let bad = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let text = format!("{}{bad}", m.ca.cert_pem());
        write_file(&m.directory().join("ca.crt"), text.as_bytes(), 0o644);
    }

    key_in_a_crt(m) {
        let text = format!("{}{}", m.ca.cert_pem(), m.ca.pair.key_pem());
        write_file(&m.directory().join("ca.crt"), text.as_bytes(), 0o644);
    }

    encrypted_key(m) {
        let directory = m.good();
        let key = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
        write_file(&directory.join("client.key"), key.as_bytes(), 0o600);
    }

    key_of_another_pair(m) {
        let directory = m.good();
        m.ca.issue(&lasting("ci-8")).write_pair(&directory, "other");
        fs::copy(directory.join("other.key"), directory.join("client.key")).unwrap();
    }

    swapped(m) {
        let directory = m.good();
        let (cert, key) = (fs::read(directory.join("client.cert")).unwrap(), fs::read(directory.join("client.key")).unwrap());
        write_file(&directory.join("client.cert"), &key, 0o600);
        write_file(&directory.join("client.key"), &cert, 0o600);
    }

    intermediate_first(m) {
        let directory = m.good();
        let intermediate = m.ca.intermediate("issuing CA");
        let pair = intermediate.issue(&lasting("ci-7"));
        let text = format!("{}{}", intermediate.cert_pem(), pair.cert_pem());
        write_file(&directory.join("client.cert"), text.as_bytes(), 0o644);
        write_file(&directory.join("client.key"), pair.key_pem().as_bytes(), 0o600);
    }

    intermediate_missing(m) {
        let directory = m.good();
        let intermediate = m.ca.intermediate("issuing CA");
        intermediate.pair.write_crt(&directory, "intermediate");
        let pair = intermediate.issue(&lasting("ci-7"));
        write_file(&directory.join("client.cert"), pair.cert_pem().as_bytes(), 0o644);
        write_file(&directory.join("client.key"), pair.key_pem().as_bytes(), 0o600);
    }

    key_for_everybody(m) {
        let directory = m.good();
        fs::set_permissions(directory.join("client.key"), fs::Permissions::from_mode(0o644)).unwrap();
    }

    links(m) {
        let directory = m.good();
        let home = m.root().join("root/key");
        fs::create_dir_all(m.root().join("root")).unwrap();
        fs::rename(directory.join("client.key"), &home).unwrap();
        symlink(&home, directory.join("client.key")).unwrap();
        symlink("gone.crt", directory.join("old.crt")).unwrap();
    }

    directory_called_crt(m) { fs::create_dir(m.good().join("extra.crt")).unwrap(); }

    expired_pair(m) {
        let directory = m.good();
        m.ca.issue(&LeafSpec::client("ci-7").expired()).write_pair(&directory, "client");
    }

    soon_over(m) {
        let directory = m.good();
        let now = time::OffsetDateTime::now_utc();
        let soon = LeafSpec { not_after: now + time::Duration::days(5) + time::Duration::HOUR, ..LeafSpec::client("ci-7") };
        m.ca.issue(&soon).write_pair(&directory, "client");
    }

    expired_ca(m) { Authority::expired("old CA").write_ca(&m.directory()); }

    ca_that_may_not_sign(m) {
        let directory = m.directory();
        let ca = Authority::without_basic_constraints("half a CA");
        ca.write_ca(&directory);
        ca.issue(&lasting("ci-7")).write_pair(&directory, "client");
    }

    servers_certificate_as_clients(m) {
        let directory = m.good();
        let server = LeafSpec { not_after: lasting("x").not_after, ..LeafSpec::server(&["registry.test"], &[]) };
        m.ca.issue(&server).write_pair(&directory, "client");
    }

    two_pairs_and_a_ca_made_anew(m) {
        let directory = m.good();
        m.ca.issue(&lasting("ci-8")).write_pair(&directory, "another");
        Authority::new("registry CA").pair.write_crt(&directory, "old-ca");
        m.ca.pair.write_crt(&directory, "same-ca");
    }

    the_pages_own_recipe(m) {
        let directory = m.directory();
        m.ca.write_ca(&directory);
        recipe_shaped("alice").write_pair(&directory, "client");
    }

    own_name_on_loopback(m) {
        m.good();
        m.write("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 registry.test registry\n");
    }

    insecure_registry(m) {
        m.good();
        m.write("etc/docker/daemon.json", "{\n  \"insecure-registries\": [\n    \"registry.test:5443\"\n  ]\n}\n");
        m.write("etc/containers/registries.conf", "[[registry]]\nlocation = \"registry.test:5443\"\ninsecure = true\n");
    }

    blocked_registry(m) {
        m.good();
        m.write("etc/containers/registries.conf", "[[registry]]\nlocation = \"registry.test:5443\"\n");
        m.write("etc/containers/registries.conf.d/10.conf", "\n[[registry]]\nprefix = \"registry.test:5443\"\nlocation = \"x\"\nblocked = true\n");
    }

    registries_conf_is_not_toml(m) {
        m.good();
        m.write("etc/containers/registries.conf", "[[registry]]\nlocation = \n");
    }

    daemon_json_is_not_json(m) {
        m.good();
        m.write("etc/docker/daemon.json", "{ \"insecure-registries\": [ }");
    }

    hosts_toml_traps(m) {
        m.engine("usr/bin/containerd", "containerd.io", "1.6.20");
        m.good();
        m.write(
            "etc/containerd/config.toml",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
        );
        let directory = m.root().join("etc/containerd/certs.d").join(HOST);
        m.ca.write_ca(&directory);
        m.ca.issue(&lasting("ci-7")).write_pair(&directory, "client");
        m.write(
            &format!("etc/containerd/certs.d/{HOST}/hosts.toml"),
            "server = \"https://registry.test:5443\"\n\n[host.\"https://mirror.test\"]\n  ca = \"ca.crt\"\n  client = [\"client.cert\", \"client.key\"]\n",
        );
        m.write(&format!("etc/containerd/certs.d/{HOST}/host.toml"), "");
    }

    containerds_list(m) {
        m.without("usr/sbin/dockerd");
        m.engine("usr/bin/containerd", "containerd.io", "2.2.0");
        m.write(
            "etc/containerd/config.toml",
            "version = 3\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n",
        );
        m.good();
    }

    environment_and_builder(m) {
        m.good();
        m.environment.ssl_cert_file = Some("/tmp/roots.pem".into());
        m.write("root/.docker/buildx/instances/ci", "{\"Name\":\"ci\",\"Driver\":\"docker-container\"}");
        fs::create_dir_all(m.root().join("root/.config/containers/podman/machine")).unwrap();
    }
}

#[test]
fn weak_and_unsupported_keys() {
    portcullis_testkit::skip_unless!(portcullis_testkit::skip::Need::Program("openssl"));
    let m = Machine::new();
    let directory = m.directory();
    let weak = openssl::self_signed_rsa(m.root(), "weak", "/CN=weak", 1024);
    fs::rename(&weak.cert, directory.join("client.cert")).unwrap();
    fs::rename(&weak.key, directory.join("client.key")).unwrap();
    fs::set_permissions(directory.join("client.key"), fs::Permissions::from_mode(0o600)).unwrap();
    check("weak_and_unsupported_keys", &m);
}
