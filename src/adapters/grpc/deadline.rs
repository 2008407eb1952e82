//! Computes how much of the time of its caller a call may use.

use std::time::Duration;

use http::HeaderMap;

use crate::domain::time::CALL_BUDGET;

/// The time that is kept for sending the answer: 7 % of the timeout of the caller, at least 200 ms,
/// and at most half of the timeout.
const RESERVE_PERCENT: u32 = 7;
const RESERVE_MIN: Duration = Duration::from_millis(200);

/// The longest timeout that counts. A longer one is cut to this.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Returns the time that a call may take, from the `grpc-timeout` of the caller. Returns
/// [`CALL_BUDGET`] when that header is absent or malformed.
#[must_use]
pub fn budget(headers: &HeaderMap) -> Duration {
    let timeout = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse);
    timeout.map_or(CALL_BUDGET, |timeout| {
        let timeout = timeout.min(TIMEOUT_MAX);
        let share = timeout.saturating_mul(RESERVE_PERCENT) / 100;
        timeout.saturating_sub(share.max(RESERVE_MIN).min(timeout / 2))
    })
}

/// Parses a timeout in the form of the gRPC specification: 1 to 8 digits and a unit.
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
    fn keeps_time_for_the_answer() {
        assert_eq!(budget_of("3S"), Duration::from_millis(2_790));
        assert_eq!(budget_of("2999000u"), Duration::from_micros(2_789_070));
        assert_eq!(budget_of("1000m"), Duration::from_millis(800));
        assert_eq!(budget_of("100m"), Duration::from_millis(50));
        assert_eq!(budget_of("99999999H"), Duration::from_millis(27_900));
    }

    #[test]
    fn uses_the_default_for_a_malformed_timeout() {
        for text in ["", "S", "3", "3s", "-3S", "123456789S", "3 S", "0x3S"] {
            assert_eq!(budget_of(text), CALL_BUDGET, "{text:?}");
        }
        assert_eq!(budget(&HeaderMap::new()), CALL_BUDGET);
    }
}
