//! Checks the files that the provider reads, and their access modes.

use std::path::Path;

use crate::{
    adapters::system::place::mode_of,
    config::{settings::Settings, sources::Sources},
    ports::finding::{Finding, Report},
};

pub(super) async fn check(sources: &Sources, settings: &Settings, report: &mut Report) {
    if let Some(path) = given(sources, "config") {
        report.add(Finding::writable_by_owner_only("config", path, mode_of(path)));
    }
    settings.keeper.check_files(report).await;
}

fn given<'a>(sources: &'a Sources, flag: &str) -> Option<&'a Path> {
    let path = sources.get(flag)?.values.last()?;
    (!path.is_empty()).then_some(Path::new(path))
}
