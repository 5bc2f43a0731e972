//! `portcullis config import`: the configuration of a `docker-registry` that runs becomes one that serves its images.

use std::fs;
use std::process::Stdio;

use portcullis_oci::Algorithm;
use portcullis_testkit::image::Image;
use portcullis_testkit::skip::Need;
use portcullis_testkit::skip_unless;
use rustix::process::Signal;

use crate::distribution::{docker_api, volume::Volume};
use crate::docker_registry::{DOCKER_REGISTRY, DockerRegistry};
use crate::netns::{ADDRESS, HOST, IP, Machine, NSENTER};
use crate::peers::CURL;
use crate::process::{DEADLINE, Running, eventually, read_lossy};
use crate::registry::{PORTCULLIS, Registry};

#[test]
fn every_command_that_is_printed_does_what_it_says() {
    skip_unless!(IP, NSENTER, CURL, DOCKER_REGISTRY, Need::Program("openssl"), Need::Namespaces);
    let machine = Machine::new();
    let data = machine.dir().join("volume");
    let docker = docker_api(&machine);
    let server = DockerRegistry::start(&machine, &data);
    let mut volume = Volume::default();
    volume.push_image(&docker, "team/app", &Image::new(91, &[100]), &["1"]);
    volume.push_blob(&docker, "team/app", Algorithm::Sha256, b"{}");
    server.stop();

    let subject =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=their CA"];
    let usage = ["-addext", "keyUsage=critical,keyCertSign", "-keyout", "their.key", "-out", "their ca.pem"];
    machine.run("openssl", &[subject.as_slice(), &usage].concat()).ok();
    let yaml = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
         http:\n  addr: {ADDRESS}:5443\n  host: https://{HOST}:5443\n  secret: of the test\n  \
         tls:\n    clientcas: [\"{}\"]\nauth:\n  htpasswd: {{realm: x, path: /etc/passwd}}\n",
        data.display(),
        machine.dir().join("their ca.pem").display()
    );
    fs::write(machine.dir().join("docker's config.yml"), yaml).unwrap();
    let home = machine.dir().join("registry").display().to_string();
    let printed = machine.run(PORTCULLIS, &["config", "import", "docker's config.yml", "--home", &home]).ok();
    assert!(printed.stdout.contains(&format!("\nlisten = \"{ADDRESS}:5443\"\n")), "{printed}");
    let printed = printed.says("docker's config.yml:4: storage.filesystem.rootdirectory -> [storage] data = ");
    let printed = printed.says("config.yml:14: auth.htpasswd has no counterpart: there are no passwords");

    let commands =
        printed.stderr.lines().skip_while(|line| *line != "next:").filter_map(|line| line.strip_prefix("  "));
    let commands: Vec<&str> = commands.filter(|line| !line.starts_with('#') && !line.starts_with(' ')).collect();
    assert_eq!(commands.len(), 4, "{printed}");
    let mut up = machine.command("sh");
    up.args(["-c", &format!("exec {}", commands[0])]).stdin(Stdio::null());
    let mut up = Running::start(up, &machine.logs());
    assert!(
        eventually(DEADLINE, || up.has_ended() || !read_lossy(&up.stdout).is_empty()) && !up.has_ended(),
        "{}",
        up.said()
    );
    up.signal(Signal::TERM);
    up.wait(DEADLINE).ok();
    for command in &commands[1..] {
        machine.run("sh", &["-c", command]).ok();
    }
    machine.run("sh", &["-c", commands[1]]).fails();

    let registry = Registry::up(&machine);
    volume.check(&crate::distribution::portcullis_api(&machine, &registry));
    registry.portcullis(&["trust", "list"]).ok().says("their CA");
}

#[test]
fn all_that_is_wrong_is_said_at_once_and_nothing_is_written() {
    skip_unless!(IP, NSENTER, Need::Namespaces);
    let machine = Machine::new();
    let import = |text: &str| {
        fs::write(machine.dir().join("config.yml"), text).unwrap();
        machine.run(PORTCULLIS, &["config", "import", "config.yml", "--output", "config.toml"])
    };
    let ran = import("version: 0.1\nstorage: [a]\nhttp: {draintimeout: soon}\n").exits(2);
    ran.says("config.yml:2: ").says("config.yml:3: `http.draintimeout` is \"soon\"");
    import("version: 0.1\nhttp: {addr: [\n").exits(2).says("config.yml:");
    assert!(!machine.dir().join("config.toml").exists());

    import("version: 0.1\nstorage: filesystem\n").ok();
    import("version: 0.1\nstorage: filesystem\n").exits(1).says("config.toml exists and is left alone");
    machine.run(PORTCULLIS, &["config", "import", "nowhere.yml"]).exits(1).says("nowhere.yml");
}
