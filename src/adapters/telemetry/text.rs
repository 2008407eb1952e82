//! Text of others, made fit for a line.

/// Longest uid of a call that is written, in characters; kube-apiserver's have 36.
pub(super) const UID_MAX: usize = 64;

/// Returns at most `most` characters of `text`, with `?` for each control character.
pub(super) fn printable(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_uid_stays_on_one_line() {
        let uid = printable(&format!("a\nb\u{1b}[31m{}", "x".repeat(10_000)), UID_MAX);
        assert!(uid.starts_with("a?b?[31m") && uid.chars().count() == UID_MAX);
    }
}
