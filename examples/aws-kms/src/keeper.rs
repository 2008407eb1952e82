//! Keys of AWS KMS as the versions of one KEK.

use std::{collections::HashMap, time::Duration};

use aws_config::{SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_kms::{
    Client,
    config::Builder,
    operation::RequestId as _,
    primitives::Blob,
    types::{KeySpec, KeyState},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::try_join_all;
use sha2::{Digest as _, Sha256};
use vault_kube_kms::prelude::*;

use crate::failure::meaning;

/// A KEK whose versions are keys of AWS KMS.
#[derive(Debug)]
pub struct AwsKek {
    client: Client,
    /// The ARNs of all versions, version 1 first.
    keys: ParsedFile<Vec<String>>,
}

impl AwsKek {
    /// Makes the KEK of the keys whose ARNs are in the file `keys`. Each call reads the file again,
    /// so that a rotation needs no restart.
    #[must_use]
    pub fn new(config: &SdkConfig, keys: ParsedFile<Vec<String>>) -> Self {
        // Two attempts and the pause between them take less than the usual deadline of 2.8 s.
        let (attempt, pause) = (Duration::from_millis(1_200), Duration::from_millis(100));
        let retries = RetryConfig::standard().with_max_attempts(2).with_initial_backoff(pause);
        let config = Builder::from(config)
            .retry_config(retries)
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(attempt).build());
        Self { client: Client::from_conf(config.build()), keys }
    }

    /// Returns the ARN of `version`.
    async fn arn(&self, version: KekVersion) -> Result<String, KmsError> {
        let arns = self.keys.read().await.map_err(unusable)?;
        arns.into_iter().nth(version.index()).ok_or_else(|| {
            let cause = format!("--aws-keys-file has no key for version {version}");
            KmsError::new(Code::VersionNotYet, cause, "append the ARN of the key to the file")
        })
    }

    /// Returns the identity of the key `arn`, or `None` when the key cannot wrap and unwrap.
    async fn identity(&self, arn: &str) -> Result<Option<VersionIdentity>, KmsError> {
        let answer = self.client.describe_key().key_id(arn).send().await;
        let answer = match answer.map_err(|error| meaning(&error, arn)) {
            Err(gone) if gone.code() == Code::VersionRetired => return Ok(None),
            answer => answer?,
        };
        let key = answer.key_metadata.ok_or_else(|| gap(arn))?;
        let is_usable = key.key_spec == Some(KeySpec::SymmetricDefault)
            && key.key_state == Some(KeyState::Enabled);
        let identity = VersionIdentity::Fingerprint(Fingerprint::of(arn.as_bytes()));
        Ok(is_usable.then_some(identity))
    }
}

#[async_trait]
impl Kek for AwsKek {
    fn abilities(&self) -> Abilities {
        Abilities::default().with_calls(32)
    }

    async fn describe(&self, _: Monotonic) -> Result<KekSnapshot, KmsError> {
        let arns = self.keys.read().await.map_err(unusable)?;
        let identities = try_join_all(arns.iter().map(|arn| self.identity(arn))).await?;
        let newest = arns.last().filter(|_| matches!(identities.last(), Some(None)));
        let flaw = newest.map(|arn| unusable(format!("the newest key {arn} cannot be used")));
        Ok(KekSnapshot::of_all_versions(identities).with_flaw(flaw))
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

/// Returns the encryption context: one entry with the SHA-256 of `associated_data` in base64, because
/// AWS limits the size of a context. Returns `None` when there is no associated data.
fn context(associated_data: &AssociatedData) -> Option<HashMap<String, String>> {
    let bytes = associated_data.as_bytes();
    let entry = || ("vault-kube-kms".to_owned(), STANDARD.encode(Sha256::digest(bytes)));
    (!bytes.is_empty()).then(|| HashMap::from([entry()]))
}

/// Makes the error for a list whose keys cannot be used.
fn unusable(cause: String) -> KmsError {
    let remedy = "write the ARN of an enabled key of the type SYMMETRIC_DEFAULT in the last line";
    KmsError::new(Code::KeyUnusable, cause, remedy)
}

/// Makes the error for an answer about the key `arn` that lacks a field.
fn gap(arn: &str) -> KmsError {
    let cause = format!("an answer of AWS KMS lacks a field ({arn})");
    KmsError::new(Code::KeeperAnswer, cause, "check --aws-endpoint")
}
