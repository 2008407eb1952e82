//! The paths of the Kubernetes API.

use std::fmt::Write as _;

use crate::ports::rewriting::{Listed, Resource, Scope};

/// Returns the path of a group, or of one of its versions.
pub(super) fn group(group: &str, version: Option<&str>) -> String {
    match (group, version) {
        ("", _) => "/api/v1".to_owned(),
        (_, None) => format!("/apis/{group}"),
        (_, Some(version)) => format!("/apis/{group}/{}", encoded(version)),
    }
}

/// Returns the path of the objects of a resource, in one namespace or in all.
fn objects(resource: &Resource, namespace: Option<&str>) -> String {
    let base = group(&resource.name.group, Some(&resource.version));
    match namespace {
        Some(namespace) if resource.is_namespaced => {
            format!("{base}/namespaces/{}/{}", encoded(namespace), resource.name.plural)
        }
        _ => format!("{base}/{}", resource.name.plural),
    }
}

/// Returns the path of a page of at most `limit` objects.
pub(super) fn page(
    resource: &Resource,
    scope: &Scope,
    after: Option<&str>,
    limit: usize,
) -> String {
    let mut path = format!("{}?limit={limit}", objects(resource, scope.namespace.as_deref()));
    for (name, value) in [("labelSelector", scope.selector.as_deref()), ("continue", after)] {
        if let Some(value) = value {
            path.push('&');
            path.push_str(name);
            path.push('=');
            path.push_str(&encoded(value));
        }
    }
    path
}

/// Returns the path of an object.
pub(super) fn object(resource: &Resource, object: &Listed) -> String {
    format!("{}/{}", objects(resource, object.namespace.as_deref()), encoded(&object.name))
}

/// Returns `text` for a path or a query (RFC 3986, section 2.1).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _infallible = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::resource::ResourceName;

    fn resource(name: &str, is_namespaced: bool) -> Resource {
        let name = ResourceName::parse(name).unwrap();
        Resource { name, version: "v1".to_owned(), is_namespaced }
    }

    #[test]
    fn names_objects_of_each_kind() {
        let listed = |namespace: Option<&str>, name: &str| Listed {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            version: "1".to_owned(),
        };
        for (resource, listed, path) in [
            (
                resource("secrets", true),
                listed(Some("default"), "db"),
                "/api/v1/namespaces/default/secrets/db",
            ),
            (
                resource("widgets.example.com", true),
                listed(Some("a"), "w"),
                "/apis/example.com/v1/namespaces/a/widgets/w",
            ),
            (
                resource("clusterroles.rbac.authorization.k8s.io", false),
                listed(None, "system:node ?"),
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode%20%3F",
            ),
        ] {
            assert_eq!(object(&resource, &listed), path);
        }
    }

    #[test]
    fn a_selector_cannot_add_a_parameter() {
        let scope = Scope {
            namespace: Some("a/b".to_owned()),
            selector: Some("app in (x,y)&dryRun=All".to_owned()),
        };
        assert_eq!(
            page(&resource("secrets", true), &scope, Some("ab="), 10),
            "/api/v1/namespaces/a%2Fb/secrets?limit=10\
             &labelSelector=app%20in%20%28x%2Cy%29%26dryRun%3DAll&continue=ab%3D"
        );
    }
}
