//! Bounds the time of work on a file. A network file system may never answer, and a process cannot end
//! such work.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};

use super::bounded_file::READ_TIMEOUT;

/// Runs the work on one file on a thread that may block, one work after the other. So a file system
/// that hangs blocks one thread, and no call for longer than the limit.
#[derive(Debug)]
pub struct FileThread {
    /// Locked by the thread that works on the file.
    work_lock: Arc<Mutex<()>>,
    limit: Duration,
}

impl Default for FileThread {
    /// Waits for at most [`READ_TIMEOUT`] for each work.
    fn default() -> Self {
        Self::within(READ_TIMEOUT)
    }
}

impl FileThread {
    /// Waits for at most `limit` for each work.
    #[must_use]
    pub fn within(limit: Duration) -> Self {
        Self { work_lock: Arc::default(), limit }
    }

    /// Returns how long a caller waits for one work.
    pub(super) const fn limit(&self) -> Duration {
        self.limit
    }

    /// Runs `work`. Returns `None` when it does not end in time, when the work before it still
    /// blocks, or when this process is stopping. Work that ends later has its effects all the same.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let ended = async {
            let lock = Arc::clone(&self.work_lock).lock_owned().await;
            let work = move || {
                let _lock = lock;
                work()
            };
            spawn_blocking(work).await.ok()
        };
        timeout(self.limit, ended).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    /// A file system that hangs must not take one thread more for each call.
    #[tokio::test]
    async fn work_that_hangs_blocks_one_thread_and_no_caller() {
        let thread = FileThread::within(Duration::from_millis(20));
        let (release, hangs) = mpsc::channel::<()>();
        assert_eq!(thread.run(move || hangs.recv()).await, None);
        let begun = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let begun = Arc::clone(&begun);
            assert_eq!(thread.run(move || begun.fetch_add(1, Ordering::Relaxed)).await, None);
        }
        assert_eq!(begun.load(Ordering::Relaxed), 0, "it waits for the work before it");
        release.send(()).unwrap();
        while thread.run(|| ()).await.is_none() {}
        assert_eq!(begun.load(Ordering::Relaxed), 0, "work that was given up does not begin");
    }
}
