//! The servers of one cluster, and how a request reaches one of them: the connections, their TLS
//! settings, and the answer or the failure of one request.
//!
//! Which server gets a request, and what follows a failure, is decided in `client`.

mod connections;
mod exchange;
mod expiry;
mod failure;
mod replaced;
mod trace;
mod transport;

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::HeaderValue;
use tokio::sync::watch;
use tracing::Span;

pub use self::transport::{BoxError, Dial, KeeperConnection};
use self::{
    connections::Connections,
    exchange::{Exchanged, Limit, exchange},
    expiry::ServerCertificates,
    transport::Network,
};
pub(super) use self::{
    exchange::{Answer, Expected, Request, json, unreadable},
    failure::Failure,
    trace::record_failure,
};
use super::{
    address::VaultAddress,
    bundle,
    tls::{Identity, TlsSettings, Trust},
    vocabulary,
};
use crate::{
    domain::{
        error::{Code, KmsError},
        time::UnixTime,
    },
    ports::{
        clock::Clock,
        telemetry::{Event, Expiring, Telemetry},
    },
};

/// A time-out of a request that got less time says nothing about the server, because the caller had
/// little time left. The value is less than the share that each of many endpoints gets of a call's
/// time.
const MIN_COUNTED_TIMEOUT: Duration = Duration::from_millis(250);

/// Kept back from the time of a request, so that the error of this layer arrives before the outer
/// deadline ends the call.
const ERROR_RESERVE: Duration = Duration::from_millis(5);

/// The addresses of the servers and how to connect to them.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The servers of one cluster: at least one, in the order of the first tries.
    pub addresses: Vec<VaultAddress>,
    /// The TLS settings, used for `https` addresses.
    pub tls: TlsSettings,
    /// The longest time to establish a connection (`--vault-connection-timeout`).
    pub connect_timeout: Duration,
    /// The longest time for one request (`--vault-request-timeout`).
    pub request_timeout: Duration,
}

impl ServerSettings {
    /// Returns whether all addresses use `https`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.addresses.iter().all(VaultAddress::is_tls)
    }

    /// Returns the name of the connection in metrics: all addresses, separated by commas.
    #[must_use]
    pub fn connection(&self) -> String {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        addresses.join(",")
    }
}

/// The configured servers. Each is an endpoint, and has an index: its place in the configured
/// order, from 0.
pub struct Servers {
    connections: Connections,
    /// The TLS settings of new connections.
    tls: Mutex<TlsSettings>,
    /// The SHA-256 of the client certificate that new connections present.
    presents: watch::Sender<Option<[u8; 32]>>,
    certificates: Arc<ServerCertificates>,
    settings: ServerSettings,
    telemetry: Arc<dyn Telemetry>,
}

impl Servers {
    /// Creates the servers of `settings`, which are connected over the real network. Opens no
    /// connection.
    ///
    /// # Errors
    /// Returns why TLS cannot be set up; see [`TlsSettings::client_config`].
    pub(super) fn new(
        settings: ServerSettings,
        clock: Arc<dyn Clock>,
        telemetry: Arc<dyn Telemetry>,
    ) -> Result<Self, String> {
        let certificates = Arc::new(ServerCertificates::new(Arc::clone(&telemetry)));
        let network = Arc::new(Network::new(&settings, Arc::clone(&certificates))?);
        let servers = Self { certificates, ..Self::over(network, settings, clock, telemetry) };
        if let Trust::Bundle(bundle) = &servers.settings.tls.trust {
            servers.expires(vocabulary::AUTHORITIES, bundle::read(bundle)?.first_end);
        }
        if let Identity::Pair(pair) = &servers.settings.tls.identity {
            servers.expires(vocabulary::CLIENT_CERTIFICATE, pair.end());
        }
        Ok(servers)
    }

    /// Creates servers that are connected through `dial`, without the TLS settings.
    pub(super) fn over(
        dial: Arc<dyn Dial>,
        settings: ServerSettings,
        clock: Arc<dyn Clock>,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        let count = settings.addresses.len();
        Self {
            connections: Connections::new(count, dial, settings.connect_timeout, clock),
            presents: watch::Sender::new(settings.tls.identity.digest()),
            tls: Mutex::new(settings.tls.clone()),
            certificates: Arc::new(ServerCertificates::new(Arc::clone(&telemetry))),
            settings,
            telemetry,
        }
    }

    /// Returns the addresses, in the configured order.
    pub(super) fn addresses(&self) -> &[VaultAddress] {
        &self.settings.addresses
    }

    /// Returns the longest time for one request.
    pub(super) const fn request_timeout(&self) -> Duration {
        self.settings.request_timeout
    }

    /// Returns the trace span for sending `request` to an endpoint, as a child of the current span.
    pub(super) fn span(&self, endpoint: usize, request: &Request<'_>) -> Span {
        trace::span(request, self.settings.addresses.get(endpoint))
    }

    /// Sends `request` to one endpoint within `limit`, and reads the answer, for which it
    /// `waits_longer` than that. `index` is the state of the cluster that the endpoint must have
    /// reached. Closes the connections to a server that does not serve.
    pub(super) async fn exchange<T: Expected>(
        &self,
        endpoint: usize,
        request: &Request<'_>,
        index: Option<HeaderValue>,
        limit: Duration,
        waits_longer: Duration,
    ) -> Result<Answer<T>, Failure> {
        let reached = self.settings.addresses.get(endpoint).zip(self.connections.to(endpoint));
        let Some((address, http)) = reached else {
            return Err(Failure::Unsent(KmsError::new(
                Code::Internal,
                "no such endpoint",
                "report this",
            )));
        };
        let enough = MIN_COUNTED_TIMEOUT.min(self.settings.request_timeout);
        let sent_within = limit.saturating_sub(ERROR_RESERVE);
        let most = sent_within.saturating_add(waits_longer);
        let limit = Limit { sent_within, most, is_short: limit < enough };
        let Exchanged { outcome, peer } = exchange(&http, address, request, index, limit).await;
        trace::answered(&outcome);
        let outcome = outcome.and_then(|raw| raw.judged(endpoint, address));
        let wants_another = match &outcome {
            Ok(answer) => does_not_serve(answer.status),
            Err(failure) => failure.wants_another_server(),
        };
        if wants_another {
            self.reconnect(endpoint, peer);
        }
        outcome
    }

    /// Closes the connections to an endpoint, because another server may have the same name by now.
    /// `peer` is the server that did not serve, if it is known.
    pub(super) fn reconnect(&self, endpoint: usize, peer: Option<SocketAddr>) {
        self.connections.renew(endpoint, peer);
    }

    /// Reports to telemetry when `what` expires. `None` means that the time is not known.
    pub(super) fn expires(&self, what: Expiring, at: Option<UnixTime>) {
        self.telemetry.record(Event::Expires { what, at });
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

/// Returns whether the health status `status` means that the server serves no requests: it is a
/// disaster-recovery secondary, not initialised, or sealed.
pub(super) const fn does_not_serve(status: u16) -> bool {
    matches!(status, 472 | 501 | 503)
}

#[cfg(test)]
#[path = "short_time_tests.rs"]
mod short_time_tests;
