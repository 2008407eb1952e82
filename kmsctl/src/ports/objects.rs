//! Outbound port: the stored objects of a cluster, from etcd or from a snapshot of it.

use std::fmt::Debug;

use crate::domain::{object::Object, problem::Problem};
use async_trait::async_trait;

/// The stored objects below one prefix, page by page. Each key comes once, with its newest value.
#[async_trait]
pub trait Objects: Debug + Send {
    /// Returns the name of the source for people, such as an address or the path of a file.
    fn name(&self) -> String;

    /// Returns how many objects there are, when that is known before the end.
    fn count(&self) -> Option<u64>;

    /// Returns the next page: at least one object, and at most some MiB. `None` after the last one.
    ///
    /// # Errors
    /// When the source cannot be read. The reading cannot go on after an error.
    async fn next_page(&mut self) -> Result<Option<Vec<Object>>, Problem>;
}
