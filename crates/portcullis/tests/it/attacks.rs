//! Under attack: while strangers and peers gone wild do their worst, a client that behaves is served, and the server's
//! memory and descriptors stay within their bounds.
//!
//! Every attack comes from many addresses of the machine's own network, is bounded in count, and ends with the test.

mod frames;
mod siege;

use std::io::Write as _;
use std::time::Duration;

use portcullis_testkit::pki::{Authority, LeafSpec};

use self::siege::{besieged, connect_from, greet};

/// A handshake begun and not gone on with.
const STALLED: &[u8] = &[22, 3, 1, 2, 0, 1];

/// From so many addresses that all turns to handshake are taken, and still there are more.
#[test]
fn stalled_handshakes() {
    besieged(|siege| {
        let mut held = Vec::new();
        for round in 0..1500 {
            let Ok(mut stream) = connect_from(round % 30) else { continue };
            let _refused = stream.write_all(STALLED);
            held.push(stream);
        }
        siege.under_way();
        // Those that were given up come again.
        let mut round = 0;
        while siege.goes_on() && round < 20_000 {
            let Ok(mut stream) = connect_from(round % 30) else { continue };
            let _refused = stream.write_all(STALLED);
            let at = round % held.len();
            held[at] = stream;
            round += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
    });
}

#[test]
fn five_thousand_connections_that_say_nothing() {
    besieged(|siege| {
        let held: Vec<_> = (0..5000).filter_map(|n| connect_from(n % 25).ok()).collect();
        assert!(held.len() > 4900, "{} connections", held.len());
        siege.under_way();
        siege.wait();
    });
}

/// Trusted, and more than there are places for.
#[test]
fn five_thousand_idle_clients() {
    besieged(|siege| {
        let held: Vec<_> = (0..5000).filter_map(|n| siege.trusted(n % 25, b"http/1.1").ok()).collect();
        assert!(held.len() > 4900, "{} connections", held.len());
        siege.under_way();
        siege.wait();
    });
}

#[test]
fn slow_headers() {
    besieged(|siege| {
        let mut held: Vec<_> = (0..600).filter_map(|n| siege.trusted(n % 6, b"http/1.1").ok()).collect();
        for stream in &mut held {
            let _closed = stream.write_all(b"GET /v2/ HTTP/1.1\r\nhost: registry.test\r\n");
        }
        siege.under_way();
        while siege.goes_on() {
            for stream in &mut held {
                let _closed = stream.write_all(b"x");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}

#[test]
fn huge_certificate_chains() {
    let ca = Authority::new("stranger");
    let mut chains = Vec::new();
    // Below what one handshake message may hold, just above, and far beyond.
    for bytes in [60_000, 70_000, 2_000_000] {
        let filler = Authority::from_spec(&LeafSpec {
            organizations: vec!["o".repeat(8000)],
            ..LeafSpec::authority("a certificate to fill a chain with")
        });
        let count = bytes / filler.cert_der().len();
        chains.push((ca.client("mallory"), vec![filler.cert_pem(); count].concat()));
    }
    besieged(|siege| {
        let configs: Vec<_> = chains.iter().map(|(pair, more)| siege.identity(pair, more)).collect();
        siege.under_way();
        for round in 0..3000 {
            if !siege.goes_on() {
                break;
            }
            let _refused = greet(round % 20, &configs[round % configs.len()], b"http/1.1");
        }
    });
}

/// A chain that is good, with all that a message holds behind it: looked at as far as eight certificates, and let in.
#[test]
fn huge_chains_behind_a_good_certificate() {
    let filler = Authority::new("nobody asked for this");
    besieged(|siege| {
        let count = 60_000 / filler.cert_der().len();
        let config = siege.identity_of_guest(&vec![filler.cert_pem(); count].concat());
        siege.under_way();
        for round in 0..3000 {
            if !siege.goes_on() {
                break;
            }
            let _let_in = greet(round % 20, &config, b"http/1.1");
        }
    });
}

#[test]
fn a_flood_of_worthless_certificates() {
    let ca = Authority::new("stranger");
    let pairs = [ca.client("eve"), ca.issue(&LeafSpec::client("late").expired())];
    besieged(|siege| {
        let configs = pairs.each_ref().map(|pair| siege.identity(pair, ""));
        siege.under_way();
        siege.on_all_sides(|side| {
            for round in 0..10_000 {
                if !siege.goes_on() {
                    break;
                }
                let _refused = greet(side * 10 + round % 10, &configs[round % 2], b"http/1.1");
            }
        });
    });
}

#[test]
fn oversized_records() {
    let zeros = vec![0; 1 << 17];
    besieged(|siege| {
        siege.under_way();
        for round in 0..10_000 {
            if !siege.goes_on() {
                break;
            }
            // More than a record may hold; a message of 16 MiB, in records that are each as they should be; application
            // data before there is a key.
            let heads: [&[u8]; 3] =
                [&[22, 3, 1, 0xff, 0xff], &[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff], &[23, 3, 3, 0x40, 0]];
            let Ok(mut stream) = connect_from(round % 20) else { continue };
            let _closed = stream.write_all(heads[round % 3]).and_then(|()| stream.write_all(&zeros));
        }
    });
}

/// CVE-2023-44487: streams opened and reset at once, so that none ever counts as open.
#[test]
fn http2_rapid_reset() {
    besieged(|siege| siege.http2_flood(|n| [frames::get(2 * n + 1), frames::reset(2 * n + 1)].concat()));
}

#[test]
fn http2_settings_flood() {
    besieged(|siege| siege.http2_flood(|_| frames::settings()));
}

#[test]
fn http2_ping_flood() {
    besieged(|siege| siege.http2_flood(|_| frames::ping()));
}

/// CVE-2024-27316: a head that never ends.
#[test]
fn http2_continuation_flood() {
    besieged(|siege| siege.http2_flood(|n| if n == 0 { frames::open_head(1) } else { frames::continuation(1) }));
}

/// A hundred streams at once, whose answers nobody reads.
#[test]
fn http2_answers_that_nobody_reads() {
    besieged(|siege| siege.http2_flood(|n| frames::get(2 * n + 1)));
}
