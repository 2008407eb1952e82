//! What a person at the terminal is told.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::OnceLock,
};

use crate::adapters::telemetry::outlets::Outlet;

static NAME: OnceLock<&'static str> = OnceLock::new();

/// Sets what this program calls itself on standard error. The first call counts.
pub(super) fn call(name: &'static str) {
    let _earlier = NAME.set(name);
}

fn name() -> &'static str {
    NAME.get().copied().unwrap_or("vault-kube-kms")
}

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
    let line = format!("{}: {text}\n", name());
    match Outlet::Stderr.open() {
        Ok(stderr) => {
            stderr.push(line.as_bytes());
        }
        Err(_) => drop(io::stderr().write_all(line.as_bytes())),
    }
}
