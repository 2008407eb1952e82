//! Outbound port: the stored objects of a cluster, from etcd or from a snapshot of it.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::problem::Problem;

/// One key of etcd with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The whole key, such as `/registry/secrets/default/db`. It is the associated data of the
    /// encrypted object.
    pub key: Bytes,
    /// The value, as stored.
    pub value: Bytes,
    /// The revision of etcd at which the value was written.
    pub mod_revision: i64,
}

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
