//! Feeds systemd's watchdog for as long as the server answers.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::adapters::{
    grpc::{address::SocketAddress, client},
    http::routes::Readiness,
    system::notify,
};

/// How long to wait after a question that failed.
const AGAIN: Duration = Duration::from_millis(100);

/// Asks the server at `address` over its own socket, and tells systemd after each answer, four
/// times in each `limit` (`WATCHDOG_USEC`). A server that does not answer is not fed, so systemd
/// restarts it. While the socket is not in its place, which `readiness` knows, this task running is
/// answer enough: a restart would not mend that.
pub(super) async fn feed(address: SocketAddress, readiness: Readiness, limit: Duration) {
    let every = limit / 4;
    loop {
        let answered = matches!(timeout(every, client::answers(&address)).await, Ok(Ok(())));
        if answered || readiness.get().is_err() {
            notify::alive();
            sleep(every).await;
        } else {
            tracing::warn!("the server does not answer on its own socket; the watchdog is not fed");
            sleep(AGAIN).await;
        }
    }
}
