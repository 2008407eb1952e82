//! The tasks that run beside the server. Each task runs for ever. A task that ends is a defect, and
//! the provider then stops with an error.

use std::{collections::HashMap, future::Future};

use tokio::task::{Id, JoinSet};

/// A set of named tasks. Dropping the set ends the tasks.
#[derive(Debug, Default)]
pub(super) struct Background {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Background {
    /// Starts `task`, which must run for ever.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until a task ends or panics. Returns one line that names the task.
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
    async fn names_a_task_that_ends() {
        let mut background = Background::default();
        background.spawn("for ever", std::future::pending());
        background.spawn("too short", async {});
        let line = background.first_end().await;
        assert!(line.starts_with("the background task \"too short\" ended"), "{line}");
    }

    #[tokio::test]
    async fn names_a_task_that_panics_without_the_panic_text() {
        let mut background = Background::default();
        background.spawn("observer", async { panic!("s.canary") });
        let line = background.first_end().await;
        assert!(line.starts_with("the background task \"observer\" panicked"), "{line}");
        assert!(!line.contains("canary"), "{line}");
    }
}
