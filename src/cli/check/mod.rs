//! `check`: what is right and what is wrong with an installation, before `serve` is started or
//! beside it. It binds and writes nothing; it logs in once, and ends its token.

mod files;
mod keeper;
mod key;
mod notes;
mod socket;

use std::process::ExitCode;

use super::{report, runtime::runtime, sandbox, terminal::print, warnings};
use crate::{
    adapters::system::hardening,
    config::{settings::Settings, sources::Sources},
    ports::finding::{Area, Finding, Report},
};

/// Checks what `sources` configure, and prints what it finds.
pub(super) fn run(sources: &Sources) -> ExitCode {
    // It holds a secret ID and a token like `serve`; what cannot be had is told there.
    let _missed = hardening::harden();
    let mut report = Report::default();
    match Settings::read(sources) {
        Ok(settings) => all(sources, &settings, &mut report),
        Err(errors) => {
            for error in errors {
                report.add(Finding::told(Area::Configuration, &error.to_string()));
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
    for warning in warnings::of(settings) {
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
            // A look-up of a name may still hang in a thread of its own.
            runtime.shutdown_background();
        }
        Err(error) => report.add(Finding::fail(
            Area::Configuration,
            format!("no runtime: {error}"),
            "raise the limits of this process",
        )),
    }
}
