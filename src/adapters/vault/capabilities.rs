//! Reviews the token's policies: what is needed and missing, and what is granted and dangerous.

use std::{collections::BTreeMap, fmt, sync::Arc};

use http::Method;

use super::{
    client::{CallPolicy, VaultClient},
    key_path::KeyPath,
    refusal::Asked,
    servers::{Request, json},
    session::VaultSession,
    transit::TransitSettings,
    wire::Data,
};
use crate::{
    domain::{error::KmsError, time::Monotonic},
    ports::telemetry::KeeperOperation,
};

/// Capabilities on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The path below `/v1/`.
    pub path: String,
    /// The capabilities by their names in policies, separated by commas.
    pub capabilities: String,
}

/// The result of a review of the token's policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyReview {
    /// Capabilities that are needed and not granted.
    pub missing: Vec<Grant>,
    /// Capabilities that are granted, not needed and dangerous, each with the damage that it
    /// allows.
    pub surplus: Vec<(Grant, &'static str)>,
    /// Whether the token has the policy `root`, which allows everything.
    pub is_root: bool,
}

/// Asks the keeper what the session's token may do with one key.
#[derive(Debug)]
pub struct Capabilities {
    client: Arc<VaultClient>,
    session: Arc<VaultSession>,
    settings: TransitSettings,
}

/// The capability that is needed on a path, and the capabilities that are dangerous there.
pub(super) struct PathRule {
    pub(super) path: String,
    pub(super) needed: Option<&'static str>,
    dangerous: &'static [&'static str],
    danger: &'static str,
}

impl Capabilities {
    /// Sends requests through `client` with the tokens of `session`.
    #[must_use]
    pub fn new(
        client: Arc<VaultClient>,
        session: Arc<VaultSession>,
        settings: TransitSettings,
    ) -> Self {
        Self { client, session, settings }
    }

    /// Reads the token's capabilities and reviews them.
    ///
    /// # Errors
    /// Returns [`Code::PermissionDenied`](crate::domain::error::Code::PermissionDenied) if the
    /// token may not read its capabilities, for example without the policy `default`. Returns the
    /// codes of an outage if no answer arrives until `deadline`.
    pub async fn review(&self, deadline: Monotonic) -> Result<PolicyReview, KmsError> {
        let TransitSettings { namespace, auth_namespace, .. } = &self.settings;
        // A token has the policies of the namespace in which it was created, and their paths start
        // there.
        let (namespace, prefix) = match auth_namespace.way_to(namespace) {
            Some(prefix) => (auth_namespace, prefix),
            None => (namespace, String::new()),
        };
        let rules = rules(&prefix, &self.settings.key, self.settings.require_enterprise);
        let held = self.session.token(deadline).await?;
        let paths: Vec<_> = rules.iter().map(|rule| rule.path.as_str()).collect();
        let request = Request {
            method: Method::POST,
            path: "sys/capabilities-self",
            namespace,
            token: Some(&held.token),
            body: Some(json(&serde_json::json!({ "paths": paths }))?),
        };
        let policy = CallPolicy::new(KeeperOperation::Read, deadline);
        let answer =
            self.client.send::<Data<BTreeMap<String, serde_json::Value>>>(&request, policy);
        let answer = answer.await.map_err(|failure| failure.into_error(Asked::Capabilities))?;
        // A path that is missing in the answer, or has an unknown form there, counts as not
        // granted.
        let granted = answer.value.data;
        Ok(review(&rules, &granted))
    }
}

/// Returns what is needed and what is dangerous on the key `at`. Puts `prefix` before each path.
/// `require_enterprise` adds the licence.
pub(super) fn rules(prefix: &str, at: &KeyPath, require_enterprise: bool) -> Vec<PathRule> {
    const WRITE: &[&str] = &["create", "update", "patch", "delete", "sudo"];
    let rule = |path, needed, dangerous, danger| PathRule { path, needed, dangerous, danger };
    let (mount, key) = (format!("{prefix}{}", at.mount), &at.key);
    let (at, encrypt) = (format!("{mount}/keys/{key}"), format!("{mount}/encrypt/{key}"));
    let export = format!("{mount}/export/encryption-key/{key}");
    let mut rules = vec![
        rule(format!("{export}/latest"), None, &["read"], "the key can be exported"),
        rule(format!("{at}/import"), None, WRITE, "the key can be replaced"),
        rule(format!("{at}/import_version"), None, WRITE, "a known key can be made the newest"),
        rule(format!("{at}/config"), None, WRITE, "the key's settings can be changed"),
        rule(format!("{at}/rotate"), None, WRITE, "the key can be rotated"),
        rule(format!("{at}/trim"), None, WRITE, "old versions can be destroyed"),
        rule(at, Some("read"), WRITE, "the key can be created or deleted"),
        rule(encrypt, Some("update"), &["create"], "an encrypt request creates a missing key"),
        rule(format!("{mount}/decrypt/{key}"), Some("update"), &[], ""),
        rule(export, None, &["read"], "the key can be exported"),
        rule(format!("{mount}/backup/{key}"), None, &["read"], "the key can be exported"),
        rule(format!("{mount}/restore/{key}"), None, WRITE, "the key can be replaced"),
    ];
    if require_enterprise {
        rules.push(rule(format!("{prefix}sys/license/status"), Some("read"), &[], ""));
    }
    rules
}

fn review(rules: &[PathRule], granted: &BTreeMap<String, serde_json::Value>) -> PolicyReview {
    let mut review = PolicyReview::default();
    for PathRule { path, needed, dangerous, danger } in rules {
        let list = granted.get(path).and_then(serde_json::Value::as_array);
        let held: Vec<_> = list.into_iter().flatten().filter_map(|one| one.as_str()).collect();
        if held.contains(&"root") {
            review.is_root = true;
            continue;
        }
        let grant = |capabilities: String| Grant { path: path.clone(), capabilities };
        if let Some(needed) = needed.filter(|needed| !held.contains(needed)) {
            review.missing.push(grant(needed.to_owned()));
        }
        let surplus: Vec<_> = held.into_iter().filter(|one| dangerous.contains(one)).collect();
        if !surplus.is_empty() {
            review.surplus.push((grant(surplus.join(", ")), danger));
        }
    }
    review
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.capabilities, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review_of(granted: &serde_json::Value) -> PolicyReview {
        let granted = serde_json::from_value(granted.clone()).unwrap();
        review(&rules("", &KeyPath::parse("transit/keys/k").unwrap(), false), &granted)
    }

    #[test]
    fn the_minimal_policy_has_no_finding() {
        let least = serde_json::json!({
            "transit/keys/k": ["read"], "transit/encrypt/k": ["update"],
            "transit/decrypt/k": ["update"], "transit/backup/k": ["deny"],
        });
        assert_eq!(review_of(&least), PolicyReview::default());
    }

    #[test]
    fn names_missing_and_dangerous_capabilities() {
        let review = review_of(&serde_json::json!({
            "transit/keys/k": ["deny"], "transit/encrypt/k": ["create", "update"],
            "transit/keys/k/rotate": ["read", "create", "update"],
        }));
        let missing: Vec<_> = review.missing.iter().map(ToString::to_string).collect();
        let surplus: Vec<_> = review.surplus.iter().map(|(grant, _)| grant.to_string()).collect();
        assert_eq!(missing, ["read on transit/keys/k", "update on transit/decrypt/k"]);
        assert_eq!(
            surplus,
            ["create, update on transit/keys/k/rotate", "create on transit/encrypt/k"]
        );
    }

    #[test]
    fn reports_root_and_nothing_else() {
        let paths = rules("", &KeyPath::parse("transit/keys/k").unwrap(), false)
            .into_iter()
            .map(|rule| rule.path);
        let all = paths.map(|path| (path, serde_json::json!(["root"])));
        let review = review_of(&serde_json::Value::Object(all.collect()));
        assert_eq!(review, PolicyReview { is_root: true, ..PolicyReview::default() });
    }
}
