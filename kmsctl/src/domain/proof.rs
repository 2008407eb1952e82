//! What etcd shows after a rewrite: under what each resource is stored, and what is left.

use super::tally::{Group, State, Tally};

/// The objects of one resource that are stored in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The resource, as it is written in etcd.
    pub resource: String,
    /// How the objects are stored.
    pub group: Group,
    /// How many there are.
    pub objects: u64,
    /// The place of one of them.
    pub example: String,
    /// Whether the rewrite has left them: they are under another key than they should be.
    pub is_left: bool,
}

impl Found {
    /// Returns under what the objects are stored, for people. Names come from etcd, so they are
    /// escaped.
    #[must_use]
    pub fn stored_under(&self) -> String {
        let (provider, key_id) = (self.group.provider.escape_default(), &self.group.key_id);
        match self.group.state {
            State::Ours | State::OtherPlugin => format!("{provider} {}", key_id.escape_default()),
            State::OtherProvider => provider.to_string(),
            State::Clear => "no encryption".to_owned(),
            State::Unreadable => "a form that no API server can read".to_owned(),
        }
    }
}

/// Returns what `tally` counted. The objects of a resource should be under the key id `until`. Without
/// one they should be where the newest object of the resource is: the API server wrote that one last.
/// Objects in clear text are always left: an API server writes clear text also before it has read
/// its new configuration.
#[must_use]
pub fn found(tally: &Tally, until: Option<&str>) -> Vec<Found> {
    let newest = |resource: &str| {
        let of_resource = tally.groups().filter(|(of, ..)| *of == resource);
        of_resource.max_by_key(|(.., count)| count.newest_revision).map(|(_, group, _)| group)
    };
    let is_left = |resource: &str, group: &Group| match until {
        Some(until) => group.key_id != until,
        None => newest(resource).is_none_or(|newest| {
            matches!(group.state, State::Clear | State::Unreadable)
                || (&group.provider, &group.key_id) != (&newest.provider, &newest.key_id)
        }),
    };
    tally
        .groups()
        .map(|(resource, group, count)| Found {
            resource: resource.to_owned(),
            group: group.clone(),
            objects: count.objects,
            example: count.oldest.1.clone(),
            is_left: is_left(resource, group),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        place::DEFAULT_PREFIX,
        stored::Stored,
        tally::tests::{key_id, ours},
    };

    fn left(objects: &[(&str, Stored<'static>)], until: Option<&str>) -> Vec<String> {
        let mut tally = Tally::default();
        for (revision, (key, stored)) in (1..).zip(objects) {
            tally.add(key.as_bytes(), DEFAULT_PREFIX, stored, revision).unwrap();
        }
        let found = found(&tally, until);
        found.iter().filter(|found| found.is_left).map(|found| found.example.clone()).collect()
    }

    #[test]
    fn what_is_not_stored_as_the_newest_object_is_left() {
        let (one, two) = (key_id(1, "a"), key_id(2, "b"));
        let (old, new) = (|| ours(&one, "vault:v1:AA"), || ours(&two, "vault:v2:AA"));
        let secrets = [
            ("/registry/secrets/a/old", old()),
            ("/registry/secrets/a/clear", Stored::Clear),
            ("/registry/secrets/a/bad", Stored::Unreadable("damaged".into())),
            ("/registry/secrets/a/new", new()),
            // Another resource may have another provider.
            ("/registry/configmaps/a/c", Stored::Other("aescbc/v1/key1".into())),
        ];
        assert_eq!(left(&secrets, None), ["secrets/a/old", "secrets/a/clear", "secrets/a/bad"]);
        assert_eq!(left(&secrets[3..4], None), [""; 0]);
        assert_eq!(left(&secrets[3..], Some(&two)), ["configmaps/a/c"]);
        assert_eq!(left(&secrets[3..4], Some(&one)), ["secrets/a/new"]);
    }

    #[test]
    fn objects_in_clear_text_are_left_if_all_are() {
        let clear = [("/registry/secrets/a/b", Stored::Clear)];
        assert_eq!(left(&clear, None), ["secrets/a/b"]);
    }

    #[test]
    fn says_under_what_objects_are() {
        let mut tally = Tally::default();
        let key = b"/registry/secrets/a/b";
        tally.add(key, DEFAULT_PREFIX, &ours(&key_id(3, "c"), "vault:v3:AA"), 1).unwrap();
        let found = found(&tally, None);
        let under = format!("vault {}", key_id(3, "c"));
        assert_eq!(found.first().map(Found::stored_under), Some(under));
        let mut hostile = Tally::default();
        hostile.add(key, DEFAULT_PREFIX, &ours("\x1b[2J", "x"), 1).unwrap();
        hostile.add(key, DEFAULT_PREFIX, &Stored::Other("aescbc/v1/\x1b[2J".into()), 1).unwrap();
        for found in super::found(&hostile, None) {
            assert!(!found.stored_under().contains('\x1b'), "{found:?}");
        }
    }
}
