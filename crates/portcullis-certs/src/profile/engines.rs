//! The rows themselves. Where an engine's source is cited, the commit is the one that was read; line numbers are its.

use super::{
    Checked, Elsewhere, EngineProfile, Hub, Insecure, Ipv6, Known, Layout, Loopback, ReadBy, Reload, Row, Rule, Rules,
    SearchRoot, Subdirectories, SystemRoots, Texts,
};
use crate::finding::Severity;
use crate::version::{Version, Versions};

const MOBY: Known = Known::FromSource("moby b985e2313a");
const MOBY_20_10: Known = Known::Observed("dockerd 20.10.24");
const CONTAINERS: Known = Known::FromSource("containers/container-libs f0ddf1a7");
const SKOPEO: Known = Known::Observed("skopeo 1.9.3");
const CONTAINERD: Known = Known::FromSource("containerd 301026e58");
const CTR: Known = Known::Observed("ctr 1.6.20");
const NERDCTL: Known = Known::FromSource("nerdctl 8da50408");
const BUILDKIT: Known = Known::FromSource("buildkit 73ed6825");
const WHARFIE: Known = Known::FromSource("wharfie bb7080c1");
const PAGE: Known = Known::Documented("docs.docker.com/engine/security/certificates");

/// The version in which Docker Engine was called 23.0 (79aa65c1fa).
const DOCKER_23: Version = Version::new(23, 0, 0);
const DOCKER_17_09: Version = Version::new(17, 9, 0);
const DOCKER_1_13: Version = Version::new(1, 13, 0);
const DOCKER_1_11: Version = Version::new(1, 11, 0);
/// distribution/reference v0.5.0, the first with IPv6, came with it.
const DOCKER_25: Version = Version::new(25, 0, 0);
const REFERENCE: Known = Known::FromSource("moby#46376");
/// 6a1d8a9899, "daemon: add IPv6 loopback as insecure registry".
const DOCKER_28: Version = Version::new(28, 0, 0);
/// Loopback is spoken to over TLS first, with a fallback to HTTP (between 1.7.5 and 1.7.7).
const CONTAINERD_FALLBACK: Version = Version::new(1, 7, 7);

const DOCKER_ROOT: &[SearchRoot] = &[SearchRoot::System("/etc/docker/certs.d")];

impl EngineProfile {
    /// Docker's page "Verify repository client with certificates", word for word. Portcullis's own client reads so.
    pub const DOCKER_DOCS: Self = Self {
        name: "docker-docs",
        title: "Docker's page, as Portcullis's own client reads it",
        roots: DOCKER_ROOT,
        rootless_roots: DOCKER_ROOT,
        layout: Layout::HostDirectories,
        rules: Rules {
            unreadable_directory: &[all(Severity::Fatal, MOBY)],
            missing_key: &[all(Severity::Fatal, PAGE)],
            orphan_key: &[ours(Severity::Warning, "the page does not forbid it; Docker Engine itself refuses it")],
            useless_root: &[ours(Severity::Fatal, "the page calls every .crt a root; Docker Engine is silent")],
            bad_block: &[ours(Severity::Warning, "the good ones are roots, as in every engine")],
            root_not_a_file: &[all(Severity::Fatal, MOBY)],
            dangling_root: &[all(Severity::Fatal, MOBY)],
        },
        texts: Texts {
            missing_key: &[text(
                "Missing key {key} for client certificate {cert}. CA certificates should use the extension .crt.",
                PAGE,
            )],
            orphan_key: &[text("missing client certificate {cert} for key {key}", OURS)],
            unreadable_root: &[text("{error}", OURS)],
            useless_root: &[text("{error}", OURS)],
            unreadable_pair: &[text("{error}", OURS)],
            bad_pair: &[text("{error}", OURS)],
        },
        loopback: &[all(Loopback::AsAnyOther, PAGE)],
        insecure: &[all(Insecure::Read, OURS)],
        hub: &[all(Hub::Directory("docker.io"), OURS)],
        subdirectories: &[all(Subdirectories::Read, MOBY)],
        ipv6: &[all(Ipv6::Taken, OURS)],
        system_roots: &[all(SystemRoots::Merged, PAGE)],
        elsewhere: &[all(Elsewhere::Own, Known::Chosen("the page is silent; a certificate is for one registry"))],
        reload: &[all(Reload::EachOperation, PAGE)],
        reader: ReadBy::Caller,
        checked: Checked::Observed("portcullis"),
        assumed: Version::new(0, 1, 0),
    };

    /// Docker Engine with its classic image store.
    pub const DOCKER: Self = Self {
        name: "docker",
        title: "Docker Engine",
        roots: DOCKER_ROOT,
        // daemon/pkg/registry/config.go:74-84, since 20.10 (f4fa98f583).
        rootless_roots: &[SearchRoot::ConfigHome("docker/certs.d")],
        layout: Layout::HostDirectories,
        rules: Rules {
            unreadable_directory: &[all(Severity::Fatal, MOBY)],
            missing_key: &[all(Severity::Fatal, MOBY_20_10)],
            orphan_key: &[all(Severity::Fatal, MOBY_20_10)],
            useless_root: &[all(Severity::Warning, MOBY_20_10)],
            bad_block: &[all(Severity::Warning, MOBY_20_10)],
            root_not_a_file: &[all(Severity::Fatal, MOBY_20_10)],
            dangling_root: &[all(Severity::Fatal, MOBY_20_10)],
        },
        texts: Texts {
            missing_key: &[
                row("Missing key {key} for certificate {cert}", Versions::until(DOCKER_1_11), MOBY),
                row(
                    "Missing key {key} for client certificate {cert}. Note that CA certificates should use the extension .crt.",
                    Versions::between(DOCKER_1_11, DOCKER_17_09),
                    Known::FromSource("moby d5e2802eae"),
                ),
                row(
                    "missing key {key} for client certificate {cert}. Note that CA certificates should use the extension .crt",
                    Versions::between(DOCKER_17_09, DOCKER_23),
                    MOBY_20_10,
                ),
                row(
                    "missing key {key} for client certificate {cert}. CA certificates must use the extension .crt",
                    Versions::since(DOCKER_23),
                    Known::FromSource("moby 79aa65c1fa"),
                ),
            ],
            orphan_key: &[
                row("Missing client certificate {cert} for key {key}", Versions::until(DOCKER_23), MOBY_20_10),
                row("missing client certificate {cert} for key {key}", Versions::since(DOCKER_23), MOBY),
            ],
            unreadable_root: &[text("{error}", MOBY_20_10)],
            useless_root: &[],
            unreadable_pair: &[text("{error}", MOBY_20_10)],
            bad_pair: &[text("{error}", MOBY_20_10)],
        },
        loopback: &[
            row(Loopback::InsecureIpv4, Versions::until(DOCKER_28), MOBY_20_10),
            row(Loopback::Insecure, Versions::since(DOCKER_28), Known::FromSource("moby 6a1d8a9899")),
        ],
        insecure: &[all(Insecure::NotRead, MOBY_20_10)],
        hub: &[all(Hub::NotRead, MOBY)],
        subdirectories: &[all(Subdirectories::Read, MOBY_20_10)],
        ipv6: &[
            row(Ipv6::Refused, Versions::until(DOCKER_25), MOBY_20_10),
            row(Ipv6::Taken, Versions::since(DOCKER_25), REFERENCE),
        ],
        system_roots: &[
            row(SystemRoots::Replaced, Versions::until(DOCKER_1_13), Known::FromSource("moby 66a5e34cc4")),
            row(SystemRoots::Merged, Versions::since(DOCKER_1_13), MOBY_20_10),
        ],
        elsewhere: &[all(Elsewhere::Registrys, MOBY_20_10)],
        reload: &[all(Reload::EachOperation, MOBY_20_10)],
        reader: ReadBy::Daemon,
        checked: Checked::Observed("dockerd 20.10.24"),
        assumed: Version::new(29, 0, 0),
    };

    /// Docker Engine with containerd's image store, the default of a fresh Engine 29: containerd's rules with Docker's root.
    pub const DOCKER_CONTAINERD: Self = Self {
        name: "docker-containerd",
        title: "Docker Engine (containerd image store)",
        roots: DOCKER_ROOT,
        rootless_roots: &[SearchRoot::ConfigHome("docker/certs.d")],
        // daemon/hosts.go:28-41: ConfigureHosts(HostDirFromRoot(CertsDir())).
        rules: Rules { unreadable_directory: &[all(Severity::Fatal, MOBY)], ..Self::CONTAINERD.rules },
        ipv6: Self::DOCKER.ipv6,
        hub: &[all(Hub::Directory("docker.io"), MOBY)],
        checked: Checked::TableOnly,
        assumed: Version::new(29, 0, 0),
        ..Self::CONTAINERD
    };

    /// Podman, skopeo, buildah, CRI-O: what containers/image does.
    ///
    /// `$XDG_CONFIG_HOME` is not honoured (observed with skopeo 1.9.3).
    pub const PODMAN: Self = Self {
        name: "podman",
        title: "Podman, skopeo, buildah, CRI-O",
        roots: PODMAN_ROOTS,
        rootless_roots: PODMAN_ROOTS,
        layout: Layout::HostDirectories,
        rules: Rules {
            unreadable_directory: &[all(Severity::Warning, CONTAINERS)],
            missing_key: &[all(Severity::Fatal, SKOPEO)],
            orphan_key: &[all(Severity::Fatal, SKOPEO)],
            useless_root: &[all(Severity::Warning, SKOPEO)],
            bad_block: &[all(Severity::Warning, SKOPEO)],
            root_not_a_file: &[all(Severity::Fatal, SKOPEO)],
            dangling_root: &[all(Severity::Warning, SKOPEO)],
        },
        texts: Texts {
            missing_key: &[text(
                "missing key {key} for client certificate {cert}. Note that CA certificates should use the extension .crt",
                SKOPEO,
            )],
            orphan_key: &[text("missing client certificate {cert} for key {key}", SKOPEO)],
            unreadable_root: &[text("{error}", SKOPEO)],
            useless_root: &[],
            unreadable_pair: &[text("{error}", SKOPEO)],
            bad_pair: &[text("{error}", SKOPEO)],
        },
        loopback: &[all(Loopback::AsAnyOther, CONTAINERS)],
        insecure: &[all(Insecure::Read, CONTAINERS)],
        hub: &[all(Hub::Directory("docker.io"), CONTAINERS)],
        subdirectories: &[all(Subdirectories::Read, SKOPEO)],
        ipv6: &[all(Ipv6::Refused, SKOPEO)],
        system_roots: &[all(SystemRoots::Merged, SKOPEO)],
        elsewhere: &[all(Elsewhere::Registrys, SKOPEO)],
        reload: &[all(Reload::EachOperation, SKOPEO)],
        reader: ReadBy::Caller,
        checked: Checked::Observed("skopeo 1.9.3 and podman 4.3.1"),
        assumed: Version::new(5, 8, 0),
    };

    /// containerd's CRI plugin with `config_path`, and `ctr --hosts-dir`.
    pub const CONTAINERD: Self = Self {
        name: "containerd",
        title: "containerd",
        roots: &[SearchRoot::System("/etc/containerd/certs.d")],
        rootless_roots: &[SearchRoot::System("/etc/containerd/certs.d")],
        layout: Layout::HostsToml { port_443_first: false },
        rules: Rules {
            unreadable_directory: &[all(Severity::Fatal, CONTAINERD)],
            missing_key: &[all(Severity::Note, CTR)],
            orphan_key: &[all(Severity::Warning, CTR)],
            useless_root: &[all(Severity::Fatal, CTR)],
            bad_block: &[all(Severity::Warning, CTR)],
            root_not_a_file: &[all(Severity::Fatal, CTR)],
            dangling_root: &[all(Severity::Fatal, CTR)],
        },
        texts: Texts {
            missing_key: &[text("failed to load X509 key pair: {error}", CTR)],
            orphan_key: &[],
            unreadable_root: &[text("unable to read CA cert \"{path}\": {error}", CTR)],
            useless_root: &[text("unable to load CA cert \"{path}\"", CTR)],
            unreadable_pair: &[text("unable to read CERT file \"{path}\": {error}", CTR)],
            bad_pair: &[text("failed to load X509 key pair: {error}", CTR)],
        },
        loopback: &[
            row(Loopback::PlainHttp, Versions::until(CONTAINERD_FALLBACK), Known::FromSource("containerd v1.6.20")),
            row(Loopback::NotVerified, Versions::since(CONTAINERD_FALLBACK), CONTAINERD),
        ],
        insecure: &[all(Insecure::Read, CONTAINERD)],
        hub: &[all(Hub::Directory("docker.io"), CONTAINERD)],
        subdirectories: &[all(Subdirectories::Skipped, CTR)],
        ipv6: &[all(Ipv6::Taken, CTR)],
        system_roots: &[all(SystemRoots::Merged, CONTAINERD)],
        elsewhere: &[all(Elsewhere::Registrys, CTR)],
        reload: &[all(Reload::EachOperation, CONTAINERD)],
        reader: ReadBy::Daemon,
        checked: Checked::Observed("ctr 1.6.20"),
        assumed: Version::new(2, 2, 0),
    };

    /// nerdctl: containerd's rules over two roots, the first with a match wins.
    pub const NERDCTL: Self = Self {
        name: "nerdctl",
        title: "nerdctl",
        roots: &[SearchRoot::System("/etc/containerd/certs.d"), SearchRoot::System("/etc/docker/certs.d")],
        rootless_roots: &[SearchRoot::ConfigHome("containerd/certs.d"), SearchRoot::ConfigHome("docker/certs.d")],
        layout: Layout::HostsToml { port_443_first: true },
        loopback: &[all(Loopback::PlainHttp, NERDCTL)],
        reader: ReadBy::Caller,
        checked: Checked::TableOnly,
        assumed: Version::new(2, 1, 0),
        ..Self::CONTAINERD
    };

    /// BuildKit's daemon: `buildkitd.toml`, whose `tlsconfigdir` is a directory of certificate files without host level.
    pub const BUILDKIT: Self = Self {
        name: "buildkit",
        title: "BuildKit",
        roots: &[SearchRoot::System("/etc/buildkit/buildkitd.toml")],
        rootless_roots: &[SearchRoot::ConfigHome("buildkit/buildkitd.toml")],
        layout: Layout::BuildkitdToml,
        rules: Rules {
            unreadable_directory: &[all(Severity::Warning, BUILDKIT)],
            missing_key: &[all(Severity::Fatal, BUILDKIT)],
            orphan_key: &[all(Severity::Warning, BUILDKIT)],
            useless_root: &[all(Severity::Warning, BUILDKIT)],
            bad_block: &[all(Severity::Warning, BUILDKIT)],
            root_not_a_file: &[all(Severity::Fatal, BUILDKIT)],
            dangling_root: &[all(Severity::Fatal, BUILDKIT)],
        },
        texts: Texts {
            missing_key: &[text("failed to load keypair for {pair}: {error}", BUILDKIT)],
            orphan_key: &[],
            unreadable_root: &[text("failed to read {path}: {error}", BUILDKIT)],
            useless_root: &[],
            unreadable_pair: &[text("failed to load keypair for {pair}: {error}", BUILDKIT)],
            bad_pair: &[text("failed to load keypair for {pair}: {error}", BUILDKIT)],
        },
        loopback: &[all(Loopback::PlainHttp, BUILDKIT)],
        insecure: &[all(Insecure::Read, BUILDKIT)],
        hub: &[all(Hub::Directory("docker.io"), BUILDKIT)],
        subdirectories: &[all(Subdirectories::Read, BUILDKIT)],
        ipv6: &[all(Ipv6::Taken, Known::FromSource("buildkit#4188"))],
        system_roots: &[all(SystemRoots::Merged, BUILDKIT)],
        elsewhere: &[all(Elsewhere::Registrys, BUILDKIT)],
        reload: &[all(Reload::ConfigAtStart { restart: "systemctl restart buildkit" }, BUILDKIT)],
        reader: ReadBy::Daemon,
        checked: Checked::TableOnly,
        assumed: Version::new(0, 31, 0),
    };

    /// k3s and RKE2: `registries.yaml`, from which hosts.toml files are made at each start.
    pub const K3S: Self = Self {
        name: "k3s",
        title: "k3s and RKE2",
        roots: &[SearchRoot::System("/etc/rancher/k3s/registries.yaml")],
        rootless_roots: &[SearchRoot::System("/etc/rancher/k3s/registries.yaml")],
        layout: Layout::RegistriesYaml,
        loopback: &[all(Loopback::NotVerified, WHARFIE)],
        insecure: &[all(Insecure::Read, WHARFIE)],
        hub: &[all(Hub::Directory("docker.io"), WHARFIE)],
        reload: &[all(Reload::ConfigAtStart { restart: "systemctl restart k3s" }, WHARFIE)],
        checked: Checked::TableOnly,
        assumed: Version::new(1, 34, 0),
        ..Self::CONTAINERD
    };
}

const PODMAN_ROOTS: &[SearchRoot] = &[
    SearchRoot::Home(".config/containers/certs.d"),
    SearchRoot::System("/etc/containers/certs.d"),
    SearchRoot::System("/etc/docker/certs.d"),
];

const OURS: Known = Known::Chosen("the page is silent");

const fn row<T: Copy>(holds: T, versions: Versions, known: Known) -> Row<T> {
    Row { holds, versions, known }
}

const fn all<T: Copy>(holds: T, known: Known) -> Row<T> {
    row(holds, Versions::ALL, known)
}

const fn text(words: &'static str, known: Known) -> Row<&'static str> {
    all(words, known)
}

const fn ours(severity: Severity, why: &'static str) -> Rule {
    all(severity, Known::Chosen(why))
}
