use super::*;
use std::io::ErrorKind;

#[test]
fn a_directory_that_may_not_be_read_is_fatal_to_the_page_and_passed_over_by_podman() {
    let denied = Fault::DirectoryUnreadable { error: ErrorKind::PermissionDenied };
    let broken = Fault::DirectoryUnreadable { error: ErrorKind::NotADirectory };
    assert_eq!(EngineProfile::DOCKER_DOCS.for_directory(&denied), Severity::Fatal);
    assert_eq!(EngineProfile::PODMAN.for_directory(&denied), Severity::Warning);
    assert_eq!(EngineProfile::PODMAN.for_directory(&broken), Severity::Fatal);
}

#[test]
fn search_lists() {
    let below = |profile: &EngineProfile, home: Option<&str>| profile.search_roots(Path::new("/"), home.map(Path::new));
    assert_eq!(below(&EngineProfile::DOCKER_DOCS, Some("/home/a")), [Path::new("/etc/docker/certs.d")]);
    let podman = ["/home/a/.config/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d"];
    assert_eq!(below(&EngineProfile::PODMAN, Some("/home/a")), podman.map(Path::new));
    assert_eq!(below(&EngineProfile::PODMAN, None), [podman[1], podman[2]].map(Path::new));
    let elsewhere = EngineProfile::PODMAN.search_roots(Path::new("/mnt"), Some(Path::new("/home/a")));
    assert_eq!(elsewhere[0], Path::new("/mnt/home/a/.config/containers/certs.d"));
    assert_eq!(elsewhere[2], Path::new("/mnt/etc/docker/certs.d"));
}

/// moby `daemon/pkg/registry/config.go:74-84`: `$XDG_CONFIG_HOME` first, then `$HOME/.config`.
#[test]
fn rootless_search_lists() {
    let (root, home) = (Path::new("/"), Path::new("/home/a"));
    let docker = |config: Option<&Path>| EngineProfile::DOCKER.rootless_search_roots(root, home, config);
    assert_eq!(docker(None), [Path::new("/home/a/.config/docker/certs.d")]);
    assert_eq!(docker(Some(Path::new("/xdg"))), [Path::new("/xdg/docker/certs.d")]);
    let podman = EngineProfile::PODMAN.rootless_search_roots(root, home, Some(Path::new("/xdg")));
    assert_eq!(podman[0], Path::new("/home/a/.config/containers/certs.d"), "the XDG directory is not honoured");
}

#[test]
fn names_are_kept_byte_for_byte() {
    for name in ["registry.test", "registry.test:443", "Registry.TEST:5000", "[fd00::1]:5000", "10.0.0.1:5000"] {
        for profile in [EngineProfile::DOCKER_DOCS, EngineProfile::DOCKER, EngineProfile::PODMAN] {
            assert_eq!(profile.directory_names(&name.parse().unwrap()), [name]);
        }
    }
}

/// containerd cuts at the last colon, also inside an IPv6 address; nerdctl always asks with the port.
#[test]
fn names_that_containerd_and_nerdctl_try() {
    let names = |profile: &EngineProfile, host: &str| profile.directory_names(&host.parse().unwrap());
    let containerd = &EngineProfile::CONTAINERD;
    assert_eq!(names(containerd, "r.test"), ["r.test", "_default"]);
    assert_eq!(names(containerd, "[fd00::1]:5000"), ["[fd00::1]_5000_", "[fd00::1]:5000", "_default"]);
    assert_eq!(names(containerd, "[fd00::1]"), ["[fd00:_1]_", "[fd00::1]", "_default"]);
    assert_eq!(names(&EngineProfile::DOCKER_CONTAINERD, "r.test:5"), ["r.test_5_", "r.test:5", "_default"]);
    let nerdctl = &EngineProfile::NERDCTL;
    assert_eq!(names(nerdctl, "r.test:5"), ["r.test_5_", "r.test:5", "_default"]);
    assert_eq!(names(nerdctl, "r.test:443"), ["r.test_443_", "r.test:443", "_default", "r.test", "_default"]);
}

/// Every table has a row for the version that is assumed, and no two rows for one version.
#[test]
fn rows_do_not_overlap_and_leave_nothing_out() {
    fn check<T>(profile: &EngineProfile, rows: &[Row<T>]) {
        let samples = [(0, 1, 0), (1, 11, 0), (1, 13, 0), (1, 7, 7), (17, 9, 0), (20, 10, 24), (23, 0, 0), (28, 0, 0)];
        let versions = samples.map(|(major, minor, patch)| Version::new(major, minor, patch));
        for version in versions.into_iter().chain([profile.assumed]) {
            let holding = rows.iter().filter(|row| row.versions.holds(version)).count();
            assert_eq!(holding, 1, "{} {version}", profile.name);
        }
    }
    for profile in EngineProfile::ALL {
        let Rules { unreadable_directory, missing_key, orphan_key, useless_root, .. } = profile.rules;
        let Rules { bad_block, root_not_a_file, dangling_root, .. } = profile.rules;
        for rules in
            [unreadable_directory, missing_key, orphan_key, useless_root, bad_block, root_not_a_file, dangling_root]
        {
            check(profile, rules);
        }
        check(profile, profile.texts.missing_key);
        check(profile, profile.loopback);
        check(profile, profile.insecure);
        check(profile, profile.hub);
        check(profile, profile.subdirectories);
        check(profile, profile.system_roots);
        check(profile, profile.ipv6);
        check(profile, profile.elsewhere);
        check(profile, profile.reload);
    }
}

#[test]
fn names_on_the_command_line_are_each_their_own() {
    for profile in EngineProfile::ALL {
        assert_eq!(EngineProfile::named(profile.name).map(|found| found.title), Some(profile.title));
    }
}
