//! Sends a read to all healthy endpoints at once. A stale node then cannot hide a newer key
//! version, and its old version does not look like a rollback.

use std::{future::Future, pin::pin, time::Duration};

use futures_util::{
    future::{Either, select},
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::time::timeout;

use super::{Attempt, CallPolicy, VaultClient, nodes::Learned};
use crate::{
    adapters::vault::servers::{Answer, Expected, Request},
    domain::key::KekVersion,
};

/// How long the client waits for the other endpoints after the first one has answered. An endpoint
/// that hangs delays each read by this time, until its breaker opens.
const LATE_ANSWER_WAIT: Duration = Duration::from_millis(100);

impl VaultClient {
    /// Waits for `first`, and at the same time sends `request` once to every other healthy
    /// endpoint. Returns the result of `first` and the other answers that arrived in time, in no
    /// particular order.
    pub(in crate::adapters::vault) async fn with_secondaries<T: Expected + Send, R>(
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
                // Later answers are ignored.
                let _late = timeout(LATE_ANSWER_WAIT, collecting).await;
                first
            }
            Either::Right(((), first)) => first.await,
        };
        (first, answers)
    }

    /// Records the latest key version that each endpoint `showed`. `newest` is the newest of them.
    /// Reports an endpoint that lags for a minute.
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
