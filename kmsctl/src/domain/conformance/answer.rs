//! What a plugin answers to a call.

use std::{collections::BTreeMap, time::Duration};

/// The answer of a plugin to one call, and how long the call took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<T> {
    /// From the first byte of the request to the answer.
    pub took: Duration,
    /// The answer, or the error that the plugin or the connection gave.
    pub answer: Result<T, Refusal>,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the gRPC code, such as `InvalidArgument`.
    pub code: String,
    /// The text of the plugin, as it came.
    pub text: String,
}

impl Refusal {
    /// The code of a call without an answer in its time.
    pub const LATE: &str = "DeadlineExceeded";

    /// The code of a call without an answer of a plugin: the connection failed, or speaks no gRPC.
    pub const NO_ANSWER: &str = "NoAnswer";

    /// Returns whether the plugin gave no answer at all.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        [Self::LATE, Self::NO_ANSWER].contains(&self.code.as_str())
    }
}

/// The answer of Status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusAnswer {
    /// The version of the contract.
    pub version: String,
    /// `ok`, or what is wrong.
    pub healthz: String,
    /// The name of the key that Encrypt uses.
    pub key_id: String,
}

/// What Encrypt returns, the API server stores, and Decrypt gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wrapped {
    /// The wrapped seed.
    pub ciphertext: Vec<u8>,
    /// The name of the key that wrapped it.
    pub key_id: String,
    /// The annotations of the plugin.
    pub annotations: BTreeMap<String, Vec<u8>>,
}

/// What a plugin does with bytes that are not HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// It closes the connection.
    Closed,
    /// It keeps the connection open for some seconds.
    Open,
}
