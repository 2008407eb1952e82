//! The runtime, and how it is told to stop.

use std::io;

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The runtime of this process: one thread. An unwrap is some microseconds of work and a wait for
/// the keeper; waking a second thread for its parts costs more than it gains, in time and in
/// memory (docs/performance.md).
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// What is cancelled at the first SIGTERM or SIGINT, once `runtime` runs.
pub(super) fn stop_on_signals(runtime: &Runtime) -> io::Result<CancellationToken> {
    let _within = runtime.enter();
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("stopping on SIGTERM"),
            _ = interrupt.recv() => info!("stopping on SIGINT"),
        }
        signalled.cancel();
    }));
    Ok(stop)
}
