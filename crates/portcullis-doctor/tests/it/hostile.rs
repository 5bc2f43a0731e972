//! Text that somebody else chose: in certificates, file names and links.

use crate::machine::{Machine, PLAIN};
use portcullis_certs::Fix;
use portcullis_testkit::pki::{LeafSpec, write_file};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const NAMES: [&str; 4] =
    ["$(id)", "\u{1b}[2J\u{1b}]0;x\u{7}", "\u{202e}evil\u{2066}", "a\nD99 fault\n    fix   rm -rf /"];

fn assert_plain(text: &str) {
    for c in text.chars() {
        let allowed = c == '\n' || !(c.is_control() || ('\u{200b}'..='\u{206f}').contains(&c) && c != '\u{2019}');
        assert!(allowed, "{c:?} in {text}");
    }
}

#[test]
fn names_in_certificates_are_shown_and_never_run() {
    for name in NAMES {
        let machine = Machine::new();
        let directory = machine.directory();
        machine.ca.issue(&LeafSpec::client(name).expired()).write_pair(&directory, "client");
        let report = machine.report();
        let text = report.to_text(PLAIN);
        assert_plain(&text);
        assert!(report.findings.iter().any(|finding| finding.code == "D40"), "{name:?}");
        assert!(!text.lines().any(|line| line.trim() == "fix   rm -rf /" || line.starts_with("D99")), "{text}");
        for finding in &report.findings {
            if let Fix::Run(command) = &finding.fix {
                assert!(!command.to_string().contains("$(id)"), "{command}");
            }
        }
    }
}

/// What is printed for pasting does to the shell exactly what it says.
#[test]
fn names_of_files_survive_the_shell() {
    for name in ["a';id;'.pem", "$(touch x).pem", "-rf.pem", "\u{202e}.pem", "a b.pem"] {
        let machine = Machine::new();
        let directory = machine.directory();
        write_file(&directory.join(name), machine.ca.cert_pem().as_bytes(), 0o644);
        let report = machine.report();
        assert_plain(&report.to_text(PLAIN));
        let finding = report.findings.iter().find(|finding| finding.code == "D23").expect("it is not read");
        let Fix::Run(command) = &finding.fix else { panic!("{:?}", finding.fix) };
        let status =
            Command::new("bash").arg("-c").arg(command.to_string()).current_dir(machine.root()).status().unwrap();
        assert!(status.success(), "{command}");
        let wanted = Path::new(name).with_extension("crt");
        let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [wanted.into_os_string()], "{command}");
    }
}

#[test]
fn a_linked_key_is_told_and_its_target_is_made_visible() {
    let machine = Machine::new();
    let directory = machine.good();
    let target = machine.root().join("\u{1b}[31mkey");
    fs::rename(directory.join("client.key"), &target).unwrap();
    symlink(&target, directory.join("client.key")).unwrap();
    let text = machine.text();
    assert_plain(&text);
    assert!(text.contains("D36") && text.contains("\\u{1b}[31mkey"), "{text}");
}

#[test]
fn no_key_is_ever_shown() {
    let machine = Machine::new();
    let directory = machine.good();
    let pair = machine.ca.client("ci-9");
    write_file(&directory.join("extra.crt"), format!("{}{}", pair.cert_pem(), pair.key_pem()).as_bytes(), 0o644);
    let text = format!("{:?}", machine.facts(portcullis_doctor::Reach::Files)) + &machine.text();
    for line in pair.key_pem().lines().filter(|line| !line.starts_with('-')) {
        assert!(!text.contains(line));
    }
}
