//! Names of mounts, keys and namespaces, which become parts of request paths.

use std::fmt;

/// The path of a mount: one or more segments, such as `transit` or `team/transit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPath(String);

impl MountPath {
    /// Parses a mount path. Drops slashes at both ends, like the Vault CLI.
    ///
    /// # Errors
    /// Returns what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_matches('/');
        text.split('/').try_for_each(check_segment)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for MountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path of a Transit key: its mount and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPath {
    /// The engine's mount.
    pub mount: MountPath,
    /// The key's name: one segment.
    pub key: String,
}

impl KeyPath {
    /// Parses `<mount>/keys/<key>` (`--vault-key-path`).
    ///
    /// # Errors
    /// Returns what is wrong with the text, and the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write <mount>/keys/<key>, for example transit/keys/my-key";
        let (mount, key) = text.rsplit_once("/keys/").ok_or_else(|| FORM.to_owned())?;
        Self::of_parts(mount, key).map_err(|wrong| format!("{wrong}; {FORM}"))
    }

    /// Returns the key at `mount` with the name `key` (`--transit-mount`, `--transit-key`).
    ///
    /// # Errors
    /// Returns what is wrong with one of the two texts.
    pub fn of_parts(mount: &str, key: &str) -> Result<Self, String> {
        let mount = MountPath::parse(mount)?;
        if mount.0 == "v1" || mount.0.starts_with("v1/") {
            return Err("remove v1/ from it: each request adds v1/".to_owned());
        }
        check_segment(key)?;
        Ok(Self { mount, key: key.to_owned() })
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/keys/{}", self.mount, self.key)
    }
}

/// A namespace, without slashes at its ends. The empty text is the root namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The root namespace.
    pub const ROOT: &'static Self = &Self(String::new());

    /// Parses a namespace. Both `root` and the empty text are the root namespace.
    ///
    /// # Errors
    /// Returns what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_matches('/');
        if text.is_empty() || text == "root" {
            return Ok(Self::default());
        }
        text.split('/').try_for_each(check_segment)?;
        Ok(Self(text.to_owned()))
    }

    /// Returns the value for the header `X-Vault-Namespace`. It is empty for the root namespace.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the prefix that a policy of this namespace needs before a path in the namespace
    /// `inner`. The prefix is empty or ends with a slash. Returns `None` if `inner` is not this
    /// namespace or below it.
    #[must_use]
    pub fn way_to(&self, inner: &Self) -> Option<String> {
        let rest = inner.0.strip_prefix(&self.0)?;
        match rest.strip_prefix('/') {
            Some(way) => Some(format!("{way}/")),
            None if rest.is_empty() => Some(String::new()),
            None => self.0.is_empty().then(|| format!("{rest}/")),
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "root" } else { &self.0 })
    }
}

/// Rejects a segment that is empty, `.` or `..`, or that has a character which RFC 3986 does not
/// list as unreserved. An accepted segment cannot change the rest of a path.
fn check_segment(segment: &str) -> Result<(), String> {
    if segment.is_empty() {
        return Err("a segment is empty".to_owned());
    }
    if segment == "." || segment == ".." {
        return Err(format!("the segment {segment:?} is not allowed: it would leave the path"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    match segment.chars().find(|c| !allowed(*c)) {
        Some(c) => {
            Err(format!("the character {c:?} is not allowed (letters, digits, - . _ ~ are)"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_mounts_of_several_segments() {
        let path = KeyPath::parse("myteam/transit/keys/prod").unwrap();
        assert_eq!(
            (path.mount.to_string().as_str(), path.key.as_str()),
            ("myteam/transit", "prod")
        );
        assert_eq!(KeyPath::parse("a/keys/keys/k").unwrap().mount.to_string(), "a/keys");
    }

    #[test]
    fn rejects_segments_that_would_change_the_path() {
        for text in [
            "transit/keys/..",
            "../keys/k",
            "a/../b/keys/k",
            "a//b/keys/k",
            "transit/keys/",
            "/keys/k",
            "transit/k",
            "transit/keys/a/b",
            "transit/keys/a b",
            "transit/keys/a%2e",
            "transit/keys/ä",
            "transit/keys/a?b",
            "keys/k",
            "v1/transit/keys/k",
            "/v1/transit/keys/k",
            "",
        ] {
            assert!(KeyPath::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ignores_slashes_at_both_ends_of_a_namespace() {
        for text in ["admin/team", "/admin/team/", "admin/team/"] {
            assert_eq!(Namespace::parse(text).unwrap().as_str(), "admin/team");
        }
        assert_eq!(Namespace::parse("root").unwrap(), Namespace::default());
        assert!(Namespace::parse("a/../b").is_err());
    }
}
