//! Texts about the registry's certificate, the connection and configuration.

use super::{Known, Meaning};

const fn means(code: &'static str, meaning: &'static str, tell: &'static str) -> Meaning {
    Meaning { code, meaning, tell }
}

const WRONG_NAME: Meaning = means(
    "D63",
    "the registry's certificate is not for the name that was typed",
    "the message, or the doctor, lists the names it is for",
);
const EXPIRED_SERVER: Meaning = means(
    "D63",
    "the registry's certificate has expired, or this machine's clock is wrong",
    "the doctor shows the registry's own clock too",
);
const UNKNOWN_CA: Meaning = means(
    "D66",
    "the registry's CA is not in the directory that this engine reads",
    "the doctor tries each file here as the only root",
);
const INCOMPLETE: Meaning = means(
    "D64",
    "the registry does not send its intermediate certificate",
    "it works in a browser; `openssl s_client -connect HOST:PORT -showcerts` shows one certificate",
);
const WEAK: Meaning = means(
    "D45",
    "a certificate is signed with SHA-1, or its key is too short",
    "`portcullis cert show FILE` says which",
);
const MAY_NOT_SIGN: Meaning = means(
    "D42",
    "the CA's certificate is there and may not sign: CA:TRUE or keyCertSign is missing",
    "`portcullis cert show ca.crt` says so; OpenSSL says error 79, rustls may accept it",
);
const PLAIN: Meaning = means("D61", "the port speaks plain HTTP", "`curl -v http://HOST:PORT` gets an answer");

pub(super) static KNOWN: &[Known] = &[
    Known {
        pieces: &["parent certificate cannot sign this kind of certificate"],
        by: "Go (Docker, Podman, containerd, buildkit)",
        meanings: &[
            MAY_NOT_SIGN,
            means("D47", "an older CA of the same name is tried", "two .crt have the same subject and different keys"),
        ],
    },
    Known { pieces: &["not authorized to sign other certificates"], by: "Go", meanings: &[MAY_NOT_SIGN] },
    Known { pieces: &["insecure algorithm"], by: "Go", meanings: &[WEAK] },
    Known { pieces: &["negative serial"], by: "Go", meanings: &[WEAK] },
    Known {
        pieces: &["place the ca certificate at"],
        by: "Docker",
        meanings: &[
            UNKNOWN_CA,
            means("D01", "there is no directory for this registry", "the path in the message does not exist"),
        ],
    },
    Known {
        pieces: &["certificate signed by unknown authority"],
        by: "Go (Docker, Podman, containerd, buildkit)",
        meanings: &[
            UNKNOWN_CA,
            means(
                "D01",
                "the directory has another name than the registry was typed with",
                "the doctor lists what was tried and what looks like it",
            ),
            means(
                "D26",
                "the .crt is no PEM and is ignored in silence",
                "`head -1 ca.crt` is no BEGIN CERTIFICATE line",
            ),
            INCOMPLETE,
            means(
                "D69",
                "the certificate is that of the token server or of the blob store, not the registry's",
                "the address in the message is another host",
            ),
            means(
                "D85",
                "a buildx builder does not see this machine's files",
                "docker pull works, docker buildx build fails",
            ),
        ],
    },
    Known { pieces: &["legacy common name"], by: "Go", meanings: &[WRONG_NAME] },
    Known { pieces: &["ip sans"], by: "Go", meanings: &[WRONG_NAME] },
    Known {
        pieces: &["certificate is valid for", "not"],
        by: "Go",
        meanings: &[
            WRONG_NAME,
            means("D60", "the name leads to another server", "the names in the message are not this registry's at all"),
        ],
    },
    Known { pieces: &["certificate is not valid for any names"], by: "Go", meanings: &[WRONG_NAME] },
    Known { pieces: &["not valid for name"], by: "rustls", meanings: &[WRONG_NAME] },
    Known { pieces: &["notvalidforname"], by: "rustls", meanings: &[WRONG_NAME] },
    Known { pieces: &["no alternative certificate subject name matches"], by: "curl", meanings: &[WRONG_NAME] },
    Known { pieces: &["ip address mismatch"], by: "OpenSSL (error 64)", meanings: &[WRONG_NAME] },
    Known { pieces: &["hostname mismatch"], by: "OpenSSL (error 62)", meanings: &[WRONG_NAME] },
    Known {
        pieces: &["has expired or is not yet valid"],
        by: "Go (Docker, Podman, containerd, buildkit)",
        meanings: &[
            EXPIRED_SERVER,
            means(
                "D41",
                "the CA in the directory has expired; the registry's certificate may be good",
                "curl with OpenSSL says the same, rustls may accept it",
            ),
        ],
    },
    Known {
        pieces: &["certificate has expired"],
        by: "OpenSSL, curl (error 10)",
        meanings: &[EXPIRED_SERVER, means("D41", "the CA has expired", "the depth in the message is not 0")],
    },
    Known { pieces: &["certexpired"], by: "rustls", meanings: &[EXPIRED_SERVER] },
    Known { pieces: &["certnotvalidyet"], by: "rustls", meanings: &[EXPIRED_SERVER] },
    Known {
        pieces: &["incompatible key usage"],
        by: "Go",
        meanings: &[means(
            "D63",
            "the registry's certificate is not one for servers",
            "its extendedKeyUsage lacks serverAuth",
        )],
    },
    Known {
        pieces: &["certificate purpose"],
        by: "OpenSSL (error 26)",
        meanings: &[
            means("D63", "the registry's certificate is not one for servers", "the client prints it"),
            means("D44", "the client's certificate is not one for clients", "the server's log has it"),
        ],
    },
    Known {
        pieces: &["invalidpurpose"],
        by: "rustls",
        meanings: &[
            means("D63", "the registry's certificate is not one for servers", "the client prints it"),
            means("D44", "the client's certificate is not one for clients", "the server's log has it"),
        ],
    },
    Known {
        pieces: &["causedasendentity"],
        by: "rustls",
        meanings: &[means(
            "D43",
            "a self-signed certificate with CA:TRUE is used as the server's or client's own, as Docker's page makes them",
            "Go accepts it when it is in ca.crt; a Portcullis registry pins such a client certificate: portcullis trust add FILE --as pin",
        )],
    },
    Known {
        pieces: &["unsupportedcertversion"],
        by: "rustls",
        meanings: &[means(
            "D43",
            "the certificate is X.509 v1, as an old or minimal openssl makes it",
            "`portcullis cert show FILE` says v1: issue it again",
        )],
    },
    Known {
        pieces: &["unknownissuer"],
        by: "rustls",
        meanings: &[
            UNKNOWN_CA,
            INCOMPLETE,
            means(
                "D43",
                "the registry's own certificate is pinned, which stock rustls refuses",
                "the .crt is the registry's certificate itself",
            ),
        ],
    },
    Known {
        pieces: &["badsignature"],
        by: "rustls",
        meanings: &[WEAK, means("D47", "a CA of the same name and another key is here", "the CA was made anew")],
    },
    Known { pieces: &["unsupportedsignaturealgorithm"], by: "rustls", meanings: &[WEAK] },
    Known {
        pieces: &["unable to get local issuer certificate"],
        by: "OpenSSL, curl (error 20)",
        meanings: &[
            UNKNOWN_CA,
            INCOMPLETE,
            means(
                "D43",
                "the .crt is the registry's own certificate, which OpenSSL does not take without its issuer",
                "Docker accepts it",
            ),
        ],
    },
    Known {
        pieces: &["unable to get issuer certificate"],
        by: "OpenSSL (error 2)",
        meanings: &[means(
            "D64",
            "an intermediate is trusted and the root is missing",
            "Go accepts an intermediate as the end of the path",
        )],
    },
    Known {
        pieces: &["unable to verify the first certificate"],
        by: "OpenSSL (error 21)",
        meanings: &[INCOMPLETE, UNKNOWN_CA],
    },
    Known {
        pieces: &["self-signed certificate"],
        by: "OpenSSL, curl (errors 18 and 19)",
        meanings: &[UNKNOWN_CA, means("D65", "a proxy's own certificate arrives", "the issuer is a product's name")],
    },
    Known {
        pieces: &["self signed certificate"],
        by: "OpenSSL, curl (errors 18 and 19)",
        meanings: &[UNKNOWN_CA, means("D65", "a proxy's own certificate arrives", "the issuer is a product's name")],
    },
    Known { pieces: &["invalid ca certificate"], by: "OpenSSL (error 79)", meanings: &[MAY_NOT_SIGN] },
    Known { pieces: &["too weak"], by: "OpenSSL, curl", meanings: &[WEAK] },
    Known { pieces: &["key too small"], by: "OpenSSL, curl", meanings: &[WEAK] },
    Known {
        pieces: &["not permitted by any constraint"],
        by: "Go",
        meanings: &[means("D46", "the CA is constrained to other names", "`portcullis cert show ca.crt`")],
    },
    Known {
        pieces: &["permitted subtree violation"],
        by: "OpenSSL",
        meanings: &[means("D46", "the CA is constrained to other names", "`portcullis cert show ca.crt`")],
    },
    Known {
        pieces: &["unable to get system cert pool"],
        by: "Docker",
        meanings: &[means(
            "D88",
            "the system's roots cannot be read",
            "SSL_CERT_FILE names a file that is not there, or the CA package is not installed",
        )],
    },
    Known {
        pieces: &["client sent an http request to an https server"],
        by: "the registry, to a client that fell back to HTTP",
        meanings: &[means(
            "D80",
            "the engine takes the registry for insecure, sent no certificate and tried HTTP after that",
            "the name leads to loopback, or is in insecure-registries",
        )],
    },
    Known {
        pieces: &["invalid reference format"],
        by: "Docker, Podman, skopeo",
        meanings: &[
            means(
                "D08",
                "the registry is an IPv6 address, which this version does not take",
                "there are brackets in the name",
            ),
            means(
                "D04",
                "the name has a scheme, a path or upper case in it",
                "`https://` or a capital letter in the image name",
            ),
        ],
    },
    Known {
        pieces: &["certificate verify failed"],
        by: "OpenSSL",
        meanings: &[UNKNOWN_CA, INCOMPLETE, EXPIRED_SERVER],
    },
    Known { pieces: &["server gave http response to https client"], by: "Go", meanings: &[PLAIN] },
    Known { pieces: &["first record does not look like a tls handshake"], by: "Go", meanings: &[PLAIN] },
    Known { pieces: &["wrong_version_number"], by: "OpenSSL", meanings: &[PLAIN] },
    Known { pieces: &["wrong version number"], by: "OpenSSL, curl", meanings: &[PLAIN] },
    Known { pieces: &["packet length too long"], by: "OpenSSL, curl", meanings: &[PLAIN] },
    Known { pieces: &["invalidcontenttype"], by: "rustls", meanings: &[PLAIN] },
    Known {
        pieces: &["malformed http response", "x15"],
        by: "Go",
        meanings: &[
            means(
                "D61",
                "plain HTTP was spoken to a port that speaks TLS",
                "the engine takes the registry for insecure: D80",
            ),
            means("D80", "the registry is in insecure-registries, or on loopback", "`docker info` lists it"),
        ],
    },
    Known {
        pieces: &["http request was sent to https port"],
        by: "nginx",
        meanings: &[
            means(
                "D61",
                "plain HTTP was spoken to a port that speaks TLS",
                "the engine takes the registry for insecure: D80",
            ),
            means("D80", "the registry is in insecure-registries, or on loopback", "`docker info` lists it"),
        ],
    },
    Known {
        pieces: &["no such host"],
        by: "Go",
        meanings: &[means("D60", "the name has no address", "`getent hosts NAME` finds nothing")],
    },
    Known {
        pieces: &["could not resolve host"],
        by: "curl",
        meanings: &[means("D60", "the name has no address", "`getent hosts NAME` finds nothing")],
    },
    Known {
        pieces: &["connection refused"],
        by: "the operating system",
        meanings: &[means("D60", "nothing listens on this port", "`ss -tln` on the registry's host")],
    },
    Known {
        pieces: &["i/o timeout"],
        by: "Go",
        meanings: &[means(
            "D60",
            "no answer: a firewall, or a proxy that the daemon does not know",
            "the daemon's own environment counts, not the shell's",
        )],
    },
    Known {
        pieces: &["protocol version"],
        by: "every TLS library",
        meanings: &[means("D62", "there is no TLS version in common", "the registry is older than TLS 1.2")],
    },
    Known {
        pieces: &["`mirrors` cannot be set when `config_path` is provided"],
        by: "containerd",
        meanings: &[means("D82", "`mirrors` and `config_path` exclude each other", "both stand in config.toml")],
    },
    Known {
        pieces: &["no basic auth credentials"],
        by: "Docker",
        meanings: &[means("D72", "the registry wants a login beside the certificate", "`docker login` was not run")],
    },
    Known {
        pieces: &["unauthorized", "authentication required"],
        by: "registries",
        meanings: &[
            means(
                "D72",
                "the registry wants a login beside the certificate",
                "the handshake worked: certificates are not the problem",
            ),
            means(
                "D84",
                "Docker 29.0 to 29.4 does not use certificates at the token server",
                "login works, push does not",
            ),
        ],
    },
    Known {
        pieces: &["requested access to the resource is denied"],
        by: "registries",
        meanings: &[means("D72", "this identity has no right to the repository", "another repository works")],
    },
];
