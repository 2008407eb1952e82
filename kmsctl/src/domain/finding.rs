//! What an inventory finds wrong, or worth a look, in how objects are stored.

use std::collections::BTreeSet;

use super::tally::{State, Tally};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something must be done. The command ends with the exit code 1.
    Bad,
    /// The operator should know it.
    Notice,
}

impl Severity {
    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Notice => "notice",
        }
    }
}

/// A finding, with a stable code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The stable code.
    pub code: &'static str,
    /// What was found, and what to do.
    pub text: String,
}

/// Returns the findings of `tally`. The objects of the resources in `expected` must be encrypted.
/// The objects of another resource must be encrypted when one of them is.
#[must_use]
pub fn findings(tally: &Tally, expected: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (resource, groups) in tally.resources() {
        let sum = |state: State| -> u64 {
            let counted = groups.iter().filter(|(group, _)| group.state == state);
            counted.map(|(_, count)| count.objects).sum()
        };
        let example = |state: State| {
            let of_state = groups.iter().filter(|(group, _)| group.state == state);
            of_state.map(|(_, count)| count).min_by_key(|count| count.oldest.0)
        };
        let ours = sum(State::Ours) > 0;
        let is_encrypted = ours || sum(State::OtherPlugin) > 0 || sum(State::OtherProvider) > 0;
        if let Some(count) = example(State::Unreadable) {
            findings.push(Finding {
                severity: Severity::Bad,
                code: "unreadable",
                text: format!(
                    "no API server can read {} of {resource}, such as {}: {}; restore them from a \
                     backup, or delete them",
                    objects(sum(State::Unreadable)),
                    count.oldest.1,
                    count.why.as_deref().unwrap_or("the reason is not known"),
                ),
            });
        }
        if let Some(count) =
            example(State::Clear).filter(|_| is_encrypted || expected.contains(resource))
        {
            findings.push(Finding {
                severity: Severity::Bad,
                code: "clear",
                text: format!(
                    "etcd has {} of {resource} in clear, such as {}; see that the \
                     EncryptionConfiguration encrypts the resource, and write them again",
                    objects(sum(State::Clear)),
                    count.oldest.1,
                ),
            });
        }
        for state in [State::OtherPlugin, State::OtherProvider] {
            let Some(count) = example(state).filter(|_| ours) else { continue };
            findings.push(Finding {
                severity: Severity::Notice,
                code: state.name(),
                text: format!(
                    "{} still has {} of {resource}, such as {}; write them again to end the move",
                    if state == State::OtherPlugin { "another plugin" } else { "another provider" },
                    objects(sum(state)),
                    count.oldest.1,
                ),
            });
        }
    }
    findings
}

/// Returns a number of objects in words.
#[must_use]
pub fn objects(number: u64) -> String {
    if number == 1 { "1 object".to_owned() } else { format!("{number} objects") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        place::DEFAULT_PREFIX,
        stored::Stored,
        tally::tests::{key_id, ours},
    };

    fn found(objects: &[(&str, Stored<'static>)]) -> Vec<(&'static str, &'static str)> {
        let mut tally = Tally::default();
        for (key, stored) in objects {
            tally.add(key.as_bytes(), DEFAULT_PREFIX, stored, 1).unwrap();
        }
        let expected = BTreeSet::from(["secrets".to_owned()]);
        findings(&tally, &expected).iter().map(|f| (f.severity.name(), f.code)).collect()
    }

    #[test]
    fn clear_objects_matter_in_encrypted_resources() {
        let one = key_id(1, "a");
        let encrypted = || ours(&one, "vault:v1:AA");
        assert_eq!(found(&[("/registry/pods/a/b", Stored::Clear)]), []);
        assert_eq!(found(&[("/registry/secrets/a/b", Stored::Clear)]), [("bad", "clear")]);
        assert_eq!(
            found(&[
                ("/registry/configmaps/a/b", Stored::Clear),
                ("/registry/configmaps/a/c", encrypted()),
            ]),
            [("bad", "clear")]
        );
        assert_eq!(found(&[("/registry/secrets/a/b", encrypted())]), []);
    }

    #[test]
    fn names_what_a_move_left_behind_and_what_is_damaged() {
        let one = key_id(1, "a");
        assert_eq!(
            found(&[
                ("/registry/secrets/a/b", ours(&one, "vault:v1:AA")),
                ("/registry/secrets/a/c", Stored::Other("aescbc/v1/key1".into())),
                ("/registry/secrets/a/d", Stored::Unreadable("damaged".into())),
            ]),
            [("bad", "unreadable"), ("notice", "other-provider")]
        );
        assert_eq!(
            found(&[("/registry/secrets/a/c", Stored::Other("aescbc/v1/key1".into()))]),
            [],
            "not ours: it is none of our moves"
        );
    }
}
