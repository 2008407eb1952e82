//! Follows the X.509-SVIDs of this process, and fetches JWT-SVIDs.

use std::{future::pending, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::Streaming;

use super::{
    connection::{Connection, request},
    problem::Problem,
    svid,
    wire::{JwtsvidRequest, X509svidRequest, X509svidResponse},
};
use crate::{
    domain::{error::KmsError, secret::Secret},
    ports::workload_identity::{AgentSettings, IdentityCertificate, WorkloadIdentity},
};

/// The times of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The longest time from the connection to an answer.
    pub(super) answer: Duration,
    /// After this time without a message the stream of certificates is opened again, so that an
    /// agent that hangs, or whose socket was replaced, is noticed.
    pub(super) silence: Duration,
    /// The wait after the first failure. It doubles up to the last one.
    pub(super) first_wait: Duration,
    /// The longest wait after a failure.
    pub(super) last_wait: Duration,
}

const PACE: Pace = Pace {
    answer: Duration::from_secs(10),
    silence: Duration::from_mins(5),
    first_wait: Duration::from_millis(250),
    last_wait: Duration::from_secs(5),
};

/// What is known of the certificate.
#[derive(Clone, Debug, Default)]
struct Known {
    certificate: Option<Arc<IdentityCertificate>>,
    /// The last problem. `None` if the last message was a certificate.
    problem: Option<KmsError>,
}

/// The Workload API of a SPIFFE agent.
///
/// A JWT-SVID is fetched over a connection of its own. The X.509-SVIDs come over a stream, which is
/// opened again after each failure: after 250 ms first, and after at most 5 s. Each step has a time
/// limit, so an agent that hangs cannot block this program. An agent that is started later, is
/// restarted or replaces its socket is found by the next connection.
#[derive(Debug)]
pub struct WorkloadApi {
    settings: AgentSettings,
    pace: Pace,
    known: watch::Sender<Known>,
}

impl WorkloadApi {
    /// Creates the source. Connects to nothing.
    #[must_use]
    pub fn new(settings: AgentSettings) -> Self {
        Self::with_pace(settings, PACE)
    }

    pub(super) fn with_pace(settings: AgentSettings, pace: Pace) -> Self {
        Self { settings, pace, known: watch::Sender::default() }
    }

    fn socket(&self) -> &Path {
        &self.settings.socket
    }

    async fn connection(&self) -> Result<Connection, Problem> {
        Connection::open(self.socket()).await.map_err(Problem::Unreachable)
    }

    /// Returns the result of `asked`, or that the agent is silent.
    async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, Problem>> + Send,
    ) -> Result<T, Problem> {
        let most = self.pace.answer;
        timeout(most, asked).await.unwrap_or(Err(Problem::Silent(most)))
    }

    /// Opens the stream of certificates and returns it with its first message.
    async fn stream(
        &self,
    ) -> Result<(Connection, Streaming<X509svidResponse>, X509svidResponse), Problem> {
        let mut connection = self.connection().await?;
        let answer = connection.client.fetch_x509svid(request(X509svidRequest {})).await;
        let mut stream = answer.map_err(Problem::Refused)?.into_inner();
        let first = stream.message().await.map_err(Problem::Refused)?.ok_or(Problem::Ended)?;
        Ok((connection, stream, first))
    }

    /// Receives certificates over one stream. Returns why it ended, or `None` if it was silent for
    /// too long. Sets `failures` to 0 once a certificate has arrived.
    async fn receive(&self, failures: &mut u32) -> Option<Problem> {
        let (_connection, mut stream, first) = match self.in_time(self.stream()).await {
            Ok(opened) => opened,
            Err(problem) => return Some(problem),
        };
        let mut next = first;
        loop {
            match svid::certificate(next, self.settings.id.as_deref()) {
                Ok(certificate) => self.keep(certificate),
                // The stream goes on: the next message may hold a usable certificate.
                Err(problem) => self.report(problem),
            }
            *failures = 0;
            next = match timeout(self.pace.silence, stream.message()).await {
                Ok(Ok(Some(next))) => next,
                Ok(Ok(None)) => return Some(Problem::Ended),
                Ok(Err(status)) => return Some(Problem::Refused(status)),
                Err(_elapsed) => return None,
            };
        }
    }

    fn keep(&self, certificate: IdentityCertificate) {
        self.known.send_if_modified(|known| {
            let healed = known.problem.take().is_some();
            let is_new = known.certificate.as_deref() != Some(&certificate);
            if is_new || healed {
                let (place, id) = (self.place(), &certificate.id);
                tracing::info!(id, "{place}: an X.509-SVID has arrived");
            }
            if is_new {
                known.certificate = Some(Arc::new(certificate));
            }
            is_new || healed
        });
    }

    /// Logs a problem unless it is the same as the last one, and keeps it.
    fn report(&self, problem: Problem) {
        let error = problem.into_error(self.socket());
        self.known.send_if_modified(|known| {
            if known.problem.as_ref() == Some(&error) {
                return false;
            }
            let (code, cause, remedy) = (error.code().as_str(), error.cause(), error.remedy());
            let effect = match known.certificate {
                Some(_) => "the last X.509-SVID is used",
                None => "there is no X.509-SVID yet",
            };
            tracing::warn!(code, cause, remedy, "{effect}");
            known.problem = Some(error);
            true
        });
    }

    /// Returns the wait after so many failures in a row.
    fn wait_after(&self, failures: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
        self.pace.first_wait.saturating_mul(factor).min(self.pace.last_wait)
    }
}

#[async_trait]
impl WorkloadIdentity for WorkloadApi {
    fn place(&self) -> String {
        self.socket().display().to_string()
    }

    async fn jwt(&self, audience: &str) -> Result<Secret, KmsError> {
        let id = self.settings.id.as_deref();
        let asked = async {
            let mut connection = self.connection().await?;
            let message = JwtsvidRequest {
                audience: vec![audience.to_owned()],
                spiffe_id: id.unwrap_or_default().to_owned(),
            };
            let answer = connection.client.fetch_jwtsvid(request(message)).await;
            svid::jwt(answer.map_err(Problem::Refused)?.into_inner(), id)
        };
        self.in_time(asked).await.map_err(|problem| problem.into_error(self.socket()))
    }

    async fn certificate(&self) -> Result<Arc<IdentityCertificate>, KmsError> {
        let mut changes = self.known.subscribe();
        let is_answered = |now: &Known| now.certificate.is_some() || now.problem.is_some();
        let answered = async {
            let known = changes.wait_for(is_answered).await.map(|known| known.clone());
            Ok(known.unwrap_or_default())
        };
        let silent = || Problem::Silent(self.pace.answer).into_error(self.socket());
        let known = self.in_time(answered).await.unwrap_or_default();
        known.certificate.ok_or_else(|| known.problem.unwrap_or_else(silent))
    }

    async fn next_certificate<'a>(
        &self,
        known: Option<&'a IdentityCertificate>,
    ) -> Arc<IdentityCertificate> {
        let mut changes = self.known.subscribe();
        let is_next =
            |now: &Known| now.certificate.is_some() && now.certificate.as_deref() != known;
        let next = changes.wait_for(is_next).await.ok().and_then(|now| now.certificate.clone());
        match next {
            Some(next) => next,
            // The sender lives as long as `self`, so this is never reached.
            None => pending().await,
        }
    }

    async fn follow(&self) {
        let mut failures = 0_u32;
        loop {
            if let Some(problem) = self.receive(&mut failures).await {
                self.report(problem);
                failures = failures.saturating_add(1);
                sleep(self.wait_after(failures)).await;
            }
        }
    }
}

#[cfg(test)]
#[path = "workload_api_tests.rs"]
mod tests;
