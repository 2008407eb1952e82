//! What systemd is told (`Type=notify`). Without `NOTIFY_SOCKET` nobody listens.

use sd_notify::{NotifyState, notify};
use tracing::debug;

/// The socket is bound. The keeper may still be away: an API server must be able to start.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// A stop was asked for.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = notify(&[state]) {
        debug!(%error, "systemd could not be told");
    }
}
