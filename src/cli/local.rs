//! `local init` and `local rotate`: the embedded keeper's key file.

use std::{path::Path, process::ExitCode};

use super::terminal::{complain, print};
use crate::{
    adapters::{local::file::KeyFile, system::clock::SystemClock},
    ports::clock::Clock as _,
};

pub(super) fn run(path: &Path, rotate: bool) -> ExitCode {
    let now = SystemClock::new().wall();
    let done = if rotate {
        KeyFile::rotate(path, now).map(|version| {
            format!("{}: version {version} added; it writes after --rotation-delay", path.display())
        })
    } else {
        KeyFile::create(path, now)
            .map(|_| format!("{}: made with version 1; back it up", path.display()))
    };
    match done {
        Ok(done) => print(&done),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
