//! How much of the caller's time a call may use.

use std::time::Duration;

use http::HeaderMap;

use crate::domain::time::CALL_BUDGET;

/// What is left for the way back to the caller: 7 % of its timeout, at least 200 ms, but never
/// more than half.
const RESERVE_PERCENT: u32 = 7;
const RESERVE_MIN: Duration = Duration::from_millis(200);

/// A caller that would wait longer than this waits no longer than this.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// The time a call may take, by the caller's `grpc-timeout`; [`CALL_BUDGET`] where there is none
/// that can be read.
#[must_use]
pub fn budget(headers: &HeaderMap) -> Duration {
    let timeout = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse);
    timeout.map_or(CALL_BUDGET, |timeout| {
        let timeout = timeout.min(TIMEOUT_MAX);
        let share = timeout.saturating_mul(RESERVE_PERCENT) / 100;
        timeout.saturating_sub(share.max(RESERVE_MIN).min(timeout / 2))
    })
}

/// Reads the wire form of the gRPC specification: 1 to 8 digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count.saturating_mul(3_600)),
        "M" => Duration::from_secs(count.saturating_mul(60)),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget_of(timeout: &str) -> Duration {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", timeout.parse().unwrap());
        budget(&headers)
    }

    #[test]
    fn the_way_back_is_kept_free() {
        assert_eq!(budget_of("3S"), Duration::from_millis(2_790));
        assert_eq!(budget_of("2999000u"), Duration::from_micros(2_789_070));
        assert_eq!(budget_of("1000m"), Duration::from_millis(800));
        assert_eq!(budget_of("100m"), Duration::from_millis(50));
        assert_eq!(budget_of("99999999H"), Duration::from_millis(27_900));
    }

    #[test]
    fn what_cannot_be_read_counts_as_none() {
        for text in ["", "S", "3", "3s", "-3S", "123456789S", "3 S", "0x3S"] {
            assert_eq!(budget_of(text), CALL_BUDGET, "{text:?}");
        }
        assert_eq!(budget(&HeaderMap::new()), CALL_BUDGET);
    }
}
