//! What a panic leaves in the log. The release build aborts after it.

use std::panic::{Location, PanicHookInfo};

use super::terminal::complain;
use crate::adapters::telemetry::outlets;

/// Makes each panic write one line of a stable form, as the last one before an abort.
pub(super) fn tell_in_one_line() {
    std::panic::set_hook(Box::new(tell));
}

fn tell(panic: &PanicHookInfo<'_>) {
    let line = line(panic.location());
    tracing::error!(code = "panic", "{line}");
    complain(&line);
    // The abort follows at once, and the lines are in a queue.
    outlets::flush(outlets::FLUSH);
}

/// Names the place alone: the panic's text may quote what it was about.
fn line(at: Option<&Location<'_>>) -> String {
    let place = at.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    format!("panic at {place}; this is a defect, report it with this line and the version")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Not a test of its own: the next one runs it in a process of its own.
    #[test]
    #[ignore = "run by the next test, as another process"]
    fn panics_when_told() {
        tell_in_one_line();
        assert!(std::thread::spawn(|| panic!("s.canary")).join().is_err());
    }

    #[test]
    fn a_panic_is_one_line_with_its_place_and_without_its_text() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cli::panics::tests::panics_when_told", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        assert!(output.status.success());
        let told = String::from_utf8(output.stderr).unwrap();
        let line = told.trim_end();
        assert!(line.starts_with("vault-kube-kms: panic at src/cli/panics.rs:"), "{told}");
        assert!(line.ends_with("report it with this line and the version"), "{told}");
        assert!(!told.contains("canary") && line.lines().count() == 1, "{told}");
    }
}
