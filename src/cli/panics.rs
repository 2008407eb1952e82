//! Logs panics. The release build aborts after a panic.

use std::panic::{Location, PanicHookInfo};

use super::terminal::complain;
use crate::adapters::telemetry::outlets;

/// Installs a hook that logs each panic as one line of a stable form. An abort may follow that
/// line.
pub(super) fn install_hook() {
    std::panic::set_hook(Box::new(log));
}

fn log(panic: &PanicHookInfo<'_>) {
    let line = line(panic.location());
    tracing::error!(code = "panic", "{line}");
    complain(&line);
    // The lines are still in a queue, and the abort follows at once.
    outlets::flush(outlets::FLUSH);
}

/// Returns a line with the place of the panic. The text of the panic is left out, because it may
/// contain secrets.
fn line(at: Option<&Location<'_>>) -> String {
    let place = at.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    format!("panic at {place}; this is a defect, report it with this line and the version")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// This is not a test. `logs_a_panic_as_one_line_without_its_text` runs it in another process.
    #[test]
    #[ignore = "run by the next test, as another process"]
    fn panics_in_another_process() {
        install_hook();
        assert!(std::thread::spawn(|| panic!("s.canary")).join().is_err());
    }

    #[test]
    fn logs_a_panic_as_one_line_without_its_text() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "cli::panics::tests::panics_in_another_process",
                "--ignored",
                "--nocapture",
            ])
            .output()
            .unwrap();
        assert!(output.status.success());
        let output = String::from_utf8(output.stderr).unwrap();
        let line = output.trim_end();
        assert!(line.starts_with("vault-kube-kms: panic at src/cli/panics.rs:"), "{output}");
        assert!(line.ends_with("report it with this line and the version"), "{output}");
        assert!(!output.contains("canary") && line.lines().count() == 1, "{output}");
    }
}
