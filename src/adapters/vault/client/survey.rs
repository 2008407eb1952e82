//! What all endpoints say, beside the preferred one: a stale node neither hides a key version that
//! another one knows nor looks like a rollback.

use std::{future::Future, pin::pin, time::Duration};

use futures_util::{
    future::{Either, select},
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::time::timeout;

use super::{Answer, Attempt, CallPolicy, Expected, Request, VaultClient, nodes::Learned};
use crate::domain::key::KekVersion;

/// How long the others are waited for once the first has answered. One that hangs makes each survey
/// so much longer, until its breaker opens.
const STRAGGLERS: Duration = Duration::from_millis(100);

impl VaultClient {
    /// Waits for `first`, and meanwhile sends `request` once to every other endpoint that is healthy.
    /// Returns the result of `first` and the other answers that came in time, in no order.
    pub(in crate::adapters::vault) async fn survey<T: Expected + Send, R>(
        &self,
        first: impl Future<Output = R>,
        request: Request<'_>,
        policy: CallPolicy,
    ) -> (R, Vec<Answer<T>>) {
        let now = self.clock.now();
        let others = self.nodes(|nodes| nodes.healthy_secondaries(now));
        let request = &request;
        let asked = others.into_iter().map(|endpoint| async move {
            self.attempt::<T>(Attempt::alone(endpoint), request, policy).await
        });
        let asked: FuturesUnordered<_> = asked.collect();
        let mut answers = Vec::new();
        let collecting = asked.for_each(|outcome| {
            answers.extend(outcome);
            std::future::ready(())
        });
        let first = match select(pin!(first), pin!(collecting)).await {
            Either::Left((first, collecting)) => {
                // A late answer does not count.
                let _late = timeout(STRAGGLERS, collecting).await;
                first
            }
            Either::Right(((), first)) => first.await,
        };
        (first, answers)
    }

    /// Takes in the latest key version that each endpoint `showed`, where `newest` is the newest of
    /// them. One that lags for a minute is reported.
    pub(in crate::adapters::vault) fn compare(
        &self,
        showed: &[(usize, KekVersion)],
        newest: KekVersion,
    ) {
        for (endpoint, latest) in showed {
            self.learn(*endpoint, Learned::Showed { latest: *latest, newest });
        }
    }
}
