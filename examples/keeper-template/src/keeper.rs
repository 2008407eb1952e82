//! Answers the calls of the program with calls to the device.

use std::{fmt, sync::Arc};

use vault_kube_kms::prelude::*;

use crate::device::Device;

/// A KEK whose versions are the keys of a device, the oldest first.
pub struct DeviceKek {
    device: Arc<Device>,
}

impl DeviceKek {
    /// Makes the KEK of the keys of `device`.
    #[must_use]
    pub const fn new(device: Arc<Device>) -> Self {
        Self { device }
    }

    /// Returns the index of the key of `version`.
    fn index(&self, version: KekVersion) -> Result<usize, KmsError> {
        let index = Some(version.index()).filter(|index| *index < self.device.made_at().len());
        index.ok_or_else(|| {
            let cause = format!("the device has no version {version} of the key yet");
            KmsError::new(Code::VersionNotYet, cause, "wait until the new key is on this device")
        })
    }
}

#[async_trait]
impl Kek for DeviceKek {
    async fn describe(&self, _: Monotonic) -> Result<KekSnapshot, KmsError> {
        let made = self.device.made_at().into_iter().map(VersionIdentity::Created);
        let snapshot = KekSnapshot::new(KekVersion::all().zip(made));
        if snapshot.versions.is_empty() {
            let cause = "the device has no key";
            return Err(KmsError::new(Code::KeyMissing, cause, "make a key on the device"));
        }
        Ok(snapshot)
    }

    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        _: Monotonic,
    ) -> Result<Wrapped, KmsError> {
        let index = self.index(version)?;
        let sealed = self.device.seal(index, plaintext.expose(), associated_data.as_bytes());
        let sealed = sealed.ok_or_else(|| {
            KmsError::new(Code::KeeperFailed, "the device did not seal", "read the device's log")
        })?;
        Ok(Wrapped::new(Ciphertext::of_version(version, &sealed)?, version))
    }

    async fn unwrap<'a>(&self, sealed: Unwrap<'a>, _: Monotonic) -> Result<Plaintext, KmsError> {
        let (version, body) = sealed.ciphertext.version_and_body()?;
        let index = self.index(version)?;
        let opened = self.device.open(index, body, sealed.associated_data.as_bytes());
        opened.map(Plaintext::new).ok_or_else(|| {
            let cause = "the ciphertext does not match this key, its key id and annotations";
            KmsError::new(Code::CiphertextRejected, cause, "restore the object from a backup")
        })
    }
}

impl fmt::Debug for DeviceKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceKek").finish_non_exhaustive()
    }
}
