//! A progress bar on standard error, when that is a terminal.

use std::fmt::Write;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// The progress of reading one source.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    has_end: bool,
}

impl Progress {
    /// Starts a bar for the source that people know as `name`. It shows nothing unless standard error
    /// is a terminal.
    pub(super) fn of(name: &str) -> Self {
        let bar = ProgressBar::no_length().with_message(name.to_owned());
        bar.set_style(style("{msg}: {human_pos} objects, {rate}, {elapsed}"));
        Self { bar, has_end: false }
    }

    /// Notes that `read` objects of `all` have been read.
    pub(super) fn at(&mut self, read: u64, all: Option<u64>) {
        if let Some(all) = all.filter(|_| !self.has_end) {
            self.has_end = true;
            self.bar.set_length(all);
            self.bar.set_style(style(
                "{msg}: {bar:30} {human_pos} of {human_len} objects, {rate}, {eta} left",
            ));
        }
        self.bar.set_position(read);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are those above, and a test reads them.
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_invalid| ProgressStyle::default_bar()).with_key(
        "rate",
        |state: &ProgressState, out: &mut dyn Write| {
            let _infallible = write!(out, "{:.0}/s", state.per_sec());
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [
            "{msg}: {human_pos} objects, {rate}, {elapsed}",
            "{msg}: {bar:30} {human_pos} of {human_len} objects, {rate}, {eta} left",
        ] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
