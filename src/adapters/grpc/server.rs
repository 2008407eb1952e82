//! The server: its limits, and how it stops.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::{
    counted::Counting,
    incoming::{CONNECTIONS_MAX, LIMITS, PeerPolicy, admitted},
    service::KmsV2,
    socket::Listeners,
    wire::key_management_service_server::KeyManagementServiceServer,
};
use crate::ports::{audit::Audit, clock::Clock, kms::KeyManagement, telemetry::Telemetry};

/// Largest message, in bytes: a key id, a ciphertext and annotations at KMS v2's limits take less.
const MESSAGE_MAX: usize = 36 << 10;

/// Largest list of headers, in bytes.
const HEADERS_MAX: u32 = 16_384;

/// Calls in hand on one connection. What all connections hold is bounded below.
const STREAMS_MAX: u32 = 64;

/// The flow-control windows: what a peer may send ahead on one stream and on one connection.
const STREAM_WINDOW: u32 = 65_536;
const CONNECTION_WINDOW: u32 = 65_536;

/// What a call holds at most, in bytes: its message in a buffer that doubles as it grows. An answer
/// that no peer takes holds less.
const CALL_HOLDS: usize = MESSAGE_MAX.next_power_of_two();

/// What calls that are never finished, and answers that no peer takes, hold at most, in bytes.
const HELD_MAX: usize = 80 << 20;
#[expect(clippy::as_conversions, reason = "no other conversion is constant")]
const _: () = assert!(
    (LIMITS.held + CONNECTIONS_MAX) * CALL_HOLDS + CONNECTIONS_MAX * (CONNECTION_WINDOW as usize)
        < HELD_MAX
);

/// How long a call may take from its first byte on, the reading of the request included. A caller's
/// own `grpc-timeout` may be shorter.
const CALL_MAX: Duration = Duration::from_secs(30);

/// A peer that answers no PING for `PING_ANSWERED` is gone, or never was an HTTP/2 client.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWERED: Duration = Duration::from_secs(5);

/// How old a connection gets before its peer is asked to open another one (GOAWAY), and how long
/// it may take to end after that. The age is spread by a fifth from process to process. Read buffers of a connection hold seeds; so they do not get old.
const AGE_MAX: Duration = Duration::from_mins(10);
const AGE_GRACE: Duration = CALL_MAX;

/// The use cases, and what the server needs beside them.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The use cases.
    pub kms: Arc<dyn KeyManagement>,
    /// Time, for deadlines and durations.
    pub clock: Arc<dyn Clock>,
    /// Who listens.
    pub telemetry: Arc<dyn Telemetry>,
    /// The record of wraps and unwraps, if one is wanted.
    pub audit: Option<Arc<dyn Audit>>,
    /// Who may connect.
    pub peers: PeerPolicy,
    /// How long calls in hand may take to end once a stop was asked for.
    pub drain: Duration,
}

impl Serving {
    /// Serves `listeners` until `stop` is cancelled, then lets the calls in hand end.
    ///
    /// # Errors
    /// When the runtime cannot take over the listener, or the transport fails as a whole.
    pub async fn run(
        self,
        listeners: Listeners,
        stop: CancellationToken,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let age_max = AGE_MAX.mul_f64(1.0 - self.clock.jitter() / 5.0);
        let incoming = admitted(listeners, self.peers, Arc::clone(&self.telemetry))?;
        let service = KeyManagementServiceServer::new(KmsV2::new(
            self.kms,
            self.clock,
            self.telemetry,
            self.audit,
        ))
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
        let serving = Server::builder()
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_header_list_size(HEADERS_MAX)
            .timeout(CALL_MAX)
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_ANSWERED))
            .max_connection_age(age_max)
            .max_connection_age_grace(AGE_GRACE)
            .layer(Counting)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        // A client that ignores GOAWAY would hold the server open for ever.
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(self.drain).await;
        };
        tokio::select! {
            ended = serving => ended.map_err(Into::into),
            () = drained => {
                tracing::warn!(drain_s = self.drain.as_secs(), "stopped with connections still open");
                Ok(())
            }
        }
    }
}
