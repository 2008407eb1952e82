//! Outbound: the keeper of the key-encryption key.

use std::fmt::Debug;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};

use super::abilities::Abilities;
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
/// Every method may wait for a network, is safe to cancel, and is safe to repeat: none of them
/// changes the key. An implementation never panics on what a keeper answers and puts no secret into
/// an error. The suite in `crate::testkit` holds an implementation to all of this.
///
/// **Threads.** The program has one thread for all calls, for `Status` and for the probes. A call
/// into a library that blocks belongs on a thread of its own (`tokio::task::spawn_blocking`). Such a
/// thread cannot be cancelled, so an implementation bounds how many it starts: take a permit of a
/// semaphore, and let the thread give it back.
///
/// **Deadlines.** An implementation ends each call by `deadline`. The layers of the program end a call
/// that does not, by dropping its future; they cannot end a thread.
///
/// **Refused credentials.** `describe` is called every 2 s while something fails. A credential that
/// the keeper refused is not sent again until it was changed (`login-refused`), or the keeper may
/// lock it.
///
/// **Which code for what** ([`Code`](crate::domain::error::Code)):
///
/// | What happened | Code |
/// | --- | --- |
/// | no connection, no device, no token in the slot | `keeper-unreachable` |
/// | connected, and no answer in time | `keeper-timeout` |
/// | the keeper or the device failed inside | `keeper-failed` |
/// | it has no room for this call now | `keeper-overloaded` |
/// | it is locked, not set up, or none of its nodes serves | `keeper-sealed` |
/// | something between answered in its place | `intermediary-answer` |
/// | the answer contradicts itself or cannot be read | `keeper-answer` |
/// | it knows the caller and does not allow this | `permission-denied` |
/// | it refuses the credential or the PIN | `login-refused` |
/// | the file of the credential cannot be read | `credential-unreadable` |
/// | there is no such key, and the keeper itself says so | `key-missing` |
/// | the key is there and cannot wrap safely | a `flaw` in the description |
/// | the version is not there yet, by its number or on this node | `version-not-yet` |
/// | the version is archived, disabled or gone | `version-retired` |
/// | the ciphertext is forged, moved, cut, or of another key | `ciphertext-rejected` |
///
/// Only the first six of these are outages ([`Code::is_outage`](crate::domain::error::Code::is_outage)):
/// they are waited out and never believed about the key. Where a device does
/// not tell a forged ciphertext from a failure, wrap and unwrap a probe with the same key: if that
/// works, the ciphertext was at fault.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Kek: Debug + Send + Sync + 'static {
    /// Returns what the keeper can do. Always the same.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// Reads what the keeper says of its key now; never an answer kept from before. Of a keeper of
    /// several nodes that differ: [`KekSnapshot::newer`].
    ///
    /// A key that must not wrap (no AEAD, derived, two keys under one name) is described with its
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
    /// caller asks for each such item again by [`Kek::unwrap`]. The default asks for
    /// [`Abilities::calls`] items at once.
    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        deadline: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        let calls = sealed.iter().map(|item| self.unwrap(*item, deadline)).collect::<Vec<_>>();
        stream::iter(calls).buffered(self.abilities().calls).collect().await
    }

    /// The version that `ciphertext` says it was wrapped with. Pure: no call, no wait. The default
    /// reads the form of [`Ciphertext::of_version`].
    ///
    /// # Errors
    /// `ciphertext-rejected` when it is not in the keeper's form.
    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        ciphertext.version_and_body().map(|(version, _)| version)
    }
}
