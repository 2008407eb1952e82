//! The keeper: keys of AWS KMS as the versions of one KEK.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use aws_config::{SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_kms::{
    Client,
    config::Builder,
    operation::RequestId as _,
    primitives::Blob,
    types::{KeyMetadata, KeySpec, KeyState},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use sha2::{Digest as _, Sha256};
use vault_kube_kms::prelude::*;

use crate::{failure::meaning, keys};

/// The largest list of keys, in bytes.
pub(crate) const LIST_MAX: u64 = 65_536;

/// A KEK whose versions are keys of AWS KMS.
#[derive(Debug)]
pub struct AwsKeeper {
    client: Client,
    list: WatchedFile,
    /// The ARN of version 1.
    first: String,
}

impl AwsKeeper {
    /// Makes the keeper of the keys whose ARNs are in the file `list`. `first` is the ARN of version 1.
    /// Each call reads the file again, so that a rotation needs no restart.
    #[must_use]
    pub fn new(config: &SdkConfig, list: PathBuf, first: String) -> Self {
        // Two attempts and the pause between them take less than the usual deadline of 2.8 s.
        let (attempt, pause) = (Duration::from_millis(1_200), Duration::from_millis(100));
        let retries = RetryConfig::standard().with_max_attempts(2).with_initial_backoff(pause);
        let config = Builder::from(config)
            .retry_config(retries)
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(attempt).build());
        let client = Client::from_conf(config.build());
        Self { client, list: WatchedFile::new(list, LIST_MAX), first }
    }

    /// Reads the ARNs of all versions.
    async fn arns(&self) -> Result<Vec<String>, KmsError> {
        let text = self.list.read().await;
        let arns = text.and_then(|text| keys::parse(&String::from_utf8_lossy(text.expose())));
        arns.map_err(|problem| {
            unusable(format!("--aws-keys-file {}: {problem}", self.list.place()))
        })
    }

    /// Reads the metadata of the key `arn`.
    async fn key(&self, arn: &str) -> Result<KeyMetadata, KmsError> {
        let answer = self.client.describe_key().key_id(arn).send().await;
        answer.map_err(|error| meaning(&error, arn))?.key_metadata.ok_or_else(|| gap(arn))
    }

    /// Returns the ARN of `version`.
    async fn arn(&self, version: KekVersion) -> Result<String, KmsError> {
        let mut arns = KekVersion::all().zip(self.arns().await?);
        let found = arns.find(|(listed, _)| *listed == version);
        found.map(|(_, arn)| arn).ok_or_else(|| {
            let cause = format!("--aws-keys-file has no key for version {version}");
            KmsError::new(Code::VersionNotYet, cause, "append the ARN of the key to the file")
        })
    }
}

#[async_trait]
impl Kek for AwsKeeper {
    fn abilities(&self) -> Abilities {
        Abilities::default().with_calls(32)
    }

    async fn describe(&self, _: Monotonic) -> Result<KekSnapshot, KmsError> {
        let arns = self.arns().await?;
        let keys = join_all(arns.iter().map(|arn| self.key(arn))).await;
        let latest = u32::try_from(arns.len()).ok().and_then(KekVersion::new);
        let latest = latest.unwrap_or(KekVersion::FIRST);
        let (mut versions, mut flaw) = (Vec::new(), None);
        for (version, key) in KekVersion::all().zip(keys) {
            let key = match key {
                // An older key may be deleted. An ARN in the last line without a key is wrong.
                Err(gone) if gone.code() == Code::VersionRetired && version < latest => continue,
                Err(gone) if gone.code() == Code::VersionRetired => {
                    let cause = gone.cause().to_owned();
                    return Err(KmsError::new(Code::KeyMissing, cause, "correct the ARN"));
                }
                key => key?,
            };
            if key.key_spec != Some(KeySpec::SymmetricDefault) {
                flaw = Some(unusable(format!("{} cannot bind associated data", key.key_id)));
            }
            if key.key_state == Some(KeyState::Enabled) {
                let created = key.creation_date.ok_or_else(|| gap(&key.key_id))?;
                versions.push((version, UnixTime::from_secs(created.secs()).into()));
            }
        }
        if versions.is_empty() {
            flaw = Some(unusable("no key of --aws-keys-file is enabled".to_owned()));
        }
        Ok(KekSnapshot::new(versions).with_latest(latest).with_flaw(flaw))
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        _: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let arn = self.arn(version).await?;
        let call = self.client.encrypt().key_id(&arn).plaintext(Blob::new(plaintext.expose()));
        let answer = call.set_encryption_context(context(associated_data)).send().await;
        let answer = answer.map_err(|error| meaning(&error, &arn))?;
        let request = answer.request_id().map(Into::into);
        let blob = answer.ciphertext_blob.ok_or_else(|| gap(&arn))?;
        Ok(Wrapped::new(Ciphertext::of_version(version, blob.as_ref())?, version)
            .with_request_id(request))
    }

    async fn unwrap<'a>(&self, sealed: Unwrap<'a>, _: Monotonic) -> Result<Plaintext, KmsError> {
        let (version, blob) = sealed.ciphertext.version_and_body()?;
        let arn = self.arn(version).await?;
        let call = self.client.decrypt().key_id(&arn).ciphertext_blob(Blob::new(blob));
        let answer = call.set_encryption_context(context(sealed.associated_data)).send().await;
        let answer = answer.map_err(|error| meaning(&error, &arn))?;
        let request = answer.request_id().map(Into::into);
        let plaintext = answer.plaintext.ok_or_else(|| gap(&arn))?;
        Ok(Plaintext::new(plaintext.into_inner()).with_request_id(request))
    }
}

impl Keeper for AwsKeeper {
    fn kek(self: Arc<Self>) -> Arc<dyn Kek> {
        self
    }

    fn lineage(&self) -> Lineage {
        Lineage::of_place("aws-kms", &[&self.first])
    }
}

/// Returns the encryption context: one entry with the SHA-256 of `associated_data` in base64, because
/// AWS limits the size of a context. Returns `None` when there is no associated data.
fn context(associated_data: &AssociatedData) -> Option<HashMap<String, String>> {
    let bytes = associated_data.as_bytes();
    let entry = || ("vault-kube-kms".to_owned(), STANDARD.encode(Sha256::digest(bytes)));
    (!bytes.is_empty()).then(|| HashMap::from([entry()]))
}

/// Makes the error for a list whose keys cannot be used.
fn unusable(cause: String) -> KmsError {
    let remedy = "write the ARN of an enabled key of the type SYMMETRIC_DEFAULT in each line";
    KmsError::new(Code::KeyUnusable, cause, remedy)
}

/// Makes the error for an answer about the key `arn` that lacks a field.
fn gap(arn: &str) -> KmsError {
    let cause = format!("an answer of AWS KMS lacks a field ({arn})");
    KmsError::new(Code::KeeperAnswer, cause, "check --aws-endpoint")
}
