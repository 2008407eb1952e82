//! Names inside Vault that become parts of a request's path.

use std::fmt;

/// A mount of one or more segments, such as `transit` or `team/transit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPath(String);

impl MountPath {
    /// Reads a mount path. Slashes at its ends are dropped, as the Vault CLI does.
    ///
    /// # Errors
    /// What is wrong with it.
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

/// A Transit key: its mount and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPath {
    /// The engine's mount.
    pub mount: MountPath,
    /// The key's name, one segment.
    pub key: String,
}

impl KeyPath {
    /// Reads `<mount>/keys/<key>` (`--vault-key-path`).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write <mount>/keys/<key>, for example transit/keys/my-key";
        let (mount, key) = text.rsplit_once("/keys/").ok_or_else(|| FORM.to_owned())?;
        Self::of_parts(mount, key).map_err(|wrong| format!("{wrong}; {FORM}"))
    }

    /// The key from its two halves (`--transit-mount`, `--transit-key`).
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn of_parts(mount: &str, key: &str) -> Result<Self, String> {
        let mount = MountPath::parse(mount)?;
        if mount.0 == "v1" || mount.0.starts_with("v1/") {
            return Err("leave v1/ out of it: each request adds it".to_owned());
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

/// A namespace, without slashes at its ends; empty is the root namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The root namespace.
    pub const ROOT: &'static Self = &Self(String::new());

    /// Reads a namespace; `root` and the empty text are the root namespace.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_matches('/');
        if text.is_empty() || text == "root" {
            return Ok(Self::default());
        }
        text.split('/').try_for_each(check_segment)?;
        Ok(Self(text.to_owned()))
    }

    /// The text for `X-Vault-Namespace`; empty for the root namespace.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a path in `inner` begins with for a policy of this namespace: empty, or ends with a slash.
    /// `None` where `inner` is not within this namespace.
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

/// A segment of RFC 3986 unreserved characters cannot leave its place in a path.
fn check_segment(segment: &str) -> Result<(), String> {
    if segment.is_empty() {
        return Err("a segment is empty".to_owned());
    }
    if segment == "." || segment == ".." {
        return Err(format!("the segment {segment:?} would leave the path"));
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
    fn mounts_may_have_several_segments() {
        let path = KeyPath::parse("myteam/transit/keys/prod").unwrap();
        assert_eq!(
            (path.mount.to_string().as_str(), path.key.as_str()),
            ("myteam/transit", "prod")
        );
        assert_eq!(KeyPath::parse("a/keys/keys/k").unwrap().mount.to_string(), "a/keys");
    }

    #[test]
    fn a_path_cannot_be_left() {
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
    fn a_namespace_is_the_same_however_its_slashes_are_written() {
        for text in ["admin/team", "/admin/team/", "admin/team/"] {
            assert_eq!(Namespace::parse(text).unwrap().as_str(), "admin/team");
        }
        assert_eq!(Namespace::parse("root").unwrap(), Namespace::default());
        assert!(Namespace::parse("a/../b").is_err());
    }
}
