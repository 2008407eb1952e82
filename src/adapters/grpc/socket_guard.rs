//! Keeps the file of the socket in its place while the process serves, and removes it at the end.

use std::{os::unix::net::UnixListener, time::Duration};

use tokio::{sync::mpsc, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    address::SocketAddress,
    bind_error::BindError,
    socket::{BoundSocket, Listeners},
    socket_file::SocketFile,
};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What happened to the socket.
#[derive(Debug)]
pub enum SocketEvent {
    /// The file was removed or replaced, and the socket cannot be bound anew yet. Comes again when
    /// the reason changes.
    Lost(BindError),
    /// The socket was bound anew.
    BoundAnew,
}

/// The file of a socket that is served. To be run with [`SocketGuard::keep`].
#[derive(Debug)]
pub struct SocketGuard {
    address: SocketAddress,
    /// `None` for an abstract socket, which cannot be removed.
    file: Option<SocketFile>,
    /// False for a socket of systemd's: it is neither bound anew nor removed here.
    ours: bool,
    listeners: mpsc::Sender<UnixListener>,
}

impl BoundSocket {
    /// Takes the socket apart: what it listens with, now and after it had to be bound anew, and
    /// what keeps its file in place.
    #[must_use]
    pub fn guarded(self) -> (Listeners, SocketGuard) {
        let (listeners, anew) = mpsc::channel(1);
        let Self { listener, address, file, ours } = self;
        let guard = SocketGuard { address, file, ours, listeners };
        (Listeners { first: listener, anew }, guard)
    }
}

impl SocketGuard {
    /// Looks after the file once a second, until `stop` is cancelled; then removes the file, unless
    /// another process has put its own there. A file that is gone or was replaced is told of, and
    /// the socket is bound anew as soon as that is safe: where another process listens, it is not.
    /// The file of a socket that systemd passed is left to systemd.
    ///
    /// Calls `tell` with each change.
    pub async fn keep(mut self, stop: &CancellationToken, tell: impl Fn(SocketEvent) + Send) {
        let mut told: Option<String> = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep(LOOK_EVERY) => (),
            }
            let Some(file) = self.file.take() else { continue };
            let (address, ours) = (self.address.clone(), self.ours);
            let looked = spawn_blocking(move || look(file, &address, ours)).await;
            // The look cannot be cancelled before it began, and does not panic.
            let Ok((file, anew)) = looked else { return };
            self.file = Some(file);
            match anew {
                None => (),
                Some(Ok(listener)) => {
                    told = None;
                    // Without a server nothing has to be told.
                    drop(self.listeners.send(listener).await);
                    tell(SocketEvent::BoundAnew);
                }
                Some(Err(error)) => {
                    let text = error.to_string();
                    if told.as_ref() != Some(&text) {
                        told = Some(text);
                        tell(SocketEvent::Lost(error));
                    }
                }
            }
        }
        let Some(file) = self.file.filter(|_| self.ours) else { return };
        if let Ok(Err(error)) = spawn_blocking(move || file.remove()).await {
            tracing::warn!(%error, "the socket is left behind");
        }
    }
}

/// Looks whether the file is in place, and binds the address anew if it is not. Returns the file
/// that counts from now on, and what came of the bind.
fn look(
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
        Ok(BoundSocket { listener, file: anew, .. }) => (anew.unwrap_or(file), Some(Ok(listener))),
        Err(error) => (file, Some(Err(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixStream, sync::Arc};

    use tokio::{task::JoinHandle, time::timeout};

    use super::*;

    /// What an operator may have to wait for.
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
        let tell = Arc::new(move |event| sender.send(event).unwrap());
        let keeping = tokio::spawn(async move {
            guard.keep(&stopped, move |event| tell(event)).await;
        });
        Kept { path, listeners, events, stop, keeping }
    }

    async fn next(kept: &mut Kept) -> SocketEvent {
        timeout(NOTICED, kept.events.recv()).await.expect("it is noticed").unwrap()
    }

    #[tokio::test]
    async fn a_socket_that_was_removed_is_bound_anew() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = kept(&directory);
        fs::remove_file(&kept.path).unwrap();
        let bound = next(&mut kept).await;
        assert!(matches!(bound, SocketEvent::BoundAnew), "{bound:?}");
        let listener = kept.listeners.anew.recv().await.unwrap();
        UnixStream::connect(&kept.path).unwrap();
        listener.accept().unwrap();
        kept.stop.cancel();
        kept.keeping.await.unwrap();
        assert!(!kept.path.exists(), "it is removed at the end");
    }

    #[tokio::test]
    async fn a_socket_of_another_process_stays_and_is_replaced_once_it_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = kept(&directory);
        fs::remove_file(&kept.path).unwrap();
        let other = UnixListener::bind(&kept.path).unwrap();
        let lost = next(&mut kept).await;
        assert!(matches!(lost, SocketEvent::Lost(BindError::InUse(_))), "{lost:?}");
        drop(other);
        let bound = next(&mut kept).await;
        assert!(matches!(bound, SocketEvent::BoundAnew), "{bound:?}");
        kept.stop.cancel();
        kept.keeping.await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_of_another_process_is_not_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let kept = kept(&directory);
        fs::remove_file(&kept.path).unwrap();
        let _other = UnixListener::bind(&kept.path).unwrap();
        kept.stop.cancel();
        kept.keeping.await.unwrap();
        UnixStream::connect(&kept.path).unwrap();
    }
}
