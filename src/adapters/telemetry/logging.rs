//! Chooses where log lines go and which format they have.

use std::io;

use tracing::Dispatch;
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    registry::Registry,
};

use super::{journal, outlets::Outlet, program_name, traces::Traces};

/// The prefix of this crate's log targets.
const OURS: &str = "vault_kube_kms";

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Logs only what an operator must act on.
    Error,
    /// Also logs what an operator may have to act on soon.
    Warn,
    /// Also logs changes of state.
    Info,
    /// Also logs each call.
    Debug,
    /// Also logs what the libraries do.
    Trace,
}

impl Level {
    /// Reads a level in the spellings of HashiCorp's plugin: a name, with or without `-extended`,
    /// or a number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.to_ascii_lowercase();
        if let Ok(number) = name.parse::<i8>() {
            return Some(match number {
                ..=3 => Self::Error,
                4 => Self::Warn,
                5 => Self::Debug,
                6.. => Self::Trace,
            });
        }
        match name.as_str() {
            "panic" | "fatal" | "error" => Some(Self::Error),
            "warn" | "warning" => Some(Self::Warn),
            "info" | "info-extended" => Some(Self::Info),
            "debug" => Some(Self::Debug),
            "debug-extended" | "trace" => Some(Self::Trace),
            _ => None,
        }
    }

    /// Returns the levels by log target, for the program `program`. Libraries log less than this crate
    /// and the program's own, because their lines may contain data of requests. The program's crate has
    /// the program's name, with underscores for hyphens.
    fn targets(self, program: &str) -> Targets {
        let (ours, others) = match self {
            Self::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
            Self::Warn => (LevelFilter::WARN, LevelFilter::WARN),
            Self::Info => (LevelFilter::INFO, LevelFilter::WARN),
            Self::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
            Self::Trace => (LevelFilter::TRACE, LevelFilter::INFO),
        };
        let own = program.replace('-', "_");
        Targets::new().with_default(others).with_target(OURS, ours).with_target(own, ours)
    }
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON object for each line, on standard output.
    Json,
    /// Text for a human reader, on standard output.
    Console,
    /// Text for a human reader, on standard error.
    Text,
}

/// Installs [`dispatch`] for all threads of this process. Only the first call has an effect.
///
/// # Errors
/// Those of [`dispatch`].
pub fn init(level: Level, form: Form, traces: Option<&Traces>) -> io::Result<()> {
    let dispatch = dispatch(level, form, traces)?;
    let _already_set = tracing::dispatcher::set_global_default(dispatch).is_err();
    Ok(())
}

/// Returns a dispatcher that sends log lines to standard output or standard error, and spans to
/// `traces`. At a terminal of a systemd host, lines also go to the journal. Lines are queued
/// ([`super::outlets`]), so logging never waits for a reader.
///
/// # Errors
/// When the thread that writes the lines cannot be started.
pub fn dispatch(level: Level, form: Form, traces: Option<&Traces>) -> io::Result<Dispatch> {
    let lines = match form {
        Form::Json => {
            let stdout = Outlet::Stdout.open()?;
            tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_writer(move || stdout)
                .boxed()
        }
        Form::Console | Form::Text => {
            let outlet =
                if form == Form::Console { Outlet::Stdout } else { Outlet::Stderr }.open()?;
            tracing_subscriber::fmt::layer()
                .compact()
                .with_target(false)
                .with_writer(move || outlet)
                .boxed()
        }
    };
    let targets = level.targets(program_name::get());
    let mut layers = vec![lines.with_filter(targets.clone()).boxed()];
    if journal::at_a_terminal() {
        let entries = Outlet::Journal.open()?;
        let journal = tracing_subscriber::fmt::layer()
            .event_format(journal::Entry)
            .with_ansi(false)
            .with_writer(move || entries);
        layers.push(journal.with_filter(targets).boxed());
    }
    layers.extend(traces.map(Traces::layer));
    Ok(Dispatch::new(Registry::default().with(layers)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_old_and_new_spellings() {
        for (text, level) in [
            ("info", Level::Info),
            ("DEBUG", Level::Debug),
            ("panic", Level::Error),
            ("debug-extended", Level::Trace),
            ("4", Level::Warn),
            ("5", Level::Debug),
            ("6", Level::Trace),
        ] {
            assert_eq!(Level::parse(text), Some(level), "{text}");
        }
        assert_eq!(Level::parse("loud"), None);
    }

    /// A keeper's author logs from a crate of another name.
    #[test]
    fn logs_the_programs_own_crate_like_this_one_and_libraries_less() {
        let targets = Level::Info.targets("aws-kube-kms");
        for (target, expected) in
            [("vault_kube_kms::cli", true), ("aws_kube_kms::keeper", true), ("hyper", false)]
        {
            assert_eq!(targets.would_enable(target, &tracing::Level::INFO), expected, "{target}");
        }
    }
}
