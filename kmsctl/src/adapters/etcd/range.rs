//! The objects of a live etcd at one revision, page by page.

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    members::{Members, Ranged},
    settings::EtcdSettings,
    wire::{RangeRequest, RangeResponse},
};
use crate::{
    domain::{object::Object, problem::Problem},
    ports::objects::Objects,
};

/// How many objects the first page has at most. Later pages follow the size of the objects.
const FIRST_LIMIT: u64 = 500;

/// The most objects of one page.
///
/// For each page etcd counts all keys from its first key to the end of the range. So few large
/// pages cost etcd much less than many small ones.
const LIMIT_MAX: u64 = 20_000;

/// How many bytes of keys and values a page should have.
const PAGE_BYTES: u64 = 8 * 1_024 * 1_024;

/// The objects of a live etcd below a prefix, all at the revision of the first answer.
#[derive(Debug)]
pub struct EtcdObjects {
    members: Members,
    /// The first key of the next page, and the end of the range.
    next: Bytes,
    end: Bytes,
    /// The revision that is read. 0 before the first answer.
    revision: i64,
    limit: u64,
    count: Option<u64>,
    ended: bool,
}

impl EtcdObjects {
    /// Makes the objects whose keys begin with `prefix`, such as `/registry/`. Reads at `revision`,
    /// or at the newest one when it is `None`. Does not connect.
    ///
    /// # Errors
    /// When an address or a file of TLS is not valid.
    pub fn new(
        settings: EtcdSettings,
        prefix: &str,
        revision: Option<i64>,
    ) -> Result<Self, Problem> {
        Ok(Self {
            members: Members::new(settings)?,
            next: Bytes::copy_from_slice(prefix.as_bytes()),
            end: after_prefix(prefix.as_bytes()),
            revision: revision.unwrap_or(0),
            limit: FIRST_LIMIT,
            count: None,
            ended: false,
        })
    }

    /// Returns the revision that is read. 0 before the first answer.
    #[must_use]
    pub const fn revision(&self) -> i64 {
        self.revision
    }

    /// Asks for the next page, with a smaller one when the answer is too large.
    async fn ask(&mut self) -> Result<RangeResponse, Problem> {
        loop {
            let request = RangeRequest {
                key: self.next.clone(),
                range_end: self.end.clone(),
                limit: i64::try_from(self.limit).unwrap_or(1),
                revision: self.revision,
            };
            match self.members.range(&request).await? {
                Ranged::Answer(answer) => return Ok(answer),
                Ranged::TooLarge if self.limit > 1 => self.limit = (self.limit / 4).max(1),
                Ranged::TooLarge => {
                    return Err(Problem::new(
                        "etcd-object-too-large",
                        "one object in etcd is larger than 64 MiB",
                        "no API server stores such an object: find and remove it with etcdctl",
                    ));
                }
            }
        }
    }

    /// Records what `answer` says about the pages after it.
    fn take(&mut self, answer: &RangeResponse) -> Result<(), Problem> {
        let strange = |why: &str| {
            Problem::new(
                "etcd-answer",
                format!("the answer of {} {why}", self.members.address()),
                "check that the server is etcd 3.4 or later, without a proxy that changes answers",
            )
        };
        if self.revision == 0 {
            self.revision = answer.header.as_ref().map_or(0, |header| header.revision);
            if self.revision <= 0 {
                return Err(strange("has no revision"));
            }
        }
        if self.count.is_none() {
            self.count = u64::try_from(answer.count).ok();
        }
        let Some(last) = answer.kvs.last() else {
            self.ended = true;
            return if answer.more {
                Err(strange("is empty and not the last one"))
            } else {
                Ok(())
            };
        };
        let mut before: Option<&Bytes> = None;
        for kv in &answer.kvs {
            if kv.key < self.next || kv.key >= self.end || before.is_some_and(|key| kv.key <= key) {
                return Err(strange("has keys out of order"));
            }
            before = Some(&kv.key);
        }
        // The smallest key after the last one.
        let next = [last.key.as_ref(), &[0]].concat();
        let bytes: usize = answer.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        self.limit = limit_for(self.limit, answer.kvs.len(), bytes);
        self.next = next.into();
        self.ended = !answer.more;
        Ok(())
    }
}

#[async_trait]
impl Objects for EtcdObjects {
    fn name(&self) -> String {
        let address = self.members.address();
        match self.revision {
            0 => format!("etcd at {address}"),
            revision => format!("etcd at {address}, revision {revision}"),
        }
    }

    fn count(&self) -> Option<u64> {
        self.count
    }

    async fn next_page(&mut self) -> Result<Option<Vec<Object>>, Problem> {
        if self.ended {
            return Ok(None);
        }
        let answer = self.ask().await.inspect_err(|_error| self.ended = true)?;
        self.take(&answer).inspect_err(|_error| self.ended = true)?;
        let page: Vec<_> = answer
            .kvs
            .into_iter()
            .map(|kv| Object { key: kv.key, value: kv.value, mod_revision: kv.mod_revision })
            .collect();
        Ok((!page.is_empty()).then_some(page))
    }
}

/// Returns the number of objects of the next page: those that have [`PAGE_BYTES`] bytes when they
/// are as large as the last `count` objects with together `bytes` bytes. It at most doubles, because
/// the next objects may be larger.
fn limit_for(limit: u64, count: usize, bytes: usize) -> u64 {
    let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
    let average = (u64::try_from(bytes).unwrap_or(u64::MAX) / count).max(1);
    (PAGE_BYTES / average).clamp(1, LIMIT_MAX).min(limit.saturating_mul(2).max(2))
}

/// Returns the smallest key that is above all keys with `prefix`. A prefix of 0xff bytes has none;
/// etcd takes one zero byte for the end of all keys.
fn after_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(above) = last.checked_add(1) {
            end.push(above);
            return end.into();
        }
    }
    Bytes::from_static(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_follows_the_size_of_the_objects() {
        assert_eq!(limit_for(500, 500, 500 * 1_000), 1_000, "it at most doubles");
        assert_eq!(limit_for(20_000, 10_000, 10_000 * 100), LIMIT_MAX);
        assert_eq!(limit_for(1_000, 1_000, 1_000 * 1_048_576), 8);
        assert_eq!(limit_for(1, 1, 50 * 1_048_576), 1);
        assert_eq!(limit_for(0, 0, 0), 2);
    }

    #[test]
    fn ends_after_the_prefix() {
        assert_eq!(after_prefix(b"/registry/"), "/registry0");
        assert_eq!(after_prefix(b"a\xff"), "b");
        assert_eq!(after_prefix(b"\xff"), Bytes::from_static(&[0]));
    }
}
