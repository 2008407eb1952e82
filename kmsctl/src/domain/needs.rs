//! Which key versions the objects of a source need, and what makes that unsure.

use std::collections::BTreeMap;

use vault_kube_kms::domain::key::KekVersion;

use super::tally::{Group, State, Tally};

/// The objects that need one version of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// How many they are.
    pub objects: u64,
    /// Their key ids, with their numbers of objects.
    pub key_ids: BTreeMap<String, u64>,
    /// The place of the one that was written first, and the revision of its write.
    pub oldest: (i64, String),
}

/// Objects for which it is not known which version they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Why, in words that follow "objects".
    pub why: String,
    /// How many they are.
    pub objects: u64,
    /// The place of one of them.
    pub example: String,
}

/// The versions that the objects of one source need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// By the keeper that the wrapped seeds name, such as `vault`, and by version.
    pub keepers: BTreeMap<String, BTreeMap<KekVersion, Need>>,
    /// What is not known.
    pub doubts: Vec<Doubt>,
    /// The numbers of objects of other plugins, by plugin, whose seeds name a version.
    pub others: BTreeMap<String, u64>,
}

impl Needs {
    /// Returns what the objects of `tally` need.
    ///
    /// The wrapped seed says which version unwraps it, because the keeper itself wrote that. For our
    /// own objects the key id must name the same version.
    #[must_use]
    pub fn of(tally: &Tally) -> Self {
        let mut needs = Self::default();
        let mut doubts: BTreeMap<String, Doubt> = BTreeMap::new();
        for (_, group, count) in tally.groups() {
            if let Some(why) = doubt(group) {
                let doubt = doubts.entry(why.clone()).or_insert_with(|| Doubt {
                    why,
                    objects: 0,
                    example: count.oldest.1.clone(),
                });
                doubt.objects = doubt.objects.saturating_add(count.objects);
            }
            let Some(claim) = &group.claim else { continue };
            if group.state == State::OtherPlugin {
                let others = needs.others.entry(group.provider.clone()).or_default();
                *others = others.saturating_add(count.objects);
            }
            let versions = needs.keepers.entry(claim.keeper.clone()).or_default();
            let need = versions.entry(claim.version).or_default();
            if need.objects == 0 || count.oldest.0 < need.oldest.0 {
                need.oldest.clone_from(&count.oldest);
            }
            need.objects = need.objects.saturating_add(count.objects);
            let of_id = need.key_ids.entry(group.key_id.clone()).or_default();
            *of_id = of_id.saturating_add(count.objects);
        }
        needs.doubts = doubts.into_values().collect();
        needs
    }
}

/// Returns why it is not known which version the objects of a group need. `None` when it is known.
#[must_use]
pub fn doubt(group: &Group) -> Option<String> {
    match (group.state, &group.claim) {
        (State::Unreadable, _) => Some("are unreadable".to_owned()),
        (State::Ours, Some(claim)) => match group.version_of_key_id() {
            Some(named) if named == claim.version => None,
            _ => Some("have a key id of one version, and a seed of another".to_owned()),
        },
        (State::Ours, None) => Some("of vault-kube-kms have seeds that name no version".to_owned()),
        (State::OtherPlugin, None) => {
            Some(format!("of the plugin {:?} have seeds that name no version", group.provider))
        }
        // Its wrapped keys are not read. The plugin may use the same key of Transit.
        (State::OtherProvider, _) if group.provider.starts_with("kms/") => {
            Some(format!("of the provider {:?} are not of KMS v2", group.provider))
        }
        (State::OtherPlugin, Some(_)) | (State::OtherProvider | State::Clear, _) => None,
    }
}
