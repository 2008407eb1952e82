//! Waits for an API server that restarts, is busy, or lacks its KMS plugin.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::progress::Progress;
use crate::{
    domain::problem::Problem,
    ports::rewriting::{Refusal, Storage},
};

/// How often an internal error is tried again before it counts as one of the object.
const INTERNAL_TRIES: u32 = 4;

/// How long a right may be missing that was there before.
const RIGHTS_DELAY: Duration = Duration::from_secs(15);

/// The errors of etcd that may pass. A list that is read again begins at the newest revision.
const PASSING: [&str; 2] = ["etcd-unreachable", "etcd-compacted"];

/// The pauses between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Makes calls, and waits where a later call may have success.
pub(super) struct Patience<'a> {
    storage: &'a dyn Storage,
    progress: &'a dyn Progress,
    /// The longest wait of one call.
    most: Duration,
    /// Whether any call had success.
    has_worked: AtomicBool,
}

impl<'a> Patience<'a> {
    pub(super) fn new(
        storage: &'a dyn Storage,
        progress: &'a dyn Progress,
        most: Duration,
    ) -> Self {
        Self { storage, progress, most, has_worked: AtomicBool::new(false) }
    }

    /// Makes a call again until it has an answer that time does not change.
    ///
    /// # Errors
    /// When patience is at its end, and on an answer that no other object would change.
    pub(super) async fn call<T, F, A>(&self, call: F) -> Result<Result<T, Refusal>, Problem>
    where
        T: Send,
        F: Fn() -> A + Send + Sync,
        A: Future<Output = Result<T, Refusal>> + Send,
    {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut internal = 0;
        loop {
            let refusal = match call().await {
                Err(refusal) => refusal,
                Ok(answer) => {
                    self.has_worked.store(true, Ordering::Relaxed);
                    return Ok(Ok(answer));
                }
            };
            let (least, why) = match refusal {
                Refusal::NotRead(problem) => {
                    if !PASSING.contains(&problem.code) || began.elapsed() + pause > self.most {
                        return Err(problem);
                    }
                    (pause, problem.cause)
                }
                Refusal::Unavailable(why) => (pause, why),
                Refusal::Busy(asked) => (asked, "429 Too Many Requests".to_owned()),
                Refusal::Internal(why) => {
                    internal += 1;
                    if internal >= INTERNAL_TRIES && self.storage.is_ready().await {
                        return Ok(Err(Refusal::Internal(why)));
                    }
                    (pause, why)
                }
                // An API server that has just started may not have read the roles yet.
                Refusal::Forbidden(what)
                    if self.has_worked.load(Ordering::Relaxed)
                        && began.elapsed() < RIGHTS_DELAY =>
                {
                    (pause, format!("403 Forbidden to {what}"))
                }
                Refusal::Forbidden(what) => return Err(forbidden(&what)),
                Refusal::Unauthenticated => return Err(unauthenticated()),
                Refusal::Full => return Err(full()),
                Refusal::Misunderstood(what) => return Err(misunderstood(&what)),
                refusal => return Ok(Err(refusal)),
            };
            if began.elapsed() + least > self.most {
                return Err(unavailable(&self.storage.name(), &why, self.most));
            }
            self.progress.waits(Some(&why));
            sleep(least).await;
            self.progress.waits(None);
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

fn unavailable(server: &str, why: &str, patience: Duration) -> Problem {
    Problem::new(
        "api-server-unavailable",
        format!("{server} gives no answer for {} s: {why}", patience.as_secs()),
        "bring the API server and its KMS plugin back, then run the same command again",
    )
}

fn forbidden(what: &str) -> Problem {
    Problem::new(
        "forbidden",
        format!("the user of the kubeconfig may not {what}"),
        "bind the ClusterRole that this command prints with --print-role to the user",
    )
}

fn unauthenticated() -> Problem {
    Problem::new(
        "unauthenticated",
        "the API server does not accept the credentials of the kubeconfig",
        "renew them, then run the same command again",
    )
}

fn full() -> Problem {
    Problem::new(
        "etcd-full",
        "the database of etcd has reached its quota, because each rewrite adds a revision",
        "compact and defragment etcd, disarm its alarm, then run the same command again with a \
         lower --rate",
    )
}

fn misunderstood(what: &str) -> Problem {
    Problem::new(
        "not-a-kube-apiserver",
        format!("the answer to {what} is not one of a kube-apiserver"),
        "check the address in the kubeconfig; aggregated API servers without PATCH and metadata \
         lists are not supported",
    )
}
