//! The certificates say what their descriptions say, read by a program that is not ours: `openssl`.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod pki;
