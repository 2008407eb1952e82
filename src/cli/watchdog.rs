//! Feeds systemd's watchdog while the server answers.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::adapters::{
    grpc::{address::SocketAddress, client},
    http::routes::Readiness,
};

/// The wait after a failed check.
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// Checks the server at `address` over its own socket, four times in each `limit`
/// (`WATCHDOG_USEC`), and calls `alive` after each answer. Without an answer it does not, so systemd
/// restarts the process. While `readiness` reports that the socket is not
/// at its path, every check counts as answered, because a restart would not help.
pub(super) async fn feed(
    address: SocketAddress,
    readiness: Readiness,
    limit: Duration,
    alive: impl Fn(),
) {
    let every = limit / 4;
    loop {
        let answered = matches!(timeout(every, client::answers(&address)).await, Ok(Ok(())));
        if answered || readiness.get().is_err() {
            alive();
            sleep(every).await;
        } else {
            tracing::warn!("the server does not answer on its own socket; the watchdog is not fed");
            sleep(RETRY_WAIT).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::UnixListener,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use super::*;

    /// Feeds while `accepts` connections come to a server that never answers. Returns how often.
    async fn fed(readiness: Readiness, accepts: usize) -> usize {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kms.sock");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let alive = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        let accepting = async {
            let mut held = Vec::new();
            while held.len() < accepts {
                held.push(listener.accept().await.unwrap());
            }
        };
        tokio::select! {
            () = feed(SocketAddress::File(path), readiness, Duration::from_millis(80), alive) => {}
            () = accepting => {}
        }
        count.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn a_server_that_accepts_and_does_not_answer_feeds_nothing() {
        let readiness = Readiness::default();
        readiness.set(Ok(()));
        assert_eq!(fed(readiness, 4).await, 0);
    }

    #[tokio::test]
    async fn a_socket_that_is_not_in_its_place_is_no_reason_for_a_restart() {
        let readiness = Readiness::default();
        readiness.set(Err("the socket was removed"));
        assert_ne!(fed(readiness, 4).await, 0);
    }
}
