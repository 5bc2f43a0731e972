//! What a registry says about a client certificate: TLS alerts, in the words of each library, and HTTP answers.
//!
//! `remote error` in Go, `alert` in OpenSSL and `received fatal alert` in rustls all mean that the other side refused us.

use super::{Known, Meaning};

const fn means(code: &'static str, meaning: &'static str, tell: &'static str) -> Meaning {
    Meaning { code, meaning, tell }
}

const NOT_SENT: Meaning = means(
    "D67",
    "no client certificate was sent: none fits the list of CA names that the registry sent, or none is there",
    "curl with the same files works: then the intermediate is missing in the .cert, or the issuer is not in the list",
);
const NOT_READ: Meaning = means(
    "D80",
    "the directory was not read, because the registry is on loopback or in insecure-registries",
    "the name leads to 127.0.0.0/8, or `docker info` lists it",
);
const NO_DIRECTORY: Meaning =
    means("D01", "there is no directory with exactly this registry's name", "the doctor lists what was tried");
const NO_INTERMEDIATE: Meaning = means(
    "D34",
    "the .cert lacks its intermediate certificate",
    "the certificate's issuer is not the CA that the registry names",
);
const OTHER_CA: Meaning = means(
    "D68",
    "the certificate was issued by a CA that the registry does not trust",
    "compare its issuer with the list that the doctor shows",
);
const EXPIRED: Meaning = means(
    "D40",
    "the client certificate has expired or is not valid yet",
    "`portcullis cert show DIR` shows its dates",
);
const USAGE: Meaning = means(
    "D44",
    "the client certificate is not one for clients",
    "its extendedKeyUsage lacks clientAuth: often it is a server's",
);
const REVOKED: Meaning = means("D68", "the registry has revoked the certificate", "ask for a new one");
const LATE: Meaning = means(
    "D68",
    "the registry refused the client certificate, and its alert was lost on the way",
    "TLS 1.3 judges after the client has finished: the doctor listens for the alert by itself",
);

pub(super) static KNOWN: &[Known] = &[
    Known {
        pieces: &["certificate required"],
        by: "Go, OpenSSL, curl (TLS 1.3)",
        meanings: &[NOT_SENT, NOT_READ, NO_DIRECTORY, NO_INTERMEDIATE],
    },
    Known { pieces: &["certificaterequired"], by: "rustls", meanings: &[NOT_SENT, NO_DIRECTORY] },
    Known {
        pieces: &["no required ssl certificate was sent"],
        by: "nginx",
        meanings: &[NOT_SENT, NOT_READ, NO_DIRECTORY, NO_INTERMEDIATE],
    },
    Known { pieces: &["the ssl certificate error"], by: "nginx", meanings: &[OTHER_CA, EXPIRED, NO_INTERMEDIATE] },
    Known { pieces: &["unknown certificate authority"], by: "Go", meanings: &[OTHER_CA, NO_INTERMEDIATE] },
    Known { pieces: &["unknown ca"], by: "OpenSSL, curl", meanings: &[OTHER_CA, NO_INTERMEDIATE] },
    Known { pieces: &["unknownca"], by: "rustls", meanings: &[OTHER_CA, NO_INTERMEDIATE] },
    Known {
        pieces: &["expired certificate"],
        by: "Go",
        meanings: &[
            EXPIRED,
            means(
                "D48",
                "an expired pair comes first and is sent, though a good one follows",
                "there are several .cert in the directory",
            ),
        ],
    },
    Known { pieces: &["certificate expired"], by: "OpenSSL, curl", meanings: &[EXPIRED] },
    Known { pieces: &["certificateexpired"], by: "rustls", meanings: &[EXPIRED] },
    Known { pieces: &["revoked certificate"], by: "Go", meanings: &[REVOKED] },
    Known { pieces: &["certificate revoked"], by: "OpenSSL, curl", meanings: &[REVOKED] },
    Known { pieces: &["certificaterevoked"], by: "rustls", meanings: &[REVOKED] },
    Known { pieces: &["unsupported certificate"], by: "Go, OpenSSL, curl", meanings: &[USAGE] },
    Known { pieces: &["unsupportedcertificate"], by: "rustls", meanings: &[USAGE] },
    Known {
        pieces: &["bad certificate"],
        by: "Go, OpenSSL, curl: older servers say it for anything",
        meanings: &[
            means(
                "D68",
                "the registry does not accept the client certificate, or there was none",
                "`remote error` or `alert`: the registry refused us, its log has the reason",
            ),
            EXPIRED,
            means(
                "D63",
                "in the registry's own log: the client did not accept the registry's certificate",
                "the line stands in the server's log, not in the client's",
            ),
        ],
    },
    Known {
        pieces: &["badcertificate"],
        by: "rustls",
        meanings: &[
            means(
                "D68",
                "the registry does not accept the client certificate, or there was none",
                "the registry's log has the reason",
            ),
            EXPIRED,
        ],
    },
    Known {
        pieces: &["error decrypting message"],
        by: "Go",
        meanings: &[
            means(
                "D68",
                "the registry could not verify the signature made with the client's key",
                "the key does not belong to the certificate, or its kind is not supported",
            ),
            means("D45", "the client certificate is signed with SHA-1", "`portcullis cert show FILE` says so"),
        ],
    },
    Known {
        pieces: &["decrypt error"],
        by: "OpenSSL, curl",
        meanings: &[means(
            "D68",
            "the registry could not verify the signature made with the client's key",
            "the key does not belong to the certificate, or its kind is not supported",
        )],
    },
    Known {
        pieces: &["unknown certificate"],
        by: "Go, OpenSSL, curl",
        meanings: &[
            means("D68", "the registry has some other fault with the client certificate", "its log has the reason"),
            means(
                "D43",
                "a certificate made as Docker's page says is in the registry's CA bundle: it must be pinned",
                "the server is made with rustls; portcullis trust add FILE --as pin",
            ),
        ],
    },
    Known {
        pieces: &["certificateunknown"],
        by: "rustls",
        meanings: &[means(
            "D68",
            "the registry has some other fault with the client certificate",
            "its log has the reason",
        )],
    },
    Known {
        pieces: &["tls", "access denied"],
        by: "Go, OpenSSL, curl",
        meanings: &[means(
            "D68",
            "the certificate is known and has no right",
            "the registry's policy or deny list says so",
        )],
    },
    Known {
        pieces: &["accessdenied"],
        by: "rustls",
        meanings: &[means(
            "D68",
            "the certificate is known and has no right",
            "the registry's policy or deny list says so",
        )],
    },
    Known {
        pieces: &["handshake failure"],
        by: "Go, OpenSSL, curl (TLS 1.2)",
        meanings: &[
            NOT_SENT,
            means(
                "D62",
                "there is no cipher suite or version in common",
                "it also happens without client certificates: portcullis doctor HOST",
            ),
            NOT_READ,
        ],
    },
    Known {
        pieces: &["handshakefailure"],
        by: "rustls",
        meanings: &[
            NOT_SENT,
            means(
                "D62",
                "there is no cipher suite or version in common",
                "it also happens without client certificates",
            ),
        ],
    },
    Known {
        pieces: &["connection reset"],
        by: "the operating system",
        meanings: &[LATE, means("D60", "a firewall or proxy cut the connection", "it also happens without TLS")],
    },
    Known {
        pieces: &["broken pipe"],
        by: "the operating system",
        meanings: &[LATE, means("D60", "a firewall or proxy cut the connection", "it also happens without TLS")],
    },
    Known {
        pieces: &["eof"],
        by: "Go",
        meanings: &[LATE, means("D62", "a proxy before the registry ended the connection", "its log has the reason")],
    },
];
