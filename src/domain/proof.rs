//! The proof that a version may write: what it wraps unwraps to the same bytes, and does not unwrap
//! when it was moved.

use super::{
    envelope::{Annotations, AssociatedData},
    error::{Code, KmsError},
    key::KekVersion,
    rotation::Writer,
    secret::Plaintext,
    time::CALL_BUDGET,
};
use crate::ports::{Ports, kek::Unwrap};

/// What a proof wraps: a seed's length, and no secret.
const PROBE: &[u8; 32] = b"vault-kube-kms proof, no secret.";

/// Wraps and unwraps a probe. When `binding` is asked for, an unwrap under other associated
/// data must fail too; that refusal is only provoked once a version, since keepers audit it.
pub(super) async fn attempt(ports: &Ports, writer: &Writer, binding: bool) -> Result<(), KmsError> {
    let Ports { kek, clock, .. } = ports;
    let deadline = clock.now().after(CALL_BUDGET);
    // No key id looks like these, so that a probe can never pass for a stored object.
    let bound = AssociatedData::binding(&format!("proof {}", writer.key_id), &Annotations::ours());
    let foreign = AssociatedData::binding("proof of another key", &Annotations::ours());
    let probe = Plaintext::new(PROBE.to_vec());
    let wrapped = kek.wrap(writer.version, &probe, &bound, deadline).await?;
    check_version(writer.version, wrapped.version)?;
    let sealed = Unwrap { ciphertext: &wrapped.ciphertext, associated_data: &bound };
    if kek.unwrap(sealed, deadline).await? != probe {
        return Err(KmsError::new(
            Code::KeeperAnswer,
            "the keeper unwrapped a probe to other bytes than were wrapped",
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
            "the keeper unwrapped a probe under other associated data than it was wrapped with",
            "use a keeper that enforces associated data; docs/failure-modes.md names the versions",
        )),
    }
}

/// Refuses a wrap that was made with another version than was asked for.
///
/// # Errors
/// [`Code::KeeperAnswer`] when the two differ.
pub(super) fn check_version(asked: KekVersion, used: KekVersion) -> Result<(), KmsError> {
    if asked == used {
        return Ok(());
    }
    Err(KmsError::new(
        Code::KeeperAnswer,
        format!("the keeper wrapped with key version {used} where {asked} was asked for"),
        "check that nothing between this process and the keeper changes requests",
    ))
}
