//! One file per command. Each turns its words into calls of the crates and says what it did and what to type next.

pub(crate) mod catalog;
pub(crate) mod cert;
pub(crate) mod config;
pub(crate) mod convert;
pub(crate) mod copy;
pub(crate) mod delete;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod fsck;
pub(crate) mod gateway;
pub(crate) mod gc;
pub(crate) mod install;
pub(crate) mod login;
pub(crate) mod maintain;
pub(crate) mod manifest;
pub(crate) mod policy;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod referrers;
pub(crate) mod reload;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod tags;
pub(crate) mod trust;
pub(crate) mod uninstall;
pub(crate) mod up;

mod advice;
mod ask;
mod lint;
mod renew;
mod revoke;
mod show;
mod system_trust;
mod transfer;
mod unit;

pub(crate) use advice::Asked;
pub(crate) use transfer::{Audience, aside};

use time::OffsetDateTime;
use time::macros::format_description;

/// A date as people read it, in UTC.
fn date(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    time.format(format).unwrap_or_else(|_| time.to_string())
}

/// A path as people see it, whatever bytes are in it.
fn shown(path: &std::path::Path) -> String {
    portcullis_certs::visible_bytes(path.as_os_str().as_encoded_bytes())
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
