//! What a person at the terminal is told.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// Writes a line to standard output.
pub(super) fn print(text: &str) -> ExitCode {
    // A reader that has gone away has seen what it wanted.
    drop(writeln!(io::stdout(), "{text}"));
    ExitCode::SUCCESS
}

/// Writes a line to standard error.
pub(super) fn complain(text: &str) {
    drop(writeln!(io::stderr(), "vault-kube-kms: {text}"));
}
