//! The list of the KMS keys that are the versions of the KEK.

/// The largest list of keys, in bytes.
pub const LIST_MAX: u64 = 65_536;

/// Parses `text`, which holds the ARN of one key in each line. Skips blank lines and lines that begin
/// with `#`. Returns the ARNs, version 1 first, and at least one.
///
/// # Errors
/// Names the line that is not the ARN of a key, that is in another region than the first line, or
/// that repeats a line. Says so when there is no ARN.
pub fn parse(text: &str) -> Result<Vec<String>, String> {
    let mut arns: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let first = arns.first().map_or(line, String::as_str);
        if region(line).is_none() {
            let form = "arn:aws:kms:REGION:ACCOUNT:key/ID";
            return Err(format!("{line:?} is not the ARN of a key; write {form}"));
        } else if region(line) != region(first) {
            return Err(format!("{line} is in another region than the first key"));
        } else if arns.iter().any(|arn| arn == line) {
            return Err(format!("{line} is in two lines"));
        }
        arns.push(line.to_owned());
    }
    if arns.is_empty() { Err("the file has no ARN".to_owned()) } else { Ok(arns) }
}

/// Returns the region of the key `arn`, or `None` when `arn` is not the ARN of a key. Rejects aliases:
/// an operator can point an alias at another key.
#[must_use]
pub fn region(arn: &str) -> Option<&str> {
    match arn.split(':').collect::<Vec<_>>()[..] {
        ["arn", _, "kms", region, _, key] if key.starts_with("key/") => Some(region),
        _ => None,
    }
}
