//! Outbound port: the key-encryption key of a keeper.

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

/// The result of a wrap.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wrapped {
    /// The wrapped seed, in the keeper's own form.
    pub ciphertext: Ciphertext,
    /// The version that the keeper used, according to its answer.
    pub version: KekVersion,
    /// The keeper's identifier of the request, for the audit log. `None` when it is unknown.
    pub request_id: Option<RequestId>,
}

impl Wrapped {
    /// Makes the result of a wrap with `version`, without an identifier of the request.
    #[must_use]
    pub const fn new(ciphertext: Ciphertext, version: KekVersion) -> Self {
        Self { ciphertext, version, request_id: None }
    }

    /// Sets the keeper's identifier of the request.
    #[must_use]
    pub fn with_request_id(self, request_id: Option<RequestId>) -> Self {
        Self { request_id, ..self }
    }
}

/// One ciphertext to unwrap.
#[derive(Clone, Copy, Debug)]
pub struct Unwrap<'a> {
    /// The ciphertext that [`Kek::wrap`] returned.
    pub ciphertext: &'a Ciphertext,
    /// The associated data that [`Kek::wrap`] received.
    pub associated_data: &'a AssociatedData,
}

/// A key-encryption key that never leaves its keeper.
///
/// Async methods may wait for a network. They are safe to cancel and safe to repeat, because no
/// method changes the key. An implementation does not panic on an answer of the keeper, and its
/// errors contain no secret. The suite in `crate::testkit` checks all of this.
///
/// **Threads.** The program has one thread for all calls, for `Status` and for the probes. Run a
/// call into a blocking library on another thread (`tokio::task::spawn_blocking`). The program
/// cannot cancel such a thread, so an implementation must limit their number: take a permit of a
/// semaphore before the start, and release it at the end of the thread.
///
/// **Deadlines.** An implementation ends each call by `deadline`. The layers of the program drop
/// the future of a call that does not end; they cannot end a thread.
///
/// **Refused credentials.** The program calls `describe` every 2 s while something fails. After the
/// keeper has refused a credential (`login-refused`), do not send the credential again until it has
/// changed; otherwise the keeper may lock it.
///
/// **Codes** ([`Code`](crate::domain::error::Code)):
///
/// | What happened | Code |
/// | --- | --- |
/// | no connection, no device, no token in the slot | `keeper-unreachable` |
/// | connected, and no answer in time | `keeper-timeout` |
/// | the keeper or the device has an internal failure | `keeper-failed` |
/// | the keeper has no capacity for this call now | `keeper-overloaded` |
/// | the keeper is locked, not set up, or none of its nodes serves | `keeper-sealed` |
/// | a proxy or another server answered instead of the keeper | `intermediary-answer` |
/// | the answer contradicts itself or cannot be read | `keeper-answer` |
/// | the keeper knows the caller and does not allow the operation | `permission-denied` |
/// | the keeper refuses the credential or the PIN | `login-refused` |
/// | the file of the credential cannot be read | `credential-unreadable` |
/// | the keeper itself says that the key does not exist | `key-missing` |
/// | the key exists and cannot wrap safely | a `flaw` in the description |
/// | the version does not exist yet, in the key or on this node | `version-not-yet` |
/// | the version is archived, disabled or deleted | `version-retired` |
/// | the ciphertext is forged, moved, cut, or of another key | `ciphertext-rejected` |
///
/// Only the first six codes are outages
/// ([`Code::is_outage`](crate::domain::error::Code::is_outage)). An outage has a grace time, and it
/// never counts as a statement about the key. If a device reports a forged ciphertext and a failure
/// in the same way, wrap and unwrap a probe with the same key: if that works, the ciphertext is the
/// cause.
#[cfg_attr(any(test, feature = "mocks"), mockall::automock)]
#[async_trait]
pub trait Kek: Debug + Send + Sync + 'static {
    /// Returns what the keeper can do. The result never changes.
    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    /// Reads the description of the key from the keeper. Never returns a cached answer. When the
    /// nodes of the keeper differ, use [`KekSnapshot::newer`].
    ///
    /// For a key that must not wrap (no AEAD, derived, two keys under one name), returns a
    /// description with a `flaw` and not an error.
    ///
    /// # Errors
    /// `key-missing` when the key does not exist, and the codes of an outage or a refusal.
    async fn describe(&self, deadline: Monotonic) -> Result<KekSnapshot, KmsError>;

    /// Wraps `plaintext` with exactly `version` and binds it to `associated_data`. Two wraps of the
    /// same plaintext give different ciphertexts.
    ///
    /// # Errors
    /// `version-not-yet` when this node of the keeper does not know the version yet,
    /// `version-retired` when the version must no longer wrap, and the codes of an outage or a
    /// refusal.
    async fn wrap(
        &self,
        version: KekVersion,
        plaintext: &Plaintext,
        associated_data: &AssociatedData,
        deadline: Monotonic,
    ) -> Result<Wrapped, KmsError>;

    /// Unwraps a ciphertext of [`Kek::wrap`] under the same associated data.
    /// [`AssociatedData::none`] unwraps a ciphertext that was made without associated data.
    ///
    /// # Errors
    /// `ciphertext-rejected` for any other ciphertext or associated data, `version-not-yet` and
    /// `version-retired` as for `wrap`, and the codes of an outage or a refusal.
    async fn unwrap<'a>(
        &self,
        sealed: Unwrap<'a>,
        deadline: Monotonic,
    ) -> Result<Plaintext, KmsError>;

    /// Unwraps several items. Returns one result for each item, in order. The failure of one item
    /// does not fail the others.
    ///
    /// An item that needs a wait must not delay the others: return `version-not-yet` for it. If the
    /// keeper fails with one item only, return the code of an outage or `keeper-answer` for it. If
    /// the keeper denies batches and may allow single unwraps, return `permission-denied` for all
    /// items. The caller sends each such item again with [`Kek::unwrap`].
    ///
    /// The default unwraps the items one by one, [`Abilities::calls`] of them concurrently.
    async fn unwrap_many<'a>(
        &self,
        sealed: &[Unwrap<'a>],
        deadline: Monotonic,
    ) -> Vec<Result<Plaintext, KmsError>> {
        let calls = sealed.iter().map(|item| self.unwrap(*item, deadline)).collect::<Vec<_>>();
        stream::iter(calls).buffered(self.abilities().calls).collect().await
    }

    /// Returns the version that `ciphertext` names. Makes no call and never waits. The default reads
    /// the form of [`Ciphertext::of_version`].
    ///
    /// # Errors
    /// `ciphertext-rejected` when the ciphertext does not have the keeper's form.
    fn version_of(&self, ciphertext: &Ciphertext) -> Result<KekVersion, KmsError> {
        ciphertext.version_and_body().map(|(version, _)| version)
    }
}
