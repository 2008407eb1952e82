//! The stored objects in a snapshot of etcd: the file that `etcdctl snapshot save` writes, or a copy
//! of `member/snap/db`.
//!
//! The file is a bbolt database. It is read with bounded reads, and never written. Untrusted bytes
//! end in the error `snapshot-damaged`, which names the offset.
//!
//! No crate fits. `bbolt-rs` maps the file into memory and has unsafe code, so a damaged file is a
//! danger. `bolt-lite` reads the whole file into memory, and does not check the meta pages. None
//! walks from the newest revision to the oldest, which finds each key's newest value in one pass.

mod bbolt;
mod file;
mod revisions;
mod walk;

#[cfg(test)]
pub(crate) mod tests;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
pub use file::{Digest, Facts};

use crate::{
    adapters::snapshot::{bbolt::Database, file::ReadFile, revisions::Revisions},
    domain::{object::Object, problem::Problem},
    ports::objects::Objects,
};

/// The largest number of different keys that one walk tells apart. Each takes about 20 bytes of
/// memory. etcd supports a database of 8 GiB, which has room for fewer objects of Kubernetes.
const KEYS_MAX: usize = 14_000_000;

/// A snapshot file that is open, and whose digest is computed.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    file: Arc<ReadFile>,
}

impl SnapshotFile {
    /// Opens the file at `path` and computes its digest, which reads all of it once.
    ///
    /// # Errors
    /// `snapshot-unreadable` when the file cannot be read.
    pub async fn open(path: &Path) -> Result<Self, Problem> {
        let path = path.to_owned();
        let file = blocking(move || ReadFile::open(&path)).await?;
        Ok(Self { file: Arc::new(file) })
    }

    /// Returns what the file is, also of a damaged one.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        self.file.facts()
    }

    /// Starts a walk over the objects whose keys start with `prefix`.
    ///
    /// # Errors
    /// `snapshot-damaged` when the digest does not fit, or the file is not a database of etcd.
    pub async fn objects(&self, prefix: &[u8]) -> Result<Snapshot, Problem> {
        let (file, prefix) = (Arc::clone(&self.file), prefix.to_owned());
        let name = self.file.facts().name.clone();
        let (revisions, revision) = blocking(move || {
            let mut revisions = Revisions::new(Database::open(file)?, prefix, KEYS_MAX)?;
            let revision = revisions.newest()?;
            Ok((revisions, revision))
        })
        .await?;
        Ok(Snapshot { name, revision, revisions: Some(revisions) })
    }
}

/// The objects of one snapshot file, the newest first.
#[derive(Debug)]
pub struct Snapshot {
    name: String,
    revision: i64,
    /// `None` after the end, and after an error.
    revisions: Option<Revisions>,
}

impl Snapshot {
    /// Returns the newest revision in the file. 0 when the file has none.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }
}

#[async_trait]
impl Objects for Snapshot {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn count(&self) -> Option<u64> {
        None
    }

    async fn next_page(&mut self) -> Result<Option<Vec<Object>>, Problem> {
        let Some(mut revisions) = self.revisions.take() else { return Ok(None) };
        let (revisions, page) = blocking(move || {
            let page = revisions.next_page()?;
            Ok((revisions, page))
        })
        .await?;
        if page.is_empty() {
            return Ok(None);
        }
        self.revisions = Some(revisions);
        Ok(Some(page))
    }
}

/// Runs work that blocks on a file.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Problem::new("snapshot-unreadable", error, "report this as a bug of vault-kube-kmsctl")
    })?
}
