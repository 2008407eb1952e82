//! `check`: reports what is right and what is wrong with an installation. It may run before `serve`
//! or at the same time. It binds nothing and writes nothing. It logs in once, and revokes its
//! token.

mod files;
mod keeper;
mod key;
mod proof_recorder;
mod socket;

use std::process::ExitCode;

use rustix::process::geteuid;

use super::{report, runtime::runtime, sandbox, terminal::print, warnings};
use crate::{
    adapters::system::hardening,
    config::{settings::Settings, sources::Sources},
    ports::finding::{Area, Finding, Report},
};

/// Checks the configuration of `sources` and prints the findings. Returns the exit code of the
/// worst finding.
pub(super) fn run(sources: &Sources) -> ExitCode {
    // `check` holds a secret ID and a token, like `serve`. `serve` logs which protection is
    // missing.
    let _missed = hardening::harden();
    let mut report = Report::default();
    match Settings::read(sources) {
        Ok(settings) => all(sources, &settings, &mut report),
        Err(errors) => {
            for error in errors {
                report.add(Finding::from_text(Area::Configuration, &error.to_string()));
            }
        }
    }
    match sources.get("output").and_then(|given| given.values.last()).map(String::as_str) {
        Some("json") => print(&format!("{:#}", report::json(&report))),
        _ => print(&report::text(&report)),
    };
    ExitCode::from(report.worst().exit_code())
}

fn all(sources: &Sources, settings: &Settings, report: &mut Report) {
    // Root often checks for a process of another user.
    let serving = Some(geteuid()).filter(|uid| !uid.is_root());
    for warning in warnings::of(settings, serving) {
        report.add(warning);
    }
    if report.passes(Area::Configuration) {
        report.add(Finding::pass(Area::Configuration, "complete"));
    }
    if let Some(finding) = sandbox::check(settings) {
        report.add(finding);
    }
    match runtime() {
        Ok(runtime) => {
            runtime.block_on(async {
                socket::check(settings, report).await;
                files::check(sources, settings, report).await;
                keeper::check(settings, report).await;
            });
            // A DNS look-up may still block one of the runtime's threads. Do not wait for it.
            runtime.shutdown_background();
        }
        Err(error) => report.add(Finding::fail(
            Area::Configuration,
            format!("cannot start the runtime: {error}"),
            "raise the limits of this process",
        )),
    }
}
