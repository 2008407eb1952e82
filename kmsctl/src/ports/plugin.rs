//! Outbound port: a KMS v2 plugin behind its socket, as an API server sees it.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::domain::conformance::{Call, Foreign, StatusAnswer, Wrapped};

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

    /// Returns the permission bits of the socket's file. `None` for an abstract socket.
    async fn mode(&self) -> Option<u32>;

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
