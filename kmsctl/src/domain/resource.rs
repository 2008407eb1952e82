//! A resource of the Kubernetes API, by the name that an `EncryptionConfiguration` gives it.

use std::fmt;

/// The groups of the API server itself that are not written in etcd.
const OWN_GROUPS: [&str; 20] = [
    "",
    "admissionregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// The name of a resource: `secrets` for the core group, `widgets.example.com` for another group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceName {
    /// The plural name, such as `secrets`.
    pub plural: String,
    /// The group. Empty for the core group.
    pub group: String,
}

impl ResourceName {
    /// Reads `resource` or `resource.group`.
    ///
    /// # Errors
    /// A text that says what is wrong with the name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (plural, group) = text.split_once('.').unwrap_or((text, ""));
        let is_label = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let is_group = |group: &str| group.split('.').all(is_label);
        if text.len() > 253 || !is_label(plural) || (text.contains('.') && !is_group(group)) {
            return Err(format!(
                "{text:?} is not a valid resource; write a plural name such as secrets, or \
                 widgets.example.com with its group"
            ));
        }
        Ok(Self { plural: plural.to_owned(), group: group.to_owned() })
    }

    /// Returns where etcd has the objects: `secrets`, `example.com/widgets` for a custom resource.
    ///
    /// The API server names its own resources without their group (`k8s.io/kubernetes/pkg/registry`
    /// and `DefaultStorageFactory` of `k8s.io/apiserver/pkg/server/storage`).
    #[must_use]
    pub fn in_etcd(&self) -> String {
        match (self.group.as_str(), self.plural.as_str()) {
            ("", "nodes") => "minions".to_owned(),
            ("", "replicationcontrollers") => "controllers".to_owned(),
            ("", "services") => "services/specs".to_owned(),
            ("", "endpoints") => "services/endpoints".to_owned(),
            ("networking.k8s.io", "ingresses") => "ingress".to_owned(),
            (group, plural) if OWN_GROUPS.contains(&group) => plural.to_owned(),
            (group, plural) => format!("{group}/{plural}"),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(&self.plural)
        } else {
            write!(f, "{}.{}", self.plural, self.group)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_places_in_etcd() {
        for (name, place) in [
            ("secrets", "secrets"),
            ("services", "services/specs"),
            ("deployments.apps", "deployments"),
            ("ingresses.networking.k8s.io", "ingress"),
            ("widgets.example.com", "example.com/widgets"),
            (
                "customresourcedefinitions.apiextensions.k8s.io",
                "apiextensions.k8s.io/customresourcedefinitions",
            ),
        ] {
            assert_eq!(ResourceName::parse(name).unwrap().in_etcd(), place);
        }
    }

    #[test]
    fn reads_names_as_an_encryption_configuration_writes_them() {
        for (text, plural, group) in [
            ("secrets", "secrets", ""),
            ("deployments.apps", "deployments", "apps"),
            ("widgets.example.com", "widgets", "example.com"),
        ] {
            let name = ResourceName::parse(text).unwrap();
            assert_eq!((&*name.plural, &*name.group), (plural, group));
            assert_eq!(name.to_string(), text);
        }
        for text in ["", ".", "secrets.", ".apps", "Secrets", "secrets/status", "a b", "*.*"] {
            assert!(ResourceName::parse(text).is_err(), "{text}");
        }
    }
}
