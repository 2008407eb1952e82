//! Sends notifications to systemd (`Type=notify`). Does nothing without `NOTIFY_SOCKET`.

use std::time::Duration;

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tracing::debug;

/// Reports that the socket is bound. The keeper may still be unavailable: an API server must be
/// able to start.
pub fn ready() {
    send(NotifyState::Ready);
}

/// Reports that this process is stopping.
pub fn stopping() {
    send(NotifyState::Stopping);
}

/// Returns the interval within which systemd expects [`alive`] (`WATCHDOG_USEC`, `WATCHDOG_PID`).
/// Returns `None` when its watchdog is off.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    watchdog_enabled().filter(|limit| !limit.is_zero())
}

/// Reports to the watchdog that this process works.
pub fn alive() {
    send(NotifyState::Watchdog);
}

fn send(state: NotifyState<'_>) {
    if let Err(error) = notify(&[state]) {
        debug!(%error, "could not notify systemd");
    }
}
