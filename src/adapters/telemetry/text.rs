//! Makes text from outside safe for one line of a log.

/// The longest uid of a call that is written, in characters. The uids of kube-apiserver have 36.
pub(super) const UID_MAX: usize = 64;

/// Returns at most `most` characters of `text`, with `?` for each control character.
pub(super) fn printable(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_hostile_uid_on_one_line() {
        let uid = printable(&format!("a\nb\u{1b}[31m{}", "x".repeat(10_000)), UID_MAX);
        assert!(uid.starts_with("a?b?[31m") && uid.chars().count() == UID_MAX);
    }
}
