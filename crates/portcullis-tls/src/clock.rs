//! Between the two ways in which our libraries tell the time.

use std::time::Duration;

use rustls_pki_types::UnixTime;
use time::OffsetDateTime;

/// Seconds since 1970; an earlier time becomes 1970, at which every certificate is "not yet valid".
pub(crate) fn unix_time(time: OffsetDateTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time.unix_timestamp()).unwrap_or(0)))
}

/// The inverse; a time past 9999 becomes 1970.
pub(crate) fn offset_date_time(time: UnixTime) -> OffsetDateTime {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(0);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
