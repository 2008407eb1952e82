//! Go's durations, as operators write them: `30s`, `1m30s`, `2.5s`, `300ms`.

use std::time::Duration;

/// Reads a duration in Go's form, without sign.
///
/// # Errors
/// What a duration looks like.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write for example 30s, 1m30s or 500ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number =
            rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, tail) = rest.split_at_checked(number).ok_or_else(wrong)?;
        let unit = tail.len() - tail.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let (unit, tail) = tail.split_at_checked(unit).ok_or_else(wrong)?;
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_no_number| wrong())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_range| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_forms_are_read() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("2.5s", 2_500),
            ("300ms", 300),
            ("1h", 3_600_000),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not() {
        for text in
            ["", "30", "s", "-1s", "+1s", "1x", "1s ", "1..5s", "1e9h", "99999999999999999h"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
