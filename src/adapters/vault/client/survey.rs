//! What the other endpoints say, beside the one that is asked as usual: for what one node alone may
//! be wrong about, and go on being wrong about.

use std::{future::Future, pin::pin, time::Duration};

use futures_util::{
    future::{Either, select},
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::time::timeout;

use tracing::warn;

use super::{Answer, At, Call, VaultClient};
use crate::domain::key::KekVersion;

/// How long the others are waited for once the first has answered: they are of one cluster. One that
/// hangs makes each survey so much longer, until it cannot be greeted and its breaker opens.
const STRAGGLERS: Duration = Duration::from_millis(100);

impl VaultClient {
    /// Waits for `first`, and asks meanwhile every other endpoint that works, once. Returns what
    /// `first` did and the answers that came in time, in no order.
    pub(in crate::adapters::vault) async fn survey<T>(
        &self,
        first: impl Future<Output = T>,
        call: Call<'_>,
    ) -> (T, Vec<Answer>) {
        let asked = self.endpoints.well_beside_the_first().map(|endpoint| {
            let call = Call { at: At::Alone(endpoint), ..call.clone() };
            async move { self.attempt(endpoint, &call, &[]).await }
        });
        let asked: FuturesUnordered<_> = asked.collect();
        let mut answers = Vec::new();
        let collecting = asked.for_each(|outcome| {
            answers.extend(outcome);
            std::future::ready(())
        });
        let first = match select(pin!(first), pin!(collecting)).await {
            Either::Left((first, collecting)) => {
                // Who is late does not count.
                let _late = timeout(STRAGGLERS, collecting).await;
                first
            }
            Either::Right(((), first)) => first.await,
        };
        (first, answers)
    }

    /// Takes in which key version each endpoint `said` to be the latest, where `newest` is it. One
    /// that is behind for long is told of.
    pub(in crate::adapters::vault) fn compare(
        &self,
        said: &[(usize, KekVersion)],
        newest: KekVersion,
    ) {
        for (endpoint, latest) in said {
            if let Some(error) = self.endpoints.compared(*endpoint, *latest, newest) {
                let (cause, remedy) = (error.cause(), error.remedy());
                warn!(code = error.code().as_str(), cause, remedy, "an endpoint is stale");
            }
        }
    }
}
