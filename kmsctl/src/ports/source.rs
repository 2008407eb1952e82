//! Outbound port: a running process of the cluster that can be asked for its state.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::domain::problem::Problem;

/// A node or an API server, whose state is `T`.
#[async_trait]
pub trait Source<T>: Debug + Send + Sync {
    /// Returns its name for people.
    fn name(&self) -> &str;

    /// Asks for the state. Ends in bounded time.
    ///
    /// # Errors
    /// When there is no answer, or the answer is not a state.
    async fn ask(&self) -> Result<T, Problem>;
}
