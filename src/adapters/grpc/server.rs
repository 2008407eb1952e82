//! Runs the gRPC server: sets its limits and stops it.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::{
    connection::READ_MAX,
    counted::Counting,
    incoming::{CONNECTIONS_MAX, LIMITS, PeerPolicy, admitted},
    service::KmsV2,
    socket::Listeners,
    wire::key_management_service_server::KeyManagementServiceServer,
};
use crate::ports::{audit::Audit, clock::Clock, kms::KeyManagement, telemetry::Telemetry};

/// Largest message, in bytes. A key id, a ciphertext and annotations at the limits of KMS v2 need
/// less.
const MESSAGE_MAX: usize = 36 << 10;

/// Largest list of headers, in bytes as HTTP/2 counts them (RFC 9113, section 6.5.2). The fields
/// that an API server sends add up to about 400.
const HEADERS_MAX: u32 = 2_048;

/// Most bytes of memory for one list of headers. HTTP/2 counts 32 bytes for each field, and a short
/// field takes up to eight times as much memory.
#[expect(clippy::as_conversions, reason = "no other conversion is constant")]
const HEADERS_HOLD: usize = 8 * HEADERS_MAX as usize;

/// Most lists of headers that one connection holds: those of the calls that its last read may begin
/// ([`READ_MAX`]), and one that is not complete. A full list has at most 62 fields of 33 bytes, and
/// with HPACK's table each takes one byte, after the 9 bytes of the frame's head. Later
/// a call holds only the headers that the service reads ([`Counting`]).
const LISTS_MAX: usize = READ_MAX / (9 + 62) + 1;

/// Most calls at once on one connection. [`HELD_MAX`] bounds the memory of all connections
/// together.
const STREAMS_MAX: u32 = 64;

/// Flow-control windows, in bytes: how much a peer may send ahead on one stream and on one
/// connection.
const STREAM_WINDOW: u32 = 65_536;
const CONNECTION_WINDOW: u32 = 65_536;

/// Most bytes that one call holds, apart from its few headers. The message is in a buffer that doubles as it grows. An answer
/// that the peer does not read holds less.
const CALL_HOLDS: usize = MESSAGE_MAX.next_power_of_two();

/// Most bytes that unfinished calls, their headers and unread answers hold together.
const HELD_MAX: usize = 80 << 20;
#[expect(clippy::as_conversions, reason = "no other conversion is constant")]
const CONNECTION_HOLDS: usize = CALL_HOLDS + CONNECTION_WINDOW as usize + LISTS_MAX * HEADERS_HOLD;
const _: () = assert!(LIMITS.held * CALL_HOLDS + CONNECTIONS_MAX * CONNECTION_HOLDS < HELD_MAX);

/// How long a call may take, measured from its first byte. This includes reading the request. The
/// `grpc-timeout` of a caller may be shorter.
const CALL_MAX: Duration = Duration::from_secs(30);

/// How often the server sends a PING, and how long it waits for the answer. It closes a connection
/// without an answer: the peer has gone, or does not speak HTTP/2.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWERED: Duration = Duration::from_secs(5);

/// How old connections get. The read buffers of a connection hold seeds, so the age is bounded.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionAge {
    /// The age at which the server asks the peer to reconnect (GOAWAY). Each process subtracts a
    /// random part of up to a fifth.
    pub most: Duration,
    /// How long the connection may take to end after that. Then the server closes it.
    pub grace: Duration,
}

impl ConnectionAge {
    /// 10 minutes, and the time that a call may take.
    pub const USUAL: Self = Self { most: Duration::from_mins(10), grace: CALL_MAX };
}

/// A server that is not running yet: the use cases and everything that the server needs.
#[derive(Clone, Debug)]
pub struct KmsServer {
    /// The use cases.
    pub kms: Arc<dyn KeyManagement>,
    /// Measures time, for deadlines and durations.
    pub clock: Arc<dyn Clock>,
    /// Receives the events of the server.
    pub telemetry: Arc<dyn Telemetry>,
    /// The audit log of wraps and unwraps. `None` when it is off.
    pub audit: Option<Arc<dyn Audit>>,
    /// Which peers may connect.
    pub peers: PeerPolicy,
    /// How old connections get.
    pub age: ConnectionAge,
    /// How long active calls may take to end after the stop.
    pub drain: Duration,
}

impl KmsServer {
    /// Serves `listeners` until `stop` is cancelled. Then waits for active calls to end, for at
    /// most `drain`.
    ///
    /// # Errors
    /// Returns an error when the runtime cannot take over the listener, or when the transport fails
    /// as a whole.
    pub async fn run(
        self,
        listeners: Listeners,
        stop: CancellationToken,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let age_max = self.age.most.mul_f64(1.0 - self.clock.jitter() / 5.0);
        // tonic's own grace time would replace the GOAWAY: with it, tonic 0.14.9 only closes.
        let closed_after = age_max + self.age.grace;
        let incoming = admitted(listeners, self.peers, Arc::clone(&self.telemetry), closed_after)?;
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
            .layer(Counting)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        // A client that ignores GOAWAY would keep the server running for ever.
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(self.drain).await;
        };
        tokio::select! {
            ended = serving => ended.map_err(Into::into),
            () = drained => {
                tracing::warn!(drain_s = self.drain.as_secs(), "stopped while connections were still open; they were closed");
                Ok(())
            }
        }
    }
}
