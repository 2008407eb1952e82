//! The runtime, and how it is told to stop.

use std::io;

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The runtime of this process: one thread. An unwrap is some microseconds of work and a wait for
/// the keeper; waking a second thread for its parts costs more than it gains, in time and in
/// memory (docs/performance.md).
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// What other processes ask of this one.
pub(super) struct Signals {
    /// Is cancelled at the first SIGTERM or SIGINT.
    pub(super) stop: CancellationToken,
    /// Changes at each SIGHUP.
    pub(super) hangup: watch::Receiver<()>,
}

/// Listens to signals, once `runtime` runs. From now on none of them ends the process by itself.
pub(super) fn signals(runtime: &Runtime) -> io::Result<Signals> {
    let _within = runtime.enter();
    let stop = CancellationToken::new();
    let (tell, hangup) = watch::channel(());
    let signalled = stop.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminal = signal(SignalKind::hangup())?;
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
                    tell.send_replace(());
                }
            }
        }
    }));
    Ok(Signals { stop, hangup })
}
