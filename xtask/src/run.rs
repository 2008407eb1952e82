//! Runs other programs.

use std::{
    error::Error,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Any error. Its text is printed at the terminal.
pub(crate) type Failure = Box<dyn Error>;

/// Prints the current step to standard error.
pub(crate) fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "xtask: {text}"));
}

/// Returns the path of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// Returns the folder of builds and tools.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs `command` until it ends. Its output goes to the output of this process.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let line = format!("{command:?}");
    let status = command.status().map_err(|error| format!("cannot run {line}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{line} failed: {status}").into()) }
}

/// Runs `program` and returns its standard output.
pub(crate) fn output(program: &mut Command) -> Result<String, Failure> {
    let line = format!("{program:?}");
    let output = program.output().map_err(|error| format!("cannot run {line}: {error}"))?;
    if !output.status.success() {
        let problem = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{line} failed: {}: {problem}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns whether `program` can be run and exits with success.
pub(crate) fn can_run(program: &mut Command) -> bool {
    let quiet = program.stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}
