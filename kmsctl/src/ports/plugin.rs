//! Outbound port: a KMS v2 plugin behind its socket, as an API server sees it.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use async_trait::async_trait;

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

/// One connection to a plugin. Each call ends in bounded time.
#[async_trait]
pub trait Plugin: Debug + Send + Sync {
    /// Calls Status.
    async fn status(&self) -> Call<StatusAnswer>;

    /// Calls Encrypt. `uid` names the call in logs.
    async fn encrypt(&self, plaintext: &[u8], uid: &str) -> Call<Wrapped>;

    /// Calls Decrypt with the fields as they are.
    async fn decrypt(&self, wrapped: &Wrapped, uid: &str) -> Call<Vec<u8>>;

    /// Calls the method at `path` with a message of one unknown field that holds `extra`. An empty
    /// `extra` is an empty message. The request names `deadline`.
    async fn call(&self, path: &'static str, extra: Vec<u8>, deadline: Duration) -> Call<()>;
}

/// The socket of a plugin.
#[async_trait]
pub trait Socket: Debug + Send + Sync {
    /// Opens a connection.
    ///
    /// # Errors
    /// Why there is none, such as `connection refused`.
    async fn connect(&self) -> Result<Box<dyn Plugin>, String>;

    /// Calls Status with the path of the socket as authority, as API servers before 1.32 do.
    ///
    /// # Errors
    /// What came instead of an answer with a message.
    async fn old_authority(&self) -> Result<(), String>;

    /// Sends `bytes` on a connection of its own, and returns what the plugin does.
    ///
    /// # Errors
    /// Why there is no connection.
    async fn foreign(&self, bytes: &'static [u8]) -> Result<Foreign, String>;
}

/// A command of the operator: rotates the key, or restarts the plugin.
#[async_trait]
pub trait Hook: Debug + Send + Sync {
    /// Runs the command. Ends in bounded time.
    ///
    /// # Errors
    /// How the command failed.
    async fn run(&self) -> Result<(), String>;
}
