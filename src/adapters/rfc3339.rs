//! Times as text (RFC 3339, in UTC). The text has years of four digits: a time before 1970 is shown as
//! the beginning of 1970, and one after the year 9999 as its last second.

use std::time::{Duration, SystemTime};

use crate::domain::time::UnixTime;

/// The last second of the year 9999.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// The text of `time`, with whole seconds.
pub(crate) fn seconds(time: UnixTime) -> String {
    humantime::format_rfc3339_seconds(within(time)).to_string()
}

/// The text of `time`, with milliseconds.
pub(crate) fn millis(time: UnixTime) -> String {
    humantime::format_rfc3339_millis(within(time)).to_string()
}

fn within(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + time.since(UnixTime::default()).min(LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_out_of_range() {
        for (time, text) in [
            (UnixTime::from_secs(i64::MIN), "1970-01-01T00:00:00.000Z"),
            (UnixTime::from_millis(-1), "1970-01-01T00:00:00.000Z"),
            (UnixTime::from_millis(1_767_225_600_999), "2026-01-01T00:00:00.999Z"),
            (UnixTime::from_secs(253_402_300_799), "9999-12-31T23:59:59.000Z"),
            (UnixTime::from_secs(253_402_300_800), "9999-12-31T23:59:59.000Z"),
            (UnixTime::from_secs(i64::MAX), "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(millis(time), text);
            assert_eq!(seconds(time), text.split_once('.').unwrap().0.to_owned() + "Z");
        }
    }
}
