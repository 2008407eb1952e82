//! An entry of etcd.

use bytes::Bytes;

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
