//! Connections, dialled in tasks of their own: a request that gives up does not take its dial with
//! it, so a connection that takes longer than any request may wait is there for the next one.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tower::Service;

use super::transport::{BoxError, Connection, Dial};

/// Connections that nobody waited for any more are kept up to this many, for this long.
const SPARE_MAX: usize = 4;
const SPARE_FOR: Duration = Duration::from_secs(20);

/// Dials, and keeps what came too late.
#[derive(Clone)]
pub(super) struct Dialler {
    dial: Arc<dyn Dial>,
    most: Duration,
    spare: Arc<Mutex<VecDeque<Spare>>>,
}

struct Spare {
    to: Uri,
    since: Instant,
    connection: Connection,
}

impl Dialler {
    /// Dials by `dial`; a dial takes at most `most` (`--vault-connection-timeout`).
    pub(super) fn new(dial: Arc<dyn Dial>, most: Duration) -> Self {
        Self { dial, most, spare: Arc::default() }
    }

    fn take_spare(&self, to: &Uri) -> Option<Connection> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.retain(|spare| spare.since.elapsed() < SPARE_FOR);
        let at = spare.iter().position(|spare| spare.to.authority() == to.authority())?;
        spare.remove(at).map(|spare| spare.connection)
    }
}

impl Service<Uri> for Dialler {
    type Response = Connection;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        if let Some(connection) = self.take_spare(&to) {
            return Box::pin(async { Ok(connection) });
        }
        let (dial, most) = (self.dial.dial(to.clone()), self.most);
        let spare = Arc::clone(&self.spare);
        let (waiter, dialled) = oneshot::channel();
        drop(tokio::spawn(async move {
            let dialled = match timeout(most, dial).await {
                Ok(dialled) => dialled,
                Err(_elapsed) => Err("the connection took too long to establish".into()),
            };
            if let Err(Ok(connection)) = waiter.send(dialled) {
                let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
                spare.push_back(Spare { to, since: Instant::now(), connection });
                if spare.len() > SPARE_MAX {
                    spare.pop_front();
                }
            }
        }));
        Box::pin(async { dialled.await.map_err(BoxError::from)? })
    }
}
