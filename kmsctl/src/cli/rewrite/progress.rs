//! What a person sees while the work goes on, and the file that keeps how far it is.

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    adapters::saved_run::SavedRun,
    domain::{
        problem::Problem,
        rewrite::{MAX_PASSES, Run},
    },
};

/// What the work tells about itself.
pub(super) trait Progress: Send + Sync {
    /// A page is done. `remaining` objects follow in this resource, if that is known.
    ///
    /// # Errors
    /// An error ends the run.
    fn page_done(&self, run: &Run, remaining: Option<u64>) -> Result<(), Problem>;

    /// An object is done.
    fn object_done(&self);

    /// The work waits. `why` is `None` when it goes on.
    fn waits(&self, why: Option<&str>);
}

/// A progress bar on standard error, if that is a terminal.
pub(super) struct Bar {
    bar: ProgressBar,
    saved: Option<SavedRun>,
}

impl Bar {
    pub(super) fn new(saved: Option<SavedRun>) -> Self {
        let bar = ProgressBar::no_length();
        // A template that is not valid leaves the usual style.
        if let Ok(style) = ProgressStyle::with_template("{prefix} {pos} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, saved }
    }

    /// Removes the bar from the screen.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn page_done(&self, run: &Run, remaining: Option<u64>) -> Result<(), Problem> {
        let name = run.resource().and_then(|at| run.tallies().nth(at));
        if let Some((resource, tally)) = name {
            self.bar.set_prefix(format!("pass {} of at most {MAX_PASSES}: {resource}", run.pass));
            self.bar.set_position(tally.objects);
            let follow = remaining.map_or(String::new(), |count| format!("; {count} follow"));
            self.bar.set_message(format!("done, {} rewritten{follow}", tally.rewritten));
        }
        self.saved.as_ref().map_or(Ok(()), |saved| saved.save(run))
    }

    fn object_done(&self) {
        self.bar.inc(1);
    }

    fn waits(&self, why: Option<&str>) {
        self.bar.set_message(why.map_or(String::new(), |why| format!("waits: {why}")));
    }
}
