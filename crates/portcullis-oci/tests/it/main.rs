//! The grammars against bytes that nobody wrote on purpose.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod fuzz;
