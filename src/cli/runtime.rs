//! The runtime, and the signals that stop it.

use std::io;

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Builds the runtime of this process, which has one thread. An unwrap needs some microseconds of
/// work and then waits for the keeper. A second thread would cost more time and memory than it
/// gains (docs/performance.md).
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// The signals that this process received.
pub(super) struct Signals {
    /// Cancelled at the first SIGTERM or SIGINT.
    pub(super) stop: CancellationToken,
    /// Changes at each SIGHUP.
    pub(super) hangup: watch::Receiver<()>,
}

/// Receives SIGHUP while `runtime` runs. From now on this signal does not end the process by itself.
pub(super) fn hangups(runtime: &Runtime) -> io::Result<Signal> {
    let _within = runtime.enter();
    signal(SignalKind::hangup())
}

/// Handles SIGTERM, SIGINT and the SIGHUPs of `terminal` while `runtime` runs. From now on these
/// signals do not end the process by themselves.
pub(super) fn signals(runtime: &Runtime, mut terminal: Signal) -> io::Result<Signals> {
    let _within = runtime.enter();
    let stop = CancellationToken::new();
    let (notify, hangup) = watch::channel(());
    let signalled = stop.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {
                    info!("stopping on SIGTERM");
                    signalled.cancel();
                }
                _ = interrupt.recv() => {
                    info!("stopping on SIGINT");
                    signalled.cancel();
                }
                _ = terminal.recv() => {
                    notify.send_replace(());
                }
            }
        }
    }));
    Ok(Signals { stop, hangup })
}
