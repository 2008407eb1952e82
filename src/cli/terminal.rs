//! Writes to standard output and standard error.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::adapters::telemetry::{outlets::Outlet, program_name};

/// Writes a line to standard output and waits for its reader. For commands that end.
pub(super) fn print(text: &str) -> ExitCode {
    // The reader may have closed the pipe, as `head` does. That is not an error.
    drop(writeln!(io::stdout(), "{text}"));
    ExitCode::SUCCESS
}

/// Queues a line for standard output and does not wait for its reader. For commands that serve.
///
/// # Errors
/// When the thread that writes the lines cannot be started.
pub(super) fn announce(text: &str) -> io::Result<()> {
    Outlet::Stdout.open()?.push(format!("{text}\n").as_bytes());
    Ok(())
}

/// Queues a line for standard error, after the name of the program. The end of the command waits
/// for the reader for at most 1 s.
pub(super) fn complain(text: &str) {
    let line = format!("{}: {text}\n", program_name::get());
    match Outlet::Stderr.open() {
        Ok(stderr) => {
            stderr.push(line.as_bytes());
        }
        Err(_) => drop(io::stderr().write_all(line.as_bytes())),
    }
}
