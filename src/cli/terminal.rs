//! What a person at the terminal is told.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::adapters::telemetry::{outlets::Outlet, program_name};

/// Writes a line to standard output, as fast as its reader takes it: for commands that end.
pub(super) fn print(text: &str) -> ExitCode {
    // A reader that has gone away has seen what it wanted.
    drop(writeln!(io::stdout(), "{text}"));
    ExitCode::SUCCESS
}

/// Writes a line to standard output without waiting for its reader: for commands that serve.
///
/// # Errors
/// When the thread that writes cannot be started.
pub(super) fn announce(text: &str) -> io::Result<()> {
    Outlet::Stdout.open()?.push(format!("{text}\n").as_bytes());
    Ok(())
}

/// Writes a line to standard error without waiting for its reader; the end of the command does,
/// for a while.
pub(super) fn complain(text: &str) {
    let line = format!("{}: {text}\n", program_name::get());
    match Outlet::Stderr.open() {
        Ok(stderr) => {
            stderr.push(line.as_bytes());
        }
        Err(_) => drop(io::stderr().write_all(line.as_bytes())),
    }
}
