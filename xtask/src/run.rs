//! Running other programs.

use std::{
    error::Error,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Whatever went wrong; its text is for the person at the terminal.
pub(crate) type Failure = Box<dyn Error>;

/// Tells what is being done, on standard error.
pub(crate) fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "xtask: {text}"));
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// Where builds and tools go.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs `command` to its end, with its output on ours.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let line = format!("{command:?}");
    let status = command.status().map_err(|error| format!("cannot run {line}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{line} failed: {status}").into()) }
}

/// Whether `program` can be run at all.
pub(crate) fn can_run(program: &str, args: &[&str]) -> bool {
    let quiet =
        Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}
