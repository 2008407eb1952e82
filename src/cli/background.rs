//! The tasks that run beside the server, each for ever. One that ends is a defect, and is noticed.

use std::{collections::HashMap, future::Future};

use tokio::task::{Id, JoinSet};

/// Tasks with names. They end with this value.
#[derive(Debug, Default)]
pub(super) struct Background {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Background {
    /// Runs `task`, which is to run for ever.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until a task ends or panics, and says which one in one line.
    pub(super) async fn first_end(&mut self) -> String {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let (id, how) = match ended {
            Ok((id, ())) => (id, "ended"),
            Err(error) => (error.id(), "panicked"),
        };
        let name = self.names.remove(&id).unwrap_or("without a name");
        format!("the background task {name:?} {how}; this is a defect, report it with this line")
    }

    /// Ends all tasks.
    pub(super) async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_is_named() {
        let mut background = Background::default();
        background.spawn("for ever", std::future::pending());
        background.spawn("too short", async {});
        let told = background.first_end().await;
        assert!(told.starts_with("the background task \"too short\" ended"), "{told}");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_named_without_its_text() {
        let mut background = Background::default();
        background.spawn("observer", async { panic!("s.canary") });
        let told = background.first_end().await;
        assert!(told.starts_with("the background task \"observer\" panicked"), "{told}");
        assert!(!told.contains("canary"), "{told}");
    }
}
