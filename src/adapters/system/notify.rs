//! What systemd is told (`Type=notify`). Without `NOTIFY_SOCKET` nobody listens.

use std::time::Duration;

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tracing::debug;

/// The socket is bound. The keeper may still be away: an API server must be able to start.
pub fn ready() {
    send(NotifyState::Ready);
}

/// A stop was asked for.
pub fn stopping() {
    send(NotifyState::Stopping);
}

/// Within what time systemd is to hear that this process works; `None` where nothing waits for it
/// (`WATCHDOG_USEC`, `WATCHDOG_PID`).
#[must_use]
pub fn watchdog() -> Option<Duration> {
    watchdog_enabled().filter(|limit| !limit.is_zero())
}

/// This process works.
pub fn alive() {
    send(NotifyState::Watchdog);
}

fn send(state: NotifyState<'_>) {
    if let Err(error) = notify(&[state]) {
        debug!(%error, "systemd could not be told");
    }
}
