//! The KEK as a key of the Transit engine.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Method;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::{
    client::{Answer, Call, Failure, VaultClient, json, unreadable},
    key_path::{KeyPath, Namespace},
    refusal::{Asked, enterprise_required},
    session::Session,
    wire::{Data, DecryptBody, DecryptData, EncryptBody, EncryptData, KeyData},
};
use crate::{
    domain::{
        envelope::{AssociatedData, Ciphertext},
        error::{Code, KmsError},
        key::{KekSnapshot, KekVersion, KeyWarning},
        key_id::Lineage,
        secret::Plaintext,
        time::{Monotonic, UnixTime},
    },
    ports::{
        kek::{Kek, Unwrap, Wrapped},
        telemetry::KeeperOperation,
    },
};

/// The key types that authenticate associated data.
const AEAD_TYPES: [&str; 4] =
    ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];

/// Which key.
#[derive(Clone, Debug)]
pub struct TransitSettings {
    /// Mount and name.
    pub key: KeyPath,
    /// The mount's namespace (`--vault-namespace`).
    pub namespace: Namespace,
    /// The namespace in which the token lives (`--vault-auth-namespace`).
    pub auth_namespace: Namespace,
    /// Refuse servers without a Vault Enterprise licence (`--require-enterprise`).
    pub require_enterprise: bool,
}

impl TransitSettings {
    /// The lineage that follows from the key's place.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        let mount = self.key.mount.to_string();
        Lineage::of_place("transit", &[self.namespace.as_str(), &mount, &self.key.key])
    }
}

/// A Transit key.
#[derive(Debug)]
pub struct TransitKek {
    client: Arc<VaultClient>,
    session: Arc<Session>,
    settings: TransitSettings,
    describe_path: String,
    wrap_path: String,
    unwrap_path: String,
    licensed: OnceCell<()>,
}

/// One request to be sent with whatever token is held.
struct Request<'a> {
    asked: Asked<'a>,
    operation: KeeperOperation,
    method: Method,
    path: &'a str,
    namespace: &'a Namespace,
    body: Option<Bytes>,
}

impl TransitKek {
    /// The key at `settings`, reached through `client` with the tokens of `session`.
    #[must_use]
    pub fn new(client: Arc<VaultClient>, session: Arc<Session>, settings: TransitSettings) -> Self {
        let KeyPath { mount, key } = &settings.key;
        Self {
            describe_path: format!("{mount}/keys/{key}"),
            wrap_path: format!("{mount}/encrypt/{key}"),
            unwrap_path: format!("{mount}/decrypt/{key}"),
            client,
            session,
            settings,
            licensed: OnceCell::new(),
        }
    }

    /// Sends `request`; if its token turns out dead, once more with the next one.
    async fn send(&self, request: Request<'_>, deadline: Monotonic) -> Result<Answer, KmsError> {
        let mut held = self.session.token(deadline).await?;
        let mut again = true;
        loop {
            let call = Call {
                operation: request.operation,
                method: request.method.clone(),
                path: request.path,
                namespace: request.namespace,
                token: Some(&held.token),
                body: request.body.clone(),
                deadline,
            };
            match self.client.send(call).await {
                Err(Failure::Refused(refusal)) if again && refusal.is_dead_token() => {
                    held = self.session.newer_than(held.generation, deadline).await?;
                    again = false;
                }
                result => return result.map_err(|failure| failure.into_error(request.asked)),
            }
        }
    }

    async fn post(
        &self,
        asked: Asked<'_>,
        path: &str,
        body: Bytes,
        deadline: Monotonic,
    ) -> Result<Answer, KmsError> {
        let request = Request {
            asked,
            operation: KeeperOperation::Write,
            method: Method::POST,
            path,
            namespace: &self.settings.namespace,
            body: Some(body),
        };
        self.send(request, deadline).await
    }

    async fn get(
        &self,
        asked: Asked<'_>,
        path: &str,
        namespace: &Namespace,
        deadline: Monotonic,
    ) -> Result<Answer, KmsError> {
        let operation = KeeperOperation::Read;
        let request =
            Request { asked, operation, method: Method::GET, path, namespace, body: None };
        self.send(request, deadline).await
    }

    /// Asks for the licence once, where one is required.
    async fn check_licence(&self, deadline: Monotonic) -> Result<(), KmsError> {
        if !self.settings.require_enterprise {
            return Ok(());
        }
        self.licensed
            .get_or_try_init(|| async {
                let path = "sys/license/status";
                let namespace = &self.settings.auth_namespace;
                let answer = self.get(Asked::License, path, namespace, deadline).await?;
                answer
                    .parse::<Data<serde_json::Map<String, serde_json::Value>>>()
                    .map_err(|_no_licence| enterprise_required())?;
                Ok(())
            })
            .await
            .copied()
    }
}

#[async_trait]
impl Kek for TransitKek {
    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError> {
        self.check_licence(deadline).await?;
        let path = &self.describe_path;
        let asked = Asked::Describe(path);
        let answer = self.get(asked, path, &self.settings.namespace, deadline).await?;
        snapshot(&answer.parse::<Data<KeyData>>()?.data, answer.date)
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let body = json(&EncryptBody {
            plaintext: STANDARD.encode(plaintext.expose()),
            key_version: version.get(),
            associated_data: STANDARD.encode(associated_data.as_bytes()),
        })?;
        let path = &self.wrap_path;
        let answer = self.post(Asked::Wrap(path), path, body, deadline).await?;
        let data = answer.parse::<Data<EncryptData>>()?.data;
        let ciphertext = Ciphertext::new(data.ciphertext.into_bytes())?;
        let written =
            self.version_of(&ciphertext).map_err(|_source| unreadable("no ciphertext in it"))?;
        let named = data.key_version.map_or(Some(written), KekVersion::new);
        if named != Some(written) {
            return Err(unreadable("it names two key versions"));
        }
        Ok(Wrapped { ciphertext, version: written })
    }

    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError> {
        self.version_of(sealed.ciphertext)?;
        let body = json(&DecryptBody {
            ciphertext: std::str::from_utf8(sealed.ciphertext.as_bytes())
                .map_err(|_source| not_transit())?,
            associated_data: STANDARD.encode(sealed.associated_data.as_bytes()),
        })?;
        let path = &self.unwrap_path;
        let answer = self.post(Asked::Unwrap(path), path, body, deadline).await?;
        let data = answer.parse::<Data<DecryptData>>()?.data;
        let mut plaintext = Zeroizing::new(
            STANDARD.decode(&data.plaintext).map_err(|_source| unreadable("no base64 in it"))?,
        );
        Ok(Plaintext::new(std::mem::take(&mut *plaintext)))
    }

    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        std::str::from_utf8(ciphertext.as_bytes())
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_graphic()))
            .and_then(|text| text.strip_prefix("vault:v")?.split_once(':'))
            // Servers take base64 of more than one spelling for the same bytes; we take one.
            .filter(|(_, body)| !body.is_empty() && STANDARD.decode(body).is_ok())
            .and_then(|(number, _)| KekVersion::parse(number))
            .ok_or_else(not_transit)
    }
}

fn not_transit() -> KmsError {
    KmsError::new(
        Code::CiphertextRejected,
        "the ciphertext is not in the form of the Transit engine",
        "the stored object was changed or was written with another provider",
    )
}

fn snapshot(data: &KeyData, keeper_time: Option<UnixTime>) -> Result<KekSnapshot, KmsError> {
    let latest = KekVersion::new(data.latest_version)
        .ok_or_else(|| unreadable("the latest key version is 0"))?;
    let mut versions = BTreeMap::new();
    let mut all_dated = !data.keys.is_empty();
    for (number, created) in &data.keys {
        let version =
            KekVersion::parse(number).ok_or_else(|| unreadable("a key version is no number"))?;
        match created.as_i64() {
            Some(seconds) => drop(versions.insert(version, UnixTime::from_secs(seconds))),
            None => all_dated = false,
        }
    }
    let flaw = flaw(data, all_dated);
    if flaw.is_none() && versions.last_key_value().map(|(version, _)| *version) != Some(latest) {
        return Err(unreadable("the latest key version is not among its versions"));
    }
    let settings = [
        (data.allow_plaintext_backup, KeyWarning::BackupAllowed),
        (data.deletion_allowed, KeyWarning::DeletionAllowed),
        (data.exportable, KeyWarning::Exportable),
    ];
    Ok(KekSnapshot {
        versions,
        latest,
        min_decryption: KekVersion::new(data.min_decryption_version).unwrap_or(KekVersion::FIRST),
        min_encryption: KekVersion::new(data.min_encryption_version),
        keeper_time,
        flaw,
        warnings: settings
            .into_iter()
            .filter_map(|(set, warning)| set.then_some(warning))
            .collect(),
    })
}

fn flaw(data: &KeyData, all_dated: bool) -> Option<KmsError> {
    let unusable =
        |cause: String, remedy: &'static str| Some(KmsError::new(Code::KeyUnusable, cause, remedy));
    if !AEAD_TYPES.contains(&data.kind.as_str()) {
        let kind: String = data.kind.chars().take(40).collect();
        return unusable(
            format!("a key of type {kind} cannot bind a ciphertext to its object"),
            "use a key of type aes256-gcm96",
        );
    }
    if data.derived || data.convergent_encryption {
        return unusable(
            "the key is derived or convergent".to_owned(),
            "use a key made without derived and convergent_encryption",
        );
    }
    if data.soft_deleted {
        return unusable("the key is soft-deleted".to_owned(), "restore it at the keeper");
    }
    if !all_dated {
        return unusable(
            "the key's versions carry no creation times".to_owned(),
            "use a key whose material is in the Transit engine itself",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: &serde_json::Value) -> Result<KekSnapshot, KmsError> {
        let mut body = serde_json::json!({
            "type": "aes256-gcm96", "latest_version": 2, "min_decryption_version": 1,
            "min_encryption_version": 0, "keys": {"1": 100, "2": 200}, "unknown": [],
        });
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        snapshot(&serde_json::from_value(body).unwrap(), None)
    }

    #[test]
    fn a_symmetric_key_is_read() {
        let seen = read(&serde_json::json!({"exportable": true})).unwrap();
        assert_eq!(seen.versions.len(), 2);
        assert_eq!((seen.latest.get(), seen.min_encryption, seen.flaw), (2, None, None));
        assert_eq!(seen.warnings, [KeyWarning::Exportable]);
    }

    #[test]
    fn keys_that_cannot_bind_are_flawed_and_not_refused() {
        let rsa = serde_json::json!({"creation_time": "2026-01-01T00:00:00Z"});
        for change in [
            serde_json::json!({"type": "rsa-2048", "keys": {"1": rsa, "2": rsa}}),
            serde_json::json!({"type": "hmac", "keys": {}}),
            serde_json::json!({"derived": true}),
            serde_json::json!({"soft_deleted": true}),
            serde_json::json!({"keys": {"1": "ref", "2": "ref"}}),
        ] {
            let flaw = read(&change).unwrap().flaw;
            assert_eq!(flaw.map(|f| f.code()), Some(Code::KeyUnusable), "{change}");
        }
    }

    #[test]
    fn contradictions_are_no_answer() {
        for change in [
            serde_json::json!({"latest_version": 3}),
            serde_json::json!({"latest_version": 0}),
            serde_json::json!({"keys": {"x": 1, "2": 2}}),
        ] {
            assert_eq!(read(&change).unwrap_err().code(), Code::KeeperAnswer, "{change}");
        }
    }
}
