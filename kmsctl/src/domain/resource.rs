//! A resource of the Kubernetes API, by the name that an `EncryptionConfiguration` gives it.

use std::fmt;

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
