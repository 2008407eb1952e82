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
///
/// # Errors
/// `output-not-written` when the text cannot be written, as on a full disk.
pub(super) fn print(text: &str) -> Result<(), Problem> {
    written(writeln!(io::stdout(), "{text}"))
}

/// Returns the error of a write to standard output, unless the reader has closed the pipe.
pub(super) fn written(done: io::Result<()>) -> Result<(), Problem> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Problem::new(
            "output-not-written",
            format!("cannot write to standard output: {error}"),
            "check the file or the program that it goes to",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_an_error_and_a_closed_pipe_is_not() {
        for (kind, code) in [
            (io::ErrorKind::StorageFull, Some("output-not-written")),
            (io::ErrorKind::BrokenPipe, None),
        ] {
            let done = written(Err(kind.into()));
            assert_eq!(done.err().map(|problem| problem.code), code, "{kind:?}");
        }
        assert_eq!(written(Ok(())), Ok(()));
    }
}
