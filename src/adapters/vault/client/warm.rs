//! A connection to each of several endpoints, kept open and known to be of the cluster: when the
//! one that is asked fails, the next one answers without a handshake, and one that is of another
//! cluster is told of at the start and not in an outage.

use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::{Failure, TRY_LEAST, VaultClient, health, retry::is_endpoints_fault, told};
use crate::{
    domain::{error::Code, time::Monotonic},
    ports::telemetry::KeeperOperation,
};

/// Between two greetings of an endpoint: less than a connection is kept without use.
const GREETED_EVERY: Duration = Duration::from_secs(30);

impl VaultClient {
    /// Greets each endpoint now and then, for ever; ends at once where there is only one.
    pub async fn keep_warm(&self) {
        if self.endpoints.len() < 2 {
            return;
        }
        loop {
            for endpoint in 0..self.endpoints.len() {
                if self.endpoints.may_be_greeted(endpoint) {
                    self.greet(endpoint).await;
                }
            }
            self.clock.sleep(GREETED_EVERY.mul_f64(0.75 + self.clock.jitter() / 2.0)).await;
        }
    }

    /// The endpoint of the active node, if one says that it is.
    pub(super) async fn active(&self, deadline: Monotonic) -> Option<usize> {
        for endpoint in self.endpoints.in_order() {
            let call = health(deadline);
            let asked = timeout(TRY_LEAST, self.ask(endpoint, &call)).await;
            // Only the active node answers with success.
            if matches!(asked, Ok(Ok(_))) {
                return Some(endpoint);
            }
        }
        None
    }

    /// Asks an endpoint how it is. What follows is for its breaker; which one is asked first
    /// stays as it is.
    async fn greet(&self, endpoint: usize) {
        let call = health(self.background_deadline());
        let limit = self.limit(endpoint, self.settings.request_timeout);
        let outcome = match timeout(limit, self.ask(endpoint, &call)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Failure::Lost(self.late(endpoint, limit))),
        };
        match (&outcome, told(KeeperOperation::Read, &outcome)) {
            (Err(failure), Some(error)) if is_endpoints_fault(failure) => {
                if error.code() == Code::ClusterForeign {
                    let (cause, remedy) = (error.cause(), error.remedy());
                    warn!(code = error.code().as_str(), cause, remedy, "an endpoint is left out");
                }
                self.endpoints.failed(endpoint, &error);
            }
            _ => self.endpoints.well(endpoint),
        }
    }
}
