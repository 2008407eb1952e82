//! How a command ends: its exit code, and the line of its error.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::domain::problem::Problem;

/// The answer of a command that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is as it should be.
    Good,
    /// The work is done, and the answer is not what the operator wants: an unreadable object, a
    /// broken rule, something left to do.
    Bad,
}

/// Prints the error, if there is one, and returns the exit code.
pub(super) fn report(done: Result<Outcome, Problem>) -> ExitCode {
    match done {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::from(1),
        Err(problem) => {
            drop(writeln!(io::stderr(), "vault-kube-kmsctl: {problem}"));
            ExitCode::from(2)
        }
    }
}

/// Prints a text on standard output. The reader may have closed the pipe, as `head` does. That is
/// not an error.
pub(super) fn print(text: &str) {
    drop(writeln!(io::stdout(), "{text}"));
}
