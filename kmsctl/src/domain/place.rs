//! The place of an object in etcd: its resource, namespace and name.

use std::fmt;

/// The default of the API server's `--etcd-prefix`.
pub const DEFAULT_PREFIX: &str = "/registry";

/// The longest resource in bytes: a group, a slash and a plural name, as Kubernetes limits them.
const RESOURCE_MAX: usize = 253 + 1 + 253;

/// The place of an object, from its key in etcd.
///
/// The API server stores an object under `<prefix>/<resource>/[<namespace>/]<name>`. A custom
/// resource has its group before its resource. Services are below `services/specs` and
/// `services/endpoints`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place<'a> {
    /// The resource as it is written in etcd, such as `secrets` or `example.com/widgets`.
    pub resource: &'a str,
    /// The rest of the key: `namespace/name`, or `name`.
    pub object: &'a str,
}

impl<'a> Place<'a> {
    /// Returns the place that `key` names below `prefix`. Returns `None` for a key that is not below
    /// `prefix`, is not UTF-8, or does not name an object of a resource that can be.
    #[must_use]
    pub fn of(key: &'a [u8], prefix: &str) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        let below = key.strip_prefix(prefix.trim_end_matches('/'))?.strip_prefix('/')?;
        let (first, rest) = below.split_once('/')?;
        let is_nested = first.contains('.') || first == "services";
        let (resource, object) = match rest.split_once('/') {
            Some((second, object)) if is_nested => {
                (below.get(..first.len() + 1 + second.len())?, object)
            }
            _ => (first, rest),
        };
        let is_name =
            resource.len() <= RESOURCE_MAX && resource.bytes().all(|b| b.is_ascii_graphic());
        (is_name && !object.is_empty()).then_some(Self { resource, object })
    }

    /// Returns the namespace, or `None` for an object without one.
    #[must_use]
    pub fn namespace(&self) -> Option<&'a str> {
        self.object.split_once('/').map(|(namespace, _)| namespace)
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.object.rsplit_once('/').map_or(self.object, |(_, name)| name)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.resource, self.object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resource_namespace_and_name() {
        for (key, resource, namespace, name) in [
            ("/registry/secrets/default/db", "secrets", Some("default"), "db"),
            ("/registry/namespaces/default", "namespaces", None, "default"),
            (
                "/registry/example.com/widgets/default/w",
                "example.com/widgets",
                Some("default"),
                "w",
            ),
            ("/registry/example.com/widgets/w", "example.com/widgets", None, "w"),
            ("/registry/services/specs/default/web", "services/specs", Some("default"), "web"),
        ] {
            let place = Place::of(key.as_bytes(), DEFAULT_PREFIX).unwrap();
            assert_eq!(
                (place.resource, place.namespace(), place.name()),
                (resource, namespace, name)
            );
        }
    }

    #[test]
    fn a_key_elsewhere_has_no_place() {
        for key in ["compact_rev_key", "/registry/secrets", "/registry/secrets/", "/registryx/a/b"]
        {
            assert_eq!(Place::of(key.as_bytes(), DEFAULT_PREFIX), None, "{key}");
        }
        assert_eq!(Place::of(b"/registry/secrets/\xff", DEFAULT_PREFIX), None);
        assert_eq!(Place::of(b"/registry/sec\x1b[2Jrets/a/b", DEFAULT_PREFIX), None);
        let long = format!("/registry/{}/a/b", "x".repeat(RESOURCE_MAX + 1));
        assert_eq!(Place::of(long.as_bytes(), DEFAULT_PREFIX), None);
        assert!(Place::of(b"/kubernetes.io/secrets/a/b", "/kubernetes.io/").is_some());
    }
}
