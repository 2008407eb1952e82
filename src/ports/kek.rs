//! Outbound: the keeper of the key-encryption key.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::domain::{
    envelope::{AssociatedData, Ciphertext},
    error::KmsError,
    key::{KekSnapshot, KekVersion},
    secret::{Plaintext, RequestId},
    time::Monotonic,
};

/// What a wrap gave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wrapped {
    /// The wrapped seed, in the keeper's own form.
    pub ciphertext: Ciphertext,
    /// The version that the keeper says it used.
    pub version: KekVersion,
    /// The keeper's identifier of the request, for the audit log.
    pub request_id: Option<RequestId>,
}

impl Wrapped {
    /// A seed that was wrapped with `version`. The request is not known.
    #[must_use]
    pub const fn new(ciphertext: Ciphertext, version: KekVersion) -> Self {
        Self { ciphertext, version, request_id: None }
    }

    /// The same, by the request that the keeper calls `request_id`.
    #[must_use]
    pub fn by(self, request_id: Option<RequestId>) -> Self {
        Self { request_id, ..self }
    }
}

/// One thing to unwrap.
#[derive(Clone, Copy, Debug)]
pub struct Unwrap<'a> {
    /// As [`Kek::wrap`] gave it.
    pub ciphertext: &'a Ciphertext,
    /// As it was given to [`Kek::wrap`].
    pub associated_data: &'a AssociatedData,
}

/// A key-encryption key that never leaves its keeper.
///
/// Every method may wait for a network, ends by `deadline` at the latest, is safe to cancel, and
/// is safe to repeat: none of them changes the key. An implementation never panics on what a
/// keeper answers and puts no secret into an error. The suite in `crate::testkit` holds an
/// implementation to all of this.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Kek: Debug + Send + Sync + 'static {
    /// Reads what the keeper says of its key now; never an answer kept from before. Of a keeper of
    /// several nodes that differ: [`KekSnapshot::newer`].
    ///
    /// A key that must not wrap (no AEAD, derived, without creation times) is described with its
    /// `flaw`, not refused.
    ///
    /// # Errors
    /// `key-missing` when there is none, and the codes of an outage or a refusal.
    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError>;

    /// Wraps `plaintext` with exactly `version`, bound to `associated_data`. Two wraps of one
    /// plaintext differ.
    ///
    /// # Errors
    /// `version-not-yet` when this node of the keeper does not know the version yet,
    /// `version-retired` when it must not wrap any more, and the codes of an outage or a refusal.
    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError>;

    /// Unwraps what [`Kek::wrap`] gave, under the same associated data;
    /// [`AssociatedData::none`] reads what was wrapped without any.
    ///
    /// # Errors
    /// `ciphertext-rejected` for anything that was not wrapped so, `version-not-yet` and
    /// `version-retired` as for `wrap`, and the codes of an outage or a refusal.
    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError>;

    /// Unwraps several at once, with one result for each, in order. A failed item fails no other.
    ///
    /// An item that would have to be waited for delays no other. It gets `version-not-yet`, or the
    /// code of an outage or `keeper-answer` where the keeper failed with this item alone. Where the
    /// keeper denies batches and may allow single unwraps, all items get `permission-denied`. The
    /// caller asks for each such item again by [`Kek::unwrap`]. The default asks for one item after
    /// the other.
    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        deadline: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        let mut results = Vec::with_capacity(sealed.len());
        for item in sealed {
            results.push(self.unwrap(*item, deadline).await);
        }
        results
    }

    /// The version that `ciphertext` says it was wrapped with. Pure: no call, no wait.
    ///
    /// # Errors
    /// `ciphertext-rejected` when it is not in the keeper's form.
    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError>;
}
