//! A text file that is also read anew when an operator asks for it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{domain::secret::Plaintext, ports::file::TextFile};

/// Wakes those who wait for a change of the file whenever `asked` changes. They compare what they
/// read with what they knew: asking is harmless.
#[derive(Debug)]
pub struct Reread {
    file: Arc<dyn TextFile>,
    asked: watch::Receiver<()>,
}

impl Reread {
    /// `file`, read anew with each change of `asked`.
    #[must_use]
    pub const fn new(file: Arc<dyn TextFile>, asked: watch::Receiver<()>) -> Self {
        Self { file, asked }
    }
}

#[async_trait]
impl TextFile for Reread {
    fn place(&self) -> String {
        self.file.place()
    }

    async fn read(&self) -> Result<Plaintext, String> {
        self.file.read().await
    }

    async fn changed(&self) {
        let mut asked = self.asked.clone();
        asked.mark_unchanged();
        tokio::select! {
            () = self.file.changed() => (),
            Ok(()) = asked.changed() => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[derive(Debug)]
    struct Unchanging;

    #[async_trait]
    impl TextFile for Unchanging {
        fn place(&self) -> String {
            String::new()
        }

        async fn read(&self) -> Result<Plaintext, String> {
            Err(String::new())
        }

        async fn changed(&self) {
            std::future::pending::<()>().await;
        }
    }

    #[tokio::test]
    async fn a_request_wakes_those_who_wait_for_a_change() {
        let (ask, asked) = watch::channel(());
        let file = Reread::new(Arc::new(Unchanging), asked);
        ask.send_replace(());
        assert!(file.changed().now_or_never().is_none(), "what was asked before is over");
        let mut waiting = Box::pin(file.changed());
        assert!(waiting.as_mut().now_or_never().is_none());
        ask.send_replace(());
        waiting.await;
        drop(ask);
        assert!(file.changed().now_or_never().is_none(), "nobody asks any more");
    }
}
