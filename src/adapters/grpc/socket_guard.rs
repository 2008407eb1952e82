//! Keeps the socket file in its place while the process serves, and removes it at the end.

use std::{os::unix::net::UnixListener, time::Duration};

use tokio::{sync::mpsc, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    address::SocketAddress,
    bind_error::BindError,
    socket::{BoundSocket, Listeners},
    socket_file::SocketFile,
};

/// How often the file is checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A change of the socket.
#[derive(Debug)]
pub enum SocketEvent {
    /// The file was removed or replaced, and the socket cannot be bound again yet. Sent again when
    /// the reason changes.
    Lost(BindError),
    /// The socket was bound again.
    Rebound,
    /// The file is at its path again, as it was before.
    Found,
}

/// Guards the socket file of a running server. Run it with [`SocketGuard::keep`].
#[derive(Debug)]
pub struct SocketGuard {
    address: SocketAddress,
    /// `None` for an abstract socket: it has no file that could be removed.
    file: Option<SocketFile>,
    /// False for a socket that systemd opened. This process neither binds it again nor removes it.
    ours: bool,
    listeners: mpsc::Sender<UnixListener>,
}

impl BoundSocket {
    /// Splits the socket into its listeners (the present one and each one that replaces it) and the
    /// guard that keeps its file in place.
    #[must_use]
    pub fn guarded(self) -> (Listeners, SocketGuard) {
        let (listeners, replacements) = mpsc::channel(1);
        let Self { listener, address, file, ours } = self;
        let guard = SocketGuard { address, file, ours, listeners };
        (Listeners { first: listener, replacements }, guard)
    }
}

impl SocketGuard {
    /// Checks the file once a second until `stop` is cancelled. Then removes the file, unless
    /// another process has put its own file there. When the file is gone or was replaced, binds the
    /// socket again as soon as no other process listens at the address. Leaves the file of a socket
    /// that systemd passed to systemd.
    ///
    /// Calls `report` with each change.
    pub async fn keep(mut self, stop: &CancellationToken, report: impl Fn(SocketEvent) + Send) {
        let mut reported: Option<String> = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep(LOOK_EVERY) => (),
            }
            let Some(file) = self.file.take() else { continue };
            let (address, ours) = (self.address.clone(), self.ours);
            let checked = spawn_blocking(move || check(file, &address, ours)).await;
            // Fails only when the runtime ends: the check does not panic.
            let Ok((file, rebound)) = checked else { return };
            self.file = Some(file);
            match rebound {
                None => {
                    if reported.take().is_some() {
                        report(SocketEvent::Found);
                    }
                }
                Some(Ok(listener)) => {
                    reported = None;
                    // Fails only when the server has ended and does not need the listener.
                    drop(self.listeners.send(listener).await);
                    report(SocketEvent::Rebound);
                }
                Some(Err(error)) => {
                    let text = error.to_string();
                    if reported.as_ref() != Some(&text) {
                        reported = Some(text);
                        report(SocketEvent::Lost(error));
                    }
                }
            }
        }
        let Some(file) = self.file.filter(|_| self.ours) else { return };
        if let Ok(Err(error)) = spawn_blocking(move || file.remove()).await {
            tracing::warn!(%error, "could not remove the socket file; the next start replaces it");
        }
    }
}

/// Checks whether the file is in place. If it is not, binds the address again. Returns the file
/// that counts from now on and the outcome of the bind, if there was one.
fn check(
    file: SocketFile,
    address: &SocketAddress,
    ours: bool,
) -> (SocketFile, Option<Result<UnixListener, BindError>>) {
    if file.is_in_place() {
        return (file, None);
    }
    if !ours {
        return (file, Some(Err(BindError::PassedAndLost(address.clone()))));
    }
    match BoundSocket::bind(address) {
        Ok(BoundSocket { listener, file: new, .. }) => (new.unwrap_or(file), Some(Ok(listener))),
        Err(error) => (file, Some(Err(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixStream, sync::Arc};

    use tokio::{task::JoinHandle, time::timeout};

    use super::*;

    /// How long an operator may have to wait.
    const NOTICED: Duration = Duration::from_secs(5);

    struct Kept {
        path: std::path::PathBuf,
        listeners: Listeners,
        events: mpsc::UnboundedReceiver<SocketEvent>,
        stop: CancellationToken,
        keeping: JoinHandle<()>,
    }

    fn kept(directory: &tempfile::TempDir) -> Kept {
        let path = directory.path().join("k.sock");
        let bound = BoundSocket::bind(&SocketAddress::File(path.clone())).unwrap();
        let (listeners, guard) = bound.guarded();
        let (sender, events) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let send = Arc::new(move |event| sender.send(event).unwrap());
        let keeping = tokio::spawn(async move {
            guard.keep(&stopped, move |event| send(event)).await;
        });
        Kept { path, listeners, events, stop, keeping }
    }

    async fn next(kept: &mut Kept) -> SocketEvent {
        timeout(NOTICED, kept.events.recv()).await.expect("the guard reports a change").unwrap()
    }

    #[tokio::test]
    async fn binds_a_removed_socket_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = kept(&directory);
        fs::remove_file(&kept.path).unwrap();
        let bound = next(&mut kept).await;
        assert!(matches!(bound, SocketEvent::Rebound), "{bound:?}");
        let listener = kept.listeners.replacements.recv().await.unwrap();
        UnixStream::connect(&kept.path).unwrap();
        listener.accept().unwrap();
        kept.stop.cancel();
        kept.keeping.await.unwrap();
        assert!(!kept.path.exists(), "the file is removed at the end");
    }

    #[tokio::test]
    async fn waits_until_another_process_leaves_the_address() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = kept(&directory);
        fs::remove_file(&kept.path).unwrap();
        let other = UnixListener::bind(&kept.path).unwrap();
        let lost = next(&mut kept).await;
        assert!(matches!(lost, SocketEvent::Lost(BindError::InUse(_))), "{lost:?}");
        drop(other);
        let bound = next(&mut kept).await;
        assert!(matches!(bound, SocketEvent::Rebound), "{bound:?}");
        kept.stop.cancel();
        kept.keeping.await.unwrap();
    }

    /// A directory that was moved and moved back, or had no rights for a while.
    #[tokio::test]
    async fn notices_that_the_same_file_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = kept(&directory);
        let (path, away) = (kept.path.clone(), directory.path().join("away"));
        fs::rename(&path, &away).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        assert!(matches!(next(&mut kept).await, SocketEvent::Lost(_)));
        fs::rename(&away, &path).unwrap();
        drop(other);
        let found = next(&mut kept).await;
        assert!(matches!(found, SocketEvent::Found), "{found:?}");
        kept.stop.cancel();
        kept.keeping.await.unwrap();
    }

    #[tokio::test]
    async fn leaves_the_socket_of_another_process_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let kept = kept(&directory);
        fs::remove_file(&kept.path).unwrap();
        let _other = UnixListener::bind(&kept.path).unwrap();
        kept.stop.cancel();
        kept.keeping.await.unwrap();
        UnixStream::connect(&kept.path).unwrap();
    }
}
