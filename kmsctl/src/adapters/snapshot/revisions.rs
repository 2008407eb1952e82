//! The newest value of each key, from the bucket `key` of etcd.
//!
//! The keys of the bucket are revisions: the revision of the transaction (8 bytes), `_`, the number
//! in the transaction (8 bytes), both big-endian, and `t` when the key was deleted there
//! (`etcd/server/storage/mvcc`, `revision.go`). The values are `mvccpb.KeyValue`.

use std::collections::HashSet;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use prost::Message;

use super::{
    bbolt::{Database, Entry},
    walk::Backwards,
};
use crate::domain::{object::Object, problem::Problem};

/// The name of the bucket.
const BUCKET: &[u8] = b"key";

const REVISION: usize = 17;
const DELETED: &[u8] = b"t";

/// A page of objects ends when it has this many, or this many bytes.
const PAGE_OBJECTS: usize = 1000;
const PAGE_BYTES: usize = 4 << 20;

/// `mvccpb.KeyValue`. Only these two fields are read.
#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) value: Bytes,
}

/// A walk over the revisions of a database, from the newest to the oldest. So the first value of a
/// key is its newest.
#[derive(Debug)]
pub(super) struct Revisions {
    database: Database,
    walk: Backwards,
    prefix: Vec<u8>,
    /// The beginning of the SHA-256 of each key that was seen, which takes less memory than the key.
    seen: HashSet<[u8; 16]>,
    keys_max: usize,
    /// The newest revision, which was read before the first page.
    read_ahead: Option<Entry>,
}

impl Revisions {
    pub(super) fn new(
        database: Database,
        prefix: Vec<u8>,
        keys_max: usize,
    ) -> Result<Self, Problem> {
        let mut buckets = Backwards::new(database.root()?);
        let bucket = loop {
            match buckets.next(&database)? {
                Some(entry) if entry.is_bucket && entry.key == BUCKET => break entry,
                Some(_) => {}
                None => {
                    return Err(database.damaged(
                        0,
                        "the database has no bucket `key`: it is not of etcd version 3",
                    ));
                }
            }
        };
        let walk = Backwards::new(database.bucket(&bucket)?);
        Ok(Self { database, walk, prefix, seen: HashSet::new(), keys_max, read_ahead: None })
    }

    /// Returns the newest revision, or 0. Call this before the first page.
    pub(super) fn newest(&mut self) -> Result<i64, Problem> {
        self.read_ahead = self.walk.next(&self.database)?;
        let Some(entry) = &self.read_ahead else { return Ok(0) };
        Ok(self.revision(entry)?.0)
    }

    /// Returns the next objects. Empty after the last one.
    pub(super) fn next_page(&mut self) -> Result<Vec<Object>, Problem> {
        let (mut objects, mut bytes) = (Vec::new(), 0_usize);
        while objects.len() < PAGE_OBJECTS && bytes < PAGE_BYTES {
            let entry = match self.read_ahead.take() {
                Some(entry) => entry,
                None => match self.walk.next(&self.database)? {
                    Some(entry) => entry,
                    None => break,
                },
            };
            if let Some(object) = self.object(entry)? {
                bytes = bytes.saturating_add(object.key.len()).saturating_add(object.value.len());
                objects.push(object);
            }
        }
        Ok(objects)
    }

    /// Returns the object of a revision when it is the newest of its key, and not deleted.
    fn object(&mut self, entry: Entry) -> Result<Option<Object>, Problem> {
        let (mod_revision, is_deleted) = self.revision(&entry)?;
        let offset = entry.offset;
        let KeyValue { key, value } = KeyValue::decode(entry.value).map_err(|error| {
            let what = format!("revision {mod_revision} is not valid protobuf: {error}");
            self.database.damaged(offset, what)
        })?;
        if key.is_empty() {
            let what = format!("revision {mod_revision} has no key");
            return Err(self.database.damaged(offset, what));
        }
        if !key.starts_with(&self.prefix) {
            return Ok(None);
        }
        let hash = digest(&SHA256, &key);
        let is_newest = hash.as_ref().first_chunk().is_some_and(|hash| self.seen.insert(*hash));
        if self.seen.len() > self.keys_max {
            return Err(Problem::new(
                "snapshot-too-large",
                format!("the snapshot has more than {} keys below the prefix", self.keys_max),
                "read one resource after the other",
            ));
        }
        Ok((is_newest && !is_deleted).then_some(Object { key, value, mod_revision }))
    }

    /// Returns the revision of an entry, and whether it deletes its key.
    fn revision(&self, entry: &Entry) -> Result<(i64, bool), Problem> {
        let parsed = || {
            let (revision, rest) = entry.key.split_at_checked(REVISION)?;
            let main = i64::from_be_bytes(*revision.first_chunk()?);
            let is_valid = !entry.is_bucket
                && main > 0
                && revision.get(8) == Some(&b'_')
                && (rest.is_empty() || rest == DELETED);
            is_valid.then_some((main, !rest.is_empty()))
        };
        parsed().ok_or_else(|| {
            self.database.damaged(entry.offset, "a key of the bucket `key` is not a revision")
        })
    }
}
