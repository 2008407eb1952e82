//! Proves that a version may write: its ciphertext unwraps to the same bytes, and does not unwrap
//! under other associated data.

use super::{
    envelope::{Annotations, AssociatedData},
    error::{Code, KmsError},
    key::KekVersion,
    rotation::Writer,
    secret::Plaintext,
    time::CALL_BUDGET,
};
use crate::ports::{Ports, kek::Unwrap};

/// The bytes that a proof wraps. They have the length of a seed and are not secret.
const PROBE: &[u8; 32] = b"vault-kube-kms proof, no secret.";

/// Wraps and unwraps a probe with the version of `writer`. With `binding`, also checks that an
/// unwrap under other associated data fails.
///
/// Keepers write that refused unwrap to their audit log, so callers ask for `binding` only while
/// the version is not proven.
///
/// # Errors
/// [`Code::KeeperAnswer`] when the keeper unwraps to other bytes or uses another version,
/// [`Code::AadNotEnforced`] when it ignores the associated data, and the errors of the keeper.
pub(super) async fn attempt(ports: &Ports, writer: &Writer, binding: bool) -> Result<(), KmsError> {
    let Ports { kek, clock, .. } = ports;
    let deadline = clock.now().after(CALL_BUDGET);
    // No key id has this form, so a probe cannot be mistaken for a stored object.
    let bound = AssociatedData::binding(&format!("proof {}", writer.key_id), &Annotations::ours());
    let foreign = AssociatedData::binding("proof of another key", &Annotations::ours());
    let probe = Plaintext::new(PROBE.to_vec());
    let wrapped = kek.wrap(writer.version, &probe, &bound, deadline).await?;
    check_version(writer.version, wrapped.version)?;
    let sealed = Unwrap { ciphertext: &wrapped.ciphertext, associated_data: &bound };
    if kek.unwrap(sealed, deadline).await? != probe {
        return Err(KmsError::new(
            Code::KeeperAnswer,
            "the keeper unwrapped a probe to bytes that differ from the wrapped ones",
            "stop using this keeper and restore it from a good state",
        ));
    }
    if !binding {
        return Ok(());
    }
    let moved = Unwrap { ciphertext: &wrapped.ciphertext, associated_data: &foreign };
    match kek.unwrap(moved, deadline).await {
        Err(error) if error.code() == Code::CiphertextRejected => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(KmsError::new(
            Code::AadNotEnforced,
            "the keeper unwrapped a probe although its associated data had changed",
            "use a keeper that enforces associated data; docs/failure-modes.md names the versions",
        )),
    }
}

/// Checks that the keeper wrapped with the version `asked`; `used` is the version that it names.
///
/// # Errors
/// [`Code::KeeperAnswer`] when the two differ.
pub(super) fn check_version(asked: KekVersion, used: KekVersion) -> Result<(), KmsError> {
    if asked == used {
        return Ok(());
    }
    Err(KmsError::new(
        Code::KeeperAnswer,
        format!("the keeper wrapped with key version {used} instead of {asked}"),
        "check that no proxy between this process and the keeper changes requests",
    ))
}
