//! A command of the operator, run by `sh -c`.

use std::{process::Stdio, time::Duration};

use async_trait::async_trait;
use tokio::{process::Command, time};

use crate::ports::plugin::Hook;

/// How long a command may take.
const COMMAND_MAX: Duration = Duration::from_mins(5);

/// A command of the operator. Its output goes to standard error, and its standard input is empty.
#[derive(Debug)]
pub struct ShellHook {
    command: String,
}

impl ShellHook {
    /// Takes the text that `sh -c` gets.
    #[must_use]
    pub fn new(command: String) -> Self {
        Self { command }
    }
}

#[async_trait]
impl Hook for ShellHook {
    async fn run(&self) -> Result<(), String> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&self.command);
        shell.stdin(Stdio::null()).stdout(std::io::stderr()).kill_on_drop(true);
        let mut shell = shell.spawn().map_err(|error| format!("cannot run sh: {error}"))?;
        match time::timeout(COMMAND_MAX, shell.wait()).await {
            Err(_late) => Err(format!("it ran for more than {} s", COMMAND_MAX.as_secs())),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(status.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reports_how_a_command_ended() {
        assert_eq!(ShellHook::new("true".into()).run().await, Ok(()));
        assert_eq!(ShellHook::new("exit 3".into()).run().await, Err("exit status: 3".into()));
    }
}
