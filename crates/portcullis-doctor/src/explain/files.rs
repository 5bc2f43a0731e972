//! Texts about files of a certificate directory.

use super::{Known, Meaning};

const fn means(code: &'static str, meaning: &'static str, tell: &'static str) -> Meaning {
    Meaning { code, meaning, tell }
}

pub(super) static KNOWN: &[Known] = &[
    Known {
        pieces: &["missing key", "certificate"],
        by: "Docker, Podman, skopeo (the words vary with the version)",
        meanings: &[
            means("D20", "a .cert has no .key beside it", "`ls` the directory: NAME.cert is there, NAME.key is not"),
            means("D25", "the .cert is an AppleDouble file of macOS", "its name starts with `._`"),
            means("D23", "the key is there under a name that is not read", "look for NAME.pem or NAME.KEY"),
        ],
    },
    Known {
        pieces: &["missing client certificate", "for key"],
        by: "Docker, Podman, skopeo",
        meanings: &[
            means(
                "D21",
                "the key's certificate has the suffix .crt, which is for CAs",
                "NAME.crt and NAME.key are there, NAME.cert is not",
            ),
            means(
                "D22",
                "the key is a CA's and does not belong here",
                "it is called ca.key, or its certificate says CA:TRUE",
            ),
            means("D24", "the files are those of a Kubernetes secret", "they are called tls.crt and tls.key"),
        ],
    },
    Known {
        pieces: &["found a certificate rather than a key"],
        by: "Go (Docker, Podman, containerd, buildkit)",
        meanings: &[
            means("D32", "the key file holds a certificate", "`head -1 NAME.key` says CERTIFICATE"),
            means(
                "D81",
                "containerd's hosts.toml has `client = [\"c.cert\", \"c.key\"]`",
                "containerd prints it, and the files themselves are right",
            ),
        ],
    },
    Known {
        pieces: &["did find a private key", "switched"],
        by: "Go (Docker, Podman, containerd, buildkit)",
        meanings: &[means("D32", "certificate and key are swapped", "`head -1 NAME.cert` says PRIVATE KEY")],
    },
    Known {
        pieces: &["private key does not match public key"],
        by: "Go (Docker, Podman, containerd, buildkit)",
        meanings: &[
            means("D31", "the key is another certificate's", "`portcullis cert lint DIR` says whose"),
            means(
                "D33",
                "an intermediate stands before the client's own certificate",
                "the .cert holds more than one certificate",
            ),
        ],
    },
    Known {
        pieces: &["inconsistentkeys"],
        by: "rustls",
        meanings: &[
            means("D31", "the key is another certificate's", "`portcullis cert lint DIR` says whose"),
            means(
                "D33",
                "an intermediate stands before the client's own certificate",
                "the .cert holds more than one certificate",
            ),
        ],
    },
    Known {
        pieces: &["key values mismatch"],
        by: "OpenSSL, curl",
        meanings: &[means("D31", "the key is another certificate's", "`portcullis cert lint DIR` says whose")],
    },
    Known {
        pieces: &["failed to parse private key"],
        by: "Go (Docker, Podman, containerd, buildkit)",
        meanings: &[
            means("D29", "the key is encrypted", "it says ENCRYPTED in the first two lines"),
            means(
                "D30",
                "the key is of a kind that TLS does not take",
                "`openssl pkey -in NAME.key -noout -text` says which",
            ),
            means("D27", "the file is damaged", "openssl cannot read it either"),
        ],
    },
    Known {
        pieces: &["failed to find any pem data in key input"],
        by: "Go (Docker, Podman, containerd, buildkit)",
        meanings: &[means(
            "D26",
            "the key file is empty, DER, PKCS#12 or another format",
            "its first line is no BEGIN line",
        )],
    },
    Known {
        pieces: &["failed to find any pem data"],
        by: "Go (Docker, Podman, containerd, buildkit)",
        meanings: &[
            means("D26", "the .cert is empty, DER, PKCS#12 or another format", "its first line is no BEGIN line"),
            means("D25", "the .cert is an AppleDouble file of macOS", "its name starts with `._`"),
        ],
    },
    Known {
        pieces: &["noitemsfound"],
        by: "rustls",
        meanings: &[
            means("D26", "there is no PEM of the wanted kind in the file", "its first line is no BEGIN line"),
            means("D29", "the key is encrypted", "it says ENCRYPTED in its BEGIN line"),
            means("D32", "the file holds the other half of the pair", "a certificate is in the .key, or the reverse"),
        ],
    },
    Known {
        pieces: &["base64decode"],
        by: "rustls",
        meanings: &[
            means("D29", "the key is encrypted in OpenSSL's old form", "it has a line `Proc-Type: 4,ENCRYPTED`"),
            means("D27", "a PEM block is damaged", "the doctor names the line"),
        ],
    },
    Known {
        pieces: &["unable to load ca cert"],
        by: "containerd, nerdctl, Docker with the containerd store",
        meanings: &[
            means(
                "D26",
                "a .crt is no PEM certificate: these engines stop where Docker's classic store is silent",
                "the message names the file",
            ),
            means("D32", "the file holds a key", "`head -1` says PRIVATE KEY"),
        ],
    },
    Known {
        pieces: &["unable to read ca cert"],
        by: "containerd, nerdctl, Docker with the containerd store",
        meanings: &[
            means("D36", "a file that hosts.toml names, or a link, leads nowhere", "the message names the path"),
            means("D12", "it may not be read by this user", "`permission denied` follows"),
            means(
                "D81",
                "a relative path in hosts.toml means the directory of hosts.toml",
                "the path in the message is not where the file lies",
            ),
        ],
    },
    Known {
        pieces: &["unable to read cert file"],
        by: "containerd, nerdctl, Docker with the containerd store",
        meanings: &[
            means(
                "D36",
                "the certificate or the key cannot be opened (the text is the same for both)",
                "the message names the path",
            ),
            means(
                "D81",
                "hosts.toml names an empty key: `[\"c.pem\", \"\"]` means the directory",
                "`is a directory` follows",
            ),
        ],
    },
    Known {
        pieces: &["failed to load x509 key pair"],
        by: "containerd, nerdctl, Docker with the containerd store",
        meanings: &[
            means(
                "D31",
                "key and certificate do not belong together",
                "`does not match` follows; the file is not named, the doctor names it",
            ),
            means(
                "D20",
                "the .cert has no key beside it and none inside",
                "`failed to find any PEM data in key input` follows",
            ),
            means(
                "D81",
                "`client = [CERT, KEY]` in hosts.toml means two combined files",
                "`found a certificate rather than a key` follows",
            ),
            means("D26", "one of the two is no PEM", "`failed to find any PEM data` follows"),
        ],
    },
    Known {
        pieces: &["failed to load keypair for"],
        by: "buildkit",
        meanings: &[
            means(
                "D20",
                "the key of a .cert, or a file of `keypair` in buildkitd.toml, is not there",
                "`no such file` follows",
            ),
            means("D85", "the builder was made before the files had these names", "the file exists on the host"),
        ],
    },
    Known {
        pieces: &["was specified, but no corresponding"],
        by: "k3s, RKE2 (registries.yaml)",
        meanings: &[means(
            "D20",
            "registries.yaml names cert_file without key_file, or the reverse",
            "the message names the file",
        )],
    },
    Known {
        pieces: &[".crt", "is a directory"],
        by: "Docker, Podman, skopeo",
        meanings: &[means(
            "D36",
            "a directory is called like a certificate; a bind mount of a file that did not exist makes one",
            "`ls -ld` the path",
        )],
    },
    Known {
        pieces: &["certs.d", "is a directory"],
        by: "containerd",
        meanings: &[means(
            "D81",
            "hosts.toml names an empty or wrong file in `client`",
            "the path in the message is the host's directory",
        )],
    },
    Known {
        pieces: &["not a directory"],
        by: "Podman, skopeo, Docker",
        meanings: &[
            means("D03", "`--cert-dir` was given a file", "the path in the message ends in a file's name"),
            means("D12", "a file stands where the host's directory belongs", "`ls -ld` the path"),
        ],
    },
    Known {
        pieces: &["certs.d", "permission denied"],
        by: "Docker (rootless most of all), containerd",
        meanings: &[means(
            "D12",
            "the engine's user may not read the directory",
            "rootless engines read the directory of the user's configuration",
        )],
    },
    Known {
        pieces: &["could not load pem client certificate"],
        by: "curl",
        meanings: &[
            means("D26", "the file is no PEM certificate", "its first line is no BEGIN line"),
            means("D36", "the path is wrong", "curl is started in another directory"),
        ],
    },
    Known {
        pieces: &["unable to set private key file"],
        by: "curl",
        meanings: &[
            means("D31", "the key is another certificate's", "`key values mismatch` follows"),
            means("D29", "the key is encrypted", "it says ENCRYPTED in the first two lines"),
        ],
    },
];
