//! A text file that is also read again when an operator asks for it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{domain::secret::Plaintext, ports::file::TextFile};

/// Reports a possible change of the file whenever `asked` changes. The callers compare the content
/// with what they know, so a needless report is harmless.
#[derive(Debug)]
pub struct Reread {
    file: Arc<dyn TextFile>,
    asked: watch::Receiver<()>,
}

impl Reread {
    /// Returns `file`, which also reports a change whenever `asked` changes.
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
    async fn reports_a_change_on_request() {
        let (ask, asked) = watch::channel(());
        let file = Reread::new(Arc::new(Unchanging), asked);
        ask.send_replace(());
        assert!(file.changed().now_or_never().is_none(), "an earlier request does not count");
        let mut waiting = Box::pin(file.changed());
        assert!(waiting.as_mut().now_or_never().is_none());
        ask.send_replace(());
        waiting.await;
        drop(ask);
        assert!(file.changed().now_or_never().is_none(), "the sender has gone");
    }
}
