//! The keeper's answers to one node about the key, in the order of the requests.

use std::collections::BTreeMap;

use vault_kube_kms::domain::{
    error::Code,
    key::{KekSnapshot, KekVersion, VersionIdentity},
    time::CALL_BUDGET,
};

use super::node::Node;

/// The answers of a keeper to one node since it started.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The time of the request of the newest answer.
    pub asked_ms: Option<u64>,
    /// Every version of the first key that the node has seen, with its creation time.
    born: BTreeMap<KekVersion, VersionIdentity>,
    /// The newest answer that did not lag behind an earlier one and was about the same key.
    current: Option<KekSnapshot>,
    /// Whether an answer came since the last check.
    is_new: bool,
    /// The version that wrote when Status was last ok.
    wrote: Option<KekVersion>,
}

impl Told {
    pub fn answer(&mut self, asked_ms: u64, now_ms: u64, snapshot: &KekSnapshot) {
        let overslept = u128::from(now_ms - asked_ms) > 2 * CALL_BUDGET.as_millis();
        if overslept || self.asked_ms.is_some_and(|newest| asked_ms < newest) {
            return;
        }
        self.asked_ms = Some(asked_ms);
        self.is_new = true;
        let is_same = |(version, created)| self.born.get(version).is_none_or(|it| it == created);
        let lags = self.born.last_key_value().is_some_and(|(newest, _)| snapshot.latest < *newest);
        if !lags && snapshot.versions.iter().all(is_same) {
            self.born.extend(&snapshot.versions);
            self.current = Some(snapshot.clone());
        }
    }

    /// Compares the knowledge and the Status of `node` with the answers that it got.
    pub fn check(&mut self, node: &Node, context: &str) {
        let status = node.status();
        let code = status.as_ref().err().map(|error| error.code());
        let Some(current) = &self.current else { return };
        if std::mem::take(&mut self.is_new) {
            let versions = node.view().versions;
            let known: Vec<_> = versions.iter().filter(|v| v.unwraps).map(|v| v.version).collect();
            let told: Vec<_> = current.versions.keys().copied().collect();
            assert_eq!(known, told, "{context}: an older answer undid a newer one");
        }
        let before_may_write = self.wrote.is_some_and(|wrote| {
            current.versions.range(current.write_floor()..).any(|(version, _)| *version == wrote)
        });
        assert!(
            code != Some(Code::ProofPending) || !before_may_write,
            "{context}: a version without a proof stops the one before it: {status:?}"
        );
        if status.is_ok() {
            self.wrote = node.view_writer();
        }
    }
}
