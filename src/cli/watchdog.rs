//! Notifies systemd's watchdog while the server answers.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::adapters::{
    grpc::{address::SocketAddress, client},
    http::routes::Readiness,
    system::notify,
};

/// The wait after a failed check.
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// Checks the server at `address` over its own socket, four times in each `limit`
/// (`WATCHDOG_USEC`), and notifies systemd after each answer. Without an answer there is no
/// notification, so systemd restarts the process. While `readiness` reports that the socket is not
/// at its path, every check counts as answered, because a restart would not help.
pub(super) async fn feed(address: SocketAddress, readiness: Readiness, limit: Duration) {
    let every = limit / 4;
    loop {
        let answered = matches!(timeout(every, client::answers(&address)).await, Ok(Ok(())));
        if answered || readiness.get().is_err() {
            notify::alive();
            sleep(every).await;
        } else {
            tracing::warn!("the server does not answer on its own socket; the watchdog is not fed");
            sleep(RETRY_WAIT).await;
        }
    }
}
