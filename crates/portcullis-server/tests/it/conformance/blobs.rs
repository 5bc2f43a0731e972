//! `sha256 blobs` and `sha512 blobs`: every way in which a blob comes in, and every way in which it must not.

use portcullis_oci::{Algorithm, Digest};
use portcullis_testkit::image::random_bytes;

use crate::client::{Answer, Conn, empty, full, request, stream};
use crate::fixture::on_both;

const ALGORITHMS: [Algorithm; 2] = Algorithm::ALL;

/// How a blob is pushed; the names are the suite's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    PostOnly,
    PostPut,
    ChunkedSingle,
    ChunkedMulti,
    ChunkedMultiAndPutChunk,
    Stream,
}

impl Way {
    pub(super) const ALL: [Self; 6] = [
        Self::PostOnly,
        Self::PostPut,
        Self::ChunkedSingle,
        Self::ChunkedMulti,
        Self::ChunkedMultiAndPutChunk,
        Self::Stream,
    ];

    /// The answer to the request that should end it.
    pub(super) async fn push(self, conn: &Conn, repository: &str, digest: &Digest, bytes: &[u8]) -> Answer {
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        if self == Self::PostOnly {
            return conn.post(&format!("{uploads}?digest={digest}"), bytes.to_vec()).await;
        }
        let start = match digest.algorithm() {
            Algorithm::Sha256 => uploads,
            Algorithm::Sha512 => format!("{uploads}?digest-algorithm=sha512"),
        };
        let location = conn.post(&start, "").await.expect(202).location();
        match self {
            Self::PostOnly | Self::PostPut => finish(conn, &location, digest, bytes, None).await,
            Self::ChunkedSingle => {
                let location = chunk(conn, &location, bytes, 0, bytes.len()).await;
                finish(conn, &location, digest, b"", None).await
            }
            Self::ChunkedMulti => {
                let third = bytes.len() / 3;
                let location = chunk(conn, &location, bytes, 0, third).await;
                let location = chunk(conn, &location, bytes, third, 2 * third).await;
                let location = chunk(conn, &location, bytes, 2 * third, bytes.len()).await;
                finish(conn, &location, digest, b"", None).await
            }
            Self::ChunkedMultiAndPutChunk => {
                let half = bytes.len() / 2;
                let location = chunk(conn, &location, bytes, 0, half).await;
                finish(conn, &location, digest, &bytes[half..], Some(half)).await
            }
            Self::Stream => {
                let location = stream_all(conn, &location, bytes).await;
                finish(conn, &location, digest, b"", None).await
            }
        }
    }
}

/// A PATCH of `bytes[from..to]`; where the next one goes. A chunk of nothing has no range, and is not sent.
async fn chunk(conn: &Conn, location: &str, bytes: &[u8], from: usize, to: usize) -> String {
    if from == to {
        return location.to_owned();
    }
    let patch = request("PATCH", location).header("content-range", format!("{from}-{}", to - 1));
    let answer = conn.send(patch.body(full(bytes[from..to].to_vec())).unwrap()).await.expect(202);
    assert_eq!(answer.header("range"), format!("0-{}", to - 1));
    answer.location()
}

async fn finish(conn: &Conn, location: &str, digest: &Digest, bytes: &[u8], from: Option<usize>) -> Answer {
    let mut put = request("PUT", &format!("{location}?digest={digest}"));
    if let Some(from) = from.filter(|_| !bytes.is_empty()) {
        put = put.header("content-range", format!("{from}-{}", from + bytes.len() - 1));
    }
    conn.send(put.body(full(bytes.to_vec())).unwrap()).await
}

/// A PATCH without range and length.
async fn stream_all(conn: &Conn, location: &str, bytes: &[u8]) -> String {
    let (writer, body) = stream();
    let patch = request("PATCH", location).body(body).unwrap();
    let pieces: Vec<Vec<u8>> = bytes.chunks(1000).map(<[u8]>::to_vec).collect();
    let writing = async {
        for piece in pieces {
            writer.write(piece).await;
        }
        drop(writer);
    };
    let (answer, ()) = tokio::join!(conn.send(patch), writing);
    answer.expect(202).location()
}

pub(super) async fn check_pull(conn: &Conn, repository: &str, digest: &Digest, bytes: &[u8]) {
    let path = format!("/v2/{repository}/blobs/{digest}");
    let (head, got) = (conn.head(&path).await.expect(200), conn.get(&path).await.expect(200));
    assert_eq!(got.body, bytes, "{digest}");
    for answer in [head, got] {
        assert_eq!(answer.header("content-length"), bytes.len().to_string());
        assert_eq!(answer.header("docker-content-digest"), digest.to_string());
    }
}

async fn check_missing(conn: &Conn, repository: &str, digest: &Digest) {
    let path = format!("/v2/{repository}/blobs/{digest}");
    conn.get(&path).await.expect_error(404, "BLOB_UNKNOWN");
    conn.head(&path).await.expect(404);
}

/// One blob in one way: missing, pushed, pulled, pushed again, deleted.
async fn check_life(conn: &Conn, repository: &str, way: Way, algorithm: Algorithm, bytes: &[u8]) {
    let digest = Digest::of(algorithm, bytes);
    check_missing(conn, repository, &digest).await;
    let answer = way.push(conn, repository, &digest, bytes).await.expect(201);
    assert_eq!(answer.location(), format!("/v2/{repository}/blobs/{digest}"), "{way:?}");
    check_pull(conn, repository, &digest, bytes).await;
    // What is there already is no error.
    way.push(conn, repository, &digest, bytes).await.expect(201);
    conn.delete(&format!("/v2/{repository}/blobs/{digest}")).await.expect(202);
    check_missing(conn, repository, &digest).await;
}

#[tokio::test]
async fn get_missing_then_every_way_to_push_then_delete() {
    on_both(async |conn, repository| {
        for (seed, way) in (0..).zip(Way::ALL) {
            for algorithm in ALGORITHMS {
                check_life(conn, repository, way, algorithm, &random_bytes(seed, 6001)).await;
                check_life(conn, repository, way, algorithm, b"{}").await;
                check_life(conn, repository, way, algorithm, b"").await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_bad_digest_in_every_way() {
    let home = on_both(async |conn, repository| {
        for algorithm in ALGORITHMS {
            for way in Way::ALL {
                let bytes = random_bytes(99, 6001);
                let digest = Digest::of(algorithm, b"something else");
                way.push(conn, repository, &digest, &bytes).await.expect_error(400, "DIGEST_INVALID");
                check_missing(conn, repository, &digest).await;
                check_missing(conn, repository, &Digest::of(algorithm, &bytes)).await;
            }
        }
    })
    .await;
    assert!(home.leftovers().is_empty() && home.stored().is_empty(), "{:?}", home.stored());
}

#[tokio::test]
async fn chunks_out_of_order() {
    on_both(async |conn, repository| {
        for algorithm in ALGORITHMS {
            let bytes = random_bytes(7, 3000);
            let digest = Digest::of(algorithm, &bytes);
            let start = format!("/v2/{repository}/blobs/uploads/?digest-algorithm={algorithm}");
            let location = conn.post(&start, "").await.expect(202).location();
            // The first chunk is not the first, then the last comes too early: by PATCH, and by the closing PUT.
            let early = |method: &str, target: &str, from: usize| {
                let range = format!("{from}-{}", bytes.len() - 1);
                request(method, target).header("content-range", range).body(full(bytes[from..].to_vec())).unwrap()
            };
            conn.send(early("PATCH", &location, 1000)).await.expect(416);
            let location = chunk(conn, &location, &bytes, 0, 1000).await;
            let closing = format!("{location}?digest={digest}");
            for wrong in [early("PATCH", &location, 2000), early("PUT", &closing, 2000)] {
                conn.send(wrong).await.expect(416);
                let status = conn.get(&location).await.expect(204);
                assert_eq!((status.header("range"), status.location()), ("0-999", location.clone()));
            }
            let location = chunk(conn, &location, &bytes, 1000, 3000).await;
            finish(conn, &location, &digest, b"", None).await.expect(201);
            check_pull(conn, repository, &digest, &bytes).await;
        }
    })
    .await;
}

#[tokio::test]
async fn mount_anonymous_mount_missing_mount_and_cancel() {
    on_both(async |conn, repository| {
        for (number, algorithm) in (0..).zip(ALGORITHMS) {
            let source = format!("{repository}/source");
            // The other protocol's test must not have brought it in already.
            let bytes = [repository.as_bytes(), &random_bytes(50 + number, 2000)].concat();
            let digest = Digest::of(algorithm, &bytes);
            let mount = |to: &str, from: &str| format!("/v2/{to}/blobs/uploads/?mount={digest}{from}");
            let from = format!("&from={source}");
            for missing in [mount(repository, &from), mount(repository, "")] {
                let location = conn.post(&missing, "").await.expect(202).location();
                conn.delete(&location).await.expect(204);
                conn.get(&location).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
            }
            // The session that a failed mount opens takes the blob.
            let location = conn.post(&mount(&source, "&from=no/where"), "").await.expect(202).location();
            finish(conn, &location, &digest, &bytes, None).await.expect(201);
            for (to, from) in [(repository.to_owned(), from.as_str()), (format!("{repository}/other"), "")] {
                let answer = conn.post(&mount(&to, from), "").await.expect(201);
                assert_eq!(answer.location(), format!("/v2/{to}/blobs/{digest}"));
                check_pull(conn, &to, &digest, &bytes).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ranges() {
    on_both(async |conn, repository| {
        for algorithm in ALGORITHMS {
            let bytes = random_bytes(60, 4000);
            let digest = Digest::of(algorithm, &bytes);
            Way::PostPut.push(conn, repository, &digest, &bytes).await.expect(201);
            for (range, expected) in [
                ("500-1499", Some(500..1500)),
                ("500-", Some(500..4000)),
                ("-500", Some(3500..4000)),
                ("2000-5000", Some(2000..4000)),
                ("500-0", None),
                ("5000-10000", None),
            ] {
                let get = request("GET", &format!("/v2/{repository}/blobs/{digest}"));
                let get = get.header("range", format!("bytes={range}")).body(empty()).unwrap();
                let answer = conn.send(get).await;
                match expected {
                    Some(part) => assert_eq!(answer.expect(206).body, bytes[part], "{range}"),
                    None => assert_eq!(answer.expect(416).header("content-range"), "bytes */4000", "{range}"),
                }
            }
        }
    })
    .await;
}
