//! How the endpoints are, asked of them (`sys/health`): of which cluster, and who is active.
//!
//! Where there are several, each is greeted now and then. When the one that is asked fails, the next
//! one answers without a handshake, and one that is of another cluster is told of at the start and
//! not in an outage.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use tokio::time::timeout;
use tracing::warn;

use super::{At, Call, Failure, Repeat, TRY_LEAST, VaultClient, exchange::exchange, unreadable};
use crate::{
    adapters::vault::{key_path::Namespace, wire::Health},
    domain::{
        error::{Code, KmsError},
        time::Monotonic,
    },
    ports::telemetry::KeeperOperation,
};

/// Between two greetings of an endpoint that works: less than a connection is kept without use.
const GREETED_EVERY: Duration = Duration::from_secs(30);

/// Between two of one that was left alone: nothing else finds out that it is back while others work.
const LOOKED_FOR_EVERY: Duration = Duration::from_secs(3);

/// What takes longer to greet is as good as away.
const GREETING_MAX: Duration = Duration::from_secs(2);

/// How long the active node is looked for while there is none, and how often: a good part of what a
/// login may take, and of an election.
const LEADERLESS: Duration = Duration::from_millis(1_200);
const LEADERLESS_PAUSE: Duration = Duration::from_millis(200);

/// The status of the one node that is active.
const ACTIVE: u16 = 200;

impl VaultClient {
    /// Greets each endpoint now and then, for ever; ends at once where there is only one.
    pub async fn keep_warm(&self) {
        if self.endpoints.len() < 2 {
            return;
        }
        let mut all_at = self.clock.now();
        loop {
            let now = self.clock.now();
            let all = now >= all_at;
            if all {
                all_at = now.after(self.spread(GREETED_EVERY));
            }
            for endpoint in 0..self.endpoints.len() {
                if (all || !self.endpoints.is_well(endpoint))
                    && self.endpoints.may_be_greeted(endpoint)
                {
                    self.greet(endpoint).await;
                }
            }
            self.clock.sleep(self.spread(LOOKED_FOR_EVERY)).await;
        }
    }

    fn spread(&self, pause: Duration) -> Duration {
        pause.mul_f64(0.75 + self.clock.jitter() / 2.0)
    }

    /// Where to ask for what was written a moment ago: a standby may not know a new secret ID yet,
    /// and its refusal would be believed. Where no endpoint says for a while that it is the active
    /// node, what is between us and the nodes hides it, or an election lasts, and any has to do.
    pub(in crate::adapters::vault) async fn at_active(&self, deadline: Monotonic) -> At {
        if self.endpoints.len() < 2 {
            return At::Any;
        }
        let until = self.clock.now().after(LEADERLESS).min(deadline);
        loop {
            if let Some(active) = self.active(deadline).await {
                return At::Endpoint(active);
            }
            if self.clock.now().after(LEADERLESS_PAUSE) > until {
                return At::Any;
            }
            self.clock.sleep(LEADERLESS_PAUSE).await;
        }
    }

    /// The endpoint of the active node, if one says that it is. Takes as long as the slowest answer,
    /// and no longer than one is worth waiting for.
    async fn active(&self, deadline: Monotonic) -> Option<usize> {
        let asked = self.endpoints.in_order().map(|endpoint| async move {
            let answered = timeout(TRY_LEAST, self.how_is(endpoint, deadline)).await;
            matches!(answered, Ok(Ok(ACTIVE))).then_some(endpoint)
        });
        join_all(asked).await.into_iter().flatten().next()
    }

    /// Asks an endpoint how it is. What follows is for its breaker; which one is asked first
    /// stays as it is.
    async fn greet(&self, endpoint: usize) {
        let limit = self.settings.request_timeout.min(GREETING_MAX);
        let asked = timeout(limit, self.how_is(endpoint, self.background_deadline())).await;
        let error = match asked {
            Ok(Ok(_status)) => return self.endpoints.well(endpoint),
            Ok(Err(error)) => error,
            Err(_elapsed) => self.late(endpoint, limit),
        };
        let is_news = self.endpoints.failed(endpoint, &error);
        if is_news && error.code() == Code::ClusterForeign {
            let (cause, remedy) = (error.cause(), error.remedy());
            warn!(code = error.code().as_str(), cause, remedy, "an endpoint is left out");
        }
    }

    /// Asks an endpoint how it is and of which cluster, and returns the status that says so.
    ///
    /// # Errors
    /// Why it cannot be used: another cluster than that of the others, sealed, no answer.
    pub(super) async fn how_is(
        &self,
        endpoint: usize,
        deadline: Monotonic,
    ) -> Result<u16, KmsError> {
        let address = self.address(endpoint)?;
        let answer = exchange(self.http(), (endpoint, address), &health(deadline), None).await;
        let answer = answer.map_err(|failure| match failure {
            Failure::Unsent(error) | Failure::Lost(error) => error,
            Failure::Refused(refusal) => refusal.error_of_status(),
        })?;
        let (status, health) = (answer.status, answer.parse::<Health>());
        // A standby that serves answers 429 or 473.
        if let Err(Failure::Refused(refusal)) = answer.judged()
            && matches!(refusal.status, 472 | 500..=599)
        {
            return Err(refusal.error_of_status());
        }
        let cluster = health.ok().and_then(|health| health.cluster_id);
        let cluster =
            cluster.ok_or_else(|| unreadable("it does not say of which cluster it is"))?;
        self.endpoints.introduce(endpoint, &cluster)?;
        Ok(status)
    }
}

/// Asks a node how it is; anybody may. It is not served in a namespace.
const fn health(deadline: Monotonic) -> Call<'static> {
    Call {
        operation: KeeperOperation::Read,
        method: Method::GET,
        path: "sys/health",
        at: At::Any,
        namespace: Namespace::ROOT,
        token: None,
        body: None,
        deadline,
        repeat: Repeat::Freely,
    }
}
